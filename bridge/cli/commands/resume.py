"""`bridgectl resume`: have a source or a sink work again."""

from __future__ import annotations

from pathlib import Path

import click

from bridge.cli.support.following import wait_until_followed
from bridge.cli.support.named_parts import named_part, parts_of
from bridge.cli.support.names import complete_parts
from bridge.cli.support.options import Command, Exit, config_option, json_option
from bridge.cli.support.output import print_json, print_line
from bridge.cli.support.running import load_assembly, run
from bridge.runtime.assembly import Assembly


@click.command(
    cls=Command,
    examples="""
    bridgectl resume city -c bridge.yaml
    bridgectl resume sink/crm -c bridge.yaml    where a source and a sink have the same name
    """,
)
@click.argument("part", shell_complete=complete_parts, metavar="SOURCE|SINK")
@config_option
@json_option
def resume(part: str, config_file: Path, *, as_json: bool) -> Exit:
    """Have a source or a sink work again that `bridgectl pause` paused.

    All processes follow within 5 s, for which the command waits.
    """
    parts = load_assembly(config_file, with_secrets=False)
    name, changed = run(_resume(parts, part))
    if as_json:
        print_json({"part": name, "changed": changed, "paused": None})
    else:
        print_line(f"{name}: {'resumed' if changed else 'it was not paused'}")
    return Exit.DONE


async def _resume(parts: Assembly, part: str) -> tuple[str, bool]:
    async with parts.opened_store() as store:
        # A part that has left the configuration may still be paused.
        paused = (await store.orders()).pauses
        name = named_part(part, [*parts_of(parts.config), *paused])
        changed = await store.resume(name)
        if changed:
            await wait_until_followed(store, parts.clock)
        return name, changed
