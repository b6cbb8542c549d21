"""Logs by structlog, on stderr."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import structlog

from bridge.domain.visible_text import visible
from bridge.observability.log_writer import LogWriter, has_colours, is_terminal
from bridge.observability.repeats import RepeatLimiter

log = structlog.get_logger()

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PLAIN = re.compile(r"[(\['\"]?(?:[A-Za-z]+(?:['-][A-Za-z]+)*|%[\w().-]*[A-Za-z])[)\]'\"]?[.,:;!?]*")
_DRAIN_SECONDS = 0.5
"""Seconds for which the end of a process waits for lines that are not yet written."""


class _Output:
    """Where the lines of this process go; one for all, as structlog's own configuration is."""

    writer: LogWriter | None = None
    limiter: RepeatLimiter | None = None


def configure_logging(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send every log line to standard error, from `level` on: as JSON, for a console, or `auto`, by what reads it.

    Libraries speak up from `warning` on and in our form; their tracebacks are cut to the error's name, for they may
    quote what a provider sent. What repeats is written once a minute.
    """
    out = stream or sys.stderr
    console = form == "console" or (form == "auto" and is_terminal(out))
    limiter = _Output.limiter = RepeatLimiter()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _name_of_error,
        limiter,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
    ]
    renderers = console_renderers(out) if console else [structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=logger_factory(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Forward()]
    root.setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.CRITICAL)


def change_level(level: str) -> None:
    """Send lines from another level on."""
    structlog.configure(
        **{**structlog.get_config(), "wrapper_class": structlog.make_filtering_bound_logger(_LEVELS[level])}
    )


def console_renderers(out: TextIO | None) -> list[structlog.typing.Processor]:
    """Return what makes a line for a person: a text of a provider is shown, and no terminal obeys it."""
    return [_show_texts, structlog.dev.ConsoleRenderer(colors=has_colours(out))]


def _show_texts(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = visible(value)
    return event


def logger_factory(stream: TextIO | None) -> structlog.WriteLoggerFactory:
    """Return what makes structlog write to a stream without ever waiting for it."""
    _Output.writer = LogWriter(stream, report=_report_losses)
    return structlog.WriteLoggerFactory(cast("TextIO", _Output.writer))


def lost_lines() -> int:
    """Return how many log lines could not be written, since the start."""
    return _Output.writer.lost if _Output.writer else 0


def write_repeats(*, at_once: bool = False) -> None:
    """Write the lines that were only counted for a minute, or all of them, for instance at the end."""
    logger = structlog.get_logger()
    for line in _Output.limiter.due(at_once=at_once) if _Output.limiter else ():
        fields = {name: value for name, value in line.items() if name not in ("event", "level")}
        logger.log(_LEVELS[line["level"]], line["event"], **fields)


def drain_logs() -> None:
    """Wait a moment until the lines are written. A pipe that nobody reads does not keep the process."""
    write_repeats(at_once=True)
    if _Output.writer is not None:
        _Output.writer.drain(_DRAIN_SECONDS)


def _report_losses(lines: int) -> None:
    log.warning("log.lines_lost", lines=lines, consequence="they are not in this log; the work went on without them")


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
