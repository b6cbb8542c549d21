"""Delivers to the configured sinks, audits their books, and publishes what becomes of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime

import structlog

from bridge.coordination.leases import wait_for_stop
from bridge.delivery.audit import Audit
from bridge.delivery.claims import ClaimedDelivery
from bridge.delivery.sending import RESULTS, Outcome
from bridge.delivery.worker import DeliveryBackends, DeliveryWorker
from bridge.domain.answers import SINK_ANSWERS
from bridge.domain.catalogue import SinkData, SinkDisabled, SinkEvent, SinkFailing, SinkRecovered, internal_event
from bridge.domain.errors import Unavailable
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.protocols.ledger import Commit
from bridge.protocols.roster import OpenCircuit
from bridge.protocols.sink import Outgoing, SinkSettings
from bridge.runtime.dead_letter_runner import DeadLetterRunner
from bridge.runtime.expiry_totals import publish_totals_often
from bridge.runtime.oldest_waiting import OldestWaiting
from bridge.runtime.process import Process
from bridge.runtime.supervisor import Supervisor

log = structlog.get_logger()

SINK_STATES = ("ok", "paused", "quiet", "circuit open", "disabled")
"""The states of a sink that a process which delivers to it can see."""
_EVENT_OF_STATE: Mapping[str, type[SinkEvent]] = {
    "failing": SinkFailing, "disabled": SinkDisabled, "gone": SinkDisabled, "recovered": SinkRecovered,
    "answering": SinkRecovered,
}  # fmt: skip
"""See `bridge.delivery.endpoint.PublishChange`."""
INTERNAL_JOURNAL = "_bridge"
"""The journal of the bridge's own events; no source can have this name."""
_LAST_NOTE_SECONDS = 1.0
"""Seconds that the last note may wait for the store: a process that is asked to stop has little time."""
_GRACE_SHARE = 0.2
"""The part of the drain time in which a delivery that was begun may end."""


