"""The broker by kombu: RabbitMQ, Redis, or any other transport, each connection on a thread of its own."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import redis

from bridge.adapters import taps
from bridge.adapters.kombu.amqp import AmqpConnection
from bridge.adapters.kombu.connection import KombuConnection, PublishProgress
from bridge.adapters.kombu.connection_thread import ConnectionThread
from bridge.adapters.kombu.redis import RedisConnection
from bridge.adapters.kombu.subscription import KombuSubscription
from bridge.adapters.kombu.url import BrokerAddress, parse_broker_url
from bridge.adapters.kombu.virtual import VirtualConnection
from bridge.adapters.redis_greeting import greeting
from bridge.domain.clock import Clock
from bridge.domain.errors import OtherInstallation, Unavailable
from bridge.domain.event import JournalEntry
from bridge.domain.installation import Mark, check_broker
from bridge.domain.namespace import DEFAULT, Namespace
from bridge.protocols.broker import Inbox, PartlyPublished

T = TypeVar("T")

CONFIRM_SECONDS = 10.0
"""Time in which RabbitMQ confirms a batch; what it has not confirmed then is published by another connection."""
_EXTRA_SECONDS = 10.0
"""A call that takes this much longer than its own time limits is ended from outside."""


class KombuBroker:
    """A broker at a kombu URL: RabbitMQ with confirms and quorum queues, Redis with a transaction per batch, or others.

    A URL may name several addresses; the first one that answers is used. The nodes of a RabbitMQ cluster are tried in
    turn: after a failure, the next connection is made to the next node. Construction has no side effects. `publish`
    fails when RabbitMQ has not confirmed all within `confirm_timeout` seconds, other calls after `answer_timeout`. On
    Redis, the messages of a consumer that died come back after `lease` seconds. Queues declared here are declared again
    after a reconnect, so that a broker that forgot or deleted them gets them back. Raises `ValueError` for a URL that
    no broker can have.
    """

    def __init__(
        self,
        url: str,
        *,
        exchange: str,
        clock: Clock,
        confirm_timeout: float = CONFIRM_SECONDS,
        answer_timeout: float = 10.0,
        lease: float = 15.0,
        namespace: Namespace = DEFAULT,
    ) -> None:
        self._addresses = parse_broker_url(url)
        self._exchange = exchange
        self._namespace = namespace
        self._clock = clock
        self._confirm_timeout = confirm_timeout
        self._answer_timeout = answer_timeout
        self._lease = lease
        self._own: Mark | None = None
        self._declared: dict[str, tuple[str, ...]] = {}
        self._differing: set[str] = set()
        self._free_consumers: dict[str, list[str]] = {}
        self._within = confirm_timeout + answer_timeout + _EXTRA_SECONDS
        self._label = ", ".join(address.label for address in self._addresses)
        self._publisher = ConnectionThread("bridge-broker", self._label, self._connector())
        self._threads: set[ConnectionThread] = {self._publisher}

    async def open(self) -> None:
        """Get ready. Nothing is connected before it is needed; `ping` says whether the broker answers."""

    async def close(self) -> None:
        """End all threads and connections, within seconds even if the broker hangs."""
        await asyncio.gather(*(thread.worker.close() for thread in tuple(self._threads)))

    @property
    def place(self) -> str:
        """Where the broker is, without credentials."""
        return ";".join(address.place for address in self._addresses)

    async def mark(self) -> Mark | None:
        """Return the installation whose mark the broker has; None if it has none, or can have none. Makes nothing."""
        return await self._on_bare_connection(lambda connection: connection.mark())

    async def claim_for(self, mark: Mark) -> None:
        """Use the broker for one installation only, also after each reconnect; raises `OtherInstallation`."""
        self._own = mark
        await self._publisher.call(self._check, within=self._within)

    async def take_over(self, mark: Mark) -> None:
        """Give the broker this mark instead of its own."""
        self._own = None
        await self._publisher.call(lambda connection: connection.take_over(mark), within=self._within)

    def sink_queue(self, sink: str) -> str:
        """Return the name of a sink's queue."""
        return self._namespace.sink_queue(sink)

    async def declare(self, queue: str, topics: Sequence[str]) -> None:
        """Make a durable queue bound to `topics`; repeating it changes nothing."""
        await self._publisher.call(lambda connection: connection.declare(queue, topics), within=self._within)
        self._declared[queue] = tuple(topics)

    async def publish(self, entries: Sequence[JournalEntry], *, queue: str | None = None) -> int:
        """Return when the broker holds all entries in every queue bound to them; the number that no queue wanted."""
        if not entries:
            return 0
        progress = PublishProgress()
        try:
            return await self._publisher.call(
                lambda connection: connection.publish(entries, progress, queue), within=self._within
            )
        except Unavailable as error:
            confirmed = tuple(progress.confirmed)
            if not confirmed:
                raise
            raise PartlyPublished(str(error), (entry.position for entry in confirmed), progress.unroutable) from error

    @asynccontextmanager
    async def inbox(self, queue: str, *, prefetch: int = 256) -> AsyncIterator[Inbox]:
        """Consume a queue that was declared."""
        names = self._free_consumers.setdefault(queue, [])
        # A name is used again after its inbox has ended. On Redis, its messages then return to the queue at once.
        consumer = names.pop() if names else f"{self._namespace.stem}-{uuid.uuid4().hex}"

        def begin(connection: KombuConnection) -> None:
            connection.consume(queue, prefetch, consumer)

        try:
            async with self._subscription(f"bridge-inbox-{queue}", begin, acks_itself=False) as inbox:
                yield inbox
        finally:
            names.append(consumer)

    @asynccontextmanager
    async def tap(self, topics: Sequence[str]) -> AsyncIterator[Inbox]:
        """Consume what is published from now on; its messages need no acknowledgement."""

        def begin(connection: KombuConnection) -> None:
            connection.tap(topics, taps.PREFETCH_MESSAGES)

        async with self._subscription("bridge-tap", begin, acks_itself=True) as inbox:
            yield inbox

    async def depth(self, queue: str) -> int:
        """Return how many messages are ready in a queue; 0 for one that does not exist."""
        return await self._publisher.call(lambda connection: connection.depth(queue), within=self._within)

    async def has_queue(self, queue: str) -> bool:
        """Return whether a queue exists."""
        return await self._publisher.call(lambda connection: connection.has_queue(queue), within=self._within)

    async def ping(self) -> None:
        """Return if the broker answers."""
        await self._publisher.call(lambda connection: connection.ping(), within=self._within)

    async def reach(self) -> None:
        """Return if the broker answers; of what is there, only the exchange is made."""
        await self.ping()

    @asynccontextmanager
    async def _subscription(
        self, name: str, begin: Callable[[KombuConnection], None], *, acks_itself: bool
    ) -> AsyncIterator[KombuSubscription]:
        thread = ConnectionThread(name, self._label, self._connector())
        subscription = KombuSubscription(thread, begin, acks_itself=acks_itself, within=self._within)
        self._threads.add(thread)
        try:
            await subscription.connect()
            yield subscription
        finally:
            try:
                await thread.worker.close()
            finally:
                self._threads.discard(thread)

    async def check_rights(self, queues: Sequence[str]) -> None:
        """Try each right on a connection of its own, which makes neither the exchange nor a queue."""
        await self._on_bare_connection(lambda connection: connection.check_rights(queues))

    async def _on_bare_connection(self, job: Callable[[KombuConnection], T]) -> T:
        """Do `job` on a connection of its own that makes nothing."""
        thread = ConnectionThread("bridge-check", self._label, self._connector(lambda _: None))
        self._threads.add(thread)
        try:
            return await thread.call(job, within=self._within)
        finally:
            try:
                await thread.worker.close()
            finally:
                self._threads.discard(thread)

    def _connector(self, begin: Callable[[KombuConnection], None] | None = None) -> Callable[[], KombuConnection]:
        """Return what connects one thread: to the first address that answers, and after a failure to the next node."""
        addresses = deque(self._addresses)

        def connect() -> KombuConnection:
            failure: Exception | None = None
            for address in tuple(addresses):
                if address.family == "amqp":
                    addresses.rotate(-1)  # a node that is frozen accepts connections: the next one is another's turn
                try:
                    return self._begun(self._connection_to(address), begin or self._prepare)
                except OtherInstallation:
                    raise
                except Exception as error:  # noqa: BLE001 - the next address may answer, after any error
                    failure = error
            raise failure or Unavailable("the broker's URL is empty")

        return connect

    def _prepare(self, connection: KombuConnection) -> None:
        """Make the exchange, and what this process declared before, for a broker that forgot it; called in a thread."""
        self._check(connection)
        connection.prepare()
        for queue, topics in tuple(self._declared.items()):
            connection.restore(queue, topics)

    def _check(self, connection: KombuConnection) -> None:
        """Raise `OtherInstallation` if the broker is another installation's."""
        if (own := self._own) is not None:
            check_broker(self.place, connection.marked(own), own)

    @staticmethod
    def _begun(connection: KombuConnection, begin: Callable[[KombuConnection], None]) -> KombuConnection:
        try:
            begin(connection)
        except BaseException:
            connection.drop()
            raise
        return connection

    def _connection_to(self, address: BrokerAddress) -> KombuConnection:
        match address.family:
            case "amqp":
                return AmqpConnection(
                    address,
                    self._exchange,
                    self._namespace,
                    self._clock,
                    confirm_within=self._confirm_timeout,
                    answer_within=self._answer_timeout,
                    differing=self._differing,
                )
            case "redis":
                return self._redis_connection_to(address)
        return VirtualConnection(address, self._exchange, self._namespace)

    def _redis_connection_to(self, address: BrokerAddress) -> RedisConnection:
        try:
            return RedisConnection(
                address,
                self._exchange,
                self._namespace,
                self._clock,
                lease=self._lease,
                answer_within=self._answer_timeout,
            )
        except redis.ConnectionError as error:
            said = greeting(*address.endpoint) if address.endpoint else None
            if said is None:
                raise
            raise redis.ConnectionError(said) from error
