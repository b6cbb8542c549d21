"""The options by which a command is told which deliveries are meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from bridge.cli.support.options import MOMENT
from bridge.domain import topics as patterns
from bridge.operations.delivery_filter import REASONS, STATES, DeliveryFilter, PageMark

F = TypeVar("F", bound=Callable[..., Any])


def filter_options(command: F) -> F:
    """Add the options of a filter, handed over as `status`, `dead`, `reason`, `code`, `topic`, `since` and `until`."""
    options = (
        click.option("--status", type=click.Choice(STATES), help="Only what is in this state."),
        click.option("--dead", is_flag=True, help="Dead letters only, as --status dead."),
        click.option(
            "--reason", type=click.Choice(REASONS), multiple=True, help="Dead letters with this reason; repeatable."
        ),
        click.option(
            "--code", type=click.IntRange(100, 999), multiple=True, metavar="STATUS",
            help="Only where the endpoint's last answer had this HTTP status; repeatable.",
        ),
        click.option("--topic", multiple=True, metavar="PATTERN", help="Only events of these topics; repeatable."),
        click.option("--since", type=MOMENT, help="Only events recorded from then on: a time, or 2h."),
        click.option("--until", type=MOMENT, help="Only events recorded before then."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def filter_of(options: dict[str, Any]) -> DeliveryFilter:
    """Return the filter of a command's options; raises `click.UsageError` for what contradicts itself."""
    status = "dead" if options["dead"] or options["reason"] else options["status"]
    if options["status"] not in (None, status):
        raise click.UsageError("--status waiting excludes --dead and --reason: only dead letters have a reason")
    since, until = options["since"], options["until"]
    if since is not None and until is not None and since >= until:
        raise click.UsageError(f"--since {since:%Y-%m-%dT%H:%M:%SZ} is not before --until {until:%Y-%m-%dT%H:%M:%SZ}")
    for topic in options["topic"]:
        try:
            patterns.check(topic)
        except ValueError as error:
            raise click.UsageError(f"--topic: {error}") from None
    states = STATES if status is None else (status,)
    return DeliveryFilter(states, options["reason"], options["code"], options["topic"], since, until)


def page_mark(text: str | None) -> PageMark | None:
    """Read the mark of --after; raises `click.UsageError`."""
    try:
        return None if text is None else PageMark.parse(text)
    except ValueError as error:
        raise click.UsageError(f"--after {error}") from None
