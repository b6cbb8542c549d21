"""One sink's deliveries: accept from the queue, claim, send, settle. The store keeps a failed one until it is due."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from bridge.coordination.gates import Gate
from bridge.coordination.turns import wait_for_any
from bridge.delivery.claiming import Claiming
from bridge.delivery.claims import CLAIM, ClaimedDelivery, Claims
from bridge.delivery.endpoint import EndpointState, PublishChange
from bridge.delivery.send_times import CountUnsent, SendTimes, uncounted
from bridge.delivery.sending import KeepAnswer, Outcome, Sender
from bridge.domain import topics
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.event import Position, WireEvent
from bridge.domain.event_view import EventView
from bridge.domain.own_news import is_about
from bridge.domain.reporting import Report, unreported
from bridge.domain.retry import RECONNECT, Backoff
from bridge.protocols.broker import Broker, Inbox, Received
from bridge.protocols.deliveries import Attempt, DeliveryStore, NewDelivery
from bridge.protocols.ledger import Ledger
from bridge.protocols.roster import OpenCircuit
from bridge.protocols.sink import SinkSettings

log = structlog.get_logger()

_TICK_SECONDS = 1.0
"""Seconds between two looks for messages and due deliveries: another process may make a delivery due at any time, by a
redrive, a replay, or a settlement in a partition."""
_MIN_WAIT_SECONDS = 0.01
_IDLE_TICK_SECONDS = 2.0
"""Seconds between two looks for deliveries while none waits: only another process can make one without waking us."""
_BATCH = 500
"""Deliveries that are accepted or claimed at once."""
_MIN_IN_FLIGHT_LIMIT = 256
"""Deliveries that may be in flight, also for a sink of little concurrency."""
_MAX_PREFETCH = 2000
"""Messages that the broker sends ahead."""


def unfiltered(_: int) -> None:
    """Hear how many events a filter did not select, and do nothing."""


@dataclass(frozen=True, slots=True)
class DeliveryBackends:
    """Where deliveries are kept, and where they come from."""

    ledger: Ledger
    deliveries: DeliveryStore
    broker: Broker


class DeliveryWorker:
    """Delivers from one sink's queue, and what waits for this sink in the store.

    `_receive` moves messages from the queue into the store, under a claim, and only then acknowledges them: from there
    on the store counts, and the queue may forget. `_claim_due` claims what is due. The sender sends events to the sink
    and settles, many at once, what the endpoint accepted. A crash at any point leaves claims that expire; what the
    endpoint had accepted and the store does not know as settled is sent a second time, with the same id. A process that
    slept, or could not reach the store, for longer than its claims last begins to send nothing of what it had claimed.
    """

    def __init__(
        self,
        name: str,
        settings: SinkSettings,
        backends: DeliveryBackends,
        clock: Clock,
        *,
        send: Callable[[ClaimedDelivery], Awaitable[None]],
        outcome: Callable[[Outcome], None],
        changed: PublishChange,
        claim: float = CLAIM,
        report: Report = unreported,
        gate: Gate | None = None,
        keep_answer: KeepAnswer | None = None,
        filtered: Callable[[int], None] = unfiltered,
        unsent: CountUnsent = uncounted,
    ) -> None:
        """Prepare; `claim` is how many seconds a claim lasts. `report` hears what waits for the store or the broker.

        `filtered` hears how many events the sink's filter did not select, and `unsent` how many were ended unsent.
        """
        self.name = name
        self.queue = backends.broker.sink_queue(name)
        self._settings = settings
        self._deliveries = backends.deliveries
        self._broker = backends.broker
        self._clock = clock
        self._wake = asyncio.Event()
        limit = max(_MIN_IN_FLIGHT_LIMIT, 4 * settings.concurrency)
        self._claims = Claims(
            name, backends.deliveries, clock, limit=limit, seconds=claim, wake=self.wake, report=report
        )
        gate = gate or Gate()
        self._endpoint = EndpointState(
            name, clock, publish=changed, wake=self.wake, gate=gate, alarm_after=settings.alarm_after
        )
        times = SendTimes(name, settings, gate.mutes, self._claims, clock, unsent)
        self._sender = Sender(
            name, settings, self._claims, self._endpoint, clock, send=send, outcome=outcome, report=report,
            keep_answer=keep_answer, times=times,
        )  # fmt: skip
        self._claiming = Claiming(
            name, backends.ledger, backends.deliveries, self._claims, times, clock, self._sender.accept
        )
        self._report = report
        self._filtered = filtered

    @property
    def paused(self) -> bool:
        """Whether nothing is sent now, except for a probe: new events go to the store and wait there."""
        return self._endpoint.paused

    @property
    def busy(self) -> bool:
        """Whether any delivery is in flight."""
        return self.in_flight > 0

    @property
    def in_flight(self) -> int:
        """How many deliveries are claimed by this process."""
        return len(self._claims)

    @property
    def disabled(self) -> bool:
        """Whether the endpoint said that it is gone: it gets nothing until an operator re-enables it."""
        return self._endpoint.disabled

    @property
    def on_hold(self) -> bool:
        """Whether nothing is sent until an operator says so: the sink is disabled, or was paused by hand."""
        return self._endpoint.on_hold

    @property
    def open_circuit(self) -> OpenCircuit | None:
        """Since when the endpoint's circuit is open, and why; None while it is closed."""
        return self._endpoint.open_circuit

    @property
    def noted(self) -> bool:
        """Whether the disabled flag has been written. Until then its absence in the store is not a re-enable."""
        return self._endpoint.noted

    def wake(self) -> None:
        """Look at once for deliveries that are due."""
        self._wake.set()

    def disable(self) -> None:
        """Send nothing: the store has the disabled flag."""
        self._endpoint.disabled = self._endpoint.noted = True

    def enable(self) -> None:
        """Send again, beginning with what waited."""
        self._endpoint.disabled = self._endpoint.noted = False
        self.wake()

    async def run(self, stop: asyncio.Event, *, grace: float) -> None:
        """Deliver until `stop` is set; then accept nothing new, and give what is being sent `grace` seconds to end.

        What could not be finished goes back to the store: due at once, with no attempt counted.
        """
        receiving = [asyncio.ensure_future(self._receive()), asyncio.ensure_future(self._claim_due())]
        keeping = [
            asyncio.ensure_future(self._claims.renew(self._sender.drop_expired)),
            asyncio.ensure_future(self._sender.settle()),
        ]
        stopped = asyncio.ensure_future(stop.wait())
        watched: list[asyncio.Future[Any]] = [*receiving, *keeping, self._sender.watch()]
        try:
            await asyncio.wait([*watched, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in watched:
                if task.done():
                    task.result()  # only a defect ends a loop: the supervisor reports it and starts us again
            await _end(receiving)
            await self._sender.drain(grace)
        finally:
            await _end([stopped, *watched, *self._sender.tasks])
            await self._release_all()

    # from the queue

    async def _receive(self) -> None:
        retry = Backoff(self._clock.random, cap=RECONNECT)
        while True:
            try:
                await self._broker.declare(self.queue, self._settings.topics)
                async with self._broker.inbox(self.queue, prefetch=min(self._claims.limit, _MAX_PREFETCH)) as inbox:
                    while True:
                        await self._receive_batch(inbox, retry)
            except Unavailable as error:
                wait = self._after_failed_receive(error, retry)
                log.warning(
                    "sink.cannot_receive", sink=self.name, reason=str(error), again_in=round(wait, 1),
                    consequence="events wait in the queue",
                )  # fmt: skip
                await self._clock.sleep(wait)

    def _after_failed_receive(self, error: Unavailable, retry: Backoff) -> float:
        """Report what failed; return the seconds to wait."""
        self._report("receive", str(error))
        return retry.on_failure()

    async def _receive_batch(self, inbox: Inbox, retry: Backoff) -> None:
        has_capacity = await self._claims.has_capacity()
        limit = min(self._claims.capacity, _BATCH) if has_capacity else _BATCH
        batch = await inbox.get(limit, _TICK_SECONDS)
        if batch:
            await self._accept_when_possible(batch, retry, claim=has_capacity)
            # A crash before this line: the queue brings the batch again, and the store knows it already.
            await inbox.ack(batch)
        retry.on_success()
        self._report("receive", None)

    async def _accept_when_possible(self, batch: Sequence[Received], retry: Backoff, *, claim: bool) -> None:
        """Accept the batch as soon as the store can be written to.

        Until then the messages stay unacknowledged, up to the prefetch, and nothing returns to the broker: a quorum
        queue drops a message that was returned too often. Should the broker give them to somebody else in between, they
        are accepted twice, which changes nothing.
        """
        while True:
            try:
                await self._accept(batch, claim=claim)
            except Unavailable as error:
                wait = self._after_failed_receive(error, retry)
                log.warning(
                    "sink.cannot_accept", sink=self.name, reason=str(error), messages=len(batch),
                    again_in=round(wait, 1),
                    consequence="they stay unacknowledged, and events behind them wait in the queue",
                )  # fmt: skip
                await self._clock.sleep(wait)
            else:
                return

    async def _accept(self, batch: Sequence[Received], *, claim: bool) -> None:
        arrivals: list[NewDelivery] = []
        events: dict[Position, WireEvent] = {}
        malformed: dict[Position, str] = {}
        for message in await self._select(batch):
            position = message.position
            if message.problem is not None or position is None:
                position = await self._deliveries.accept_foreign(self.name, message.event)
            if message.problem is not None:
                malformed[position] = message.problem
                continue
            events[position] = message.event
            partition = EventView(position, message.event).partition if self._settings.ordered else None
            arrivals.append(NewDelivery(position, partition))
        for position, problem in malformed.items():
            await self._dead_letter_malformed(position, problem)
        now, claim_deadline = self._clock.epoch(), self._claims.new_deadline()
        if self.paused or not claim:
            await self._deliveries.enqueue(self.name, arrivals, now)
        elif arrivals:
            for position in await self._deliveries.accept(self.name, arrivals, now + self._claims.seconds):
                self._sender.accept(ClaimedDelivery(position, events[position], 0), claim_deadline)

    async def _select(self, batch: Sequence[Received]) -> Sequence[Received]:
        """Return what the sink wants of a batch; note in the books what its filter does not select.

        A crash behind that line costs nothing: brought again, the same events are known as filtered.
        """
        selected, dropped = _divided(batch, self._settings, self.name)
        if dropped:
            positions = [message.position for message in dropped if message.position is not None]
            foreign = len(dropped) - len(positions)  # another publisher's events have no place in the books
            self._filtered(foreign + (await self._deliveries.filter_out(self.name, positions) if positions else 0))
        return selected

    async def _dead_letter_malformed(self, position: Position, problem: str) -> None:
        log.error(
            "sink.malformed_message", sink=self.name, position=str(position), reason=problem,
            consequence="kept as a dead letter",
        )  # fmt: skip
        now = self._clock.epoch()
        attempt = Attempt(now, problem, "permanent")
        if await self._deliveries.accept(self.name, [NewDelivery(position)], now + self._claims.seconds):
            await self._deliveries.dead_letter(self.name, position, "malformed", attempt)

    # from the store

    async def _claim_due(self) -> None:
        retry = Backoff(self._clock.random, cap=RECONNECT)
        while True:
            try:
                await self._claim_or_wait()
                retry.on_success()
                self._report("claim", None)
            except Unavailable as error:
                wait = retry.on_failure()
                self._report("claim", str(error))
                log.warning(
                    "sink.cannot_read_store", sink=self.name, reason=str(error), again_in=round(wait, 1),
                    consequence="deliveries that are due wait longer",
                )  # fmt: skip
                await self._clock.sleep(wait)
                self._claims.on_store_outage()

    async def _claim_or_wait(self) -> None:
        await self._claims.wait_for_capacity()
        now = self._clock.monotonic()
        if not self._claims.allowed(now):
            await self._deliveries.next_due(self.name)  # if the outage goes on, the wait begins anew
            await self._wait_for_due(_TICK_SECONDS)
            return
        most = min(self._claims.capacity, _BATCH)
        limit = self._endpoint.capacity(now, most)
        if not limit:
            await self._wait_for_due(_TICK_SECONDS)
            return
        due = await self._deliveries.next_due(self.name)
        if due is None:
            await self._wait_for_due(_IDLE_TICK_SECONDS)
        elif due > self._clock.epoch() or not await self._claiming.claim(limit, most, due):
            await self._wait_for_due(min(due - self._clock.epoch(), _TICK_SECONDS))

    async def _wait_for_due(self, seconds: float) -> None:
        await wait_for_any([self._wake], self._clock, max(seconds, _MIN_WAIT_SECONDS))
        self._wake.clear()

    # the end

    async def _release_all(self) -> None:
        try:
            await self._sender.settle_once()
            await self._claims.requeue(self._claims.unexpired(self._clock.monotonic()))
        except Unavailable as error:
            log.warning(
                "sink.cannot_release_claims", sink=self.name, reason=str(error), deliveries=self.in_flight,
                consequence=f"they are sent again when their claims run out, {self._claims.seconds:g} s from now",
            )  # fmt: skip
        self._claims.clear()
        self._sender.clear()


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _divided(batch: Sequence[Received], settings: SinkSettings, sink: str) -> tuple[list[Received], list[Received]]:
    """Return what a sink wants of a batch, and what its filter does not select, or is about the sink itself."""
    selected: list[Received] = []
    dropped: list[Received] = []
    for message in batch:
        if message.problem is not None:
            selected.append(message)
        elif not topics.matches(settings.topics, message.event.topic):
            continue  # a binding of a former configuration
        else:
            wanted = settings.filter_selects(message.event) and not is_about(message.event, sink)
            (selected if wanted else dropped).append(message)
    return selected, dropped
