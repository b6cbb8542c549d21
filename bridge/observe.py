"""What operators see: logs by structlog, metrics for Prometheus, and the HTTP pages that serve them."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TextIO

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bridge import __version__

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_AGES = (0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 900, 3600, 4 * 3600, 24 * 3600)
_PLAIN = re.compile(r"[(\['\"]?(?:[A-Za-z]+(?:['-][A-Za-z]+)*|%[\w().-]*[A-Za-z])[)\]'\"]?[.,:;!?]*")
_HEADER_LIMIT = 8190
_BODY_LIMIT = 64 * 1024


def configure_logging(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send every log line to standard error, as JSON or for a console, from `level` on.

    Libraries speak up from `warning` on and in our form; their tracebacks are cut to the error's name, for they may
    quote what a provider sent.
    """
    out = stream or sys.stderr
    console = form == "console"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
        _name_of_error,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty()) if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Forward()]
    root.setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.CRITICAL)


class _Forward(logging.Handler):
    """Hands a library's log record to structlog: what happened and where, never its values."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        # The template and not the message: its arguments may be addresses with passwords, or a provider's answer. Some
        # libraries write values into their templates, so that of these only plain words are told.
        first = next(iter(str(record.msg).splitlines()), "")
        said = " ".join(word if _PLAIN.fullmatch(word) else "…" for word in first.split())
        structlog.get_logger().log(
            max(record.levelno, logging.WARNING), "library.warns", library=record.name, said=said[:200],
            **({"error": error} if error else {}),
        )  # fmt: skip


def _name_of_error(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if event.pop("exc_info", None):
        error = sys.exc_info()[0]
        event.setdefault("error", error.__name__ if error else "unknown")
    return event


class Metrics:
    """All figures of one process. Labels are bounded: sources, sinks, types and results, never a resource."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.info = Gauge("bridge_build_info", "The version that runs.", ["version"], registry=registry)
        self.info.labels(__version__).set(1)
        self.polls = Counter(
            "bridge_polls", "Polls of a source by result: ok, failed, partial.", ["source", "result"], registry=registry
        )
        self.poll_seconds = Histogram(
            "bridge_poll_seconds", "How long a poll took.", ["source"], buckets=_SECONDS, registry=registry
        )
        self.observations = Counter("bridge_observations", "Resources looked at.", ["source"], registry=registry)
        self.events = Counter("bridge_events", "Events committed.", ["source", "type"], registry=registry)
        self.observed_lag = Histogram(
            "bridge_observed_after_seconds",
            "From the provider's own time of a transition to its observation.",
            ["source"], buckets=_AGES, registry=registry,
        )  # fmt: skip
        self.confirmed = Counter("bridge_confirmed", "Events that the broker confirmed.", ["source"], registry=registry)
        self.confirm_seconds = Histogram(
            "bridge_confirm_seconds", "From the wake-up of the relay to the broker's confirmation of all there was.",
            ["source"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.unroutable = Counter(
            "bridge_unroutable", "Confirmed events that no queue wanted; the journal has them.", ["source"],
            registry=registry,
        )  # fmt: skip
        self.backlog = Gauge(
            "bridge_journal_backlog", "Events committed and not yet confirmed.", ["source"], registry=registry
        )
        self.journal_bytes = Gauge(
            "bridge_journal_bytes", "Roughly what the kept events take.", ["source"], registry=registry
        )
        self.source_state = Gauge(
            "bridge_source_state", "1 for the state a source is in.", ["source", "state"], registry=registry
        )
        self.deliveries = Counter(
            "bridge_deliveries", "Tries by result: taken, waits, dead, disabled.", ["sink", "result"], registry=registry
        )
        self.delivery_seconds = Histogram(
            "bridge_delivery_seconds", "How long the far side took.", ["sink"], buckets=_SECONDS, registry=registry
        )
        self.waiting = Gauge("bridge_sink_waiting", "Deliveries waiting.", ["sink"], registry=registry)
        self.dead = Gauge("bridge_sink_dead", "Dead letters.", ["sink"], registry=registry)
        self.offered = Counter(
            "bridge_sink_offered_again", "Events that the broker had lost and the journal had not.", ["sink"],
            registry=registry,
        )  # fmt: skip
        self.restarts = Counter(
            "bridge_part_restarts", "Parts that failed unexpectedly and were started again.", ["part"],
            registry=registry,
        )  # fmt: skip

    def text(self) -> bytes:
        """Return all figures in Prometheus' text form."""
        return generate_latest(self.registry)


@dataclass(slots=True)
class Health:
    """What `/readyz` says: the names of parts that are not well, with the reason."""

    ill: dict[str, str] = field(default_factory=dict)

    def set(self, part: str, reason: str | None) -> None:
        """Note that a part is well (None) or why it is not."""
        if reason is None:
            self.ill.pop(part, None)
        else:
            self.ill[part] = reason


class Pages:
    """`/livez`, `/readyz` and `/metrics` on one address; reads only, bounded in every direction."""

    def __init__(
        self, metrics: Metrics, health: Health, *, refresh: Callable[[], Awaitable[None]], beat: Callable[[], float]
    ) -> None:
        self._metrics = metrics
        self._health = health
        self._refresh = refresh
        self._beat = beat
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; raises `OSError` if the address is taken."""
        app = web.Application(client_max_size=_BODY_LIMIT)
        app.add_routes(
            [web.get("/livez", self._livez), web.get("/readyz", self._readyz), web.get("/metrics", self._text)]
        )
        self._runner = web.AppRunner(
            app, access_log=None, max_line_size=_HEADER_LIMIT, max_field_size=_HEADER_LIMIT, shutdown_timeout=1.0
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError:
            await self.stop()
            raise
        server = site._server  # noqa: SLF001 - aiohttp has no other way to tell the port it got for port 0
        if isinstance(server, asyncio.Server) and server.sockets:
            self.port = int(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _livez(self, _: web.Request) -> web.Response:
        stuck = self._beat()
        if stuck > _STUCK:
            return _json({"status": "stuck", "seconds": round(stuck)}, 503)
        return _json({"status": "alive", "version": __version__}, 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        await self._refresh()
        ill = dict(self._health.ill)
        return _json({"status": "not ready", "problems": ill}, 503) if ill else _json({"status": "ready"}, 200)

    async def _text(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


_STUCK = 30.0


def _json(value: Mapping[str, Any], status: int) -> web.Response:
    return web.Response(text=json.dumps(value) + "\n", status=status, content_type="application/json")
