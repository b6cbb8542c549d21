"""`bridgectl sources`: how each source is doing, by what the running service has told the store."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from bridge.cli.support.names import complete_sources
from bridge.cli.support.options import (
    Exit,
    Group,
    config_of,
    config_option,
    json_option,
    optional_config_option,
)
from bridge.cli.support.output import print_json, print_line, print_table
from bridge.cli.support.overview_rows import age, next_poll, state_of_source
from bridge.cli.support.running import load_assembly, run
from bridge.cli.support.suggestions import no_such
from bridge.coordination.leases import hold_lease, new_owner
from bridge.domain.errors import BridgeError
from bridge.operations.overview import plain_source
from bridge.runtime.assembly import Assembly
from bridge.runtime.overview import SourceView
from bridge.runtime.overview_reader import read_sources

_LEASE_SECONDS = 15.0
_GIVE_WAY = ("cursor", "type", "held by", "events", "next poll")


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples="""
    bridgectl sources -c bridge.yaml
    bridgectl sources -c bridge.yaml --json | jq '.[] | select(.state != "ok")'
    """,
)
@optional_config_option
@json_option
@click.pass_context
def sources(context: click.Context, config_file: Path | None, *, as_json: bool) -> Exit:
    """Show each source: state, last poll, next poll, cursor, lag, errors.

    The lag is the number of events that are committed and not yet confirmed by the broker. A source that was never
    polled says so, and so does one that no process polls now.
    """
    if context.invoked_subcommand is not None:
        return Exit.DONE
    parts = load_assembly(config_of(context, config_file), with_secrets=False)
    result = run(_sources(parts))
    if as_json:
        print_json([plain_source(source) for source in result])
        return Exit.DONE
    now = parts.clock.now()
    headers = ["source", "type", "state", "last poll", "next poll", "cursor", "events", "lag", "held by", "error"]
    rows = [_row(source, now) for source in result]
    print_table(headers, rows, give_way=_GIVE_WAY, prose="error", empty="there is no source in the configuration")
    return Exit.DONE


@sources.command(
    examples="""
    bridgectl sources reset city -c bridge.yaml
    """
)
@click.argument("source", shell_complete=complete_sources)
@config_option
@json_option
def reset(source: str, config_file: Path, *, as_json: bool) -> Exit:
    """Forget a source's cursor, statuses and watched resources: its next poll is a first start.

    It is for a source that is pointed at another account. The journal stays, and its events are still published and
    delivered. For the same account, what is published again has the same ids. No process may poll the source.
    """
    parts = load_assembly(config_file, with_secrets=False)
    run(_reset(parts, source))
    if as_json:
        print_json({"source": source, "reset": True})
    else:
        print_line(f"{source}: forgotten; its next poll is a first start")
    return Exit.DONE


async def _reset(parts: Assembly, name: str) -> None:
    async with parts.opened_store() as store:
        known = sorted({*parts.config.sources, *await store.sources()})
        if name not in known:
            raise no_such("source", name, known, "in the configuration, nor in the store")
        if (holder := await store.holder(f"source/{name}")) is not None:
            raise BridgeError(f"source {name} is polled by {holder}: stop that process first; nothing was forgotten")
        async with hold_lease(
            store, parts.clock, f"source/{name}", new_owner(), _LEASE_SECONDS, max_wait=0.0
        ) as lease:  # fmt: skip
            await store.reset_source(lease, name)


def _row(source: SourceView, now: datetime) -> list[Any]:
    return [
        source.name, source.type, state_of_source(source), age(source.last_poll, now), next_poll(source, now),
        source.cursor, source.committed, source.lag, source.holder, source.error,
    ]  # fmt: skip


async def _sources(parts: Assembly) -> list[SourceView]:
    async with parts.opened_store(read_only=True) as store:
        return await read_sources(parts, store, await store.orders())