class SinkRunner:
    """The delivering part of a process. In every role it registers the sinks, so that no event is lost to them."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._parts = process.parts
        self._clock = process.clock
        self._store = process.parts.store
        self.audit = Audit(self._store, self._store, self._parts.broker, self._clock)
        self._dead_letters = DeadLetterRunner(process, INTERNAL_JOURNAL)
        self._oldest = OldestWaiting(self._store, self._clock)
        self._activity: dict[str, dict[str, str]] = {}
        """What happened at each sink and is not written to the store yet."""
        self.workers: dict[str, DeliveryWorker] = {}
        """The delivery workers of this process, by sink."""

    def start(self, supervisor: Supervisor) -> None:
        """Start delivering and auditing, a part of each for each sink."""
        for name, part in self._parts.sinks.items():
            supervisor.start(f"sink/{name}", self._deliver(name))
            supervisor.start(f"audit/{name}", self._audit_often(name))
            if part.settings.expired == "summary":
                supervisor.start(f"totals/{name}", publish_totals_often(self._process, name, INTERNAL_JOURNAL))
        supervisor.start("dead letters", self._dead_letters.run)

    # registering

    async def register(self) -> None:
        """Open the books of each sink and declare its queue, before anything is polled.

        Every event that is published from then on is expected at every sink. Raises `Unavailable` for the store; a
        broker that is unavailable is only said in the log.
        """
        known = await self._store.statuses("sink/")
        for name, part in self._parts.sinks.items():
            topics = json.dumps(part.settings.topics)
            if f"sink/{name}" not in known:
                await self.audit.register_sink(name)
                await self._store.set_status(f"sink/{name}", {"since": self._now(), "topics": topics})
            elif known[f"sink/{name}"].get("topics") != topics:
                await self._store.set_status(f"sink/{name}", {"topics": topics})
            try:
                await self._parts.broker.declare(self._parts.broker.sink_queue(name), part.settings.topics)
            except Unavailable as error:
                log.warning(
                    "sink.queue_cannot_be_declared", sink=name, reason=str(error),
                    consequence="tried again; what is published until then is offered from the journal",
                )  # fmt: skip
        for name in sorted(known.keys() - {f"sink/{name}" for name in self._parts.sinks}):
            await self._warn_orphaned_queue(name.removeprefix("sink/"))

    async def _warn_orphaned_queue(self, sink: str) -> None:
        """Say that a sink which left the configuration has left a queue that fills."""
        try:
            messages = await self._parts.broker.depth(self._parts.broker.sink_queue(sink))
        except Unavailable:
            return
        if messages:
            log.warning(
                "sink.is_no_longer_configured", sink=sink, messages=messages,
                consequence="its queue stays bound, and fills until it is deleted",
            )  # fmt: skip

    # delivering

    def _deliver(self, name: str) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            worker = await self.open_worker(name)
            try:
                await worker.run(self._process.stop, grace=self._parts.limits.drain * _GRACE_SHARE)
            finally:
                with suppress(Unavailable, TimeoutError):  # the next process notes what it sees
                    async with asyncio.timeout(_LAST_NOTE_SECONDS):
                        await self.note_activity(name)
                for activity in ("receive", "claim", "renew", "write"):
                    self._process.health.set(f"sink/{name}/{activity}", None)

        return run

    async def open_worker(self, name: str) -> DeliveryWorker:
        """Open a sink, and return its delivery worker, which knows whether the sink is disabled."""
        await self._parts.sinks[name].sink.open()
        worker = self.workers[name] = self._worker(name)
        await self.sync_disabled(name, worker)
        return worker

    def _worker(self, name: str) -> DeliveryWorker:
        part = self._parts.sinks[name]
        metrics = self._process.metrics
        activity = self._activity.setdefault(name, {})
        seconds = metrics.delivery_seconds.labels(name)  # finding a series costs more than counting in it
        results = {result: metrics.deliveries.labels(name, result) for result in RESULTS}
        metrics.offered.labels(name)
        answers = {answer: metrics.sink_answers.labels(name, answer) for answer in SINK_ANSWERS}
        filtered = metrics.filtered.labels(name)
        unsent = {"expired": metrics.expired.labels(name), "muted": filtered}

        async def send(claimed: ClaimedDelivery) -> None:
            await part.sink.send(Outgoing(part.mask(claimed.event), claimed.attempts + 1, self._parts.read))

        async def changed(state: str, reason: str, at: datetime) -> None:
            if state == "gone":
                status = {"disabled": reason, "disabled_at": rfc3339(truncate_to_millis(at))}
                await self._store.set_status(f"sink/{name}", status)
            await self._publish_sink_event(name, state, reason, at)

        def on_outcome(outcome: Outcome) -> None:
            results[outcome.result].inc()
            if outcome.result == "dead":
                self._dead_letters.note(name)
            if outcome.answer:
                answers[outcome.answer].inc()
            seconds.observe(outcome.seconds)
            if outcome.error:
                activity.update(last_error=outcome.error, last_error_at=self._now())
            else:
                activity["last_delivered"] = ""  # the time is written with the note: most events need no clock

        return DeliveryWorker(
            name, part.settings, DeliveryBackends(self._store, self._store, self._parts.broker), self._clock,
            send=send, outcome=on_outcome, changed=changed, claim=self._parts.limits.claim,
            report=lambda activity, reason: self._process.health.set(f"sink/{name}/{activity}", reason),
            gate=self._process.gates.of(f"sink/{name}"), keep_answer=part.keep_answer,
            filtered=filtered.inc, unsent=lambda kind, number: unsent[kind].inc(number),
        )  # fmt: skip

    async def _publish_sink_event(self, name: str, state: str, reason: str, at: datetime) -> None:
        """Publish what became of a sink, by the bridge's own journal; published again, it is the same event."""
        now = truncate_to_millis(at)
        cls = _EVENT_OF_STATE[state]
        event = internal_event(
            cls,
            SinkData,
            source="/bridge/sinks",
            subject=f"/sinks/{name}",
            occurrence=rfc3339(now),
            now=now,
            previous={"recovered": "disabled", "answering": "failing"}.get(state),
            reason=reason or None,
            failures=self._parts.sinks[name].settings.alarm_after if cls is SinkFailing else 0,
        )
        await self._store.commit(None, Commit(INTERNAL_JOURNAL, events=[event.to_wire()]))
        self._process.committed[INTERNAL_JOURNAL].set()

    def open_circuits(self) -> Mapping[str, OpenCircuit]:
        """Return the sinks to which this process sends nothing but probes."""
        circuits = {name: worker.open_circuit for name, worker in self.workers.items()}
        return {name: circuit for name, circuit in circuits.items() if circuit is not None}

    async def note_activity(self, name: str) -> None:
        """Write when a sink last accepted an event, and its last error, if there was any since the last note."""
        activity = self._activity.get(name)
        if not activity:
            return
        note = dict(activity)
        if "last_delivered" in note:
            note["last_delivered"] = self._now()
        activity.clear()
        try:
            await self._store.set_status(f"sink/{name}", note)
        except Unavailable:
            activity.update({**note, **activity})
            raise

    async def sync_disabled(self, name: str, worker: DeliveryWorker) -> None:
        """Disable or enable a worker as the store says; write again what a store that was reset has forgotten."""
        noted = worker.noted  # before the store is read: an HTTP 410 may come in between
        await self._sync(name, worker, noted, (await self._store.statuses(f"sink/{name}")).get(f"sink/{name}", {}))

    async def sync_all(self) -> None:
        """Do the same for all workers of this process, with one question."""
        noted = {name: worker.noted for name, worker in self.workers.items()}
        statuses = await self._store.statuses("sink/") if noted else {}
        for name, was_noted in noted.items():
            await self._sync(name, self.workers[name], was_noted, statuses.get(f"sink/{name}", {}))

    async def _sync(self, name: str, worker: DeliveryWorker, noted: bool, status: Mapping[str, str]) -> None:  # noqa: FBT001 - what the worker said
        if "since" not in status:
            # Otherwise the next start would register the sink as new, and count what it still expects as delivered.
            log.warning(
                "store.reset_detected", sink=name,
                consequence="what the providers show is published again, with the same ids",
            )  # fmt: skip
            await self._store.ping()  # it gets back the installation's mark
            topics = json.dumps(self._parts.sinks[name].settings.topics)
            await self._store.set_status(f"sink/{name}", {"since": self._now(), "topics": topics})
        if status.get("disabled"):
            worker.disable()
        elif noted:
            log.info("sink.enabled", sink=name, consequence="what waited is sent now")
            await self._publish_sink_event(name, "recovered", "", self._clock.now())
            worker.enable()

    # auditing

    def _audit_often(self, name: str) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            while not await wait_for_stop(self._process.stop, self._clock, self._parts.limits.audit_every):
                try:
                    await self._audit_once(name)
                except Unavailable as error:
                    self._process.health.set(f"audit/{name}", str(error))
                    log.debug("audit.waits", sink=name, reason=str(error))
                else:
                    self._process.health.set(f"audit/{name}", None)

        return run

    async def _audit_once(self, name: str) -> None:
        result = await self.audit.run(name, await self._audited_settings(name))
        self._process.metrics.filtered.labels(name).inc(result.filtered)
        if result.offered:
            self._process.metrics.offered.labels(name).inc(result.offered)
            log.warning(
                "audit.lost_events_requeued", sink=name, events=result.offered,
                consequence="the broker lost them; they are sent from the journal",
            )  # fmt: skip
            if name in self.workers:
                self.workers[name].wake()

    async def _audited_settings(self, name: str) -> SinkSettings:
        """Return the sink's settings with the union of our topics and those of the newest process.

        During a rolling update, processes on the old configuration drop events that only the new one selects. An audit
        by the old topics would count them as delivered.
        """
        settings = self._parts.sinks[name].settings
        status = (await self._store.statuses(f"sink/{name}")).get(f"sink/{name}", {})
        topics = dict.fromkeys([*settings.topics, *json.loads(status.get("topics", "[]"))])
        return settings.model_copy(update={"topics": list(topics)})

    async def show(self, name: str) -> None:
        """Set the gauges of one sink."""
        metrics, books = self._process.metrics, await self._store.counts(name)
        metrics.waiting.labels(name).set(sum(count.waiting for count in books.values()))
        metrics.dead.labels(name).set(sum(count.dead for count in books.values()))
        metrics.oldest_waiting.labels(name).set(await self._oldest.age(name, books))
        if (worker := self.workers.get(name)) is not None:
            state = self._state(name, worker)
            for word in SINK_STATES:
                metrics.sink_state.labels(name, word).set(word == state)

    def _state(self, name: str, worker: DeliveryWorker) -> str:
        if worker.disabled:
            return "disabled"
        if self._process.gates.of(f"sink/{name}").pause is not None:
            return "paused"
        if worker.open_circuit is not None:
            return "circuit open"
        quiet = self._parts.sinks[name].settings.quiet
        return "ok" if quiet is None or quiet.at(self._clock.now()) is None else "quiet"

    def _now(self) -> str:
        return rfc3339(truncate_to_millis(self._clock.now()))
