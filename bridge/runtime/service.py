"""The long-lived process: polls, relays, delivers, keeps the books, and ends in good order."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from bridge import __version__
from bridge.coordination.leases import LeaseRunner, hold_lease, new_owner, wait_for_stop
from bridge.coordination.quota import SharedQuota, accounts, polling_lease, takeover_cooldown
from bridge.delivery import masking
from bridge.delivery.audit import Audit
from bridge.delivery.claims import CLAIM, ClaimedDelivery
from bridge.delivery.sending import RESULTS, Outcome
from bridge.delivery.worker import DeliveryBackends, DeliveryWorker
from bridge.domain.catalogue import SinkData, SinkDisabled, SinkEvent, SinkRecovered, internal_event
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, Unavailable
from bridge.domain.event import Event, WireEvent
from bridge.domain.retry import RECONNECT, backoff
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.ingest.intake import Intake, PollResult
from bridge.ingest.poller import Poller, PollListener, describe_unexpected
from bridge.observability.metrics import Metrics
from bridge.protocols.broker import QUEUE_PREFIX, Broker
from bridge.protocols.ledger import Commit, JournalState, Lease
from bridge.protocols.sink import Outgoing, Sink, SinkSettings
from bridge.protocols.source import Reconcilable, Source, SourceSettings
from bridge.reconciliation.monitor import ReconciliationMonitor
from bridge.reconciliation.reconciler import Reconciler
from bridge.relay.recent_entries import RecentEntries
from bridge.relay.relay import Relay
from bridge.runtime.assembly import Assembly, Store
from bridge.web.health_server import Health, HealthServer

log = structlog.get_logger()

ROLES = ("poll", "relay", "sink")
INTERNAL_JOURNAL = "_bridge"
"""The journal of events about the bridge itself; no source can be called so."""
_BACKLOG = 50_000
_NEARLY = 0.9
_LOST_AFTER = 10.0
_ASK_JOURNAL = {True: 2.0, False: 0.25}
_ANSWER_WITHIN = 3.0
_ONCE_WITHIN = 120.0
_LISTEN_AGAIN = 2.0


@dataclass(frozen=True, slots=True)
class ConfiguredSource:
    """A source as it was built from the configuration."""

    kind: str
    settings: SourceSettings
    source: Source


@dataclass(frozen=True, slots=True)
class ConfiguredSink:
    """A sink as it was built from the configuration."""

    settings: SinkSettings
    sink: Sink
    mask: Callable[[WireEvent], WireEvent]
    """Takes away what this sink may not see."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the process may keep and how long it may take."""

    lease: float = 15.0
    claim: float = CLAIM
    drain: float = 25.0
    journal_keep: float = 168 * 3600.0
    journal_bytes: int = 1024**3
    look_every: float = 10.0
    """Between two looks for events that a broker lost; more than a message needs from broker to store."""
    books_every: float = 5.0
    trim_every: float = 60.0
    reconcile_every: float | None = None
    """Between two comparisons of a source's books with its provider; None is never."""


@dataclass(frozen=True, slots=True)
class ServiceParts:
    """Everything a service is made of; nothing of it was opened yet."""

    store: Store
    broker: Broker
    sources: Mapping[str, ConfiguredSource]
    sinks: Mapping[str, ConfiguredSink]
    read: Callable[[bytes], Event]
    """Reads an event's bytes into its class."""
    open: Callable[[], Awaitable[None]]
    """Opens the store and tries the broker; may be called again after `Unavailable`."""
    limits: Limits = field(default_factory=Limits)


