"""`bridge deliveries`: what waits for another try, and dead letters."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from bridge.cli.support.disabled_sinks import Disabled, disabled
from bridge.cli.support.journal import find
from bridge.cli.support.options import Exit, Group, config_option, json_option
from bridge.cli.support.output import ago, print_json, print_line, print_table, print_text
from bridge.cli.support.running import load_assembly, run
from bridge.delivery.masking import apply
from bridge.domain.errors import Permanent
from bridge.domain.event import JournalEntry, Position
from bridge.domain.event_view import EventView
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.protocols.deliveries import RELAY_SINK, Attempt, Delivery
from bridge.protocols.store import Store
from bridge.runtime.assembly import Assembly

_MAX_DELIVERIES = 1_000_000


@click.group(
    cls=Group,
    examples="""
    bridge deliveries list -c bridge.yaml
    bridge deliveries show crm city-voice:1042 -c bridge.yaml
    bridge deliveries redrive crm --dead -c bridge.yaml
    """,
)
def deliveries() -> None:
    """Work on deliveries that wait for another try, and on dead letters.

    The sink @relay stands for the relay: its dead letters are events that the broker did not accept.
    """


@deliveries.command(
    name="list",
    examples="""
    bridge deliveries list -c bridge.yaml                  all sinks, those due first at the top
    bridge deliveries list crm --dead -c bridge.yaml       dead letters of one sink
    bridge deliveries list --json -c bridge.yaml | jq -r '.[].id'
    """,
)
@click.argument("sink", required=False)
@config_option
@click.option("--dead", is_flag=True, help="Dead letters only.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many of a sink.")
@json_option
def list_(sink: str | None, config_file: Path, limit: int, *, dead: bool, as_json: bool) -> Exit:
    """List what waits, and dead letters: of one sink, or of all; and say which of these sinks are disabled."""
    parts = load_assembly(config_file)
    rows, gone = run(_list(parts, sink, _states(dead=dead), limit))
    if as_json:
        print_json(rows)
        return Exit.DONE
    now = parts.clock.now()
    headers = ["sink", "position", "topic", "subject", "state", "tries", "due", "last error"]
    print_table(headers, [_row(row, now) for row in rows])
    for position in gone:
        print_line(f"{position.sink}: {position}")
    return Exit.DONE


@deliveries.command(
    examples="""
    bridge deliveries show crm city-voice:1042 -c bridge.yaml
    bridge deliveries show crm 5f0c6d1be2a94d2c8f6a3f0e9d8c7b6a -c bridge.yaml --json
    """
)
@click.argument("sink")
@click.argument("event", metavar="POSITION|EVENT-ID")
@config_option
@json_option
def show(sink: str, event: str, config_file: Path, *, as_json: bool) -> Exit:
    """Show one delivery with the history of its tries, and the event itself.

    Of phones, addresses and keys in the event the last four characters are shown; --json has them in full.
    """
    parts = load_assembly(config_file)
    described, entry, gone = run(_show(parts, sink, event))
    if as_json:
        print_json(described)
        return Exit.DONE
    for key in ("sink", "position", "id", "topic", "subject", "state", "reason", "due"):
        if described[key]:
            print_line(f"{key + ':':<10} {described[key]}")
    if gone is not None:
        print_line(f"{'note:':<10} {gone}")
    for number, attempt in enumerate(described["attempts"], 1):
        print_line(f"try {number}:     {attempt['at']}  {attempt['kind']}: {attempt['error']}")
    print_text(f"event:     {_masked(entry)}")
    return Exit.DONE


def _masked(entry: JournalEntry | None) -> str:
    if entry is None:
        return "the journal has it no more"
    try:
        body = apply("last4", entry.event, b"").body
    except Permanent:
        return "cannot be read"
    return json.dumps(json.loads(body), ensure_ascii=False, indent=2)


@deliveries.command(
    examples="""
    bridge deliveries redrive crm city-voice:1042 -c bridge.yaml    one
    bridge deliveries redrive crm --dead -c bridge.yaml             all dead letters of a sink
    bridge deliveries redrive @relay --dead -c bridge.yaml          what the broker did not accept, to the broker
    bridge deliveries redrive --all -c bridge.yaml                  whatever waits or is dead, of all sinks
    """
)
@click.argument("sink", required=False)
@click.argument("events", nargs=-1, metavar="[POSITION|EVENT-ID]...")
@config_option
@click.option("--dead", is_flag=True, help="All dead letters.")
@click.option("--all", "everything", is_flag=True, help="All dead letters, and all that waits.")
def redrive(sink: str | None, events: tuple[str, ...], config_file: Path, *, dead: bool, everything: bool) -> Exit:
    """Make deliveries due now, with the count of tries starting again.

    What is due within seconds by itself, or is being sent at this moment, keeps its time. A sink that was disabled,
    because its endpoint said that it is gone, is enabled again by this. Exits with 1 if an event that is named neither
    waits nor is a dead letter.
    """
    _selects(sink, events, dead=dead, everything=everything)
    parts = load_assembly(config_file)
    return run(_redrive(parts, sink, events, _states(dead=dead)))


@deliveries.command(
    examples="""
    bridge deliveries discard crm city-voice:1042 -c bridge.yaml
    bridge deliveries discard crm --dead --yes -c bridge.yaml
    """
)
@click.argument("sink", required=False)
@click.argument("events", nargs=-1, metavar="[POSITION|EVENT-ID]...")
@config_option
@click.option("--dead", is_flag=True, help="All dead letters.")
@click.option("--all", "everything", is_flag=True, help="All dead letters, and all that waits.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def discard(
    sink: str | None, events: tuple[str, ...], config_file: Path, *, dead: bool, everything: bool, yes: bool
) -> Exit:
    """End deliveries without sending them. The events stay in the journal: `bridge replay` brings them back.

    Exits with 1 if an event that is named neither waits nor is a dead letter.
    """
    _selects(sink, events, dead=dead, everything=everything)
    parts = load_assembly(config_file)
    return run(_discard(parts, sink, events, _states(dead=dead), ask=not yes))


def _states(*, dead: bool) -> tuple[str, ...]:
    return ("dead",) if dead else ("waiting", "dead")


def _selects(sink: str | None, events: tuple[str, ...], *, dead: bool, everything: bool) -> None:
    if (bool(events) + dead + everything) != 1:
        raise click.UsageError("say which: POSITION or EVENT-ID of a sink, or --dead, or --all")
    if events and sink is None:
        raise click.UsageError("name the sink")


async def _sinks(parts: Assembly, store: Store, sink: str | None) -> list[str]:
    if sink is None:
        return [*parts.config.sinks, *([RELAY_SINK] if await store.counts(RELAY_SINK) else [])]
    if sink == RELAY_SINK:
        return [sink]
    # A sink that is no longer configured may have left deliveries behind.
    if sink not in parts.config.sinks and not await store.counts(sink):
        known = ", ".join(parts.config.sinks) or "none"
        raise click.UsageError(f"there is no sink {sink!r} in the configuration, nor in the store; there is {known}")
    return [sink]


async def _list(
    parts: Assembly, sink: str | None, states: Collection[str], limit: int
) -> tuple[list[dict[str, Any]], list[Disabled]]:
    described: list[dict[str, Any]] = []
    async with parts.opened_store() as store:
        gone = await disabled(store)
        names = await _sinks(parts, store, sink)
        for name in names:
            described += await _described(store, await store.deliveries(name, states=states, limit=limit), gone)
    return described, [gone[name] for name in names if name in gone]


async def _described(store: Store, waiting: Sequence[Delivery], gone: Mapping[str, Disabled]) -> list[dict[str, Any]]:
    entries = await store.entries([delivery.position for delivery in waiting]) if waiting else ()
    described = []
    for delivery, entry in zip(waiting, entries, strict=True):
        line = None if entry is None else EventView.of(entry)
        described.append({
            "sink": delivery.sink,
            "disabled": gone[delivery.sink].plain() if delivery.sink in gone else None,
            "position": str(delivery.position),
            "id": line and line.event.id,
            "topic": line and line.event.topic,
            "subject": line and line.subject,
            "state": delivery.state,
            "reason": delivery.reason or None,
            "due": None if delivery.state == "dead" else _time(delivery.due),
            "attempts": [_attempt(attempt) for attempt in delivery.attempts],
        })  # fmt: skip
    return described


def _attempt(attempt: Attempt) -> dict[str, str]:
    return {"at": _time(attempt.at), "kind": attempt.kind, "error": attempt.error}


def _time(seconds: float) -> str:
    return rfc3339(truncate_to_millis(datetime.fromtimestamp(seconds, UTC)))


def _row(described: dict[str, Any], now: datetime) -> list[Any]:
    state = f"dead: {described['reason']}" if described["state"] == "dead" else described["state"]
    due = described["due"] and ago(datetime.fromisoformat(described["due"]), now)
    if due and described["disabled"]:
        due = "when enabled"
    tries = described["attempts"]
    return [
        described["sink"], described["position"], described["topic"], described["subject"], state, len(tries), due,
        tries[-1]["error"] if tries else None,
    ]  # fmt: skip


async def _position(store: Store, text: str) -> Position:
    line = await find(store, text)
    if line is not None:
        return line.position
    try:
        return Position.parse(text)
    except ValueError:
        raise click.ClickException(_absent(text)) from None


def _absent(event: str) -> str:
    return f"the journal has no event {event!r} (any more)"


async def _show(parts: Assembly, sink: str, event: str) -> tuple[dict[str, Any], JournalEntry | None, Disabled | None]:
    async with parts.opened_store() as store:
        await _sinks(parts, store, sink)
        position = await _position(store, event)
        delivery = await store.delivery(sink, position)
        entry = (await store.entries([position]))[0]
        gone = await disabled(store)
        if delivery is None:
            settled = await store.settled(sink, position)
            if not settled and entry is None:
                raise click.ClickException(_absent(event))
            state = "delivered, or discarded" if settled else "never offered to this sink"
            delivery = Delivery(sink, position, due=0.0, state=state)
        described = (await _described(store, [delivery], gone))[0]
        if delivery.state not in ("waiting", "dead"):
            described["due"] = None
        described["event"] = entry and EventView.of(entry).body
        return described, entry, gone.get(sink)


async def _chosen(
    parts: Assembly, store: Store, sink: str | None, events: tuple[str, ...], states: Collection[str]
) -> tuple[dict[str, list[Position]], Exit]:
    """Return what to work on, by sink; `FAILED` with it if an event that was named is no delivery."""
    if events and sink is not None:
        await _sinks(parts, store, sink)
        named = [await _position(store, text) for text in events]
        present = [position for position in named if await store.delivery(sink, position) is not None]
        for position in named:
            if position not in present:
                print_line(f"bridge: {sink}: {position} neither waits nor is a dead letter", err=True)
        return {sink: present}, Exit.DONE if present == named else Exit.FAILED
    positions = {
        name: [delivery.position for delivery in await store.deliveries(name, states=states, limit=_MAX_DELIVERIES)]
        for name in await _sinks(parts, store, sink)
    }
    return positions, Exit.DONE


async def _redrive(parts: Assembly, sink: str | None, events: tuple[str, ...], states: Collection[str]) -> Exit:
    async with parts.opened_store() as store:
        chosen, code = await _chosen(parts, store, sink, events, states)
        for name, positions in chosen.items():
            # Twice the time of a claim: the clocks of two machines differ.
            now, hold = parts.clock.epoch(), 2 * parts.config.claim
            again = await store.redrive(name, positions, now, hold) if positions else 0
            enabled = name in await disabled(store)
            # Deliveries first: a crash in between leaves a disabled sink, which the same command repairs.
            if name != RELAY_SINK:
                await store.set_status(f"sink/{name}", {"disabled": ""})
            print_line(f"{name}: {again} due again{'; the sink is enabled again' if enabled else ''}")
    return code


async def _discard(
    parts: Assembly, sink: str | None, events: tuple[str, ...], states: Collection[str], *, ask: bool
) -> Exit:
    async with parts.opened_store() as store:
        chosen, code = await _chosen(parts, store, sink, events, states)
        count = sum(map(len, chosen.values()))
        if ask and count and not click.confirm(f"Discard {count} deliveries without sending them?", err=True):
            print_line("nothing was discarded")
            return Exit.FAILED
        for name, positions in chosen.items():
            gone = await store.discard(name, positions) if positions else 0
            print_line(f"{name}: {gone} discarded")
    return code
