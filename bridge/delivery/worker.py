"""One sink's deliveries: take charge, claim, send, settle; what fails waits in the store until it is due again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from pydantic_core import from_json

from bridge.concurrency.shared_timeout import SharedTimeout
from bridge.domain import topics
from bridge.domain.circuit_breaker import CircuitBreaker
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, EndpointGone, Permanent, Transient, Unavailable
from bridge.domain.event import Position, WireEvent
from bridge.domain.retry import RECONNECT, RETRY_AFTER_CAP, RetryAfter, backoff, decide
from bridge.protocols.broker import QUEUE_PREFIX, Broker, Inbox, Received
from bridge.protocols.deliveries import Attempt, DeliveryStore, NewDelivery
from bridge.protocols.ledger import Ledger
from bridge.protocols.sink import Sink, SinkSettings

log = structlog.get_logger()

CLAIM = 15.0
"""Seconds for which a claim holds unless it is renewed: what a killed process had in hand is sent again after that."""
_TICK = 1.0
_BATCH = 500
_ROOM = 256
_KEEPS = 2.0
"""Seconds for which what the queue has brought may wait for room in our hands; then it waits in the store. An audit,
another process's too, takes what has left the queue and does not reach the store for lost."""


@dataclass(slots=True)  # not frozen, as there is one for each event: see `WireEvent`
class ClaimedDelivery:
    """A delivery in our hands."""

    position: Position
    event: WireEvent
    attempts: int
    """How many tries failed so far."""


RESULTS = ("taken", "waits", "dead", "disabled")


@dataclass(slots=True)  # not frozen, as there is one for each event: see `WireEvent`
class Outcome:
    """How one try ended."""

    result: str
    """One of `RESULTS`."""
    seconds: float
    """How long the far side took."""
    event: WireEvent


@dataclass(frozen=True, slots=True)
class DeliveryBackends:
    """Where deliveries are kept, and where they come from."""

    ledger: Ledger
    settlements: DeliveryStore
    broker: Broker


def partition_of(event: WireEvent) -> str:
    """Return the partition key: what an ordered sink gets one at a time."""
    return str(from_json(event.body).get("partitionkey") or event.id)


