"""`bridgectl poll`: have a source polled now."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import click

from bridge.cli.support.named_parts import named_part, parts_of
from bridge.cli.support.names import complete_sources
from bridge.cli.support.options import Command, Exit, FiniteFloat, config_option, json_option
from bridge.cli.support.output import print_json, print_line
from bridge.cli.support.running import load_assembly, run
from bridge.domain.errors import BridgeError
from bridge.domain.times import truncate_to_millis
from bridge.operations.overview import time_text
from bridge.protocols.roster import StartedPoll
from bridge.protocols.store import Store
from bridge.runtime.assembly import Assembly
from bridge.runtime.overview import from_epoch, moment

_POLL_STORE_SECONDS = 0.2


@click.command(
    cls=Command,
    examples="""
    bridgectl poll city -c bridge.yaml              now, and not only when its interval is over
    bridgectl poll city -c bridge.yaml --wait 60    for a long poll
    """,
)
@click.argument("source", shell_complete=complete_sources)
@config_option
@click.option(
    "--wait", type=FiniteFloat(min=0.1), default=20.0, show_default=True, metavar="SECONDS",
    help="For how long to wait for the poll's end.",
)  # fmt: skip
@json_option
def poll(source: str, config_file: Path, wait: float, *, as_json: bool) -> Exit:
    """Ask the process that polls a source to do so now, and say what came of it.

    The poll keeps to the account's budget of requests, and to a Retry-After of the provider. Exits with 1 if no process
    has begun it in time: then the request is withdrawn. A poll that has begun and not ended goes on.
    """
    parts = load_assembly(config_file, with_secrets=False)
    name = named_part(source, parts_of(parts.config, ("source",)), "source").partition("/")[2]
    outcome = run(_poll(parts, name, wait))
    if as_json:
        print_json(outcome)
    else:
        print_line(_sentence(outcome))
    return Exit.DONE if outcome["begun"] else Exit.FAILED


def _sentence(outcome: dict[str, Any]) -> str:
    name = outcome["source"]
    if not outcome["begun"]:
        return f"{name}: not polled: {outcome['reason']}"
    if outcome["state"] is None:
        return f"{name}: {outcome['by']} polls it; the poll goes on"
    seen = f"{outcome['observed']} looked at, {outcome['events']} events"
    return f"{name}: polled by {outcome['by']}: {seen if outcome['state'] == 'ok' else outcome['error']}"


async def _poll(parts: Assembly, name: str, wait: float) -> dict[str, Any]:
    async with parts.opened_store() as store:
        if pause := (await store.orders()).pauses.get(f"source/{name}"):
            raise BridgeError(f"source {name} is {pause}; `bridgectl resume {name}` comes first")
        request, deadline = secrets.token_hex(8), parts.clock.monotonic() + wait
        await store.request_poll(name, request)
        started = await _started(parts, store, name, request, deadline)
        if started is None:
            return {"source": name, "begun": False, "reason": await _reason(store, name)}
        note = await _result(parts, store, started, deadline)
    return {
        "source": name,
        "begun": True,
        "by": started.owner,
        "at": time_text(from_epoch(started.at)),
        "state": note.get("state"),
        "observed": int(note.get("observed") or 0),
        "events": int(note.get("events") or 0),
        "error": note.get("error") or None,
    }


async def _started(parts: Assembly, store: Store, name: str, request: str, deadline: float) -> StartedPoll | None:
    """Wait until a process has begun the poll; else withdraw the request and return None."""
    try:
        while parts.clock.monotonic() < deadline:
            started = (await store.orders()).started.get(name)
            if started is not None and started.request == request:
                return started
            await asyncio.sleep(_POLL_STORE_SECONDS)
    except BaseException:
        await store.withdraw_poll(name, request)
        raise
    await store.withdraw_poll(name, request)
    started = (await store.orders()).started.get(name)
    return started if started is not None and started.request == request else None


async def _reason(store: Store, name: str) -> str:
    holder = await store.holder(f"source/{name}")
    if holder is None:
        return "no process polls it; is the service running? see `bridgectl status`"
    note = (await store.statuses(f"source/{name}")).get(f"source/{name}", {})
    if note.get("state") == "held":
        return f"{holder} holds it: {note.get('error')}"
    return f"{holder} has not begun it; it may be in the middle of a poll. See `bridgectl sources`"


async def _result(parts: Assembly, store: Store, started: StartedPoll, deadline: float) -> dict[str, str]:
    """Wait for the end of the poll; return what was noted of it, nothing if it goes on."""
    part = f"source/{started.source}"
    while parts.clock.monotonic() < deadline:
        note = (await store.statuses(part)).get(part, {})
        ended = moment(note.get("last_poll"))
        if ended is not None and ended >= truncate_to_millis(from_epoch(started.at)):
            return dict(note)
        await asyncio.sleep(_POLL_STORE_SECONDS)
    return {}
