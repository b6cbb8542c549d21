"""`bridgectl mutes`: which events of which sinks are muted, by whom, and until when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bridge.cli.support.options import Exit, Group, config_option, json_option
from bridge.cli.support.output import ago, print_json, print_line, print_table
from bridge.cli.support.running import load_assembly, run
from bridge.domain.filters.event_filter import EventFilter
from bridge.domain.filters.expression import FilterError
from bridge.operations.overview import plain_mute
from bridge.protocols.roster import Mute
from bridge.runtime.assembly import Assembly
from bridge.runtime.overview import from_epoch

_HEADERS = ("sink", "mute", "ends", "by", "events", "reason")


@click.group(cls=Group, examples="bridgectl mutes list -c bridge.yaml")
def mutes() -> None:
    """See what operators have muted with `bridgectl mute`."""


@mutes.command(
    name="list",
    examples="""
    bridgectl mutes list -c bridge.yaml
    bridgectl mutes list -c bridge.yaml --json | jq -r '.mutes[].id'
    """,
)
@config_option
@json_option
def list_(config_file: Path, *, as_json: bool) -> Exit:
    """List the mutes that have not ended, those that end first at the top."""
    parts = load_assembly(config_file, with_secrets=False)
    lasting, now = run(_lasting(parts)), parts.clock.now()
    if as_json:
        print_json({"mutes": [plain_mute(mute) for mute in lasting]})
    elif not lasting:
        print_line("nothing is muted")
    else:
        rows = [
            [mute.sink, mute.id, ago(from_epoch(mute.until), now), mute.by, _events(mute.where), mute.reason or None]
            for mute in lasting
        ]
        print_table(_HEADERS, rows, give_way=("by",), prose="reason")
    return Exit.DONE


def _events(where: Any) -> str:
    """Return in words which events a mute covers."""
    try:
        return "all" if where is None else str(EventFilter(where))
    except FilterError:
        return "a filter that this version cannot read"


async def _lasting(parts: Assembly) -> list[Mute]:
    async with parts.opened_store(read_only=True) as store:
        return (await store.orders()).lasting_mutes(parts.clock.epoch())