def build(assembly: Assembly) -> ServiceParts:
    """Return the parts that a configuration names; raises `ConfigError`, and has no side effects."""
    config = assembly.config
    store, broker = assembly.store(), assembly.broker()
    keys: list[bytes] = []

    async def open_both() -> None:
        assembly.make_state()
        await store.open()
        if not keys and any(settings.privacy != "full" for settings in config.sinks.values()):
            keys.append(await assembly.privacy_key(store))
        try:
            await broker.open()
        except Unavailable as error:
            log.warning(
                "bridge.starts_without_broker",
                reason=str(error),
                consequence="events wait in the journal until it is back",
            )

    def mask(settings: SinkSettings) -> Callable[[WireEvent], WireEvent]:
        return lambda wire: masking.apply(settings.privacy, wire, keys[0] if keys else b"")

    return ServiceParts(
        store=store,
        broker=broker,
        sources={
            name: ConfiguredSource(config.sources[name].type, config.sources[name], source)
            for name, source in assembly.sources().items()
        },
        sinks={
            name: ConfiguredSink(config.sinks[name], sink, mask(config.sinks[name]))
            for name, sink in assembly.sinks().items()
        },
        read=assembly.catalogue().read,
        open=open_both,
        limits=Limits(
            lease=config.lease,
            claim=config.claim,
            look_every=config.audit,
            reconcile_every=config.reconcile.every,
            drain=config.drain_timeout,
            journal_keep=config.journal.keep,
            journal_bytes=config.journal.max_bytes,
        ),
    )


@dataclass(slots=True)
class OnceReport:
    """What `once` came to."""

    rounds: dict[str, PollResult] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    published: int = 0
    unroutable: int = 0
    deliveries: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def events(self) -> int:
        """How many events were committed."""
        return sum(result.events for result in self.rounds.values())


