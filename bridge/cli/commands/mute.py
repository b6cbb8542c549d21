"""`bridgectl mute`: have a sink not get events for a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from bridge.cli.support.following import wait_until_followed
from bridge.cli.support.named_parts import named_part, parts_of
from bridge.cli.support.names import complete_sinks
from bridge.cli.support.operator import operator, short_reason
from bridge.cli.support.options import Command, Exit, config_option, json_option
from bridge.cli.support.output import print_json, print_line
from bridge.cli.support.running import load_assembly, run
from bridge.config.filters import problems_of
from bridge.config.yaml_document import format_path, plain_value
from bridge.domain.filters.event_filter import EventFilter
from bridge.domain.filters.expression import FilterError
from bridge.domain.settings import format_duration, parse_duration
from bridge.operations.overview import plain_mute, time_text
from bridge.protocols.roster import Mute
from bridge.runtime.assembly import Assembly
from bridge.runtime.overview import from_epoch

_ID_CHARACTERS = 8
_MAX_SECONDS = 365 * 86400.0
_KEPT_SECONDS = 7 * 86400.0
"""Seconds for which a mute is kept at least after its end, so that `bridgectl trace` can tell of it."""


def _span(_: click.Context, __: click.Parameter, value: str) -> float:
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not 0 < seconds <= _MAX_SECONDS:
        raise click.BadParameter(f"{value!r} is not between 1ms and {format_duration(_MAX_SECONDS)}, a year")
    return seconds


@click.command(
    cls=Command,
    examples="""
    bridgectl mute ops --for 2h -c bridge.yaml --reason "the campaign is known to fail"
    bridgectl mute ops --for 30m -c bridge.yaml --where '{exact: {data.status: failed}}'
    bridgectl mutes list -c bridge.yaml
    """,
)
@click.argument("sink", shell_complete=complete_sinks)
@click.option("--for", "seconds", required=True, callback=_span, metavar="DURATION", help="How long, such as 2h.")
@click.option("--where", metavar="FILTER", help="Which events, in YAML or JSON as the key `where`; all without it.")
@click.option("--reason", default="", metavar="TEXT", help="Why; it is shown with the mute.")
@config_option
@json_option
def mute(sink: str, seconds: float, where: str | None, reason: str, config_file: Path, *, as_json: bool) -> Exit:
    """Have a sink not get events, or those that a filter selects, until a time has passed or `bridgectl unmute`.

    What a mute covers is not sent later either: the books count it as filtered, and `bridgectl replay` sends it. All
    processes follow within 5 s, for which the command waits, and those that start later, too. To keep events waiting,
    use `bridgectl pause`.
    """
    parts = load_assembly(config_file, with_secrets=False)
    name = named_part(sink, parts_of(parts.config, ("sink",)), "sink").removeprefix("sink/")
    raw = None if where is None else _filter(parts, name, where)
    now = parts.clock.epoch()
    order = Mute(uuid4().hex[:_ID_CHARACTERS], name, now, now + seconds, operator(), short_reason(reason), raw)
    is_followed = run(_mute(parts, order))
    if as_json:
        print_json({**plain_mute(order), "followed": is_followed})
        return Exit.DONE
    late = "" if is_followed else "; not every process has heard it yet"
    until = time_text(from_epoch(order.until))
    print_line(f"{name}: muted until {until}; `bridgectl unmute {name} {order.id}` ends it{late}")
    return Exit.DONE


def _filter(parts: Assembly, sink: str, text: str) -> Any:
    """Return a filter as it is written; fails as wrong usage if the sink's events cannot meet it."""
    try:
        chosen = EventFilter(plain_value(text))
    except FilterError as error:
        raise click.BadParameter(_placed(error.place, str(error)), param_hint="'--where'") from None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--where'") from None
    for place, problem in problems_of(parts.config, sink, chosen):
        raise click.BadParameter(_placed(place, problem), param_hint="'--where'")
    return chosen.raw


def _placed(place: tuple[str | int, ...], text: str) -> str:
    return f"{format_path(place)}: {text}" if place else text


async def _mute(parts: Assembly, order: Mute) -> bool:
    kept = max(_KEPT_SECONDS, parts.config.journal.keep)
    async with parts.opened_store() as store:
        for old in (await store.orders()).mutes.values():
            if old.until + kept < order.since:
                await store.forget_mute(old.id)
        await store.keep_mute(order)
        return await wait_until_followed(store, parts.clock)
