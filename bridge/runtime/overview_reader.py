"""Reads what an overview shows: from the store, without writing to it, and from the broker whether it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from bridge.domain.errors import BridgeError
from bridge.protocols.deliveries import RELAY_SINK, DeliveryCounts
from bridge.protocols.ledger import JournalState
from bridge.protocols.roster import Orders, Presence
from bridge.runtime.oldest_waiting import oldest_waiting
from bridge.runtime.overview import (
    Overview,
    SinkView,
    SourceView,
    findings_of,
    is_served,
    moment,
    sink_state,
    source_state,
)

if TYPE_CHECKING:
    from bridge.protocols.store import Store
    from bridge.runtime.assembly import Assembly

_STORE_SECONDS = 6.0
_BROKER_SECONDS = 6.0
_LATE_SECONDS = 60.0
_OWN = "~"
"""What the cursor entries of the bridge's own making begin with."""


async def read_overview(parts: Assembly) -> Overview:
    """Return how all is now; what cannot be reached within a few seconds is said to be unreachable."""

    async def read() -> Seen:
        async with parts.opened_store(read_only=True) as store:
            return await _read_parts(parts, store)

    return await _overview_of(parts, read, partial(_broker_problem, parts))


async def read_open_overview(
    parts: Assembly, store: Callable[[], Awaitable[Store]], ping: Callable[[], Awaitable[None]]
) -> Overview:
    """Return how all is now, by a store that `store` opens or keeps open; `ping` asks the broker."""

    async def read() -> Seen:
        return await _read_parts(parts, await store())

    return await _overview_of(parts, read, partial(_problem, ping))


async def _overview_of(
    parts: Assembly, read: Callable[[], Awaitable[Seen]], ask_broker: Callable[[], Awaitable[str | None]]
) -> Overview:
    (seen, store_problem), broker_problem = await asyncio.gather(_read_store(read), ask_broker())
    shown, now = parts.config.show(), parts.clock.now()
    if seen is None:
        sources = [SourceView(name, part.type, "unknown") for name, part in parts.config.sources.items()]
        sinks = [SinkView(name, part.type, "unknown") for name, part in parts.config.sinks.items()]
        seen = ([], sources, sinks)
    overview = Overview(now, str(shown["store"]), str(shown["broker"]), store_problem, broker_problem, *seen)
    return _with_findings(overview)


def _with_findings(overview: Overview) -> Overview:
    values = {name: getattr(overview, name) for name in overview.__dataclass_fields__}
    return Overview(**values | {"findings": findings_of(overview)})


Seen = tuple[list[Presence], list[SourceView], list[SinkView]]


async def _read_parts(parts: Assembly, store: Store) -> Seen:
    presences, orders = list(await store.presences()), await store.orders()
    sources = await read_sources(parts, store, orders)
    served = is_served(presences, sources)
    return presences, sources, await read_sinks(parts, store, orders, presences, served=served)


async def _read_store(read: Callable[[], Awaitable[Seen]]) -> tuple[Seen | None, str | None]:
    try:
        return await asyncio.wait_for(read(), _STORE_SECONDS), None
    except TimeoutError:
        return None, f"no answer within {_STORE_SECONDS:g} s"
    except BridgeError as error:
        return None, str(error)


async def _broker_problem(parts: Assembly) -> str | None:
    broker = parts.broker()
    try:
        return await _problem(broker.reach)
    finally:
        await broker.close()


async def _problem(reach: Callable[[], Awaitable[None]]) -> str | None:
    try:
        await asyncio.wait_for(reach(), _BROKER_SECONDS)
    except TimeoutError:
        return f"no answer within {_BROKER_SECONDS:g} s"
    except BridgeError as error:
        return str(error)
    return None


# --- sources ------------------------------------------------------------------------------------------------------


async def read_sources(parts: Assembly, store: Store, orders: Orders) -> list[SourceView]:
    """Return the configured sources."""
    notes, relays = await store.statuses("source/"), await store.statuses("relay/")
    views = []
    for name in parts.config.sources:
        note, relay = notes.get(f"source/{name}", {}), relays.get(f"relay/{name}", {})
        views.append(await _source(parts, store, orders, name, note, relay))
    return views


async def _source(
    parts: Assembly, store: Store, orders: Orders, name: str, note: Mapping[str, str], relay: Mapping[str, str]
) -> SourceView:
    settings, pause = parts.config.sources[name], orders.pauses.get(f"source/{name}")
    journal: JournalState = await store.journal(name)
    holder = await store.holder(f"source/{name}")
    late_after = max(_LATE_SECONDS, settings.stall_after)
    state, since = source_state(note, holder, pause, parts.clock.now(), late_after)
    return SourceView(
        name=name,
        type=settings.type,
        state=state,
        since=since,
        reported=note.get("state", ""),
        last_poll=moment(note.get("last_poll")),
        last_ok=moment(note.get("last_ok")),
        next_poll=moment(note.get("next_poll")),
        failures=int(note.get("failures") or 0),
        failing_since=moment(note.get("failing_since")),
        error=note.get("error") or None,
        cursor=sum(not key.startswith(_OWN) for key in await store.cursor(name)),
        watched=len(await store.watched(name)),
        committed=journal.events,
        confirmed=journal.events - journal.backlog,
        kept=max(journal.committed - journal.first + 1, 0),
        unroutable=journal.unroutable,
        unroutable_at=moment(relay.get("unroutable_at")),
        routed_at=moment(relay.get("routed_at")),
        holder=holder,
        pause=pause,
    )


# --- sinks --------------------------------------------------------------------------------------------------------


async def read_sinks(
    parts: Assembly, store: Store, orders: Orders, presences: list[Presence], *, served: bool
) -> list[SinkView]:
    """Return the configured sinks, and the relay as `@relay` if it has dead letters; see `is_served`."""
    notes = await store.statuses("sink/")
    running = [presence.member for presence in presences if not presence.gone]
    views = []
    for name, settings in parts.config.sinks.items():
        note, pause = notes.get(f"sink/{name}", {}), orders.pauses.get(f"sink/{name}")
        circuits = [member.circuits[name] for member in running if name in member.circuits]
        quiet = None if settings.quiet is None else settings.quiet.at(parts.clock.now())
        state, since, reason = sink_state(note, circuits, pause, quiet, is_served=served)
        books = await _books(store, name)
        views.append(SinkView(
            name, settings.type, state, since, reason, books.delivered, books.waiting, books.dead, books.discarded,
            books.filtered, books.expired,
            oldest=await oldest_waiting(store, name, await store.counts(name)) if books.waiting else None,
            last_error=note.get("last_error") or None,
            last_error_at=moment(note.get("last_error_at")),
            last_delivered=moment(note.get("last_delivered")),
            pause=pause,
            quiet=quiet,
            mutes=orders.lasting_mutes(parts.clock.epoch(), name),
        ))  # fmt: skip
    relay = await _books(store, RELAY_SINK)
    if relay.dead or relay.waiting:
        views.append(SinkView(RELAY_SINK, "relay", "ok", waiting=relay.waiting, dead=relay.dead))
    return views


async def _books(store: Store, sink: str) -> DeliveryCounts:
    counts = (await store.counts(sink)).values()
    return DeliveryCounts(
        delivered=sum(count.delivered for count in counts),
        waiting=sum(count.waiting for count in counts),
        dead=sum(count.dead for count in counts),
        discarded=sum(count.discarded for count in counts),
        filtered=sum(count.filtered for count in counts),
        expired=sum(count.expired for count in counts),
    )
