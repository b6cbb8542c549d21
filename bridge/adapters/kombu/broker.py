"""The broker by kombu: RabbitMQ, Redis, or any other transport, each connection on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import amqp
import redis
import structlog

from bridge.adapters.kombu.amqp import AmqpConnection, PublishBlocked
from bridge.adapters.kombu.redis import RedisConnection
from bridge.adapters.kombu.url import BrokerAddress, parse_broker_url
from bridge.adapters.kombu.virtual import VirtualConnection
from bridge.adapters.os_errors import os_error_reason
from bridge.concurrency.thread_worker import ThreadWorker, wait_readable
from bridge.domain.clock import Clock
from bridge.domain.errors import AccessRefused, BridgeError, Unavailable
from bridge.domain.event import JournalEntry
from bridge.protocols.broker import Inbox, Received

T = TypeVar("T")
log = structlog.get_logger()

_REFUSED = (amqp.exceptions.AccessRefused, redis.AuthenticationError)
_SPARE = 10.0
"""Seconds beyond its own time limits after which a call is given up from outside."""


class KombuConnection(Protocol):
    """One connection, used by one thread. After any library error it has to be thrown away."""

    def declare(self, queue: str, topics: Sequence[str]) -> None: ...  # noqa: D102 - as Broker says
    def publish(self, entries: Sequence[JournalEntry]) -> int: ...  # noqa: D102 - as Broker says
    def depth(self, queue: str) -> int: ...  # noqa: D102 - as Broker says
    def ping(self) -> None: ...  # noqa: D102 - as Broker says
    def consume(self, queue: str, prefetch: int, consumer: str) -> None: ...  # noqa: D102 - as Broker.inbox says
    def tap(self, topics: Sequence[str], prefetch: int) -> None: ...  # noqa: D102 - as Broker says

    def receive(self, wake: int) -> list[Received]:
        """Return what has arrived; wait for it for a few seconds at most, or until `wake` is readable."""
        ...

    def ack(self, tags: Sequence[Any]) -> None:
        """Acknowledge those tags that are this link's own."""
        ...

    def interrupt(self) -> None:
        """Make whatever blocks fail at once; for another thread."""
        ...

    def close(self) -> None:
        """Close in good order, within a few seconds."""
        ...

    def drop(self) -> None:
        """Close at once."""
        ...


class ConnectionThread:
    """A thread and its connection: made when it is needed, thrown away when it failed."""

    def __init__(self, name: str, label: str, dial: Callable[[], KombuConnection]) -> None:
        self._label = label
        self._dial = dial
        self._link: KombuConnection | None = None
        self.heard: Callable[[list[Received]], None] = lambda _arrived: None
        """Called in the event loop with what has arrived."""
        self.broke: Callable[[Unavailable], None] = lambda _error: None
        """Called in the event loop when the connection broke while nobody was calling."""
        self.worker = ThreadWorker(name, rest=self._rest, end=self._end, interrupt=self._interrupt)

    async def call(self, job: Callable[[KombuConnection], T], *, within: float) -> T:
        """Do `job` with the connection, in the thread; raises `Unavailable`."""
        return await self.worker.call(lambda: self._with_link(job), within=within, what=self._label)

    def submit(self, job: Callable[[KombuConnection], T]) -> asyncio.Future[T]:
        """Do `job` with the connection, in the thread, without waiting for it."""
        return self.worker.submit(lambda: self._with_link(job))

    def _with_link(self, job: Callable[[KombuConnection], T]) -> T:
        """Do `job`; this is the one place where a library's error becomes ours.

        A dead broker speaks through whichever library notices first, and py-amqp and kombu also trip over what a lost
        connection has set to None: no list of exception types would be complete.
        """
        try:
            if self._link is None:
                self._link = self._dial()
            return job(self._link)
        except BridgeError:
            raise
        except Exception as error:
            self._drop()
            kind = AccessRefused if isinstance(error, _REFUSED) else Unavailable
            raise kind(f"{self._label}: {reason(error)}") from error

    def _rest(self, wake: int) -> None:
        link = self._link
        if link is None:
            wait_readable(wake, seconds=60.0)
            return
        try:
            arrived = self._with_link(lambda link: link.receive(wake))
        except Unavailable as error:
            log.warning("broker.connection_lost", reason=str(error), consequence="the next call connects anew")
            self.worker.post(self.broke, error)
        else:
            if arrived:
                self.worker.post(self.heard, arrived)

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            with contextlib.suppress(Exception):
                link.drop()

    def _interrupt(self) -> None:
        if (link := self._link) is not None:
            link.interrupt()

    def _end(self) -> None:
        if self._link is not None:  # it stays in place meanwhile: a farewell that takes too long gets interrupted
            with contextlib.suppress(Exception):
                self._link.close()
            self._drop()


