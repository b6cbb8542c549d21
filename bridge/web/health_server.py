"""The HTTP server of `/livez`, `/readyz` and `/metrics`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST

from bridge import __version__
from bridge.observability.metrics import Metrics
from bridge.web.listener import REQUEST_SECONDS, Listener

_MAX_HEADER_BYTES = 8190
_MAX_BODY_BYTES = 64 * 1024


@dataclass(slots=True)
class Health:
    """What `/readyz` says: the names of parts that are not well, with the reason."""

    problems: dict[str, str] = field(default_factory=dict)
    pauses: dict[str, str] = field(default_factory=dict)
    """The parts that an operator has paused, with the operator's name; the process is ready all the same."""

    reload: Mapping[str, str] | None = None
    """Why the configuration file is not in effect, and which generation is; the process is ready all the same."""

    def set(self, part: str, reason: str | None) -> None:
        """Note that a part is well (None) or why it is not."""
        if reason is None:
            self.problems.pop(part, None)
        else:
            self.problems[part] = reason

    def forget(self, part: str) -> None:
        """Say nothing more of a part that is gone, nor of what belonged to it, such as `sink/crm/claim`."""
        audit = f"audit/{part.removeprefix('sink/')}"
        for name in list(self.problems):
            if name.startswith(f"{part}/") or name in (part, f"lease/{part}", audit):
                del self.problems[name]

    def set_pause(self, part: str, pause: str | None) -> None:
        """Note that an operator has paused a part, or (None) that it works."""
        if pause is None:
            self.pauses.pop(part, None)
        else:
            self.pauses[part] = pause


class HealthServer:
    """`/livez`, `/readyz`, `/metrics` and further pages on one address, bounded in every direction."""

    def __init__(
        self,
        metrics: Metrics,
        health: Health,
        *,
        refresh: Callable[[], Awaitable[None]],
        heartbeat_age: Callable[[], float],
        routes: Iterable[web.RouteDef] = (),
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        """Prepare; `routes` are further pages."""
        self._metrics = metrics
        self._health = health
        self._refresh = refresh
        self._heartbeat_age = heartbeat_age
        self._routes = tuple(routes)
        self._request_seconds = request_seconds
        self._runner: web.AppRunner | None = None
        self._listener: Listener | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; raises `OSError` if the address is taken."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[self._note_request])
        app.add_routes(
            [web.get("/livez", self._livez), web.get("/readyz", self._readyz), web.get("/metrics", self._text)]
        )
        app.add_routes(self._routes)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            keepalive_timeout=self._request_seconds,
            shutdown_timeout=1.0,
        )
        await self._runner.setup()
        assert self._runner.server is not None  # noqa: S101 - `setup` has just made it
        self._listener = Listener(self._runner.server, request_seconds=self._request_seconds)
        try:
            await self._listener.start(host, port)
        except OSError:
            await self.stop()
            raise
        self.port = self._listener.port

    async def stop(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.stop()
            self._listener = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _note_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._listener is not None:
            self._listener.begin_request(request.protocol)
        try:
            return await handler(request)
        finally:
            if self._listener is not None:
                self._listener.end_request(request.protocol)

    async def _livez(self, _: web.Request) -> web.Response:
        stuck = self._heartbeat_age()
        if stuck > _STUCK_SECONDS:
            return _json({"status": "stuck", "seconds": round(stuck)}, 503)
        return _json({"status": "alive", "version": __version__}, 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        await self._refresh()
        problems, pauses = dict(self._health.problems), dict(self._health.pauses)
        known = {"paused": pauses} if pauses else {}
        known |= {"reload": dict(self._health.reload)} if self._health.reload else {}
        if problems:
            return _json({"status": "not ready", "problems": problems, **known}, 503)
        return _json({"status": "ready", **known}, 200)

    async def _text(self, _: web.Request) -> web.Response:
        await self._refresh()
        self._metrics.show_problems(self._health.problems)
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


_STUCK_SECONDS = 30.0


def _json(value: Mapping[str, Any], status: int) -> web.Response:
    return web.Response(text=json.dumps(value) + "\n", status=status, content_type="application/json")
