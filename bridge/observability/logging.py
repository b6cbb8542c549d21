"""Logs by structlog, on stderr."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PLAIN = re.compile(r"[(\['\"]?(?:[A-Za-z]+(?:['-][A-Za-z]+)*|%[\w().-]*[A-Za-z])[)\]'\"]?[.,:;!?]*")


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
