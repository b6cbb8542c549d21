"""How errors are printed, and the exit code of each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress

import click

from bridge.cli.support.notes import one_line, print_error
from bridge.cli.support.options import Exit
from bridge.cli.support.output import print_line, print_text
from bridge.cli.support.program import NAME

# --- errors -------------------------------------------------------------------------------------------------------


def report_usage(error: click.ClickException) -> None:
    """Print what is wrong with a command line in one line, and a line that says how the command is used."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print_text(context.get_help() if context is not None else "", err=True)
        return
    print_error(_usage_problem(error))
    if isinstance(error, click.UsageError) and isinstance(context, click.Context):
        usage = one_line(context.get_usage().partition(":")[2])
        with suppress(OSError):
            print_line(f"usage: {usage}  (more: {context.command_path} --help)", err=True)


def _usage_problem(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption):
        return _unknown_option(error)
    text = one_line(error.format_message())
    lower = text[:1].lower() + text[1:] if re.match(r"[A-Z][a-z]+ ", text) else text
    return lower.removesuffix(".")


def _unknown_option(error: click.NoSuchOption) -> str:
    context, name = error.ctx, error.option_name
    if context is not None and context.parent is None:
        return f"no such option {name!r} before a command; options stand behind it: {NAME} COMMAND {name} …"
    from bridge.cli.support.suggestions import nearest

    params = context.command.get_params(context) if context is not None else []
    shown = (param for param in params if isinstance(param, click.Option) and not param.hidden)
    options = [name for param in shown for name in param.opts if name.startswith("--")]
    near = nearest(name, options) if name.startswith("--") else None
    if near is not None:
        return f"no such option {name!r}; did you mean {near!r}?"
    known = f"it has {', '.join(options)}" if options else "it has none"
    return f"no such option {name!r}; {known}"


def report_error(error: BaseException) -> Exit:
    """Print what went wrong on stderr, a line for each thing, and return the exit code that says so."""
    if os.environ.get("BRIDGE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    said = [_say(leaf) for leaf in _leaves(error)]
    for line in dict.fromkeys(line for _, lines in said for line in lines):
        print_error(line)
    return max((code for code, _ in said), key=[Exit.FAILED, Exit.UNREACHABLE, Exit.CONFIG].index)


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
            return Exit.UNREACHABLE, [str(error)]
        case BridgeError():
            return Exit.FAILED, [str(error)]
        case OSError() if error.strerror:
            place = f": {error.filename}" if error.filename else ""
            return Exit.FAILED, [f"{error.strerror}{place}"]
        case _:
            sorry = f"sorry, this is a defect of the bridge: unexpected {type(error).__name__}"
            return Exit.FAILED, [f"{sorry}; BRIDGE_DEBUG=1 prints the traceback that a report needs"]
