"""`bridgectl deliveries`: what waits for another try, and dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from bridge.cli.support.answers import shown_answer
from bridge.cli.support.delivery_options import filter_of, filter_options, page_mark
from bridge.cli.support.delivery_rows import delivery_row, masked_event, masked_subject
from bridge.cli.support.names import complete_sinks
from bridge.cli.support.notes import print_error
from bridge.cli.support.options import Exit, Group, config_option, json_option
from bridge.cli.support.output import print_json, print_line, print_table, print_text
from bridge.cli.support.program import in_typed_name
from bridge.cli.support.running import load_assembly, run
from bridge.cli.support.suggestions import no_such
from bridge.domain.event import JournalEntry, Position
from bridge.domain.event_view import EventView
from bridge.operations.deliveries import (
    count_deliveries,
    discard_deliveries,
    known_sinks,
    plain_delivery,
    redrive_deliveries,
)
from bridge.operations.delivery_filter import STATES, DeliveryFilter, PageMark, Selected, select, sinks_from
from bridge.operations.disabled_sinks import Disabled, disabled
from bridge.operations.journal import find
from bridge.protocols.deliveries import Delivery
from bridge.protocols.store import Store
from bridge.runtime.assembly import Assembly


@click.group(
    cls=Group,
    examples="""
    bridgectl deliveries list -c bridge.yaml
    bridgectl deliveries show crm city-voice:1042 -c bridge.yaml
    bridgectl deliveries redrive crm --dead -c bridge.yaml
    """,
)
def deliveries() -> None:
    """Work on deliveries that wait for another try, and on dead letters.

    The sink @relay stands for the relay: its dead letters are events that the broker did not accept.
    """


@deliveries.command(
    name="list",
    examples="""
    bridgectl deliveries list -c bridge.yaml                          all sinks, those due first at the top
    bridgectl deliveries list crm --dead -c bridge.yaml               dead letters of one sink
    bridgectl deliveries list crm --code 422 --since 2h -c bridge.yaml
    bridgectl deliveries list --json -c bridge.yaml | jq -r '.deliveries[].id'
    """,
)
@click.argument("sink", required=False, shell_complete=complete_sinks)
@config_option
@filter_options
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
@click.option("--after", metavar="MARK", help="The next page: what the page before ended with.")
@json_option
def list_(sink: str | None, config_file: Path, limit: int, after: str | None, *, as_json: bool, **options: Any) -> Exit:
    """List what waits, and dead letters: of one sink, or of all; then the totals, and which sinks are disabled.

    The totals count what waits and what is dead in all, and how many of these match the filter.
    """
    wanted, mark = filter_of(options), page_mark(after)
    parts = load_assembly(config_file, with_secrets=False)
    page = run(_list(parts, sink, wanted, mark, limit))
    if as_json:
        print_json({"deliveries": page.rows, "totals": page.totals, "next": page.following})
        return Exit.DONE
    now = parts.clock.now()
    if page.rows:
        headers = ["sink", "position", "topic", "subject", "state", "tries", "due", "last error"]
        rows = [delivery_row(row, subject, now) for row, subject in zip(page.rows, page.subjects, strict=True)]
        print_table(headers, rows, give_way=("tries", "due", "topic", "subject"), prose="last error")
    for sink_off in page.disabled:
        print_line(f"{sink_off.sink}: {in_typed_name(str(sink_off))}")
    print_line(_totals(page))
    return Exit.DONE


@dataclass(slots=True)
class _Page:
    """One page of a list."""

    totals: dict[str, int]
    disabled: list[Disabled]
    rows: list[dict[str, Any]] = field(default_factory=list)
    subjects: list[str | None] = field(default_factory=list)
    """Those of the rows, as a person may see them."""
    following: str | None = None
    """The mark of the next page; None if there is none."""


def _totals(page: _Page) -> str:
    totals = page.totals
    books = f"{totals['waiting']} waiting, {totals['dead']} dead"
    if not page.rows:
        return f"nothing to list; in all: {books}"
    more = f"; the next page: --after {page.following}" if page.following else ""
    return f"{len(page.rows)} of {totals['matched']} shown; in all: {books}{more}"


@deliveries.command(
    examples="""
    bridgectl deliveries show crm city-voice:1042 -c bridge.yaml
    bridgectl deliveries show crm 5f0c6d1be2a94d2c8f6a3f0e9d8c7b6a -c bridge.yaml --json
    """
)
@click.argument("sink", shell_complete=complete_sinks)
@click.argument("event", metavar="POSITION|EVENT-ID")
@config_option
@json_option
def show(sink: str, event: str, config_file: Path, *, as_json: bool) -> Exit:
    """Show one delivery with the history of its tries, and the event itself.

    Of phones, addresses and keys in the event the last four characters are shown; --json has them in full.
    """
    parts = load_assembly(config_file, with_secrets=False)
    described, entry, gone = run(_show(parts, sink, event))
    if as_json:
        print_json(described)
        return Exit.DONE
    for key in ("sink", "position", "id", "topic", "subject", "state", "reason", "due"):
        if described[key]:
            print_line(f"{key + ':':<10} {described[key]}")
    if gone is not None:
        print_line(f"{'note:':<10} {in_typed_name(str(gone))}")
    for number, attempt in enumerate(described["attempts"], 1):
        print_line(f"try {number}:     {attempt['at']}  {attempt['kind']}: {attempt['error']}")
    if described["answer"] is not None:
        print_line(f"answer:    {shown_answer(described['answer'])}")
    print_text(f"event:     {masked_event(entry)}")
    return Exit.DONE


@deliveries.command(
    examples="""
    bridgectl deliveries redrive crm city-voice:1042 -c bridge.yaml    one
    bridgectl deliveries redrive crm --dead -c bridge.yaml             all dead letters of a sink
    bridgectl deliveries redrive crm --code 503 --yes -c bridge.yaml   those that were answered with 503
    bridgectl deliveries redrive @relay --dead -c bridge.yaml          what the broker did not accept, to the broker
    bridgectl deliveries redrive --all -c bridge.yaml                  whatever waits or is dead, of all sinks
    """
)
@click.argument("sink", required=False, shell_complete=complete_sinks)
@click.argument("events", nargs=-1, metavar="[POSITION|EVENT-ID]...")
@config_option
@filter_options
@click.option("--all", "everything", is_flag=True, help="All dead letters, and all that waits.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def redrive(
    sink: str | None, events: tuple[str, ...], config_file: Path, *, everything: bool, yes: bool, as_json: bool,
    **options: Any,
) -> Exit:  # fmt: skip
    """Make deliveries due now, with the count of tries starting again.

    What is due within seconds by itself, or is being sent at this moment, keeps its time. A sink that was disabled,
    because its endpoint said that it is gone, is enabled again by this. If a filter chooses more than by --dead, it is
    asked whether that is meant. Exits with 1 if an event that is named neither waits nor is a dead letter.
    """
    wanted = _selects(sink, events, options, everything=everything)
    parts = load_assembly(config_file, with_secrets=False)
    done = run(_redrive(parts, sink, events, wanted, ask=wanted.is_narrow and not yes))
    return _report(done, as_json=as_json)


@deliveries.command(
    examples="""
    bridgectl deliveries discard crm city-voice:1042 -c bridge.yaml
    bridgectl deliveries discard crm --dead --yes -c bridge.yaml
    bridgectl deliveries discard crm --topic 'sms.#' --until 7d -c bridge.yaml
    """
)
@click.argument("sink", required=False, shell_complete=complete_sinks)
@click.argument("events", nargs=-1, metavar="[POSITION|EVENT-ID]...")
@config_option
@filter_options
@click.option("--all", "everything", is_flag=True, help="All dead letters, and all that waits.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def discard(
    sink: str | None, events: tuple[str, ...], config_file: Path, *, everything: bool, yes: bool, as_json: bool,
    **options: Any,
) -> Exit:  # fmt: skip
    """End deliveries without sending them. The events stay in the journal: `bridgectl replay` brings them back.

    Exits with 1 if an event that is named neither waits nor is a dead letter.
    """
    wanted = _selects(sink, events, options, everything=everything)
    parts = load_assembly(config_file, with_secrets=False)
    return _report(run(_discard(parts, sink, events, wanted, ask=not yes)), as_json=as_json)


@dataclass(slots=True)
class _Done:
    """What became of the deliveries that were chosen, by sink."""

    word: str
    counts: dict[str, int] = field(default_factory=dict)
    enabled: list[str] = field(default_factory=list)
    """The sinks that were disabled and are not any more."""
    missing: list[str] = field(default_factory=list)
    """What was named and neither waits nor is dead."""
    refused: bool = False
    """Whether the operator did not confirm, so that nothing was done."""


def _report(done: _Done, *, as_json: bool) -> Exit:
    if as_json:
        rows = [
            {"sink": name, done.word.replace(" ", "_"): count, "enabled": name in done.enabled}
            for name, count in done.counts.items()
        ]
        print_json({"sinks": rows, "missing": done.missing})
    elif done.refused:
        print_line(f"nothing was {'discarded' if done.word == 'discarded' else 'redriven'}")
    else:
        for name, count in done.counts.items():
            enabled = "; the sink is enabled again" if name in done.enabled else ""
            print_line(f"{name}: {count} {done.word}{enabled}")
    return Exit.FAILED if done.missing or done.refused else Exit.DONE


def _selects(sink: str | None, events: tuple[str, ...], options: dict[str, Any], *, everything: bool) -> DeliveryFilter:
    wanted = filter_of(options)
    filtered = wanted.is_narrow or wanted.states != STATES or options["status"] is not None
    if (bool(events) + filtered + everything) != 1:
        raise click.UsageError("say which: POSITION or EVENT-ID of a sink, or a filter such as --dead, or --all")
    if events and sink is None:
        raise click.UsageError("name the sink")
    return wanted


async def _sinks(parts: Assembly, store: Store, sink: str | None) -> list[str]:
    names = await known_sinks(parts.config.sinks, store, sink)
    if sink is not None and not names:
        raise no_such("sink", sink, parts.config.sinks, "in the configuration, nor in the store")
    return names


async def _list(parts: Assembly, sink: str | None, wanted: DeliveryFilter, mark: PageMark | None, limit: int) -> _Page:
    async with parts.opened_store(read_only=True) as store:
        off = await disabled(store)
        names = await _sinks(parts, store, sink)
        page = _Page(await count_deliveries(store, names, wanted), [off[name] for name in names if name in off])
        try:
            listed = sinks_from(names, mark)
        except ValueError as error:
            raise click.UsageError(f"--after: {error}") from None
        for name in listed:
            after = mark.place if mark is not None and mark.sink == name else None
            async for selected in select(store, name, wanted, after):
                if len(page.rows) == limit:
                    return page
                page.rows.append(plain_delivery(selected, off))
                page.subjects.append(masked_subject(selected))
                page.following = str(PageMark(name, selected.delivery.place))
        page.following = None
    return page


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
    async with parts.opened_store(read_only=True) as store:
        await _sinks(parts, store, sink)
        position = await _position(store, event)
        delivery = await store.delivery(sink, position)
        entry = (await store.entries([position]))[0]
        off = await disabled(store)
        if delivery is None:
            settled = await store.settled(sink, position)
            if not settled and entry is None:
                raise click.ClickException(_absent(event))
            state = "delivered, or discarded" if settled else "never offered to this sink"
            state = "not selected by its filter" if await store.filtered(sink, position) else state
            unsent = await store.unsent(sink, position)
            state = state if unsent is None else unsent.kind
            delivery = Delivery(sink, position, due=0.0, state=state)
        described = plain_delivery(Selected(delivery, None if entry is None else EventView.of(entry)), off)
        if delivery.state not in ("waiting", "dead"):
            described["due"] = None
        described["event"] = entry and EventView.of(entry).body
        return described, entry, off.get(sink)


async def _chosen(
    parts: Assembly, store: Store, sink: str | None, events: tuple[str, ...], wanted: DeliveryFilter
) -> tuple[dict[str, list[Position]], list[str]]:
    """Return what to work on, by sink, and what was named and is no delivery."""
    if events and sink is not None:
        await _sinks(parts, store, sink)
        named = [await _position(store, text) for text in events]
        present = [position for position in named if await store.delivery(sink, position) is not None]
        missing = [str(position) for position in named if position not in present]
        for position in missing:
            print_error(f"{sink}: {position} neither waits nor is a dead letter")
        return {sink: present}, missing
    return {
        name: [selected.delivery.position async for selected in select(store, name, wanted)]
        for name in await _sinks(parts, store, sink)
    }, []


def _is_refused(chosen: Mapping[str, Sequence[Position]], question: str, *, ask: bool) -> bool:
    """Ask whether that is meant, if there is anything to do."""
    count = sum(map(len, chosen.values()))
    return ask and count > 0 and not click.confirm(question.format(count), err=True)


async def _redrive(
    parts: Assembly, sink: str | None, events: tuple[str, ...], wanted: DeliveryFilter, *, ask: bool
) -> _Done:
    done = _Done("due again")
    async with parts.opened_store() as store:
        chosen, done.missing = await _chosen(parts, store, sink, events, wanted)
        if _is_refused(chosen, "Make {} deliveries due now?", ask=ask):
            done.refused = True
            return done
        for name, positions in chosen.items():
            done.counts[name], enabled = await redrive_deliveries(parts, store, name, positions)
            done.enabled += [name] if enabled else []
    return done


async def _discard(
    parts: Assembly, sink: str | None, events: tuple[str, ...], wanted: DeliveryFilter, *, ask: bool
) -> _Done:
    done = _Done("discarded")
    async with parts.opened_store() as store:
        chosen, done.missing = await _chosen(parts, store, sink, events, wanted)
        if _is_refused(chosen, "Discard {} deliveries without sending them?", ask=ask):
            done.refused = True
            return done
        for name, positions in chosen.items():
            done.counts[name] = await discard_deliveries(store, name, positions)
    return done
