"""`bridgectl unmute`: end a mute, or all of a sink."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from bridge.cli.support.following import wait_until_followed
from bridge.cli.support.named_parts import named_part, parts_of
from bridge.cli.support.names import complete_sinks
from bridge.cli.support.options import Command, Exit, config_option, json_option
from bridge.cli.support.output import print_json, print_line
from bridge.cli.support.running import load_assembly, run
from bridge.runtime.assembly import Assembly


@click.command(
    cls=Command,
    examples="""
    bridgectl unmute ops -c bridge.yaml              all mutes of the sink
    bridgectl unmute ops 4f0c6d1b -c bridge.yaml     one of them
    """,
)
@click.argument("sink", shell_complete=complete_sinks)
@click.argument("mute", required=False, metavar="[MUTE]")
@config_option
@json_option
def unmute(sink: str, mute: str | None, config_file: Path, *, as_json: bool) -> Exit:
    """Have a sink get events again that `bridgectl mute` kept from it: end one mute, or all of the sink.

    All processes follow within 5 s, for which the command waits. What was muted is not sent; `bridgectl replay` sends
    it.
    """
    parts = load_assembly(config_file, with_secrets=False)
    name, ended = run(_unmute(parts, sink, mute))
    if as_json:
        print_json({"sink": name, "ended": ended})
    else:
        print_line(f"{name}: {'no longer muted by ' + ', '.join(ended) if ended else 'it was not muted'}")
    return Exit.DONE


async def _unmute(parts: Assembly, sink: str, mute: str | None) -> tuple[str, list[str]]:
    async with parts.opened_store() as store:
        orders, now = await store.orders(), parts.clock.epoch()
        # A sink that has left the configuration may still be muted.
        known = [*parts_of(parts.config, ("sink",)), *(f"sink/{item.sink}" for item in orders.mutes.values())]
        name = named_part(sink, known, "sink").removeprefix("sink/")
        lasting = orders.lasting_mutes(now, name)
        chosen = [item for item in lasting if mute in (None, item.id)]
        if mute is not None and not chosen:
            there = f"it has {', '.join(item.id for item in lasting)}" if lasting else "it is not muted"
            raise click.UsageError(f"{name} has no mute {mute!r}; {there}")
        for item in chosen:
            await store.keep_mute(replace(item, until=now))  # and not forgotten: `trace` tells of it
        if chosen:
            await wait_until_followed(store, parts.clock)
        return name, [item.id for item in chosen]
