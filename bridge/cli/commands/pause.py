"""`bridgectl pause`: have a source or a sink rest until it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bridge.cli.support.following import wait_until_followed
from bridge.cli.support.named_parts import named_part, parts_of
from bridge.cli.support.names import complete_parts
from bridge.cli.support.operator import operator, short_reason
from bridge.cli.support.options import Command, Exit, config_option, json_option
from bridge.cli.support.output import print_json, print_line
from bridge.cli.support.running import load_assembly, run
from bridge.operations.overview import plain_pause
from bridge.protocols.roster import Pause
from bridge.runtime.assembly import Assembly


@click.command(
    cls=Command,
    examples="""
    bridgectl pause city -c bridge.yaml --reason "the provider asked for it"
    bridgectl pause sink/crm -c bridge.yaml    where a source and a sink have the same name
    bridgectl status -c bridge.yaml            shows what is paused, by whom and since when
    """,
)
@click.argument("part", shell_complete=complete_parts, metavar="SOURCE|SINK")
@config_option
@click.option("--reason", default="", metavar="TEXT", help="Why; it is shown with the pause.")
@json_option
def pause(part: str, config_file: Path, reason: str, *, as_json: bool) -> Exit:
    """Have a source or a sink rest until `bridgectl resume`; no process has to be restarted.

    All processes follow within 5 s, for which the command waits, and those that start later, too. A paused source asks
    its provider nothing, and what was seen before is still published and delivered. A paused sink gets nothing: its
    events wait, and are sent when it is resumed. Commands such as backfill ask the provider all the same.
    """
    parts = load_assembly(config_file, with_secrets=False)
    name = named_part(part, parts_of(parts.config))
    outcome = run(_pause(parts, name, Pause(parts.clock.epoch(), operator(), short_reason(reason))))
    if as_json:
        print_json(outcome)
    elif outcome["changed"]:
        late = "" if outcome["followed"] else "; not every process has heard it yet"
        print_line(f"{name}: paused until `bridgectl resume {part}`{late}")
    else:
        print_line(f"{name}: it is paused already, by {outcome['paused']['by']} since {outcome['paused']['since']}")
    return Exit.DONE


async def _pause(parts: Assembly, name: str, pause: Pause) -> dict[str, Any]:
    async with parts.opened_store() as store:
        changed = await store.pause(name, pause)
        followed = not changed or await wait_until_followed(store, parts.clock)
        pauses = (await store.orders()).pauses
        paused = plain_pause(pauses.get(name, pause))
        return {"part": name, "changed": changed, "paused": paused, "followed": followed}
