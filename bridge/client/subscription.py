"""A queue of a service's own as a loop over typed events: each is acknowledged when its turn of the loop is over."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

from bridge.client.acknowledging import Acknowledger
from bridge.client.places import MEMORY, broker_at, check_present, seen_at
from bridge.client.reading import EventReader
from bridge.domain import topics as topic_patterns
from bridge.domain.clock import Clock
from bridge.domain.errors import AccessRefused, Unavailable
from bridge.domain.event import Event, JournalEntry, Position
from bridge.protocols.broker import QUEUE_PREFIX, Inbox, OpenBroker, Received
from bridge.protocols.seen import SeenEvents

DEAD_SUFFIX = ".dead"
LEASE_SECONDS = 10.0
KEEP_SECONDS = 7 * 86_400.0
KEEP_IDS = 1_000_000
"""Ids, about 100 bytes each."""
_WAIT_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 15.0

logger = logging.getLogger("bridge.client")


def subscribe(
    url: str,
    topics: Sequence[str] = ("#",),
    *,
    queue: str,
    exchange: str = "bridge.events",
    seen: str | SeenEvents = MEMORY,
    events: Iterable[type[Event]] = (),
    prefetch: int = 100,
    max_tries: int = 5,
    keep_ids: int = KEEP_IDS,
    keep_seconds: float = KEEP_SECONDS,
    lease_seconds: float = LEASE_SECONDS,
    clock: Clock | None = None,
) -> Subscription:
    """Return a subscription to a queue of the service's own, for `async for` and `async with`.

    `url` is the broker's, as in the bridge's configuration; `sqlite:////var/lib/bridge/broker.db` is the embedded one.
    `queue` is the service's own, durable, shared by all processes that name it; `topics` are bound to it, exact words,
    `*` for one word and a final `#` for none or more. A topic that is left out later stays bound.

    `seen` is where the ids of handled events are kept: `memory`, `sqlite:///PATH` or `redis://…`. In memory they go
    with the process. The last `keep_ids` ids are kept, each for `keep_seconds`. `events` are event classes of other
    distributions. Up to `prefetch` events are with this process, not acknowledged, at a time.

    An event that was begun `max_tries` times and never finished goes to the queue `QUEUE.dead`. What a killed process
    had comes to another one at once on RabbitMQ, and after `lease_seconds` on Redis and the embedded broker.

    Raises `ValueError` for a URL, a topic or a queue that cannot be. Connecting is left to the loop.
    """
    if not queue or queue.startswith(QUEUE_PREFIX):
        raise ValueError(f"queue {queue!r} cannot be used; name one of your own, not beginning with {QUEUE_PREFIX}")
    if max_tries < 1 or prefetch < 1:
        raise ValueError("max_tries and prefetch have to be 1 or more")
    for topic in topics:
        topic_patterns.check(topic)
    clock = clock or Clock()
    return Subscription(
        broker_at(url, exchange, clock, lease_seconds),
        partial(check_present, url),
        tuple(topics),
        queue,
        seen=seen_at(seen, queue, keep_ids=keep_ids, keep_seconds=keep_seconds, clock=clock),
        reader=EventReader(events),
        prefetch=prefetch,
        max_tries=max_tries,
        clock=clock,
    )


class Subscription:
    """The events of one queue, in the queue's order, one at a time; made by `subscribe`.

    An event is finished when the loop asks for the next one: then it is acknowledged, and its id is kept. If the loop
    is left by an exception or by `break`, its event returns to the queue. Inside `async with subscription as events`
    that happens at once; a bare `async for` does it when Python collects the loop's generator. While the broker is
    unavailable, the loop waits and connects again. `stop` ends the loop after the event that it is at.
    """

    def __init__(
        self,
        broker: OpenBroker,
        check_broker: Callable[[], None],
        topics: tuple[str, ...],
        queue: str,
        *,
        seen: SeenEvents,
        reader: EventReader,
        prefetch: int,
        max_tries: int,
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._check_broker = check_broker
        self._topics = topics
        self._queue = queue
        self._seen = seen
        self._reader = reader
        self._prefetch = prefetch
        self._max_tries = max_tries
        self._clock = clock
        self._used = False
        self._stack: AsyncExitStack | None = None
        self._inbox: Inbox | None = None
        self._acknowledger: Acknowledger | None = None
        self._waiting: deque[Received] = deque()
        self._current: Received | None = None
        self._tries = 0
        self._stopping = asyncio.Event()
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    @property
    def tries(self) -> int:
        """How often the present event was begun, this time included; more than 1 after a failure or a crash."""
        return self._tries

    def stop(self) -> None:
        """End the loop after the event that it is at, or at once if it waits; may be called again."""
        self._stopping.set()

    async def __aenter__(self) -> Self:
        if self._used:
            raise RuntimeError("a subscription is entered once; call subscribe() again for another loop")
        self._used = True
        self._stack = AsyncExitStack()
        self._stack.push_async_callback(self._seen.close)
        self._stack.push_async_callback(self._broker.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        try:
            await self._leave_current(error)
        finally:
            self._waiting.clear()
            if stack is not None:
                await stack.aclose()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._loop() if self._stack is not None else self._opened_loop()

    async def _opened_loop(self) -> AsyncGenerator[Event, None]:
        async with self:
            async for event in self._loop():
                yield event

    async def _loop(self) -> AsyncGenerator[Event, None]:
        if self._current is not None:  # a former loop was left by `break`
            self._waiting.appendleft(self._current)
            self._current = None
        while (event := await self._next()) is not None:
            yield event
        try:
            await self._finish_current()
        except Unavailable as error:
            logger.warning("the last event comes again: %s", error)

    # one event after the other

    async def _next(self) -> Event | None:
        """Return the next event to handle; None after `stop`. Also finishes the event before it."""
        while not self._stopping.is_set():
            try:
                received = await self._take()
                event = None if received is None else await self._begin(received)
            except AccessRefused:
                if self._inbox is None:
                    raise
                await self._pause("the broker or the memory of ids refuses access")
            except Unavailable as error:
                await self._pause(str(error))
            else:
                self._pause_seconds = _FIRST_PAUSE_SECONDS
                if event is not None:
                    return event
        return None

    async def _take(self) -> Received | None:
        """Return the first message that waits; None if none came within the wait, or `stop` was called."""
        if not self._waiting:
            await self._finish_current()
            await self._fetch(self._inbox or await self._connect())
        return self._waiting[0] if self._waiting else None

    async def _fetch(self, inbox: Inbox) -> None:
        """Wait for messages; what has arrived is kept even if the caller is cancelled at that moment."""
        getting = asyncio.ensure_future(inbox.get(self._prefetch, _WAIT_SECONDS))
        try:
            await self._unless_stopped(getting)
        except BaseException:
            if getting.done() and not getting.cancelled() and getting.exception() is None:
                self._waiting.extend(getting.result())
            raise
        if getting.done() and not getting.cancelled():
            self._waiting.extend(getting.result())

    async def _unless_stopped(self, work: asyncio.Future[Any]) -> None:
        """Wait for work, and cancel it on `stop` or if the caller is cancelled."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            stopping.cancel()

    async def _begin(self, received: Received) -> Event | None:
        """Count a try of the first message that waits; None if it is not to be handled."""
        before, event_id = self._current, received.event.id
        tries = await self._seen.begin(event_id, before.event.id if before is not None else None)
        self._settle_current()
        event = self._readable(received) if tries else None
        if event is not None and tries <= self._max_tries:
            self._current, self._tries = self._waiting.popleft(), tries
            return event
        if tries:
            never_finished = f"begun {self._max_tries} times and never finished"
            await self._dead_letter(received, "its body is no event" if event is None else never_finished)
        self._acknowledge(self._waiting.popleft())
        return None

    def _readable(self, received: Received) -> Event | None:
        if received.problem is not None:
            return None
        try:
            return self._reader.read(received.event.body)
        except ValueError:
            return None

    async def _finish_current(self) -> None:
        if self._current is not None:
            await self._seen.finish(self._current.event.id)
            self._settle_current()

    def _settle_current(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            self._acknowledge(current)

    def _acknowledge(self, received: Received) -> None:
        if self._acknowledger is not None:
            self._acknowledger.add(received)

    async def _leave_current(self, error: BaseException | None) -> None:
        """Decide about the event whose turn was not finished: stopped, failed for the last time, or to come again."""
        current, self._current = self._current, None
        if current is None:
            return
        try:
            if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit):
                await self._seen.forget_try(current.event.id)
            elif isinstance(error, Exception) and self._tries >= self._max_tries:
                await self._dead_letter(current, type(error).__name__)
                self._acknowledge(current)
            elif isinstance(error, Exception):
                logger.warning(
                    "event %s failed (%s) at try %d of %d; it comes again",
                    *(current.event.id, type(error).__name__, self._tries, self._max_tries),
                )
        except Unavailable as unavailable:
            logger.warning("event %s comes again: %s", current.event.id, unavailable)

    async def _dead_letter(self, received: Received, reason: str) -> None:
        queue = f"{self._queue}{DEAD_SUFFIX}"
        await self._broker.declare(queue, ())
        entry = JournalEntry(received.position or Position(self._queue, 0), received.event)
        await self._broker.publish([entry], queue=queue)  # killed here, it is dead-lettered twice, and never lost
        await self._seen.finish(received.event.id)
        logger.error("event %s is a dead letter in %s: %s", received.event.id, queue, reason)

    # the connection

    async def _connect(self) -> Inbox:
        if self._stack is None:
            raise RuntimeError("the subscription is closed; call subscribe() again")
        self._check_broker()
        await self._broker.open()
        await self._broker.declare(self._queue, self._topics)
        inbox = await self._stack.enter_async_context(self._broker.inbox(self._queue, prefetch=self._prefetch))
        self._inbox, self._acknowledger = inbox, Acknowledger(inbox)
        self._stack.push_async_callback(self._acknowledger.close)
        return inbox

    async def _pause(self, reason: str) -> None:
        """Wait, longer each time. What has arrived stays: if the connection is gone, its second copy is known."""
        pause = self._pause_seconds * (0.5 + self._clock.random.random() / 2)
        self._pause_seconds = min(2 * self._pause_seconds, _MAX_PAUSE_SECONDS)
        logger.warning("%s; trying again in %.1f s", reason, pause)
        await self._unless_stopped(asyncio.ensure_future(self._clock.sleep(pause)))
