"""`bridgectl sinks`: how each sink is doing, with its books."""

from __future__ import annotations

from pathlib import Path

import click

from bridge.cli.commands.sink_forms import form, preview
from bridge.cli.support.options import Exit, Group, config_of, json_option, optional_config_option
from bridge.cli.support.output import print_json, print_line, print_table
from bridge.cli.support.overview_rows import SINK_HEADERS, SINKS_GIVE_WAY, sink_row, sink_totals
from bridge.cli.support.running import load_assembly, run
from bridge.operations.overview import plain_sink
from bridge.runtime.assembly import Assembly
from bridge.runtime.overview import SinkView, is_served
from bridge.runtime.overview_reader import read_sinks, read_sources


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples="""
    bridgectl sinks -c bridge.yaml
    bridgectl sinks -c bridge.yaml --json | jq '.sinks[] | select(.state != "ok")'
    """,
)
@optional_config_option
@json_option
@click.pass_context
def sinks(context: click.Context, config_file: Path | None, *, as_json: bool) -> Exit:
    """Show each sink: state, books, the oldest event that waits, the last delivery and the last error; then the totals.

    The state is `ok`, `paused` (by an operator), `quiet until` a time, `circuit open` (its endpoint fails, and is
    probed now and then), `disabled` (its endpoint said that it is gone), or `not delivering` (no process has the role
    sink).
    `muted` follows it while an operator has muted some or all of its events.
    """
    if context.invoked_subcommand is not None:
        return Exit.DONE
    parts = load_assembly(config_of(context, config_file), with_secrets=False)
    views = run(_sinks(parts))
    totals = sink_totals(views)
    if as_json:
        print_json({"sinks": [plain_sink(view) for view in views], "totals": totals})
        return Exit.DONE
    if not views:
        print_line("there is no sink in the configuration")
        return Exit.DONE
    now = parts.clock.now()
    print_table(SINK_HEADERS, [sink_row(view, now) for view in views], give_way=SINKS_GIVE_WAY, prose="last error")
    print_line(f"in all: {', '.join(f'{count} {name}' for name, count in totals.items())}")
    return Exit.DONE


async def _sinks(parts: Assembly) -> list[SinkView]:
    async with parts.opened_store(read_only=True) as store:
        orders, presences = await store.orders(), list(await store.presences())
        served = is_served(presences, await read_sources(parts, store, orders))
        return await read_sinks(parts, store, orders, presences, served=served)


sinks.add_command(preview)
sinks.add_command(form)
