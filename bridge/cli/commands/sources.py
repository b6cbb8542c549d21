"""`bridge sources`: how each source is doing, by what the running service has told the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from bridge.cli.support.options import (
    Exit,
    Group,
    config_option,
    config_parameter,
    json_option,
    optional_config_option,
)
from bridge.cli.support.output import ago, print_json, print_line, print_table
from bridge.cli.support.running import load_assembly, run
from bridge.coordination.leases import hold_lease, new_owner
from bridge.domain.errors import BridgeError
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.runtime.assembly import Assembly

_LEASE_SECONDS = 15.0
_OWN = "~"  # cursor entries of the bridge's own making


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples="""
    bridge sources -c bridge.yaml
    bridge sources -c bridge.yaml --json | jq '.[] | select(.state != "ok")'
    """,
)
@optional_config_option
@json_option
@click.pass_context
def sources(context: click.Context, config_file: Path | None, *, as_json: bool) -> Exit:
    """Show each source: state, last poll, next poll, cursor, lag, errors.

    The lag is the number of events that are committed and not yet confirmed by the broker. A source that was never
    polled says so.
    """
    if context.invoked_subcommand is not None:
        return Exit.DONE
    if config_file is None:
        raise click.MissingParameter(ctx=context, param=config_parameter(context))
    parts = load_assembly(config_file)
    result = run(_sources(parts))
    if as_json:
        print_json(result)
        return Exit.DONE
    now = parts.clock.now()
    headers = ["source", "type", "state", "last poll", "next poll", "cursor", "events", "lag", "held by", "error"]
    print_table(headers, [_row(row, now) for row in result])
    return Exit.DONE


@sources.command(
    examples="""
    bridge sources reset city -c bridge.yaml
    """
)
@click.argument("source")
@config_option
def reset(source: str, config_file: Path) -> Exit:
    """Forget a source's cursor, statuses and watched resources: its next poll is a first start.

    It is for a source that is pointed at another account. The journal stays, and its events are still published and
    delivered. For the same account, what is published again has the same ids. No process may poll the source.
    """
    parts = load_assembly(config_file)
    run(_reset(parts, source))
    print_line(f"{source}: forgotten; its next poll is a first start")
    return Exit.DONE


async def _reset(parts: Assembly, name: str) -> None:
    async with parts.opened_store() as store:
        known = sorted({*parts.config.sources, *await store.sources()})
        if name not in known:
            raise click.UsageError(f"there is no source {name!r}; there is {', '.join(known) or 'none'}")
        if (holder := await store.holder(f"source/{name}")) is not None:
            raise BridgeError(f"source {name} is polled by {holder}: stop that process first; nothing was forgotten")
        async with hold_lease(
            store, parts.clock, f"source/{name}", new_owner(), _LEASE_SECONDS, max_wait=0.0
        ) as lease:  # fmt: skip
            await store.reset_source(lease, name)


def _row(source: Mapping[str, Any], now: datetime) -> list[Any]:
    last, following = (
        datetime.fromisoformat(source[key]) if source[key] else None for key in ("last_poll", "next_poll")
    )
    polled = [ago(last, now) if last else None, _due(following, now) if following else None]
    failures = f" ({source['failures']})" if source["failures"] else ""
    return [
        source["name"], source["type"], source["state"] + failures, *polled, source["cursor"], source["committed"],
        source["lag"], source["holder"], source["error"],
    ]  # fmt: skip


def _due(moment: datetime, now: datetime) -> str:
    """Return in how long a poll is due; one whose time has come begins now, unless nobody runs the service."""
    return ago(moment, now) if moment > now else "due"


def _next_poll(noted: str | None, holder: str | None, now: datetime) -> str | None:
    """Return when the source is polled next: never in the past, and not at all if no process polls it."""
    if not noted or holder is None:
        return None
    return noted if datetime.fromisoformat(noted) > now else rfc3339(truncate_to_millis(now))


async def _sources(parts: Assembly) -> list[dict[str, Any]]:
    async with parts.opened_store() as store:
        notes = await store.statuses("source/")
        rows = []
        for name, settings in parts.config.sources.items():
            said = notes.get(f"source/{name}", {})
            holder = await store.holder(f"source/{name}")
            journal = await store.journal(name)
            cursor = await store.cursor(name)
            rows.append({
                "name": name,
                "type": settings.type,
                "state": said.get("state") or "never polled",
                "last_poll": said.get("last_poll") or None,
                "last_ok": said.get("last_ok") or None,
                "next_poll": _next_poll(said.get("next_poll"), holder, parts.clock.now()),
                "failures": int(said.get("failures") or 0),
                "failing_since": said.get("failing_since") or None,
                "error": said.get("error") or None,
                "cursor": sum(not key.startswith(_OWN) for key in cursor),
                "watched": len(await store.watched(name)),
                "committed": journal.events,
                "confirmed": journal.events - journal.backlog,
                "lag": journal.backlog,
                "kept": max(journal.committed - journal.first + 1, 0),
                "unroutable": journal.unroutable,
                "holder": holder,
            })  # fmt: skip
    return rows
