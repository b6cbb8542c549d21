"""Forgets what the journals need not keep any more, and sets the gauges of journals and sinks."""

from __future__ import annotations

import json
from datetime import datetime

import structlog

from bridge.coordination.leases import wait_for_stop
from bridge.domain.errors import Unavailable
from bridge.domain.event_view import EventView
from bridge.protocols.deliveries import RELAY_SINK
from bridge.protocols.ledger import JournalState
from bridge.runtime.parts import ServiceParts
from bridge.runtime.process import Process
from bridge.runtime.sink_runner import SinkRunner

log = structlog.get_logger()

_FULL_SHARE = 0.9
"""A journal that is filled to this part of its bound is trimmed at once; polling stops only when it is full."""
_TRIMMED_SHARE = 0.75
"""The part of its bound to which a full journal is trimmed."""
_MARKS = 100
"""Marks of a journal's past in the time that it is kept: so exact is the time after which an event is forgotten."""


class Retention:
    """Looks at all journals and sinks every few seconds."""

    def __init__(self, process: Process, sinks: SinkRunner) -> None:
        self._process = process
        self._clock = process.clock
        self._sinks = sinks

    @property
    def _parts(self) -> ServiceParts:
        return self._process.parts

    async def run(self) -> None:
        """Work until the process stops."""
        limits = self._parts.limits
        trimmed = float("-inf")  # at once: a process that is killed each minute would never trim
        while not await wait_for_stop(self._process.stop, self._clock, limits.gauges_every):
            due = self._clock.monotonic() - trimmed >= limits.trim_every
            try:
                await self._run_once(due=due)
            except Unavailable as error:
                self._process.health.set("books", str(error))
                log.debug("books.wait", reason=str(error))
            else:
                self._process.health.set("books", None)
                trimmed = self._clock.monotonic() if due else trimmed

    async def _run_once(self, *, due: bool) -> None:
        await self._sinks.sync_all()
        for name in list(self._sinks.workers):
            await self._sinks.note_activity(name)
            await self._sinks.show(name)
        if "relay" in self._process.roles:
            await self._sinks.show(RELAY_SINK)
        await self._show_polls()
        for source in await self._parts.store.sources():
            state = await self._parts.store.journal(source)
            self._process.metrics.backlog.labels(source).set(state.backlog)
            self._process.metrics.journal_bytes.labels(source).set(state.bytes)
            self._process.metrics.oldest_unconfirmed.labels(source).set(await self._oldest_unconfirmed(source, state))
            if "relay" in self._process.roles and (due or self._is_nearly_full(state)):
                await self._trim(source, state)

    async def _show_polls(self) -> None:
        """Show when each source was last polled well, by any process."""
        notes = await self._parts.store.statuses("source/")
        for source in self._parts.sources:
            if last_ok := notes.get(f"source/{source}", {}).get("last_ok"):
                self._process.metrics.last_ok.labels(source).set(datetime.fromisoformat(last_ok).timestamp())

    async def _oldest_unconfirmed(self, source: str, state: JournalState) -> float:
        """Return for how many seconds the oldest event has waited for the broker's confirmation; 0 if none waits."""
        entries = await self._parts.store.read(source, state.confirmed, 1) if state.backlog else ()
        recorded = EventView.of(entries[0]).recorded if entries else None
        return 0.0 if recorded is None else max(0.0, (self._clock.now() - recorded).total_seconds())

    def _is_nearly_full(self, state: JournalState) -> bool:
        return state.bytes > self._parts.limits.journal_bytes * _FULL_SHARE

    async def _trim(self, source: str, state: JournalState) -> None:
        """Forget what exceeds the journal's bounds, never what is not confirmed and settled everywhere."""
        store, limits = self._parts.store, self._parts.limits
        now = self._clock.epoch()
        status = f"journal/{source}"
        stored = (await store.statuses(status)).get(status, {})
        marks = [(float(at), int(upto)) for at, upto in json.loads(stored.get("marks", "[]"))]
        old = [upto for at, upto in marks if now - at > limits.journal_keep]
        before = await self._settled_before(source, state, max(old, default=0) + 1)
        marks = [(at, upto) for at, upto in marks if now - at <= limits.journal_keep]
        if not marks or now - marks[-1][0] >= limits.journal_keep / _MARKS:
            marks.append((now, state.committed))
        if old:
            marks.insert(0, (now - limits.journal_keep, max(old)))
        if before > state.first and (forgotten := await store.trim(source, before)):
            for sink in self._parts.sinks:
                await store.forget(source, before)
                log.debug("journal.trimmed", source=source, sink=sink, events=forgotten)
        # Last: a store that is out of memory accepts no writes, and trimming frees memory.
        await store.set_status(status, {"marks": json.dumps(marks)})

    async def _settled_before(self, source: str, state: JournalState, before: int) -> int:
        """Return the number before which the journal may be forgotten: not `before` if a sink still waits."""
        store, limits = self._parts.store, self._parts.limits
        kept = state.committed - state.first + 1
        if self._is_nearly_full(state) and kept > 0:
            share = 1 - limits.journal_bytes * _TRIMMED_SHARE / state.bytes
            before = max(before, state.first + int(kept * share))
        for sink in self._parts.sinks:
            before = min(before, await store.low_watermark(sink, source) + 1)
        for sink in (*self._parts.sinks, RELAY_SINK):
            if before > state.first and (oldest := await store.oldest(sink, source)) is not None:
                before = min(before, oldest)
        return before
