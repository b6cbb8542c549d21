"""`bridge sources`: how each source is doing, by what the running service has told the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from bridge.cli.support.options import Command, Exit, config_option, json_option
from bridge.cli.support.output import ago, print_json, print_table
from bridge.cli.support.running import load_assembly, run
from bridge.runtime.assembly import Assembly

_OWN = "~"  # cursor entries of the bridge's own making


@click.command(
    cls=Command,
    examples="""
    bridge sources -c bridge.yaml
    bridge sources -c bridge.yaml --json | jq '.[] | select(.state != "ok")'
    """,
)
@config_option
@json_option
def sources(config_file: Path, *, as_json: bool) -> Exit:
    """Show each source: state, last poll, next poll, cursor, lag, errors.

    The lag is the number of events that are committed and not yet confirmed by the broker. A source that was never
    polled says so.
    """
    parts = load_assembly(config_file)
    result = run(_sources(parts))
    if as_json:
        print_json(result)
        return Exit.DONE
    now = parts.clock.now()
    headers = ["source", "type", "state", "last poll", "next poll", "cursor", "events", "lag", "held by", "error"]
    print_table(headers, [_row(row, now) for row in result])
    return Exit.DONE


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


async def _sources(parts: Assembly) -> list[dict[str, Any]]:
    async with parts.opened_store() as store:
        notes = await store.statuses("source/")
        rows = []
        for name, settings in parts.config.sources.items():
            said = notes.get(f"source/{name}", {})
            journal = await store.journal(name)
            cursor = await store.cursor(name)
            rows.append({
                "name": name,
                "type": settings.type,
                "state": said.get("state") or "never polled",
                "last_poll": said.get("last_poll") or None,
                "last_ok": said.get("last_ok") or None,
                "next_poll": said.get("next_poll") or None,
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
                "holder": await store.holder(f"source/{name}"),
            })  # fmt: skip
    return rows
