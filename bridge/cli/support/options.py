"""Options and types that commands share, and how help pages end in examples."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from bridge.cli.support.program import NAME, in_typed_name
from bridge.cli.support.suggestions import nearest, nearest_command

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


def _switch_colours_off(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's form
    if value:
        os.environ["NO_COLOR"] = "1"  # what tables, log lines and progress go by
        context.color = False


def _no_colour_option(*, hidden: bool) -> click.Option:
    return click.Option(
        ["--no-color"], is_flag=True, expose_value=False, is_eager=True, hidden=hidden, callback=_switch_colours_off,
        help="Print without colours, as NO_COLOR does.",
    )  # fmt: skip


class Command(click.Command):
    """A command whose help page ends with `examples`, their lines as they were written.

    `former` are options by their former names, which are still understood and shown nowhere. Every command knows
    `--no-color`.
    """

    def __init__(self, *args: Any, examples: str = "", former: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = inspect.cleandoc(examples)
        self.former = former or {}
        self._no_colour = _no_colour_option(hidden=True)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters, and what every command has."""
        own = super().get_params(ctx)
        return [*own[:-1], self._no_colour, own[-1]] if own else own

    def get_help(self, ctx: click.Context) -> str:
        """Return the help page, in which the program has the name that was typed."""
        return in_typed_name(super().get_help(ctx))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}".rstrip() + "\n")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; options may have their former names. What else is wrong goes before a missing file."""
        rest = super().parse_args(ctx, list(self._renamed(args)))
        if not ctx.resilient_parsing and any(isinstance(param, _ConfigOption) for param in self.params):
            ctx.params["config_file"] = _config_file(ctx)
        return rest

    def _renamed(self, args: Iterable[str]) -> Iterable[str]:
        renames = self.former
        for word in args:
            if word == "--":
                renames = {}
            name, sign, value = word.partition("=")
            yield f"{renames.get(name, name)}{sign}{value}"


class Group(Command, click.Group):
    """A group with `examples=`, whose commands have them too, and which says what a misspelled command may be."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first word names; raises `click.UsageError` with the one that was meant."""
        command = self.get_command(ctx, args[0])
        if command is None and not ctx.resilient_parsing and not args[0].startswith("-"):
            self.fail_unknown(ctx, args[0])
        return super().resolve_command(ctx, args)

    def fail_unknown(self, ctx: click.Context, name: str) -> NoReturn:
        """Raise the error that there is no such command."""
        known = self.list_commands(ctx)
        near = nearest_command(name, known)
        help_of = " ".join((NAME, "help", *ctx.command_path.split()[1:])) if ctx.parent else f"{NAME} help"
        meant = f"did you mean {near!r}?" if near else f"`{help_of}` lists the commands"
        raise click.UsageError(f"no such command {name!r}; {meant}", ctx)


Group.group_class = Group


class SuggestingChoice(click.Choice[str]):
    """A choice that says which word may have been meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the word, or fail as wrong usage."""
        if value not in self.choices:
            near = nearest(str(value), self.choices)
            meant = f"did you mean {near!r}?" if near else f"choose from {', '.join(self.choices)}"
            self.fail(f"there is no {value!r}; {meant}", param, ctx)
        return str(value)


class _ConfigOption(click.Option):
    """The option of `config_option`; its command looks at the usual places when all else of the line is right."""


def config_option(command: F) -> F:
    """Add `-c/--config FILE`, handed over as `config_file: Path`; without it, the usual places are looked at."""
    return _config_option(command, cls=_ConfigOption)


def optional_config_option(command: F) -> F:
    """Add `-c/--config FILE` to a group that is a command as well: its commands have an option of their own.

    What is handed over is None where the option was not given; `chosen_config` then looks at the usual places.
    """
    return _config_option(command)


def _config_option(command: F, **settings: Any) -> F:
    return click.option(
        "-c", "--config", "config_file", type=click.Path(path_type=Path), envvar="BRIDGE_CONFIG", show_envvar=True,
        metavar="FILE", help="The configuration file; by default the first that there is in the usual places.",
        **settings,
    )(command)  # fmt: skip


def _config_file(context: click.Context) -> Path:
    group = context.parent
    if group is not None and not _was_typed(context) and _was_typed(group):
        context = group
    return config_of(context, context.params["config_file"])


def _was_typed(context: click.Context) -> bool:
    return context.get_parameter_source("config_file") is click.core.ParameterSource.COMMANDLINE


def config_of(context: click.Context, value: Path | None) -> Path:
    """Return the configuration file of a command with that option's value; see `chosen_config`."""
    return value if value is not None and _was_typed(context) else chosen_config(value)


def chosen_config(named: Path | None) -> Path:
    """Return the file that BRIDGE_CONFIG names, or the first of the usual places, and say on stderr which it is.

    Raises `ConfigError` that lists the places if there is no file in any of them.
    """
    from bridge.cli.support.notes import print_note
    from bridge.config.places import choose

    path = named or choose(os.environ)
    print_note(f"the configuration is {path.absolute()}{' (by BRIDGE_CONFIG)' if named else ''}")
    return path


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