def reason(error: Exception) -> str:
    """Say in one line why the broker is not available, without a word that came from a message or a URL."""
    match error:
        case PublishBlocked():
            text = str(error)
        case ModuleNotFoundError() if error.name:
            text = f"the Python module {error.name} is not installed; kombu's extra for it brings it, as in kombu[sqs]"
        case _ if isinstance(error, _REFUSED):
            text = "the credentials were refused; see user and password in the broker's URL"
        case amqp.exceptions.ConsumerCancelled():
            text = "the queue was deleted while it was being consumed; it has to be declared again"
        case amqp.exceptions.AMQPError() if error.reply_text:
            text = str(error.reply_text)
        case redis.ResponseError():  # its text may quote what was sent; its first word, in capitals, is a code
            code = str(error).partition(" ")[0]
            text = f"Redis refused a command ({code if code.isupper() else type(error).__name__})"
        case TimeoutError() | redis.TimeoutError():
            text = "no answer in time"
        case _:
            text = os_error_reason(error) or f"the connection was lost ({type(error).__name__})"
    return text


class Subscription:
    """An inbox over a line. When its connection breaks, the next `get` says so, and the one after connects anew."""

    def __init__(
        self, line: ConnectionThread, begin: Callable[[KombuConnection], None], *, acks_itself: bool, within: float
    ) -> None:
        self._line = line
        self._begin = begin
        self._acks_itself = acks_itself
        self._within = within
        self._waiting: deque[Received] = deque()
        self._news = asyncio.Event()
        self._failure: Unavailable | None = None
        self._connected = False
        self._connecting: asyncio.Future[None] | None = None
        line.heard = self._heard
        line.broke = self._broke

    async def connect(self) -> None:
        """Begin to consume. A caller that is cancelled leaves the beginning to go on, for the next one."""
        if self._connecting is None:
            self._waiting.clear()
            self._failure = None
            self._connected = True  # until we hear otherwise, which may be before we hear that it worked
            self._connecting = asyncio.ensure_future(self._line.call(self._begin, within=self._within))
            self._connecting.add_done_callback(self._begun)
        await asyncio.shield(self._connecting)

    def _begun(self, connecting: asyncio.Future[None]) -> None:
        self._connecting = None
        if connecting.cancelled() or connecting.exception() is not None:
            self._connected = False

    def _heard(self, arrived: list[Received]) -> None:
        """Keep what the thread brought; it is bounded, for it is unacknowledged."""
        self._waiting.extend(arrived)
        self._news.set()

    def _broke(self, error: Unavailable) -> None:
        self._connected = False
        self._failure = error
        self._waiting.clear()  # the queue has taken them back
        self._news.set()

    async def get(self, limit: int, timeout: float) -> Sequence[Received]:  # noqa: ASYNC109 - as the protocol has it
        """Return up to `limit` messages; a call that is cancelled takes none."""
        if self._connecting is not None or (not self._connected and self._failure is None):
            await self.connect()
        if not self._waiting and self._failure is None:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._news.wait()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        taken = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        if self._acks_itself and taken:
            self._line.submit(partial(_ack, taken))
        return taken

    async def ack(self, received: Sequence[Received]) -> None:
        """Acknowledge; what a lost connection had brought is left out, for it comes again."""
        if received and self._connected and not self._acks_itself:
            try:
                await self._line.call(partial(_ack, received), within=self._within)
            except Unavailable:
                self._connected = False
                self._waiting.clear()
                raise


def _ack(received: Sequence[Received], link: KombuConnection) -> None:
    link.ack([each.tag for each in received])


