"""The deliveries that this process has in flight: its claims on them, and the writes to the store that end a claim."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.event import Position, WireEvent
from bridge.domain.reporting import Report, unreported
from bridge.domain.retry import RECONNECT, Backoff
from bridge.protocols.deliveries import Attempt, Delivery, DeliveryStore, KeptAnswer
from bridge.protocols.unsent import Unsent, UnsentDelivery

log = structlog.get_logger()

CLAIM = 15.0
"""Seconds that a claim lasts unless it is renewed. After that, the deliveries of a killed process are sent again."""
_MAX_UNSTORED_SECONDS = 2.0
"""Seconds that messages from the queue may wait for capacity in this process; then they wait in the store. An audit,
also one in another process, counts an event as lost if it has left the queue and does not reach the store."""
_FIRST_RETRY_SECONDS = 0.2


@dataclass(slots=True)  # not frozen: there is one for each event, see `WireEvent`
class ClaimedDelivery:
    """A delivery that this process has claimed."""

    position: Position
    event: WireEvent
    attempts: int
    """How many attempts failed so far."""


class Claims:
    """The claims of one sink's worker, each with the monotonic time until which it surely holds.

    A deadline is taken before the store is asked, so the claim in the store never ends before it. After an outage of
    the store nothing is claimed for as long as a claim lasts: see `on_store_outage`.
    """

    def __init__(
        self,
        sink: str,
        deliveries: DeliveryStore,
        clock: Clock,
        *,
        limit: int,
        seconds: float,
        wake: Callable[[], None],
        report: Report = unreported,
    ) -> None:
        """Prepare; `limit` is how many may be in flight, and `wake` is called when a write made a delivery due."""
        self.limit = limit
        self.seconds = seconds
        self._sink = sink
        self._deliveries = deliveries
        self._clock = clock
        self._wake = wake
        self._report = report
        self._in_flight: dict[Position, float] = {}
        """The claim deadline of each delivery in flight."""
        self._released = asyncio.Event()
        self._no_claims_before = float("-inf")
        self._store_answered_at = clock.monotonic()

    def __len__(self) -> int:
        return len(self._in_flight)

    # capacity

    @property
    def capacity(self) -> int:
        """How many more deliveries may be in flight."""
        return self.limit - len(self._in_flight)

    async def wait_for_capacity(self) -> None:
        """Return when a quarter of the limit is free: to accept one event costs store and queue as much as fifty."""
        while len(self._in_flight) > self.limit * 3 // 4:
            await self.wait_for_release()

    async def has_capacity(self) -> bool:
        """Wait for capacity for a short time; return whether there is any."""
        try:
            async with asyncio.timeout(_MAX_UNSTORED_SECONDS):
                await self.wait_for_capacity()
        except TimeoutError:
            return False
        return True

    async def wait_for_release(self) -> None:
        """Return when the next claim ends, or when the worker stops."""
        self._released.clear()
        await self._released.wait()

    def wake_waiting(self) -> None:
        """End `wait_for_release` for every task that waits."""
        self._released.set()

    # claims

    def new_deadline(self) -> float:
        """Return the deadline of a claim that the store is asked for from now on."""
        return self._clock.monotonic() + self.seconds

    def add(self, position: Position, claim_deadline: float) -> bool:
        """Note a claim that the store has granted; return whether the delivery was not in flight.

        It was, if the claim expired before the store's answer came, and this process claimed it anew in between.
        """
        is_new = position not in self._in_flight
        self._in_flight[position] = max(claim_deadline, self._in_flight.get(position, claim_deadline))
        return is_new

    def holds(self, position: Position, now: float) -> bool:
        """Return whether the claim surely holds; else the delivery is due, or another process may have sent it."""
        return now < self._in_flight[position]

    def unexpired(self, now: float) -> list[Position]:
        """Return the deliveries whose claims surely hold."""
        return [position for position, claim_deadline in self._in_flight.items() if now < claim_deadline]

    def allowed(self, now: float) -> bool:
        """Return whether this process may claim what is due."""
        return now >= self._no_claims_before

    async def claim(self, limit: int) -> tuple[Sequence[Delivery], float]:
        """Claim up to `limit` due deliveries; return those that are not in flight here, and the claims' deadline."""
        now, claim_deadline = self._clock.epoch(), self.new_deadline()
        claimed = await self._deliveries.claim(self._sink, now, now + self.seconds, limit)
        self._store_answered_at = self._clock.monotonic()
        # The others are our own expired claims on deliveries that are still being sent.
        self._extend_deadlines((delivery.position for delivery in claimed), claim_deadline)
        return [delivery for delivery in claimed if delivery.position not in self._in_flight], claim_deadline

    async def renew(self, drop_expired: Callable[[float], None]) -> None:
        """Renew all claims for ever, three times while a claim lasts; `drop_expired` releases what must not be sent."""
        interval = self.seconds / 3
        retry = Backoff(self._clock.random, cap=interval)
        wait = interval
        while True:
            await self._clock.sleep(wait)
            drop_expired(self._clock.monotonic())
            try:
                await self._renew_all()
            except Unavailable as error:
                wait = retry.on_failure()
                self._report("renew", str(error))
                log.warning(
                    "sink.cannot_renew_claims", sink=self._sink, reason=str(error),
                    consequence="another process may send the same events, with the same ids",
                )  # fmt: skip
                self.on_store_outage()
            else:
                retry.on_success()
                self._report("renew", None)
                wait = interval

    async def _renew_all(self) -> None:
        positions, claim_deadline = list(self._in_flight), self.new_deadline()
        if positions:
            await self._deliveries.extend(self._sink, positions, self._clock.epoch() + self.seconds)
            self._store_answered_at = self._clock.monotonic()
            self._extend_deadlines(positions, claim_deadline)

    def _extend_deadlines(self, positions: Iterable[Position], claim_deadline: float) -> None:
        self._in_flight.update((position, claim_deadline) for position in positions if position in self._in_flight)

    def on_store_outage(self) -> None:
        """Claim nothing for a while if the store did not answer for long.

        Claims may have expired during the outage, also claims on deliveries that were sent. Every process first settles
        what it sent and renews the claims on what it is sending, before any process claims what looks abandoned.
        """
        now = self._clock.monotonic()
        if now - self._store_answered_at >= self.seconds / 3:
            self._no_claims_before = now + max(self.seconds, RECONNECT)

    # the end of a claim

    async def settle(self, positions: Sequence[Position]) -> None:
        """Note in the store that the endpoint accepted these events."""
        if await self._deliveries.settle(self._sink, positions):
            self._wake()
        self._release_claims(positions)

    async def requeue(self, positions: Sequence[Position]) -> None:
        """Make these due in the store at once; no attempt is counted."""
        await self.requeue_at(positions, self._clock.epoch())

    async def postpone(self, position: Position, after: float, attempt: Attempt | None) -> None:
        """Make this due in the store `after` seconds from now."""
        await self._deliveries.postpone(self._sink, position, self._clock.epoch() + after, attempt)
        self.release(position)

    async def wait_until(self, dues: Sequence[tuple[Position, float]]) -> None:
        """Make each of these due in the store at its time; no attempt is counted."""
        await self._deliveries.wait_until(self._sink, dues)
        self._release_claims(position for position, _ in dues)

    async def end_unsent(self, deliveries: Sequence[UnsentDelivery], unsent: Unsent, *, is_totalled: bool) -> int:
        """End these without sending them; return how many were still waiting."""
        number = await self._deliveries.end_unsent(self._sink, deliveries, unsent, is_totalled=is_totalled)
        if number:
            self._wake()  # what was held behind them in a partition may be due now
        self._release_claims(delivery.position for delivery in deliveries)
        return number

    async def requeue_at(self, positions: Sequence[Position], due: float) -> None:
        """Make these due in the store at a time, as they were before they were claimed."""
        await self._deliveries.extend(self._sink, positions, due)
        self._release_claims(positions)

    async def dead_letter(self, position: Position, reason: str, attempt: Attempt, answer: KeptAnswer | None) -> None:
        """Make this a dead letter."""
        if await self._deliveries.dead_letter(self._sink, position, reason, attempt, answer):
            self._wake()
        self.release(position)

    def release(self, position: Position) -> None:
        """Forget a claim without a word to the store."""
        self._release_claims((position,))

    def _release_claims(self, positions: Iterable[Position]) -> None:
        for position in positions:
            self._in_flight.pop(position, None)
        self._released.set()

    def clear(self) -> None:
        """Forget all claims, which expire in the store."""
        self._in_flight.clear()


async def write_with_retry(
    sink: str, clock: Clock, write: Callable[[], Awaitable[object]], *, report: Report = unreported
) -> None:
    """Write to the store until that succeeds: a result that is not written makes the endpoint get the event twice."""
    retry = Backoff(clock.random, base=_FIRST_RETRY_SECONDS, cap=RECONNECT)
    while True:
        try:
            await write()
        except Unavailable as error:
            wait = retry.on_failure()
            report("write", str(error))
            log.warning(
                "sink.cannot_write_store", sink=sink, reason=str(error), again_in=round(wait, 1),
                consequence="what was delivered is kept in memory until it can be written",
            )  # fmt: skip
            await clock.sleep(wait)
        else:
            if retry.failures:
                report("write", None)
            return
