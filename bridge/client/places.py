"""Which broker a URL names, and where a subscriber keeps the ids of what it has handled."""

from __future__ import annotations

from pathlib import Path

from bridge.client.memory import MemorySeen
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.protocols.broker import OpenBroker
from bridge.protocols.seen import SeenEvents

MEMORY = "memory"
_SQLITE = "sqlite:///"


def _log_to_logging() -> None:
    """Have the adapters log by `logging`, unless the program uses structlog: its default would print to stdout."""
    import structlog

    if not structlog.is_configured():
        structlog.configure(
            processors=[structlog.stdlib.render_to_log_kwargs],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
        )


def broker_at(url: str, exchange: str, clock: Clock, lease_seconds: float) -> OpenBroker:
    """Return the broker of a URL, not opened; raises `ValueError` for a URL that no broker can have."""
    _log_to_logging()
    if url.startswith("sqlite:"):
        from bridge.adapters.sqlite.broker import SqliteBroker

        return SqliteBroker(_path(url, "broker.db"), clock=clock, lease=lease_seconds)
    from bridge.adapters.kombu.broker import KombuBroker

    return KombuBroker(url, exchange=exchange, clock=clock, lease=lease_seconds)


def check_present(url: str) -> None:
    """Raise `Unavailable` if the embedded broker's file is not there: a subscriber would make one that nobody fills."""
    if url.startswith("sqlite:") and not (path := _path(url, "broker.db")).exists():
        raise Unavailable(f"{path}: there is no such file; the bridge makes it in its state directory when it starts")


def seen_at(place: str | SeenEvents, queue: str, *, keep_ids: int, keep_seconds: float, clock: Clock) -> SeenEvents:
    """Return the memory of a queue's subscribers; raises `ValueError` for a place that it cannot be in."""
    if not isinstance(place, str):
        return place
    if place == MEMORY:
        return MemorySeen(keep_ids=keep_ids, keep_seconds=keep_seconds, clock=clock)
    if place.startswith("sqlite:"):
        from bridge.adapters.sqlite.seen import SqliteSeen

        return SqliteSeen(_path(place, "seen.db"), queue, keep_ids=keep_ids, keep_seconds=keep_seconds, clock=clock)
    if place.startswith(("redis", "unix:")):
        from bridge.adapters.redis.seen import RedisSeen

        return RedisSeen(place, queue, keep_ids=keep_ids, keep_seconds=keep_seconds)
    raise ValueError(f"seen has to be {MEMORY!r}, {_SQLITE}PATH or redis://…; see receive-events.md")


def _path(url: str, example: str) -> Path:
    path = url.removeprefix(_SQLITE)
    if path == url or not path:
        raise ValueError(
            f"a SQLite file is named by {_SQLITE}PATH, as in {_SQLITE}{example} or {_SQLITE}/var/lib/{example}"
        )
    return Path(path)