class DeliveryWorker:
    """Works off one sink's queue, and what waits for this sink in the store.

    `_receive` moves messages from the queue into the store, under a claim, and only then acknowledges them: from there
    on the store is the truth and the queue may forget. `_claim_due` brings again what is due. `_send` gives events to
    the sink, `_settle` writes down what was taken, many at once. A crash anywhere leaves claims that run out; what the
    far side had taken by then and we had not written down comes a second time, with the same id. A process that slept,
    or was cut off from the store, for longer than its claims begins to send nothing of what it had in hand.
    """

    def __init__(
        self,
        name: str,
        settings: SinkSettings,
        sink: Sink,
        stores: DeliveryBackends,
        clock: Clock,
        *,
        send: Callable[[ClaimedDelivery], Awaitable[None]],
        outcome: Callable[[Outcome], None],
        changed: Callable[[str, str, datetime], Awaitable[None]],
        claim: float = CLAIM,
    ) -> None:
        self.name = name
        self.queue = QUEUE_PREFIX + name
        self.disabled = False
        """An endpoint that said it is gone gets nothing until an operator re-enables it; its deliveries wait."""
        self.noted = False
        """Whether the store knows that it is disabled: before that, a store that does not say so means nothing."""
        self._settings = settings
        self._sink = sink
        self._ledger = stores.ledger
        self._settlements = stores.settlements
        self._broker = stores.broker
        self._clock = clock
        self._give = send
        self._outcome = outcome
        self._changed = changed
        self._circuit = CircuitBreaker(clock.random)
        self._hold = claim
        self._room = max(_ROOM, 4 * settings.concurrency)
        self._hand: dict[Position, float] = {}
        """What is in our hands, and until when our claim on it surely holds, by the monotonic clock."""
        self._claims_from = float("-inf")
        self._store_answered = clock.monotonic()
        self._ready: deque[ClaimedDelivery] = deque()
        self._sent: list[Position] = []
        self._senders: set[asyncio.Task[None]] = set()
        self._patience = SharedTimeout(settings.send_timeout)
        self._active = 0
        self._defect: asyncio.Future[None] | None = None
        self._something_sent = asyncio.Event()
        self._freed = asyncio.Event()
        self._wake = asyncio.Event()

    @property
    def paused(self) -> bool:
        """Whether nothing is sent now, but for a probe: new events go to the store and wait there."""
        return self.disabled or not self._circuit.allows(self._clock.monotonic())

    @property
    def busy(self) -> bool:
        """Whether anything is in our hands now."""
        return bool(self._hand)

    def wake(self) -> None:
        """Look at once for deliveries that are due."""
        self._wake.set()

    def enable(self) -> None:
        """Send again, and at once what waited."""
        self.disabled = self.noted = False
        self.wake()

    async def run(self, stop: asyncio.Event, *, grace: float) -> None:
        """Deliver until `stop` is set; then take nothing new, and give what is being sent `grace` seconds to end.

        What could not be finished is handed back: due at once, with no try spent.
        """
        taking = [asyncio.ensure_future(self._receive()), asyncio.ensure_future(self._claim_due())]
        keeping = [asyncio.ensure_future(self._renew()), asyncio.ensure_future(self._settle())]
        stopped = asyncio.ensure_future(stop.wait())
        self._defect = asyncio.get_running_loop().create_future()
        watched: list[asyncio.Future[Any]] = [*taking, *keeping, self._defect]
        try:
            await asyncio.wait([*watched, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in watched:
                if task.done():
                    task.result()  # only a defect ends a loop: the supervisor says so and starts us again
            await _end(taking)
            self._ready.clear()
            self._freed.set()  # whoever waits to send finds nothing left
            if self._senders:
                await asyncio.wait(self._senders, timeout=grace)
        finally:
            await _end([stopped, *watched, *self._senders])
            await self._hand_back()

    # taking charge

    async def _receive(self) -> None:
        failures = 0
        while True:
            try:
                await self._broker.declare(self.queue, self._settings.topics)
                async with self._broker.inbox(self.queue, prefetch=min(self._room, 2000)) as inbox:
                    while True:
                        roomy = await self._has_room()
                        limit = min(self._room - len(self._hand), _BATCH) if roomy else _BATCH
                        batch = await inbox.get(limit, _TICK)
                        failures = 0
                        if batch:
                            await self._take(inbox, batch, claim=roomy)
            except Unavailable as error:
                failures += 1
                wait = backoff(failures, self._clock.random, cap=RECONNECT)
                log.warning(
                    "sink.cannot_receive", sink=self.name, reason=str(error), again_in=round(wait, 1),
                    consequence="events wait in the queue",
                )  # fmt: skip
                await self._clock.sleep(wait)

    async def _until_room(self) -> None:
        # For a good part of it: taking charge of one event costs the store and the queue as much as of fifty.
        while len(self._hand) > self._room * 3 // 4:
            self._freed.clear()
            await self._freed.wait()

    async def _has_room(self) -> bool:
        try:
            async with asyncio.timeout(_KEEPS):
                await self._until_room()
        except TimeoutError:
            return False
        return True

    async def _take(self, inbox: Inbox, batch: Sequence[Received], *, claim: bool) -> None:
        arrivals: list[NewDelivery] = []
        events: dict[Position, WireEvent] = {}
        malformed: dict[Position, str] = {}
        for one in batch:
            if one.problem is None and not topics.matches(self._settings.topics, one.event.topic):
                continue  # a binding of a former configuration
            position = one.position
            if one.problem is not None or position is None:
                position = await self._settlements.accept_foreign(self.name, one.event)
            if one.problem is not None:
                malformed[position] = one.problem
                continue
            events[position] = one.event
            arrivals.append(NewDelivery(position, partition_of(one.event) if self._settings.ordered else None))
        for position, problem in malformed.items():
            await self._bury_malformed(position, problem)
        now, sure = self._clock.epoch(), self._clock.monotonic() + self._hold
        if self.paused or not claim:
            await self._settlements.enqueue(self.name, arrivals, now)
        elif arrivals:
            for position in await self._settlements.accept(self.name, arrivals, now + self._hold):
                self._accept(ClaimedDelivery(position, events[position], 0), sure)
        # A crash before this line: the queue brings the batch again, and the store says that it is known.
        await inbox.ack(batch)

    async def _bury_malformed(self, position: Position, problem: str) -> None:
        log.error(
            "sink.message_is_no_event", sink=self.name, position=str(position), reason=problem,
            consequence="kept as a dead letter",
        )  # fmt: skip
        now = self._clock.epoch()
        attempt = Attempt(now, problem, "permanent")
        if await self._settlements.accept(self.name, [NewDelivery(position)], now + self._hold):
            await self._settlements.dead_letter(self.name, position, "malformed", attempt)

    async def _claim_due(self) -> None:
        failures = 0
        while True:
            try:
                await self._until_room()
                limit = self._claimable()
                if not limit:
                    if self._clock.monotonic() < self._claims_from:
                        await self._settlements.next_due(self.name)  # the wait counts from the end of the outage
                    await self._nap(_TICK)
                elif not await self._claim(limit):
                    due = await self._settlements.next_due(self.name)
                    await self._nap(_TICK if due is None else due - self._clock.epoch())
                failures = 0
            except Unavailable as error:
                failures += 1
                wait = backoff(failures, self._clock.random, cap=RECONNECT)
                log.warning(
                    "sink.cannot_read_store", sink=self.name, reason=str(error), again_in=round(wait, 1),
                    consequence="deliveries that are due wait longer",
                )  # fmt: skip
                await self._clock.sleep(wait)
                self._store_was_away()

    def _claimable(self) -> int:
        now = self._clock.monotonic()
        if self.disabled or now < self._claims_from:
            return 0
        return self._circuit.capacity(now, min(self._room - len(self._hand), _BATCH))

    def _store_was_away(self) -> None:
        # Claims may have run out meanwhile, also those on what was sent: each process first writes down what it sent,
        # and renews the claims on what it is sending, before anybody claims what looks abandoned.
        now = self._clock.monotonic()
        if now - self._store_answered >= self._hold / 3:
            self._claims_from = now + max(self._hold, RECONNECT)

    async def _nap(self, seconds: float) -> None:
        # Never longer than a tick: another process may make something due (a redrive, a replay, a lane that moved).
        waker = asyncio.ensure_future(self._wake.wait())
        sleeper = asyncio.ensure_future(self._clock.sleep(min(max(seconds, 0.01), _TICK)))
        try:
            await asyncio.wait([waker, sleeper], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waker.cancel()
            sleeper.cancel()
        self._wake.clear()

    async def _claim(self, limit: int) -> bool:
        now, sure = self._clock.epoch(), self._clock.monotonic() + self._hold
        claimed = await self._settlements.claim(self.name, now, now + self._hold, limit)
        self._store_answered = self._clock.monotonic()
        due = [one for one in claimed if one.position not in self._hand]
        # Our own claims that had run out, on what we still send.
        self._hand.update((one.position, sure) for one in claimed if one.position in self._hand)
        entries = await self._ledger.entries([one.position for one in due]) if due else ()
        for one, entry in zip(due, entries, strict=True):
            if entry is None:
                log.error(
                    "delivery.event_is_no_longer_in_the_journal", sink=self.name, position=str(one.position),
                    consequence="kept as a dead letter without its content",
                )  # fmt: skip
                await self._settlements.dead_letter(self.name, one.position, "expired", None)
            elif one.position.source.startswith("@") and not _is_event(entry.event.body):
                # Taken charge of by a process that died before it could bury it.
                attempt = Attempt(now, "not a CloudEvent", "permanent")
                await self._settlements.dead_letter(self.name, one.position, "malformed", attempt)
            else:
                self._accept(ClaimedDelivery(one.position, entry.event, len(one.attempts)), sure)
        return bool(due)

    # sending

    def _accept(self, claimed: ClaimedDelivery, sure: float) -> None:
        self._hand[claimed.position] = sure
        self._ready.append(claimed)
        if self._active < self._settings.concurrency:
            self._active += 1
            sender = asyncio.ensure_future(self._send())
            self._senders.add(sender)
            sender.add_done_callback(self._sender_ended)

    def _sender_ended(self, sender: asyncio.Task[None]) -> None:
        self._senders.discard(sender)
        if not sender.cancelled() and (error := sender.exception()) and self._defect and not self._defect.done():
            self._defect.set_exception(error)

    async def _send(self) -> None:
        try:
            await self._send_ready()
        finally:
            self._active -= 1  # here and not in a callback: what becomes ready right now needs a new sender

    async def _send_ready(self) -> None:
        while self._ready:
            if len(self._sent) >= self._settings.concurrency:
                # What is sent and not settled comes twice after a crash: no more than twice `concurrency` in all.
                self._freed.clear()
                await self._freed.wait()
                continue
            claimed = self._ready.popleft()
            started = self._clock.monotonic()
            if not self._is_ours(claimed.position, started):
                self._release(claimed.position)
                continue
            if self.disabled or not self._circuit.capacity(started, 1):
                await self._put_back(claimed)
                continue
            probe = self._circuit.on_attempt()
            try:
                await self._patience.wait_for(self._give(claimed))
            except TimeoutError:
                error: Exception = Transient(f"no answer within {self._settings.send_timeout:g} s")
            except Exception as raised:  # noqa: BLE001 - whatever a plugin raises, the event is kept and tried again
                error = raised
            else:
                self._sent.append(claimed.position)
                self._something_sent.set()
                await self._answered()
                self._outcome(Outcome("taken", self._clock.monotonic() - started, claimed.event))
                continue
            result = await self._failed(claimed, error, probe=probe)
            self._outcome(Outcome(result, self._clock.monotonic() - started, claimed.event))

    async def _failed(self, claimed: ClaimedDelivery, error: Exception, *, probe: bool) -> str:
        # Only our own errors promise a text that is fit for a log.
        text = str(error) if isinstance(error, BridgeError) else f"the sink failed with {type(error).__name__}"
        if isinstance(error, EndpointGone):
            self._circuit.on_cancelled()
            await self._disable(text)
            await self._written(partial(self._postpone, claimed, 0.0, None))
            return "disabled"
        if isinstance(error, Transient) and not error.counts_as_attempt:
            self._circuit.on_cancelled()  # the far side was not asked at all
            wait = min(max(error.retry_after or 0.0, _TICK), RETRY_AFTER_CAP)
            log.debug("delivery.waits_its_turn", sink=self.name, id=claimed.event.id, after=round(wait, 1), reason=text)
            await self._written(partial(self._postpone, claimed, wait, None))
            return "waits"
        tells = await self._count(error, text)
        if probe and tells:
            # It was the far side's failure and not this event's: no try is spent, and the next probe is another one.
            wait = max(0.0, self._circuit.until - self._clock.monotonic())
            log.info("sink.is_still_away", sink=self.name, reason=text, again_in=round(wait, 1))
            await self._written(partial(self._postpone, claimed, wait, None))
            return "waits"
        attempts = claimed.attempts + 1
        kind = "permanent" if isinstance(error, Permanent) else "transient"
        attempt = Attempt(self._clock.epoch(), text, kind)
        decision = decide(error, attempts, self._settings.retry, self._clock.random)
        if isinstance(decision, RetryAfter):
            after = decision.after
            log.info(
                "delivery.waits", sink=self.name, id=claimed.event.id, attempt=attempts, after=round(after, 1),
                reason=text,
            )  # fmt: skip
            await self._written(partial(self._postpone, claimed, after, attempt))
            return "waits"
        reason = decision.reason
        log.error(
            "delivery.dead_letter", sink=self.name, id=claimed.event.id, attempt=attempts, why=reason, reason=text,
            consequence=f"kept; see `bridge deliveries show {self.name} {claimed.position}`",
        )  # fmt: skip
        await self._written(partial(self._bury, claimed, reason, attempt))
        return "dead"

    async def _disable(self, text: str) -> None:
        if self.disabled:
            return  # of those that were being sent together, the first one tells
        self.disabled, self.noted = True, False
        log.error(
            "sink.disabled", sink=self.name, reason=text,
            consequence=f"its events wait until `bridge deliveries redrive {self.name} --all`",
        )  # fmt: skip
        await self._tell("gone", text)
        self.noted = True

    async def _tell(self, state: str, text: str) -> None:
        await self._written(partial(self._changed, state, text, self._clock.now()))

    async def _answered(self) -> None:
        if self._circuit.on_success():
            log.info("sink.recovers", sink=self.name, consequence="what waited is sent now")
            await self._tell("recovered", "")
            self._wake.set()

    async def _count(self, error: Exception, text: str) -> bool:
        """Take a failure into account; say whether it tells that the far side is away."""
        if isinstance(error, Permanent):
            await self._answered()  # it refuses this event, and it is there
            return False
        if isinstance(error, Transient) and error.retry_after:
            if self._circuit.on_retry_after(self._clock.monotonic(), error.retry_after):
                log.info(
                    "sink.asks_for_patience", sink=self.name, reason=text, seconds=round(error.retry_after, 1),
                    consequence="nothing is sent to it for so long, up to a minute",
                )  # fmt: skip
            return False  # it is there
        if self._circuit.on_failure(self._clock.monotonic()):
            log.error(
                "sink.pauses", sink=self.name, reason=text, failures=self._circuit.failures,
                consequence="it is probed now and then; no event spends its tries on it until it answers",
            )  # fmt: skip
            await self._tell("disabled", text)
        return True

    async def _put_back(self, claimed: ClaimedDelivery) -> None:
        """Have this one, and all that is ready beside it, wait in the store; no try is spent."""
        self._let_go(self._clock.monotonic())
        unsent = [claimed.position, *(one.position for one in self._ready)]
        self._ready.clear()
        await self._written(partial(self._give_back, unsent))

    async def _give_back(self, positions: Sequence[Position]) -> None:
        await self._settlements.extend(self.name, positions, self._clock.epoch())
        for position in positions:
            self._release(position)

    async def _postpone(self, claimed: ClaimedDelivery, after: float, attempt: Attempt | None) -> None:
        await self._settlements.postpone(self.name, claimed.position, self._clock.epoch() + after, attempt)
        self._release(claimed.position)

    async def _bury(self, claimed: ClaimedDelivery, reason: str, attempt: Attempt) -> None:
        if await self._settlements.dead_letter(self.name, claimed.position, reason, attempt):
            self._wake.set()
        self._release(claimed.position)

    def _is_ours(self, position: Position, now: float) -> bool:
        # Beyond that it is due in the store, or another process has it in hand and may have sent it.
        return now < self._hand[position]

    def _release(self, position: Position) -> None:
        self._hand.pop(position, None)
        self._freed.set()

    async def _written(self, write: Callable[[], Awaitable[object]]) -> None:
        # The store may be away for a while: what we know must still be written, or the far side gets it twice.
        failures = 0
        while True:
            try:
                await write()
            except Unavailable as error:
                failures += 1
                wait = backoff(failures, self._clock.random, base=0.2, cap=RECONNECT)
                log.warning(
                    "sink.cannot_write_store", sink=self.name, reason=str(error), again_in=round(wait, 1),
                    consequence="what was delivered is kept in memory until it can be written",
                )  # fmt: skip
                await self._clock.sleep(wait)
            else:
                return

    # settling

    async def _settle(self) -> None:
        while True:
            await self._something_sent.wait()
            self._something_sent.clear()
            while self._sent:
                batch = self._sent[:_BATCH]
                await self._written(partial(self._settle_batch, batch))
                del self._sent[: len(batch)]

    async def _settle_batch(self, batch: Sequence[Position]) -> None:
        if await self._settlements.settle(self.name, batch):
            self._wake.set()
        for position in batch:
            self._hand.pop(position, None)
        self._freed.set()

    async def _renew(self) -> None:
        failures = 0
        while True:
            wait = backoff(failures, self._clock.random, cap=self._hold / 3) if failures else self._hold / 3
            await self._clock.sleep(wait)
            now = self._clock.monotonic()
            self._let_go(now)
            try:
                if self._hand:
                    await self._extend(list(self._hand), now + self._hold)
                failures = 0
            except Unavailable as error:
                failures += 1
                log.warning(
                    "sink.cannot_renew_claims", sink=self.name, reason=str(error),
                    consequence="another process may send the same events, with the same ids",
                )  # fmt: skip
                self._store_was_away()

    async def _extend(self, positions: Sequence[Position], sure: float) -> None:
        await self._settlements.extend(self.name, positions, self._clock.epoch() + self._hold)
        self._store_answered = self._clock.monotonic()
        self._hand.update((position, sure) for position in positions if position in self._hand)

    def _let_go(self, now: float) -> None:
        # What is being sent, or was sent and is not settled, is renewed all the same.
        gone = [one for one in self._ready if not self._is_ours(one.position, now)]
        self._ready = deque(one for one in self._ready if self._is_ours(one.position, now))
        for one in gone:
            self._release(one.position)

    async def _hand_back(self) -> None:
        try:
            if self._sent:
                await self._settle_batch(list(self._sent))
                self._sent.clear()
            now = self._clock.monotonic()
            await self._give_back([position for position in self._hand if self._is_ours(position, now)])
        except Unavailable as error:
            log.warning(
                "sink.cannot_hand_back", sink=self.name, reason=str(error), deliveries=len(self._hand),
                consequence=f"they are sent again when their claims run out, {self._hold:g} s from now",
            )  # fmt: skip
        self._hand.clear()
        self._ready.clear()
        self._senders.clear()


def _is_event(body: bytes) -> bool:
    try:
        event = from_json(body)
    except ValueError:
        return False
    return isinstance(event, dict) and "id" in event


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
