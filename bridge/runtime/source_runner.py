"""Polls the configured sources: those of one account together, each under its lease."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from bridge.concurrency.stop_event import StopEvent
from bridge.coordination.leases import wait_for_stop
from bridge.coordination.quota import SharedQuota, accounts, takeover_cooldown
from bridge.domain.event import WireEvent
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
        self.states: dict[str, str] = {}
        """The state of each source that this process polls: ok, failing, stalled, held, paused or standby."""
        self.pollers: dict[str, Poller] = {}
        """The pollers that work, and those that are to go on under another lease, by source."""

    @property
    def _parts(self) -> ServiceParts:
        return self._process.parts

    def accounts(self) -> Sequence[tuple[str, ...]]:
        """Return the names of the sources, those of one account together."""
        return accounts({name: part.source for name, part in self._parts.sources.items()})

    def rate(self, names: Sequence[str]) -> float:
        """Return the requests per second that the account of these sources allows."""
        return min(self._parts.sources[name].settings.rate for name in names)

    def quota(self, names: Sequence[str]) -> SharedQuota:
        """Return the account's request quota, which processes share through the store."""
        return SharedQuota.for_service(self._parts.store, self._clock, names, self.rate(names))

    def poller(self, name: str, quota: SharedQuota) -> Poller:
        """Return the poller of one source."""
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
            gate=self._process.gates.of(f"source/{name}"),
        )  # fmt: skip

    def account(self, polled: PolledAccount) -> Callable[[], Awaitable[None]]:
        """Return the work of one account: one process polls all its sources, because it keeps the account's quota."""
        if len(polled.sources) == 1:
            return next(self.poll(name, polled, polled.stop) for name in polled.sources)

        async def poll_all(lease: Lease) -> None:
            cooldown = takeover_cooldown(lease, self.rate(tuple(polled.sources)))
            await wait_for_stop(polled.stop, self._clock, cooldown)
            supervisor = self._process.supervisor(polled.stop)
            try:
                polled.enter(supervisor, self.poll)
                await polled.stop.wait()
                await supervisor.join()
            finally:
                polled.supervisor = None
                await supervisor.close()

        def standby() -> None:
            for name in polled.sources:
                self.state(name, "standby", None)

        async def run() -> None:
            await self._process.leases.run(polled.lease, poll_all, polled.stop, standby=standby)

        return run

    def poll(self, name: str, polled: PolledAccount, stop: StopEvent) -> Callable[[], Awaitable[None]]:
        """Return the work of one source of an account."""

        async def run() -> None:
            goes_on = name in polled.going_on
            polled.going_on.discard(name)
            poller = self.pollers[name] if goes_on else self.poller(name, polled.quota)
            if goes_on:
                poller.go_on(polled.quota)
            self.pollers[name] = poller
            await poller.run(self._process.leases, stop)

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
            committed=lambda _: wake.set(),
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

    def failed(self, source: str) -> None:
        """Count a poll that failed."""
        self._metrics.polls.labels(source, "failed").inc()

    def state(self, source: str, state: str, reason: str | None) -> None:
        """Show the state of a source; a stalled source makes the process not ready."""
        self.states[source] = state
        for name in SOURCE_STATES:
            self._metrics.source_state.labels(source, name).set(name == state)
        self._process.health.set(f"source/{source}", f"{state}: {reason}" if state in ("stalled", "held") else None)
        if state == "standby":
            self.waits_for_store(source, None)

    def waits_for_store(self, source: str, reason: str | None) -> None:
        """Say on `/readyz` that the store is what a source waits for."""
        self._process.health.set(f"source/{source}/store", reason)
