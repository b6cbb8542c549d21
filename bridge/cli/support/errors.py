"""How errors are printed, and the exit code of each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from io import StringIO

import click

from bridge.cli.support.options import Exit
from bridge.cli.support.output import print_line, print_text

# --- errors -------------------------------------------------------------------------------------------------------


def report_error(error: BaseException) -> Exit:
    """Print what went wrong on stderr, a line for each thing, and return the exit code that says so."""
    if os.environ.get("BRIDGE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    said = [_say(leaf) for leaf in _leaves(error)]
    for line in dict.fromkeys(line for _, lines in said for line in lines):
        with suppress(OSError):  # nobody reads it any more, or the disk is full: the exit code still says it
            print_line(line, err=True)
    return max((code for code, _ in said), key=[Exit.FAILED, Exit.UNREACHABLE, Exit.CONFIG].index)


def report_usage_error(error: click.ClickException) -> None:
    """Print what click says of a wrong call, on stderr; arguments that it quotes are shown as all other texts are."""
    said = StringIO()
    error.show(file=said)
    with suppress(OSError):
        print_text(said.getvalue(), err=True)


def _leaves(error: BaseException) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for exception in error.exceptions:
            yield from _leaves(exception)
    else:
        yield error


def _say(error: BaseException) -> tuple[Exit, list[str]]:
    from bridge.domain.errors import BridgeError, ConfigError, Unavailable

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
