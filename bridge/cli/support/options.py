"""Options and types that commands share, and how help pages end in examples."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    _TimeType = click.ParamType[datetime]
else:
    _TimeType = click.ParamType  # generic from click 8.4 on
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


def config_option(command: F, *, required: bool = True) -> F:
    """Add `-c/--config FILE`, handed over as `config_file: Path`."""
    return click.option(
        "-c", "--config", "config_file", type=click.Path(path_type=Path), required=required, envvar="BRIDGE_CONFIG",
        show_envvar=True, metavar="FILE", help="The configuration file.",
    )(command)  # fmt: skip


def optional_config_option(command: F) -> F:
    """Add `-c/--config FILE` to a group that is a command as well: its commands have an option of their own."""
    return config_option(command, required=False)


def config_parameter(context: click.Context) -> click.Parameter | None:
    """Return the option of `config_option`, to name it in an error."""
    return next((param for param in context.command.params if param.name == "config_file"), None)


def json_option(command: F) -> F:
    """Add `--json`, handed over as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(command)


class FiniteFloat(click.FloatRange):
    """A number within bounds that can be counted with: neither `nan`, which no bound stops, nor `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the value, or fail as wrong usage."""
        import math

        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number to count with", param, ctx)
        return number


class TimeParam(_TimeType):
    """A point in time: RFC 3339, or a duration back from now."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read the value, or fail as wrong usage."""
        if isinstance(value, datetime):
            return value
        from bridge.domain.clock import Clock

        try:
            return parse_moment(str(value), Clock().now())
        except ValueError as error:
            self.fail(str(error), param, ctx)


MOMENT = TimeParam()


def parse_moment(text: str, now: datetime) -> datetime:
    """Read RFC 3339, or a duration such as `2h` as that long before `now`; raises `ValueError` saying what is wrong."""
    from datetime import UTC, timedelta

    from bridge.domain.settings import parse_duration

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
