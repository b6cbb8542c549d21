"""Polls the configured sources: those of one account together, each under its lease."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from bridge.coordination.quota import SharedQuota, accounts, note_quiet, polling_lease, takeover_cooldown
from bridge.domain.errors import BridgeError, Unauthorized
from bridge.domain.event import WireEvent
from bridge.http.errors import Throttled
from bridge.ingest.account import OtherAccount
from bridge.ingest.expectations import FinalStatuses
from bridge.ingest.hints import HintBudget, HintQueue
from bridge.ingest.intake import Intake, PollResult
from bridge.ingest.overdue import OverdueWatch
from bridge.ingest.poller import Poller, PollListener
from bridge.ingest.quiet import QuietWatch
from bridge.ingest.silence import SilenceWatch
from bridge.protocols.hints import TakesPushes
from bridge.protocols.ledger import Lease
from bridge.protocols.source import Reconcilable
from bridge.reconciliation.monitor import ReconciliationMonitor
from bridge.reconciliation.reconciler import Reconciler
from bridge.runtime.process import Process
from bridge.runtime.supervisor import Supervisor

_MAX_BACKLOG_EVENTS = 50_000
"""Events that wait for the broker; with more, their source is not polled."""


class SourceRunner(PollListener):
    """The polling part of a process; it also shows the state of each source."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._parts = process.parts
        self._clock = process.clock
        self._metrics = process.metrics
        self._groups: Sequence[tuple[str, ...]] = ()
        self.states: dict[str, str] = {}
        """The state of each source that this process polls: ok, failing, stalled, held, paused or standby."""
        self._budgets: dict[tuple[str, ...], HintBudget] = {}

    def register(self) -> None:
        """Say which accounts this process can poll, before it announces itself."""
        self._groups = self.accounts()
        polls = "poll" in self._process.roles
        self._process.shares.set_sources({polling_lease(names): names for names in self._groups}, polls=polls)

    def start(self, supervisor: Supervisor) -> None:
        """Start polling, one part for each account."""
        for name, part in self._parts.sources.items():
            self._metrics.show_source(name, part.settings.rate, part.settings.interval * part.settings.idle_slowdown)
        for names in self._groups:
            supervisor.start(polling_lease(names), self._account(names))

    def accounts(self) -> Sequence[tuple[str, ...]]:
        """Return the names of the sources, those of one account together."""
        return accounts({name: part.source for name, part in self._parts.sources.items()})

    def rate(self, names: Sequence[str]) -> float:
        """Return the requests per second that the account of these sources allows."""
        return min(self._parts.sources[name].settings.rate for name in names)

    def quota(self, names: Sequence[str]) -> SharedQuota:
        """Return the account's request quota, which processes share through the store."""
        return SharedQuota.for_service(self._parts.store, self._clock, names, self.rate(names))

    def poller(self, name: str, quota: SharedQuota, first_request_at: float = -math.inf) -> Poller:
        """Return the poller of one source; see `Poller`."""
        part, wake = self._parts.sources[name], self._process.committed[name]
        expect = part.settings.expect
        finals = FinalStatuses.of(expect)
        intake = Intake(
            name, part.kind, part.source, self._parts.store, self._clock,
            baseline=part.settings.first_sight == "baseline", finals=finals,
            notes_activity=expect is not None and expect.activity_within is not None,
            account_label=part.settings.account_label,
            committed=self._on_commit(name, wake), lagged=self._on_lag(name),
            waits=partial(self.waits_for_store, name),
        )  # fmt: skip
        return Poller(
            name, part.settings, intake, self._parts.store, self._clock,
            watcher=self, backpressure=self._backpressure, check=self._monitor(name, intake, wake), share=quota,
            gate=self._process.gates.of(f"source/{name}"), first_request_at=first_request_at, hints=self._hints(name),
            silence=self._silence(name, intake, finals),
        )  # fmt: skip

    def _silence(self, name: str, intake: Intake, finals: FinalStatuses | None) -> SilenceWatch:
        """Return what publishes that something expected did not come."""
        part, store, metrics = self._parts.sources[name], self._parts.store, self._metrics
        committed = self._on_commit(name, self._process.committed[name])
        overdue = quiet = None
        if finals is not None:
            overdue = OverdueWatch(
                name, intake.uri, part.source, store, self._clock, finals, intake.times,
                committed=committed, shown=metrics.awaiting_final.labels(name).set,
                counted=partial(self._count_own, name),
            )  # fmt: skip
        if part.settings.expect is not None and part.settings.expect.activity_within is not None:
            quiet = QuietWatch(
                name, intake.uri, store, self._clock, part.settings.expect, intake.times,
                committed=committed, shown=metrics.source_quiet.labels(name).set,
            )  # fmt: skip
        return SilenceWatch(overdue, quiet)

    def _count_own(self, name: str, events: Sequence[WireEvent]) -> None:
        for event in events:
            self._metrics.events.labels(name, event.type).inc()

    def _hints(self, name: str) -> HintQueue | None:
        """Return the hints of one source, if its provider pushes; the sources of an account share their cost."""
        source = self._parts.sources[name].source
        if not isinstance(source, TakesPushes) or source.pushes is None:
            return None
        names = next(names for names in self.accounts() if name in names)
        budget = self._budgets.setdefault(names, HintBudget(self._clock, self.rate(names)))
        return HintQueue(name, self._parts.store, self._clock, budget, self._process.pushed[name])

    def _account(self, names: Sequence[str]) -> Callable[[], Awaitable[None]]:
        """Return the work of one account: one process polls all its sources, because it keeps the account's quota."""
        quota, process, lease_name = self.quota(names), self._process, polling_lease(names)
        turn = process.shares.account(lease_name)

        async def poll_source() -> None:
            await self.poller(names[0], quota).run(process.leases, process.stop_polling, turn)

        async def poll_all(lease: Lease, leave: asyncio.Event) -> None:
            entry_seconds = await takeover_cooldown(self._parts.store, lease, self.rate(names))
            first_request_at = self._clock.monotonic() + entry_seconds
            pollers: dict[str, Poller] = {}

            async def poll(name: str) -> None:
                poller = pollers[name] = self.poller(name, quota, first_request_at)
                await poller.run(process.leases, leave)

            supervisor = process.supervisor(leave)
            try:
                for name in names:
                    supervisor.start(f"source/{name}", partial(poll, name))
                await supervisor.join()
            finally:
                await supervisor.close()
            if all(poller.is_quiet for poller in pollers.values()) and self._clock.monotonic() >= first_request_at:
                await note_quiet(self._parts.store, lease)

        def standby() -> None:
            for name in names:
                self.state(name, "standby", None)

        async def run_all() -> None:
            await process.leases.run(lease_name, poll_all, process.stop_polling, standby=standby, turn=turn)

        return poll_source if len(names) == 1 else run_all

    def _on_commit(self, name: str, wake: asyncio.Event) -> Callable[[int, Sequence[WireEvent]], None]:
        def committed(last: int, events: Sequence[WireEvent]) -> None:
            if name in self._process.recent:
                self._process.recent[name].put(last, events)
            wake.set()

        return committed

    def _on_lag(self, name: str) -> Callable[[Sequence[float]], None]:
        observed_lag = self._metrics.observed_lag.labels(name)

        def lagged(lags: Sequence[float]) -> None:
            for lag in lags:
                observed_lag.observe(max(0.0, lag))

        return lagged

    def _monitor(self, name: str, intake: Intake, wake: asyncio.Event) -> Callable[[Lease], Awaitable[None]] | None:
        part, every = self._parts.sources[name], self._parts.limits.reconcile_every
        if every is None or not isinstance(part.source, Reconcilable):
            return None
        reconciler = Reconciler(name, part.source, self._parts.store, self._clock)
        return ReconciliationMonitor(
            name, intake.uri, reconciler, self._parts.store, self._clock, every=every, committed=lambda _: wake.set(),
            on_differences=self._metrics.books_differences.labels(name).set,
        ).check  # fmt: skip

    async def _backpressure(self, source: str) -> str | None:
        """Say why a source must not be polled now, if so: a slow broker slows polling instead of filling the store."""
        state = await self._parts.store.journal(source)
        if state.backlog > _MAX_BACKLOG_EVENTS:
            return f"{state.backlog} events wait for the broker"
        if state.bytes > self._parts.limits.journal_bytes:
            return f"the journal has reached its bound of {self._parts.limits.journal_bytes} bytes"
        return None

    # what pollers report

    def polled(self, source: str, seconds: float, outcome: PollResult) -> None:
        """Count a poll that succeeded."""
        metrics = self._metrics
        metrics.polls.labels(source, "partial" if outcome.problems else "ok").inc()
        metrics.last_ok.labels(source).set(self._clock.epoch())
        metrics.poll_seconds.labels(source).observe(seconds)
        metrics.observations.labels(source).inc(outcome.observed)
        for kind, count in outcome.by_type.items():
            metrics.events.labels(source, kind).inc(count)

    def failed(self, source: str, error: Exception) -> None:
        """Count a poll that failed."""
        self._metrics.polls.labels(source, "failed").inc()
        self._metrics.poll_failures.labels(source, _failure_reason(error)).inc()

    def answered(self, source: str, answer: str) -> None:
        """Count a provider's answer."""
        self._metrics.provider_answers.labels(source, answer).inc()

    def hints_done(self, source: str, seconds: Sequence[float]) -> None:
        """Count the things that were looked at because of pushes."""
        metric = self._metrics.push_seconds.labels(source)
        for waited in seconds:
            metric.observe(max(0.0, waited))

    def state(self, source: str, state: str, reason: str | None) -> None:
        """Show the state of a source; a stalled source makes the process not ready."""
        self.states[source] = state
        (self._process.polling.discard if state == "standby" else self._process.polling.add)(source)
        for name in ("ok", "failing", "stalled", "held", "paused", "standby"):
            self._metrics.source_state.labels(source, name).set(name == state)
        self._process.health.set(f"source/{source}", f"{state}: {reason}" if state in ("stalled", "held") else None)
        if state == "standby":
            self.waits_for_store(source, None)
            self._metrics.forget_books(source)
            self._metrics.forget_silence(source)

    def waits_for_store(self, source: str, reason: str | None) -> None:
        """Say on `/readyz` that the store is what a source waits for."""
        self._process.health.set(f"source/{source}/store", reason)


def _failure_reason(error: Exception) -> str:
    """Return in a word why a poll failed: one of `bridge.observability.metrics.FAILURE_REASONS`."""
    match error:
        case Unauthorized():
            return "credentials"
        case Throttled():
            return "throttled"
        case OtherAccount():
            return "account"
        case BridgeError():
            return "provider"
        case _:
            return "defect"
