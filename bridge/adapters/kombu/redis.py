"""One connection to Redis, used by one thread: kombu's queues and bindings, a transaction per batch, safe claims.

What is stored is kombu's own layout, so that any kombu program may consume from our exchange or publish to it. Only the
way is ours: kombu reads the bindings for each message and pushes to each queue by itself; and a message that it hands
back is routed again, into every queue that matches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import redis
import structlog

from bridge.adapters import lua, taps
from bridge.adapters.kombu.connection import PublishProgress, next_serial
from bridge.adapters.kombu.redis_layout import (
    Routes,
    envelopes_by_queue,
    is_bound,
    queue_of,
    received_from,
    text_of,
    waiting_in,
)
from bridge.adapters.kombu.redis_limits import over_limit, parts
from bridge.adapters.kombu.redis_mark import MarkedConnection
from bridge.adapters.kombu.redis_rights import check_rights
from bridge.adapters.kombu.redis_scripts import add_missing, run_script
from bridge.adapters.kombu.redis_wait import RedisWait
from bridge.adapters.kombu.url import CONNECT_SECONDS, BrokerAddress
from bridge.concurrency.thread_worker import wait_readable
from bridge.domain import topics as topic_patterns
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry
from bridge.domain.namespace import Namespace
from bridge.protocols.broker import Received, Unpublishable

log = structlog.get_logger()

_TAP_EXPIRES_SECONDS = 600.0
"""After so long the messages of an abandoned tap are gone, if no process has removed them before."""
_BLOCK_SECONDS = 1.0
_TAP_OWNER = "tap"

_CLAIM = lua.load("bridge.adapters.kombu", "requeue", "claim")
_LEAVE = lua.load("bridge.adapters.kombu", "requeue", "leave")


class RedisConnection(MarkedConnection):
    """One connection. Construction connects; library errors come out as they are, and end the connection."""

    def __init__(
        self,
        address: BrokerAddress,
        exchange: str,
        namespace: Namespace,
        clock: Clock,
        *,
        lease: float,
        answer_within: float,
    ) -> None:
        self._exchange = exchange
        self._namespace = namespace
        self._clock = clock
        self._lease = lease
        self._label = address.label
        self._serial = next_serial()
        self._owner = ""
        self._queue: str | None = None
        self._tapped: Mapping[str, None] = {}
        self._prefetch = 0
        self._next_tag = 1
        self._unacked: set[int] = set()
        self._declared: dict[str, None] = {}
        self._routes = Routes()
        self._dead_taps_checked = float("-inf")
        self._renewed = float("-inf")
        self._transport = address.connection(
            socket_timeout=answer_within, socket_connect_timeout=CONNECT_SECONDS
        ).transport
        try:
            self._transport.establish_connection()
            self._channel = self._transport.create_channel(self._transport)
            self._redis = redis.Redis(connection_pool=self._channel.pool)
            self._prefix = self._channel.global_keyprefix
            self._mark_key = self._key(f"{namespace.stem}.installation")
            self._bindings = self._key(self._channel.keyprefix_queue % exchange)
            self._permanent = self._key(self._channel.keyprefix_binding_permanent % exchange)
            self._next_message = RedisWait(
                self._redis, clock, retry_seconds=self._retry_seconds, answer_within=answer_within
            )
        except BaseException:
            self.drop()
            raise

    def prepare(self) -> None:
        """Make the exchange, which kombu keeps in memory alone."""
        self._channel.exchange_declare(exchange=self._exchange, type="topic", durable=True)

    def check_rights(self, queues: Sequence[str]) -> None:
        """Have what is needed queued and thrown away."""
        consumed = [key for queue in queues for key in (*self._lists(queue), *self._consumer_keys(queue, "check"))]
        check_rights(self._redis, self._label, [self._bindings, self._permanent, self._mark_key], consumed)

    # queues

    def declare(self, queue: str, topics: Sequence[str]) -> None:
        """Bind a queue; Redis itself makes it with its first message."""
        members = self._members(queue, topics)
        self._declared.update(dict.fromkeys(members))
        add_missing(self._redis, members, self._bindings, self._permanent)

    def restore(self, queue: str, topics: Sequence[str]) -> None:
        """Declare the queue again; repeating it changes nothing."""
        self.declare(queue, topics)

    def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue; 0 for one that does not exist."""
        return waiting_in(self._redis, self._lists(queue))

    def has_queue(self, queue: str) -> bool:
        """Return whether a queue is bound: Redis itself makes a queue with its first message."""
        return is_bound(self._redis, self._bindings, queue, self._channel.sep)

    def ping(self) -> None:
        """Ask for an answer."""
        self._redis.ping()

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _lists(self, queue: str) -> list[str]:
        """Return the lists of a queue: kombu has one for each step of priority, the lowest first."""
        return [self._key(self._channel._q_for_pri(queue, step)) for step in self._channel.priority_steps]  # noqa: SLF001 - kombu's layout has no public name

    def _members(self, queue: str, topics: Sequence[str]) -> list[str]:
        exchange = self._channel.typeof(self._exchange)
        return [
            self._channel.sep.join((key, exchange.prepare_bind(queue, self._exchange, key, {})[1], queue))
            for key in topic_patterns.bindings(topics)
        ]

    # publishing

    def publish(self, entries: Sequence[JournalEntry], progress: PublishProgress, queue: str | None = None) -> int:
        """Push all into all their queues, or into `queue`; return how many no queue wanted.

        A batch is one transaction, unless its bytes are too many for Redis to read at once.
        """
        self._remove_dead_taps()
        unpublishable = over_limit(self._redis, self._exchange, entries)
        fitting = [entry for entry in entries if entry.position not in unpublishable] if unpublishable else entries
        for part in parts(fitting):
            progress.add(part, self._publish_part(part, queue))
        if unpublishable:
            raise Unpublishable(unpublishable, progress.unroutable)
        return progress.unroutable

    def _publish_part(self, entries: Sequence[JournalEntry], queue: str | None) -> int:
        """Push these in one transaction.

        The bindings are read once, and watched: when one changes in between, the transaction is void and made anew.
        """
        pipe: Any
        with self._redis.pipeline() as pipe:
            while True:
                try:
                    pipe.watch(self._bindings)
                    known = pipe.smembers(self._bindings)
                    lost = [member for member in self._declared if member.encode() not in known]
                    self._routes.learn(known.union(member.encode() for member in lost), self._channel.sep)
                    pipe.multi()
                    if lost:  # somebody emptied Redis; what this process declared is made again
                        pipe.sadd(self._bindings, *lost)
                        pipe.sadd(self._permanent, *lost)
                    unroutable = self._push(pipe, entries, queue)
                    pipe.execute()
                except redis.WatchError as error:
                    if error.__context__ is not None:  # redis-py's word for a connection lost while watching
                        raise
                else:
                    return unroutable

    def _push(self, pipe: Any, entries: Sequence[JournalEntry], queue: str | None) -> int:
        envelopes, unroutable = envelopes_by_queue(entries, self._exchange, self._routes, queue)
        for name, payloads in envelopes.items():
            key = self._key(name)
            pipe.lpush(key, *payloads)
            if name.startswith(self._namespace.tap_prefix):
                pipe.ltrim(key, 0, taps.MAX_MESSAGES - 1)
                pipe.pexpire(key, int(_TAP_EXPIRES_SECONDS * 1000))
        return unroutable

    def _remove_dead_taps(self) -> None:
        """Remove the taps of processes that died: nobody else would, and they would be pushed to for ever."""
        now = self._clock.monotonic()
        if now - self._dead_taps_checked < self._lease:
            return
        self._dead_taps_checked = now
        members = [text_of(member) for member in self._redis.smembers(self._bindings)]
        tapped = {
            queue
            for member in members
            if (queue := queue_of(member, self._channel.sep)).startswith(self._namespace.tap_prefix)
        }
        for queue in tapped:
            if not self._redis.exists(self._alive(queue)):
                self._remove_tap(queue, [member for member in members if member.endswith(queue)])
                log.info("broker.tap_cleared", queue=queue, reason="its process has gone")

    def _remove_tap(self, queue: str, members: Iterable[str]) -> None:
        with self._redis.pipeline() as pipe:
            pipe.srem(self._bindings, *members)
            pipe.delete(*self._lists(queue), *self._consumer_keys(queue, _TAP_OWNER), self._alive(queue))
            pipe.execute()

    def _alive(self, queue: str) -> str:
        return self._key(f"{queue}.alive")

    # consuming

    def consume(self, queue: str, prefetch: int, consumer: str) -> None:
        """Claim the queue's messages, up to `prefetch` ahead of their acknowledgement.

        What a former connection of the same consumer had claimed goes back to its place in the queue at once.
        """
        self._queue, self._prefetch, self._owner = queue, prefetch, consumer
        self._requeue(queue)

    def _requeue(self, queue: str) -> None:
        keys = self._consumer_keys(queue, self._owner)
        run_script(self._redis, _LEAVE, [*keys, self._key(queue)], [self._owner])

    def tap(self, topics: Sequence[str], prefetch: int) -> None:
        """Claim what is published from now on, by a queue that lives as long as this consumer keeps it alive."""
        self._remove_dead_taps()
        queue = taps.new_queue(self._namespace)
        self._tapped = dict.fromkeys(self._members(queue, topics))
        with self._redis.pipeline() as pipe:
            pipe.set(self._alive(queue), 1, px=self._lease_ms)
            pipe.sadd(self._bindings, *self._tapped)
            pipe.execute()
        self.consume(queue, prefetch, _TAP_OWNER)

    @property
    def _lease_ms(self) -> int:
        return int(self._lease * 1000)

    @property
    def _retry_seconds(self) -> float:
        return min(_BLOCK_SECONDS, self._lease / 3)

    def _consumer_keys(self, queue: str, owner: str) -> list[str]:
        stem = self._namespace.stem
        return [
            self._key(f"{stem}.consumers.{queue}"),
            self._key(f"{stem}.unacked.{queue}.{owner}"),
            self._key(f"{stem}.arriving.{queue}.{owner}"),
        ]

    def receive(self, wake: int) -> list[Received]:
        """Return what could be claimed; waits for it until `wake` is readable, or the lease wants renewing."""
        queue = self._queue
        if queue is None:
            wait_readable(wake, seconds=self._lease / 3)
            return []
        if not self._next_message.waiting:
            claimed = self._claim_ready(queue)
            if claimed:
                return claimed
            if self._prefetch <= len(self._unacked):
                wait_readable(wake, seconds=self._retry_seconds)
                return []
            self._next_message.begin(self._key(queue), self._consumer_keys(queue, self._owner)[2])
        self._next_message.wait(wake)
        return []

    def _claim_ready(self, queue: str) -> list[Received]:
        consumers, unacked, arriving = self._consumer_keys(queue, self._owner)
        lists = self._lists(queue)
        self._renew_tap(queue)
        returned, payloads = run_script(
            self._redis,
            _CLAIM,
            [consumers, unacked, arriving, *lists],
            [
                self._owner,
                self._lease_ms,
                self._prefetch - len(self._unacked),
                self._next_tag,
                unacked.removesuffix(self._owner),
                arriving.removesuffix(self._owner),
            ],
        )
        if returned:
            log.info("broker.requeued", queue=queue, messages=returned, reason="their consumer has gone")
        tags = range(self._next_tag, self._next_tag + len(payloads))
        self._next_tag += len(payloads)
        self._unacked.update(tags)
        return [received_from(payload, (self._serial, tag)) for payload, tag in zip(payloads, tags, strict=True)]

    def _renew_tap(self, queue: str) -> None:
        """Say that a tap lives, and bind the queue again should somebody have emptied Redis."""
        now = self._clock.monotonic()
        if now - self._renewed < self._retry_seconds:
            return
        self._renewed = now
        bindings = [*self._tapped] or [
            member for member in self._declared if queue_of(member, self._channel.sep) == queue
        ]
        if self._tapped:
            self._redis.set(self._alive(queue), 1, px=self._lease_ms)
        add_missing(self._redis, bindings, self._bindings)

    def ack(self, tags: Sequence[tuple[int, int]]) -> None:
        """Forget those tags that this consumer gave out."""
        mine = [tag for serial, tag in tags if serial == self._serial and tag in self._unacked]
        if mine and self._queue is not None:
            self._redis.hdel(self._consumer_keys(self._queue, self._owner)[1], *map(str, mine))
            self._unacked.difference_update(mine)

    # the connection

    def interrupt(self) -> None:
        """Make whatever blocks fail at once; for another thread."""
        with contextlib.suppress(redis.RedisError, OSError, AttributeError):
            self._redis.connection_pool.disconnect()

    def close(self) -> None:
        """Give back what was not acknowledged, or remove the tap, and close."""
        try:
            self._next_message.end()
            if self._tapped and self._queue is not None:
                self._remove_tap(self._queue, self._tapped)
            elif self._queue is not None:
                self._requeue(self._queue)
        except (redis.RedisError, OSError) as error:
            reason, consequence = type(error).__name__, f"returns after {self._lease:.0f} s"
            log.warning("broker.closed_with_unacked", reason=reason, consequence=consequence)
        self.drop()

    def drop(self) -> None:
        """Close without a word."""
        with contextlib.suppress(redis.RedisError, OSError, AttributeError, KeyError):
            self._next_message.drop()
        with contextlib.suppress(redis.RedisError, OSError, AttributeError, KeyError):
            self._transport.close_connection(self._transport)
