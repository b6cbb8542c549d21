"""Whether the process is alive and ready: what `/livez` and `/readyz` answer."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable, Iterable

import structlog
from aiohttp import web

from bridge.domain.errors import BridgeError
from bridge.observability.logging import write_repeats
from bridge.runtime.process import Process
from bridge.web.health_server import HealthServer

log = structlog.get_logger()

_ANSWER_SECONDS = 3.0
_HEARTBEAT_SECONDS = 1.0
_LISTEN_AGAIN_SECONDS = 2.0


class HealthMonitor:
    """Keeps the heartbeat of the event loop, asks the store and the broker, and serves the health pages."""

    def __init__(self, process: Process, routes: Iterable[web.RouteDef] = ()) -> None:
        """Prepare; `routes` are further pages on the same address."""
        self._process = process
        self._clock = process.clock
        self._beat = process.clock.monotonic()
        self.server = HealthServer(
            process.metrics, process.health, refresh=self._refresh, heartbeat_age=self._heartbeat_age,
            routes=routes,
        )  # fmt: skip

    async def heartbeat(self) -> None:
        """Note every second that the event loop runs."""
        while True:
            self._beat = self._clock.monotonic()
            write_repeats()
            await self._clock.sleep(_HEARTBEAT_SECONDS)

    async def serve(self, host: str, port: int) -> None:
        """Serve the health pages until the process ends."""
        try:
            await self._listen(host, port)
            await self._process.ended.wait()
        finally:
            await self.server.stop()

    async def _listen(self, host: str, port: int) -> None:
        """Listen as soon as the address is free: another replica on this machine, perhaps about to end, may have it."""
        reported = False
        while True:
            try:
                await self.server.start(host, port)
            except OSError as error:
                if not reported:
                    log.warning(
                        "http.cannot_listen", address=f"{host}:{port}", reason=error.strerror or "it is refused",
                        consequence="no health pages and no metrics until it is free; all else works. See http.listen",
                    )  # fmt: skip
                reported = True
                await self._clock.sleep(_LISTEN_AGAIN_SECONDS)
            else:
                log.info("http.listens", address=f"{host}:{self.server.port}")
                return

    def _heartbeat_age(self) -> float:
        return self._clock.monotonic() - self._beat

    async def _refresh(self) -> None:
        """Ask the store and the broker whether they answer; sources and relays report by themselves."""
        pings = {"store": self._process.parts.store.ping, "broker": self._process.parts.broker.ping}
        reasons = await asyncio.gather(*map(_failure, pings.values()))
        for part, reason in zip(pings, reasons, strict=True):
            self._process.health.set(part, reason)
        self._process.health.set("file descriptors", _descriptors_problem())


def _descriptors_problem() -> str | None:
    """Say whether nothing can be opened or connected any more."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return f"none can be opened: {error.strerror}; the limit is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}"
    return None


async def _failure(ping: Callable[[], Awaitable[None]]) -> str | None:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await ping()
    except TimeoutError:
        return f"no answer within {_ANSWER_SECONDS:g} s"
    except BridgeError as error:
        return str(error)
    return None
