"""What all commands share: options, exit codes, and how answers and errors are printed."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

if TYPE_CHECKING:
    from bridge.assembly import Assembly

    _TimeType = click.ParamType[datetime]
else:
    _TimeType = click.ParamType  # generic from click 8.4 on

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Exit(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    """A failure at run time, or a check that found something."""
    USAGE = 2
    CONFIG = 3
    """Bad configuration."""
    UNREACHABLE = 4
    """Something it needs is unreachable."""
    INTERRUPTED = 130


# --- commands and options -----------------------------------------------------------------------------------------


class _WithExamples(click.Command):
    """A command whose help page ends with examples, their lines as they were written."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = inspect.cleandoc(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}".rstrip() + "\n")


class Command(_WithExamples):
    """A command with `examples=`."""


class Group(_WithExamples, click.Group):
    """A group with `examples=`, whose commands have them too."""

    command_class = Command


Group.group_class = Group


def config_option(command: F) -> F:
    """Add `-c/--config FILE`, handed over as `config_file: Path`."""
    return click.option(
        "-c", "--config", "config_file", type=click.Path(path_type=Path), required=True, envvar="BRIDGE_CONFIG",
        show_envvar=True, metavar="FILE", help="The configuration file.",
    )(command)  # fmt: skip


def json_option(command: F) -> F:
    """Add `--json`, handed over as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(command)


class Amount(click.FloatRange):
    """A number within bounds that can be counted with: neither `nan`, which no bound stops, nor `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the value, or fail as wrong usage."""
        import math

        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value!r} is no number to count with", param, ctx)
        return found


class Moment(_TimeType):
    """A point in time: RFC 3339, or a duration back from now."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read the value, or fail as wrong usage."""
        if isinstance(value, datetime):
            return value
        from bridge.clock import Clock

        try:
            return parse_moment(str(value), Clock().now())
        except ValueError as error:
            self.fail(str(error), param, ctx)


MOMENT = Moment()


def parse_moment(text: str, now: datetime) -> datetime:
    """Read RFC 3339, or a duration such as `2h` as that long before `now`; raises `ValueError` saying what is wrong."""
    from datetime import UTC, timedelta

    from bridge.settings import parse_duration

    try:
        return now - timedelta(seconds=parse_duration(text))
    except OverflowError:
        raise ValueError(f"{text!r} is before the beginning of time") from None
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a time; write one such as 2026-03-15T21:00:00Z, or a duration back from now such as 2h"
        ) from None
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} says no offset from UTC; end it with Z, or with one such as -06:00")
    return moment.astimezone(UTC)


# --- running ------------------------------------------------------------------------------------------------------


def assembly(config_file: Path) -> Assembly:
    """Read the configuration; raises `ConfigError`. Log lines go to stderr from here on."""
    from bridge.assembly import Assembly
    from bridge.config import load

    logs_to_stderr()
    return Assembly(load(config_file))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run an asynchronous command to its end; SIGTERM interrupts it as Ctrl-C does: it gives back what it holds.

    What the command itself does about signals goes before. A thread that is stuck in a call does not hold the end up.
    """
    import asyncio

    from bridge.threads import DaemonThreads

    async def main() -> T:
        asyncio.get_running_loop().set_default_executor(DaemonThreads())
        return await _interrupted_by_sigterm(work)

    return asyncio.run(main())


async def _interrupted_by_sigterm(work: Coroutine[Any, Any, T]) -> T:
    import asyncio
    import signal
    from contextlib import suppress

    loop = asyncio.get_running_loop()
    working = asyncio.current_task()
    asked = False

    def ask() -> None:
        nonlocal asked
        asked = True
        loop.remove_signal_handler(signal.SIGTERM)  # a second one ends the process at once
        if working is not None:
            working.cancel()

    with suppress(ValueError, RuntimeError):  # on another thread than the first there are no signals
        loop.add_signal_handler(signal.SIGTERM, ask)
    try:
        return await work
    except asyncio.CancelledError:
        if asked:
            raise KeyboardInterrupt from None
        raise


def logs_to_stderr() -> None:
    """Send warnings to stderr, for a person; stdout is for answers."""
    import logging

    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # What libraries log could quote an address with its password; what matters of it reaches us as an error.
    logging.getLogger().addHandler(logging.NullHandler())


def guard_interpreter() -> None:
    """Have what the interpreter would print by itself told in one line, without the values that a traceback quotes.

    It is about threads that fail, finalizers that fail, and warnings. BRIDGE_DEBUG leaves all that as it is.
    """
    if os.environ.get("BRIDGE_DEBUG"):
        return
    import threading
    import warnings

    def thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            _tell("a thread failed", args.exc_type, args.exc_traceback)

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        _tell("a finalizer failed", args.exc_type, args.exc_traceback)

    def warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        del message
        _tell("a warning", category, None)

    threading.excepthook, sys.unraisablehook, warnings.showwarning = thread, unraisable, warn


def _tell(said: str, kind: type[BaseException], trace: TracebackType | None) -> None:
    import traceback

    import structlog

    frames = traceback.extract_tb(trace)
    place = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    if structlog.is_configured():
        structlog.get_logger().warning("library.warns", library="python", said=f"{said}{place}", error=kind.__name__)
    else:
        click.echo(f"bridge: {said}: {kind.__name__}{place}", err=True)


# --- errors -------------------------------------------------------------------------------------------------------


def complain(error: BaseException) -> Exit:
    """Print what went wrong on stderr, a line for each thing, and return the exit code that says so."""
    if os.environ.get("BRIDGE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    said = [_say(leaf) for leaf in _leaves(error)]
    for line in dict.fromkeys(line for _, lines in said for line in lines):
        click.echo(line, err=True)
    return max((code for code, _ in said), key=[Exit.FAILED, Exit.UNREACHABLE, Exit.CONFIG].index)


def _leaves(error: BaseException) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _say(error: BaseException) -> tuple[Exit, list[str]]:
    from bridge.errors import BridgeError, ConfigError, Unavailable

    match error:
        case ConfigError():
            return Exit.CONFIG, [str(problem) for problem in error.problems]
        case Unavailable():
            return Exit.UNREACHABLE, [f"bridge: {_one_line(str(error))}"]
        case BridgeError():
            return Exit.FAILED, [f"bridge: {_one_line(str(error))}"]
        case OSError() if error.strerror:
            place = f": {error.filename}" if error.filename else ""
            return Exit.FAILED, [f"bridge: {error.strerror}{place}"]
        case _:
            sorry = f"sorry, this is a defect of the bridge: unexpected {type(error).__name__}"
            return Exit.FAILED, [f"bridge: {sorry}; BRIDGE_DEBUG=1 prints the traceback that a report needs"]


def _one_line(text: str) -> str:
    return " ".join(text.split())


# --- answers ------------------------------------------------------------------------------------------------------


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, to: TextIO | None = None) -> None:
    """Print a table: ruled on a terminal, aligned columns elsewhere; None and empty cells are a dash."""
    cells = [["-" if value is None or value == "" else " ".join(str(value).split()) for value in row] for row in rows]
    out = to or sys.stdout
    if out.isatty():
        _rich_table(headers, cells, out)
        return
    table = [[header.upper() for header in headers], *cells]
    widths = [max(len(row[column]) for row in table) for column in range(len(headers))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=out)


def _rich_table(headers: Sequence[str], cells: Sequence[Sequence[str]], out: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headers, box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for row in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(file=out).print(table)


_STYLES = {"ok": "green", "taken": "green", "failed": "red", "dead": "red", "stalled": "red", "failing": "yellow"}


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago something was, or in how long it will be, in one unit: `12s ago`, `in 3m`."""
    seconds = (now - moment).total_seconds()
    size, unit = next(((size, unit) for size, unit in _AGES if abs(seconds) >= size), (1, "s"))
    amount = f"{int(abs(seconds) / size)}{unit}"
    return f"{amount} ago" if seconds >= 0 else f"in {amount}"


_AGES = ((86400, "d"), (3600, "h"), (60, "m"))