class KombuBroker:
    """A broker at a kombu URL: RabbitMQ with confirms and quorum queues, Redis with a transaction per batch, or others.

    Several URLs with `;` between them stand in for each other. Construction has no side effects. `publish` waits up to
    `confirm_timeout` seconds for RabbitMQ's confirms, and for any other answer up to `answer_timeout`. On Redis, the
    messages of a consumer that died come back after `lease` seconds. Queues declared here are declared again after a
    reconnect, so that a broker that forgot them, or had them deleted, gets them back. Raises `ValueError` for a URL
    that no broker can have.
    """

    def __init__(
        self,
        url: str,
        *,
        exchange: str,
        clock: Clock,
        confirm_timeout: float = 30.0,
        answer_timeout: float = 10.0,
        lease: float = 15.0,
    ) -> None:
        self._addresses = parse_broker_url(url)
        self._exchange = exchange
        self._clock = clock
        self._confirm_timeout = confirm_timeout
        self._answer_timeout = answer_timeout
        self._lease = lease
        self._declared: dict[str, tuple[str, ...]] = {}
        self._differing: set[str] = set()
        self._consumers: dict[str, list[str]] = {}
        self._within = confirm_timeout + answer_timeout + _SPARE
        self._label = self._addresses[0].label
        self._desk = ConnectionThread("bridge-broker", self._label, self._dial)
        self._lines: set[ConnectionThread] = {self._desk}

    async def open(self) -> None:
        """Get ready. Nothing is connected before it is needed: `ping` tells whether the broker is there."""

    async def close(self) -> None:
        """End all threads and connections, within seconds even if the broker hangs."""
        await asyncio.gather(*(line.worker.close() for line in tuple(self._lines)))

    async def declare(self, queue: str, topics: Sequence[str]) -> None:
        """Make a durable queue bound to `topics`; repeating it changes nothing."""
        await self._desk.call(lambda link: link.declare(queue, topics), within=self._within)
        self._declared[queue] = tuple(topics)

    async def publish(self, entries: Sequence[JournalEntry]) -> int:
        """Return when the broker holds them all, in every queue that wants them; the number that no queue wanted."""
        if not entries:
            return 0
        return await self._desk.call(lambda link: link.publish(entries), within=self._within)

    @asynccontextmanager
    async def inbox(self, queue: str, *, prefetch: int = 256) -> AsyncIterator[Inbox]:
        """Consume a queue that was declared."""
        names = self._consumers.setdefault(queue, [])
        # A name is used again after its inbox has ended: on Redis it then gives back at once what it had before.
        consumer = names.pop() if names else f"bridge-{uuid.uuid4().hex}"
        begin: Callable[[KombuConnection], None] = lambda link: link.consume(queue, prefetch, consumer)  # noqa: E731 - both kinds of begin side by side
        try:
            async with self._subscription(f"bridge-inbox-{queue}", begin, acks_itself=False) as inbox:
                yield inbox
        finally:
            names.append(consumer)

    @asynccontextmanager
    async def tap(self, topics: Sequence[str]) -> AsyncIterator[Inbox]:
        """Consume what is published from now on; its messages need no acknowledgement."""
        begin: Callable[[KombuConnection], None] = lambda link: link.tap(topics, _TAP_PREFETCH)  # noqa: E731 - as above
        async with self._subscription("bridge-tap", begin, acks_itself=True) as inbox:
            yield inbox

    async def depth(self, queue: str) -> int:
        """Return how many messages are ready in a queue; 0 for one that does not exist."""
        return await self._desk.call(lambda link: link.depth(queue), within=self._within)

    async def ping(self) -> None:
        """Return if the broker answers."""
        await self._desk.call(lambda link: link.ping(), within=self._within)

    @asynccontextmanager
    async def _subscription(
        self, name: str, begin: Callable[[KombuConnection], None], *, acks_itself: bool
    ) -> AsyncIterator[Subscription]:
        line = ConnectionThread(name, self._label, self._dial)
        subscription = Subscription(line, begin, acks_itself=acks_itself, within=self._within)
        self._lines.add(line)
        try:
            await subscription.connect()
            yield subscription
        finally:
            try:
                await line.worker.close()
            finally:
                self._lines.discard(line)

    def _dial(self) -> KombuConnection:
        """Connect to the first address that answers, and make what was declared; for a line's thread."""
        failed: Exception | None = None
        for address in self._addresses:
            try:
                link = self._link(address)
            except Exception as error:  # noqa: BLE001 - whatever it was, the next address may do
                failed = error
                continue
            try:
                for queue, topics in tuple(self._declared.items()):
                    link.declare(queue, topics)
            except BaseException:
                link.drop()
                raise
            return link
        raise failed or Unavailable("the broker's URL is empty")

    def _link(self, address: BrokerAddress) -> KombuConnection:
        match address.family:
            case "amqp":
                return AmqpConnection(
                    address,
                    self._exchange,
                    self._clock,
                    confirm_within=self._confirm_timeout,
                    answer_within=self._answer_timeout,
                    differing=self._differing,
                )
            case "redis":
                return RedisConnection(
                    address, self._exchange, self._clock, lease=self._lease, answer_within=self._answer_timeout
                )
        return VirtualConnection(address, self._exchange)


_TAP_PREFETCH = 1000