class Service(PollListener):
    """Runs the roles of one process.

    Each source, each sink and each relay is a part of its own: one that fails backs off and is started again, and takes
    none of the others down.
    """

    def __init__(self, parts: ServiceParts, clock: Clock, *, roles: Collection[str] = ROLES) -> None:
        self.metrics = Metrics()
        self.health = Health()
        self.owner = new_owner()
        self._parts = parts
        self._clock = clock
        self._roles = frozenset(roles)
        self._stop_taking = asyncio.Event()
        self._stop_relaying = asyncio.Event()
        self._stop = asyncio.Event()
        self._committed: dict[str, asyncio.Event] = {}
        self._fresh: dict[str, RecentEntries] = {}
        self._deliveries: dict[str, DeliveryWorker] = {}
        self._backlogs: dict[str, JournalState] = {}
        self._audit = Audit(parts.store, parts.store, parts.broker, clock)
        self._holder = LeaseRunner(parts.store, clock, self.owner, parts.limits.lease)
        self._beat = clock.monotonic()
        self.pages = HealthServer(self.metrics, self.health, refresh=self._refresh, beat=self._silence)
        self.states: dict[str, str] = {}
        """The state of each source that this process polls: ok, failing, stalled, held or standby."""

    # running

    async def run(self, stop: asyncio.Event, *, listen: tuple[str, int] | None = None) -> None:
        """Work until `stop` is set, then drain: stop polling, relay, finish or hand back deliveries, and return."""
        log.info("bridge.starts", version=__version__, roles=sorted(self._roles), owner=self.owner)
        beside = [asyncio.ensure_future(self._keep_beating())]
        if listen is not None:
            beside.append(asyncio.ensure_future(self._serve_pages(*listen)))
        try:
            if await self._open(stop):
                await self._work(stop)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self.pages.stop()
            await self._close()
            log.info("bridge.ended", consequence="what was not finished goes on at the next start")

    async def _work(self, stop: asyncio.Event) -> None:
        polling = [asyncio.ensure_future(task) for task in self._polling()] if "poll" in self._roles else []
        relaying = [asyncio.ensure_future(self._relays())] if "relay" in self._roles else []
        sinking = [asyncio.ensure_future(task) for task in self._sinking()] if "sink" in self._roles else []
        keeping = [asyncio.ensure_future(self._supervised("books", self._keep_books))]
        try:
            await stop.wait()
            log.info("bridge.drains", consequence=f"polling stops; everything else ends within {self._drain:g} s")
            deadline = self._clock.monotonic() + self._drain
            self._stop_taking.set()
            await self._ended(polling, deadline - self._drain * 0.6)
            # What was committed last still goes to the broker.
            self._stop_relaying.set()
            await self._ended(relaying, deadline - self._drain * 0.3)
            self._stop.set()
            await self._ended([*sinking, *keeping], deadline)
        finally:
            self._stop.set()
            everything = [*polling, *relaying, *sinking, *keeping]
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)

    @property
    def _drain(self) -> float:
        return self._parts.limits.drain

    async def _ended(self, tasks: Collection[asyncio.Future[None]], deadline: float) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.5, deadline - self._clock.monotonic()))

    async def _open(self, stop: asyncio.Event) -> bool:
        """Open the store and the books of the sinks, however long it takes; say whether to go on."""
        failures = 0
        while not stop.is_set():
            try:
                await self._parts.open()
                await self._open_books()
            except Unavailable as error:
                failures += 1
                wait = backoff(failures, self._clock.random, cap=RECONNECT)
                self.health.set("store", str(error))
                log.warning("bridge.waits_for_store", reason=str(error), again_in=round(wait, 1))
                await wait_for_stop(stop, self._clock, wait)
            else:
                self.health.set("store", None)
                return True
        return False

    async def _open_books(self) -> None:
        # Before anything is polled, in every role: what is published from now on is owed to every sink.
        store = self._parts.store
        known = await store.statuses("sink/")
        for name, part in self._parts.sinks.items():
            topics = json.dumps(part.settings.topics)
            if f"sink/{name}" not in known:
                await self._audit.register_sink(name)
                await store.set_status(f"sink/{name}", {"since": self._stamp(), "topics": topics})
            elif known[f"sink/{name}"].get("topics") != topics:
                await store.set_status(f"sink/{name}", {"topics": topics})
            try:
                await self._parts.broker.declare(QUEUE_PREFIX + name, part.settings.topics)
            except Unavailable as error:
                log.warning(
                    "sink.queue_cannot_be_declared", sink=name, reason=str(error),
                    consequence="tried again; what is published until then is offered from the journal",
                )  # fmt: skip
        for name in sorted(known.keys() - {f"sink/{name}" for name in self._parts.sinks}):
            await self._look_at_former(name.removeprefix("sink/"))

    async def _look_at_former(self, sink: str) -> None:
        """Say that a sink which left the configuration has left a queue that fills."""
        try:
            messages = await self._parts.broker.depth(QUEUE_PREFIX + sink)
        except Unavailable:
            return
        if messages:
            log.warning(
                "sink.is_no_longer_configured", sink=sink, messages=messages,
                consequence="its queue stays bound, and fills until it is deleted",
            )  # fmt: skip

    async def _close(self) -> None:
        closers: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            *((f"source {name}", part.source.close) for name, part in self._parts.sources.items()),
            *((f"sink {name}", part.sink.close) for name, part in self._parts.sinks.items()),
            ("broker", self._parts.broker.close),
            ("store", self._parts.store.close),
        ]
        for name, close in closers:
            try:
                await close()
            except Exception as error:  # noqa: BLE001 - the others still want to be closed
                log.warning("part.cannot_be_closed", part=name, error=describe_unexpected(error))

    async def _supervised(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            started = self._clock.monotonic()
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - one part's defect must not take the others down
                failures = 1 if self._clock.monotonic() - started > 60 else failures + 1  # noqa: PLR2004 - a good minute
                wait = backoff(failures, self._clock.random, cap=60.0)
                reason = str(error) if isinstance(error, BridgeError) else describe_unexpected(error)
                self.metrics.restarts.labels(name).inc()
                log.error(  # noqa: TRY400 - a traceback could quote data
                    "part.fails_and_is_started_again", part=name, reason=reason, again_in=round(wait, 1)
                )
                if await wait_for_stop(self._stop, self._clock, wait):
                    return
            else:
                return

    # polling

    def _polling(self) -> list[Awaitable[None]]:
        return [self._supervised(polling_lease(names), self._polls_of(names)) for names in self._accounts()]

    def _accounts(self) -> Sequence[tuple[str, ...]]:
        return accounts({name: part.source for name, part in self._parts.sources.items()})

    def _rate(self, names: Sequence[str]) -> float:
        return min(self._parts.sources[name].settings.rate for name in names)

    def _share(self, names: Sequence[str]) -> SharedQuota:
        return SharedQuota.for_service(self._parts.store, self._clock, names, self._rate(names))

    def _polls_of(self, names: Sequence[str]) -> Callable[[], Awaitable[None]]:
        """Return what polls the sources of an account: in one process all of them, for there the budget is kept."""
        share = self._share(names)
        polls = {f"source/{name}": self._poll_of(name, share) for name in names}
        if len(names) == 1:
            return polls[polling_lease(names)]

        async def work(lease: Lease) -> None:
            await wait_for_stop(self._stop_taking, self._clock, takeover_cooldown(lease, self._rate(names)))
            await asyncio.gather(*(self._supervised(name, poll) for name, poll in polls.items()))

        def standby() -> None:
            for name in names:
                self.state(name, "standby", None)

        async def run() -> None:
            await self._holder.run(polling_lease(names), work, self._stop_taking, standby=standby)

        return run

    def _poller(self, name: str, share: SharedQuota) -> Poller:
        part = self._parts.sources[name]
        store = self._parts.store
        wake = self._committed.setdefault(name, asyncio.Event())

        def committed(last: int, events: Sequence[WireEvent]) -> None:
            if name in self._fresh:
                self._fresh[name].put(last, events)
            wake.set()

        observed_lag = self.metrics.observed_lag.labels(name)

        def lagged(lags: Sequence[float]) -> None:
            for lag in lags:
                observed_lag.observe(max(0.0, lag))

        intake = Intake(
            name, part.kind, part.source, store, self._clock,
            baseline=part.settings.first_sight == "baseline", committed=committed, lagged=lagged,
        )  # fmt: skip
        return Poller(
            name, part.settings, intake, store, self._clock,
            watcher=self, backpressure=self._held_back, look=self._books_of(name, intake, wake), share=share,
        )  # fmt: skip

    def _books_of(self, name: str, intake: Intake, wake: asyncio.Event) -> Callable[[Lease], Awaitable[None]] | None:
        part, every = self._parts.sources[name], self._parts.limits.reconcile_every
        if every is None or not isinstance(part.source, Reconcilable):
            return None
        reconciler = Reconciler(name, part.source, self._parts.store, self._clock)
        return ReconciliationMonitor(
            name, intake.uri, reconciler, self._parts.store, self._clock, every=every, committed=lambda _: wake.set()
        ).look

    def _poll_of(self, name: str, share: SharedQuota) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            await self._poller(name, share).run(self._holder, self._stop_taking)

        return work

    async def _held_back(self, source: str) -> str | None:
        """Say why the source should not be polled now, if so: a slow broker slows polling instead of growing memory."""
        state = await self._parts.store.journal(source)
        self._backlogs[source] = state
        if state.backlog > _BACKLOG:
            return f"{state.backlog} events wait for the broker"
        if state.bytes > self._parts.limits.journal_bytes:
            return f"the journal has reached its bound of {self._parts.limits.journal_bytes} bytes"
        return None

    def polled(self, source: str, seconds: float, outcome: PollResult) -> None:
        """Count a poll that ended well."""
        metrics = self.metrics
        metrics.polls.labels(source, "partial" if outcome.problems else "ok").inc()
        metrics.poll_seconds.labels(source).observe(seconds)
        metrics.observations.labels(source).inc(outcome.observed)
        for kind, count in outcome.by_type.items():
            metrics.events.labels(source, kind).inc(count)

    def failed(self, source: str) -> None:
        """Count a poll that failed."""
        self.metrics.polls.labels(source, "failed").inc()

    def state(self, source: str, state: str, reason: str | None) -> None:
        """Show the state of a source; a stalled one makes the process not ready."""
        self.states[source] = state
        for name in ("ok", "failing", "stalled", "held", "standby"):
            self.metrics.source_state.labels(source, name).set(name == state)
        self.health.set(f"source/{source}", f"{state}: {reason}" if state in ("stalled", "held") else None)

    # relaying

    async def _relays(self) -> None:
        """Relay every source that has a journal, also those that left the configuration with events unpublished."""
        running: dict[str, asyncio.Future[None]] = {}
        try:
            while not self._stop_relaying.is_set():
                try:
                    names = {*await self._parts.store.sources(), *self._parts.sources}
                except Unavailable:
                    names = set(self._parts.sources)
                for name in names - running.keys():
                    running[name] = asyncio.ensure_future(self._supervised(f"relay/{name}", self._relay_of(name)))
                await wait_for_stop(self._stop_relaying, self._clock, 5.0)
            await asyncio.gather(*running.values(), return_exceptions=True)
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)

    def _relay_of(self, name: str) -> Callable[[], Awaitable[None]]:
        wake = self._committed.setdefault(name, asyncio.Event())
        every = _ASK_JOURNAL["poll" in self._roles]

        async def work(lease: Lease) -> None:
            # Kept only while the relay is ours: nobody else would take anything out.
            fresh = self._fresh[name] = RecentEntries(name)
            try:
                await relaying(lease, Relay(self._parts.store, self._parts.broker, recent=fresh))
            finally:
                del self._fresh[name]

        async def relaying(lease: Lease, relay: Relay) -> None:
            failures = 0
            while True:
                # Once more after the sign to stop: what was committed last is published before we go.
                last = self._stop_relaying.is_set()
                started = self._clock.monotonic()
                try:
                    done = await relay.drain(lease, name)
                except Unavailable as error:
                    failures += 1
                    wait = backoff(failures, self._clock.random, base=0.5, cap=RECONNECT)
                    self.health.set(f"relay/{name}", str(error))
                    log.warning(
                        "relay.waits", source=name, reason=str(error), again_in=round(wait, 1),
                        consequence="events wait in the journal",
                    )  # fmt: skip
                else:
                    failures, wait = 0, every
                    self.health.set(f"relay/{name}", None)
                    if done.published:
                        self.metrics.confirmed.labels(name).inc(done.published)
                        self.metrics.unroutable.labels(name).inc(done.unroutable)
                        self.metrics.confirm_seconds.labels(name).observe(self._clock.monotonic() - started)
                        log.debug("relay.published", source=name, events=done.published, unroutable=done.unroutable)
                if last:
                    return
                await wait_for_stop(self._stop_relaying, self._clock, wait, None if failures else wake)

        async def run() -> None:
            await self._holder.run(f"relay/{name}", work, self._stop_relaying)

        return run

    # delivering

    def _sinking(self) -> list[Awaitable[None]]:
        loops: list[Awaitable[None]] = []
        for name in self._parts.sinks:
            loops.append(self._supervised(f"sink/{name}", self._sink_of(name)))
            loops.append(self._supervised(f"audit/{name}", self._audit_of(name)))
        return loops

    def _sink_of(self, name: str) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            await self._parts.sinks[name].sink.open()
            delivery = self._deliveries[name] = self._delivery(name)
            await self._ask_whether_disabled(name, delivery)
            await delivery.run(self._stop, grace=self._drain * 0.2)

        return work

    def _delivery(self, name: str) -> DeliveryWorker:
        part = self._parts.sinks[name]
        store = self._parts.store
        metrics = self.metrics

        async def send(claimed: ClaimedDelivery) -> None:
            await part.sink.send(Outgoing(part.mask(claimed.event), claimed.attempts + 1, self._parts.read))

        async def changed(state: str, reason: str, at: datetime) -> None:
            if state == "gone":
                await store.set_status(
                    f"sink/{name}", {"disabled": reason, "disabled_at": rfc3339(truncate_to_millis(at))}
                )
            await self._tell_of_sink(name, SinkRecovered if state == "recovered" else SinkDisabled, reason, at)

        seconds = metrics.delivery_seconds.labels(name)  # finding a series costs more than counting in it
        results = {result: metrics.deliveries.labels(name, result) for result in RESULTS}

        def outcome(sent: Outcome) -> None:
            results[sent.result].inc()
            seconds.observe(sent.seconds)

        stores = DeliveryBackends(store, store, self._parts.broker)
        return DeliveryWorker(
            name, part.settings, stores, self._clock,
            send=send, outcome=outcome, changed=changed, claim=self._parts.limits.claim,
        )  # fmt: skip

    async def _tell_of_sink(self, name: str, cls: type[SinkEvent], reason: str, at: datetime) -> None:
        """Publish what became of a sink, by a journal that belongs to no source; told again, it is the same event."""
        now = truncate_to_millis(at)
        event = internal_event(
            cls,
            SinkData,
            source="/bridge/sinks",
            subject=f"/sinks/{name}",
            occurrence=rfc3339(now),
            now=now,
            previous="disabled" if cls is SinkRecovered else None,
            reason=reason or None,
        )
        await self._parts.store.commit(None, Commit(INTERNAL_JOURNAL, events=[event.to_wire()]))
        self._committed.setdefault(INTERNAL_JOURNAL, asyncio.Event()).set()

    async def _ask_whether_disabled(self, name: str, delivery: DeliveryWorker) -> None:
        noted = delivery.noted  # before the notes are read: a 410 may come meanwhile
        notes = (await self._parts.store.statuses(f"sink/{name}")).get(f"sink/{name}", {})
        if "since" not in notes:
            # Else the next start would take the sink for a new one, and what it is owed for delivered.
            log.warning(
                "store.has_lost_its_memory", sink=name,
                consequence="what the providers show is told again, with the same ids",
            )  # fmt: skip
            topics = json.dumps(self._parts.sinks[name].settings.topics)
            await self._parts.store.set_status(f"sink/{name}", {"since": self._stamp(), "topics": topics})
        if notes.get("disabled"):
            delivery.disable()
        elif noted:
            log.info("sink.enabled", sink=name, consequence="what waited is sent now")
            await self._tell_of_sink(name, SinkRecovered, "", self._clock.now())
            delivery.enable()

    async def _owed(self, name: str) -> SinkSettings:
        """Return a sink's settings with the topics of whichever process started last beside its own.

        While one process after the other gets a new configuration, those with the former one drop what only the new one
        wants; an audit by the former topics alone would take that for complete.
        """
        settings = self._parts.sinks[name].settings
        notes = (await self._parts.store.statuses(f"sink/{name}")).get(f"sink/{name}", {})
        topics = dict.fromkeys([*settings.topics, *json.loads(notes.get("topics", "[]"))])
        return settings.model_copy(update={"topics": list(topics)})

    def _audit_of(self, name: str) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            while not await wait_for_stop(self._stop, self._clock, self._parts.limits.look_every):
                try:
                    result = await self._audit.run(name, await self._owed(name))
                except Unavailable as error:
                    log.debug("audit.waits", sink=name, reason=str(error))
                    continue
                if result.offered:
                    self.metrics.offered.labels(name).inc(result.offered)
                    log.warning(
                        "sink.events_were_lost_on_the_way", sink=name, events=result.offered,
                        consequence="they are sent from the journal",
                    )  # fmt: skip
                    if name in self._deliveries:
                        self._deliveries[name].wake()

        return work

    # the books

    async def _keep_books(self) -> None:
        trimmed = float("-inf")  # at once: a process that is killed each minute would never come to it
        while not await wait_for_stop(self._stop, self._clock, self._parts.limits.books_every):
            try:
                for name, delivery in self._deliveries.items():
                    await self._ask_whether_disabled(name, delivery)
                    await self._show_sink(name)
                overdue = self._clock.monotonic() - trimmed >= self._parts.limits.trim_every
                for source in await self._parts.store.sources():
                    state = await self._parts.store.journal(source)
                    self.metrics.backlog.labels(source).set(state.backlog)
                    self.metrics.journal_bytes.labels(source).set(state.bytes)
                    # A journal that is nearly full is not made to wait: polling stops when it is.
                    if "relay" in self._roles and (overdue or state.bytes > self._parts.limits.journal_bytes * _NEARLY):
                        await self._trim(source, state)
                if overdue:
                    trimmed = self._clock.monotonic()
            except Unavailable as error:
                log.debug("books.wait", reason=str(error))

    async def _show_sink(self, name: str) -> None:
        tallies = (await self._parts.store.counts(name)).values()
        self.metrics.waiting.labels(name).set(sum(tally.waiting for tally in tallies))
        self.metrics.dead.labels(name).set(sum(tally.dead for tally in tallies))

    async def _trim(self, source: str, state: JournalState) -> None:
        """Forget what is older than the journal's bounds, never what was not confirmed and settled everywhere."""
        store, limits = self._parts.store, self._parts.limits
        now = self._clock.now()
        name = f"journal/{source}"
        notes = (await store.statuses(name)).get(name, {})
        marks = [(float(at), int(upto)) for at, upto in json.loads(notes.get("marks", "[]"))]
        old = [upto for at, upto in marks if now.timestamp() - at > limits.journal_keep]
        before = max(old, default=0) + 1
        kept = state.committed - state.first + 1
        if state.bytes > limits.journal_bytes * _NEARLY and kept > 0:
            # Enough to come down to three quarters of the bound, should the books allow it.
            before = max(before, state.first + int(kept * (1 - limits.journal_bytes * 0.75 / state.bytes)))
        for sink in self._parts.sinks:
            before = min(before, await store.low_watermark(sink, source) + 1)
            if before > state.first and (oldest := await store.oldest(sink, source)) is not None:
                before = min(before, oldest)
        marks = [(at, upto) for at, upto in marks if now.timestamp() - at <= limits.journal_keep]
        if not marks or now.timestamp() - marks[-1][0] >= limits.journal_keep / 100:
            marks.append((now.timestamp(), state.committed))
        if old:
            marks.insert(0, (now.timestamp() - limits.journal_keep, max(old)))
        if before > state.first and (forgotten := await store.trim(source, before)):
            for sink in self._parts.sinks:
                await store.forget(source, before)
                log.debug("journal.trimmed", source=source, sink=sink, events=forgotten)
        # Last: a store without memory takes no note, and trimming gives it back.
        await store.set_status(name, {"marks": json.dumps(marks)})

    # health

    async def _serve_pages(self, host: str, port: int) -> None:
        """Listen as soon as the address is free: another replica on this machine, perhaps about to end, may have it."""
        reported = False
        while True:
            try:
                await self.pages.start(host, port)
            except OSError as error:
                if not reported:
                    log.warning(
                        "http.cannot_listen", address=f"{host}:{port}", reason=error.strerror or "it is refused",
                        consequence="no health pages and no metrics until it is free; all else works. See http.listen",
                    )  # fmt: skip
                reported = True
                await self._clock.sleep(_LISTEN_AGAIN)
            else:
                log.info("http.listens", address=f"{host}:{self.pages.port}")
                return

    async def _keep_beating(self) -> None:
        while True:
            self._beat = self._clock.monotonic()
            await self._clock.sleep(1.0)

    def _silence(self) -> float:
        return self._clock.monotonic() - self._beat

    async def _refresh(self) -> None:
        asks: dict[str, Callable[[], Awaitable[None]]] = {
            "store": self._parts.store.ping,
            "broker": self._parts.broker.ping,
        }
        answers = await asyncio.gather(*(self._asked(ask) for ask in asks.values()))
        for part, reason in zip(asks, answers, strict=True):
            self.health.set(part, reason)

    async def _asked(self, ask: Callable[[], Awaitable[None]]) -> str | None:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                await ask()
        except TimeoutError:
            return f"no answer within {_ANSWER_WITHIN:g} s"
        except BridgeError as error:
            return str(error)
        return None

    def _stamp(self) -> str:
        return rfc3339(truncate_to_millis(self._clock.now()))

    # once

    async def once(self) -> OnceReport:
        """Poll every source once, relay and deliver what came of it, and return.

        A source that fails is in the report and holds up none of the others. What a sink could not take waits in the
        store for the next run. Raises `Unavailable` if the store or the broker cannot be reached.
        """
        report = OnceReport()
        try:
            await self._parts.open()
            await self._open_books()
            if "poll" in self._roles:
                await asyncio.gather(*(self._once_account(names, report) for names in self._accounts()))
            if "relay" in self._roles:
                for name in await self._parts.store.sources():
                    await self._once_relay(name, report)
            if "sink" in self._roles:
                await asyncio.gather(*(self._once_deliver(name, report) for name in self._parts.sinks))
        finally:
            await self._close()
        return report

    def _once_held(self, name: str) -> AbstractAsyncContextManager[Lease]:
        ttl = self._parts.limits.lease
        return hold_lease(self._parts.store, self._clock, name, self.owner, ttl, patience=ttl + 1)

    async def _once_account(self, names: Sequence[str], report: OnceReport) -> None:
        """Poll the sources of one account, in this process all of them or none."""
        async with AsyncExitStack() as stack:
            try:
                if len(names) > 1:
                    lease = await stack.enter_async_context(self._once_held(polling_lease(names)))
                    await self._clock.sleep(takeover_cooldown(lease, self._rate(names)))
            except Unavailable:
                raise
            except BridgeError as error:
                for name in names:
                    report.failures[name] = str(error)
                    log.error("source.fails", source=name, reason=str(error))  # noqa: TRY400 - our errors say it all
                return
            share = self._share(names)
            await asyncio.gather(*(self._once_poll(name, report, share) for name in names))

    async def _once_poll(self, name: str, report: OnceReport, share: SharedQuota) -> None:
        poller = self._poller(name, share)
        try:
            async with self._once_held(f"source/{name}") as lease:
                report.rounds[name] = await poller.once(lease)
        except Unavailable:
            raise
        except BridgeError as error:
            report.failures[name] = str(error)
            log.error("source.fails", source=name, reason=str(error))  # noqa: TRY400 - our errors say it all
        except Exception as error:  # noqa: BLE001 - a source's defect is its own: the others go on
            report.failures[name] = describe_unexpected(error)
            log.error("source.fails", source=name, reason=describe_unexpected(error))  # noqa: TRY400 - could quote data

    async def _once_relay(self, name: str, report: OnceReport) -> None:
        relay = Relay(self._parts.store, self._parts.broker)

        async with self._once_held(f"relay/{name}") as lease:
            done = await relay.drain(lease, name)
            report.published += done.published
            report.unroutable += done.unroutable

    async def _once_deliver(self, name: str, report: OnceReport) -> None:
        await self._parts.sinks[name].sink.open()
        delivery = self._deliveries[name] = self._delivery(name)
        await self._ask_whether_disabled(name, delivery)
        stop = asyncio.Event()
        working = asyncio.ensure_future(delivery.run(stop, grace=self._drain))
        checking = asyncio.ensure_future(self._until_accounted(name, delivery))
        try:
            await asyncio.wait([working, checking], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            checking.result()
        finally:
            stop.set()
            checking.cancel()
            await asyncio.gather(working, checking, return_exceptions=True)
        tallies = (await self._parts.store.counts(name)).values()
        report.deliveries[name] = {
            "taken": sum(tally.taken for tally in tallies),
            "waiting": sum(tally.waiting for tally in tallies),
            "dead": sum(tally.dead for tally in tallies),
        }

    async def _until_accounted(self, name: str, delivery: DeliveryWorker) -> None:
        """Return when everything confirmed is known to the sink's books and nothing is due or in hand."""
        store, settings = self._parts.store, self._parts.sinks[name].settings
        started = self._clock.monotonic()
        while True:
            missing = 0
            # Long after everything else has arrived, what is still missing was lost by the broker.
            patience_over = self._clock.monotonic() - started > _LOST_AFTER
            lost = patience_over and await self._parts.broker.depth(QUEUE_PREFIX + name) == 0
            overdue = math.inf if lost else 0
            for source in await store.sources():
                confirmed = (await store.journal(source)).confirmed
                audited = await self._audit.account(name, settings, source, confirmed, overdue=overdue)
                missing += audited.missing
            due = await store.next_due(name)
            quiet = delivery.disabled or due is None or due > self._clock.epoch()
            if (not missing and quiet and not delivery.busy) or self._clock.monotonic() - started > _ONCE_WITHIN:
                return
            await self._clock.sleep(0.05)
