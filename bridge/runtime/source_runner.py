"""Polls the configured sources: those of one account together, each under its lease."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from bridge.concurrency.stop_event import StopEvent
from bridge.coordination.quota import SharedQuota, accounts, note_quiet, polling_lease, takeover_cooldown
from bridge.coordination.turns import Turn
from bridge.domain.errors import BridgeError, Unauthorized
from bridge.domain.event import WireEvent
from bridge.http.errors import Throttled
from bridge.ingest.account import OtherAccount
from bridge.ingest.intake import Intake, PollResult
from bridge.ingest.poller import Poller, PollListener
from bridge.observability.metrics import SOURCE_STATES
from bridge.protocols.ledger import Lease
from bridge.protocols.source import Reconcilable
from bridge.reconciliation.monitor import ReconciliationMonitor
from bridge.reconciliation.reconciler import Reconciler
from bridge.runtime.parts import ServiceParts
from bridge.runtime.polled_accounts import PolledAccount
from bridge.runtime.process import Process

_MAX_BACKLOG_EVENTS = 50_000
"""Events that wait for the broker; with more, their source is not polled."""


class SourceRunner(PollListener):
    """The polling part of a process; it also shows the state of each source."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._clock = process.clock
        self._metrics = process.metrics
        self._tokens: dict[str, int] = {}
        """The token with which this process last held the lease of an account."""
        self.states: dict[str, str] = {}
        """The state of each source that this process polls: ok, failing, stalled, held, paused or standby."""
        self.pollers: dict[str, Poller] = {}
        """The pollers that work, and those that are to go on under another lease, by source."""

    @property
    def _parts(self) -> ServiceParts:
        return self._process.parts

    def register(self) -> None:
        """Say which accounts this process can poll, before it announces itself."""
        polls = "poll" in self._process.roles
        self._process.shares.set_sources({polling_lease(names): names for names in self.accounts()}, polls=polls)

    def show_bounds(self, name: str) -> None:
        """Show what the settings of a source allow."""
        settings = self._parts.sources[name].settings
        self._metrics.show_source(name, settings.rate, settings.interval * settings.idle_slowdown)

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
        intake = Intake(
            name, part.kind, part.source, self._parts.store, self._clock,
            baseline=part.settings.first_sight == "baseline", account_label=part.settings.account_label,
            committed=self._on_commit(name, wake), lagged=self._on_lag(name),
            waits=partial(self.waits_for_store, name),
        )  # fmt: skip
        return Poller(
            name, part.settings, intake, self._parts.store, self._clock,
            watcher=self, backpressure=self._backpressure, check=self._monitor(name, intake, wake), share=quota,
            gate=self._process.gates.of(f"source/{name}"), first_request_at=first_request_at,
        )  # fmt: skip

    def account(self, polled: PolledAccount) -> Callable[[], Awaitable[None]]:
        """Return the work of one account: one process polls all its sources, because it keeps the account's quota."""
        if len(polled.sources) == 1:
            (name,) = polled.sources
            return self.poll(name, polled, polled.stop, polled.turn)

        async def poll_all(lease: Lease, leave: asyncio.Event) -> None:
            stop = polled.stop.below()
            supervisor = self._process.supervisor(stop)
            await self._note_lease(polled, lease)
            try:
                polled.enter(supervisor, stop, self.poll)
                await leave.wait()
                stop.set()
                await supervisor.join()
            finally:
                polled.supervisor = None
                await supervisor.close()
            if polled.is_quiet and self._clock.monotonic() >= polled.first_request_at:
                await note_quiet(self._parts.store, lease)

        def standby() -> None:
            for name in polled.sources:
                self.state(name, "standby", None)

        async def run_all() -> None:
            await self._process.leases.run(polled.lease, poll_all, polled.stop, standby=standby, turn=polled.turn)

        return run_all

    async def _note_lease(self, polled: PolledAccount, lease: Lease) -> None:
        """Note from when on the sources of an account may be asked for, under a new lease."""
        was_ours = lease.token == self._tokens.get(lease.name, 0) + 1
        self._tokens[lease.name] = lease.token
        seconds = await takeover_cooldown(self._parts.store, lease, self.rate(tuple(polled.sources)))
        polled.first_request_at = self._clock.monotonic() + seconds
        polled.goes_on_at = -math.inf if was_ours else polled.first_request_at

    def poll(
        self, name: str, polled: PolledAccount, stop: StopEvent, turn: Turn | None = None
    ) -> Callable[[], Awaitable[None]]:
        """Return the work of one source of an account."""

        async def run() -> None:
            goes_on = name in polled.going_on
            polled.going_on.discard(name)
            if goes_on:
                poller = self.pollers[name]
                poller.go_on(polled.quota, polled.goes_on_at)
            else:
                poller = self.poller(name, polled.quota, polled.first_request_at)
            self.pollers[name] = poller
            polled.note(name, poller)
            await poller.run(self._process.leases, stop, turn)

        return run

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
        source = self._parts.sources[name].source
        if not isinstance(source, Reconcilable):
            return None
        reconciler = Reconciler(name, source, self._parts.store, self._clock)
        monitor = ReconciliationMonitor(
            name, intake.uri, reconciler, self._parts.store, self._clock, every=math.inf,
            committed=lambda _: wake.set(), on_differences=self._metrics.books_differences.labels(name).set,
        )  # fmt: skip

        async def check(lease: Lease) -> None:
            if (every := self._parts.limits.reconcile_every) is not None:
                monitor.change_interval(every)
                await monitor.check(lease)

        return check

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

    def state(self, source: str, state: str, reason: str | None) -> None:
        """Show the state of a source; a stalled source makes the process not ready."""
        self.states[source] = state
        (self._process.polling.discard if state == "standby" else self._process.polling.add)(source)
        for name in SOURCE_STATES:
            self._metrics.source_state.labels(source, name).set(name == state)
        self._process.health.set(f"source/{source}", f"{state}: {reason}" if state in ("stalled", "held") else None)
        if state == "standby":
            self.waits_for_store(source, None)
            self._metrics.forget_books(source)

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
