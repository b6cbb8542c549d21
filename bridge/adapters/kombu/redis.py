"""One connection to Redis, used by one thread: kombu's queues and bindings, a transaction per batch, safe claims.

What is stored is kombu's own layout, so that any kombu program may consume from our exchange or publish to it. Only the
way is ours: kombu reads the bindings for each message and pushes to each queue by itself; and a message that it hands
back is routed again, into every queue that matches.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import uuid
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import redis
import structlog

from bridge.adapters import message
from bridge.adapters.kombu.url import CONNECT_WITHIN, BrokerAddress
from bridge.concurrency.thread_worker import wait_readable
from bridge.domain import topics as topic_patterns
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry
from bridge.protocols.broker import Received

log = structlog.get_logger()

TAP_PREFIX = "bridge.tap."
TAP_KEEPS = 10_000
"""Messages that wait for a slow tap; then the oldest are dropped."""
TAP_EXPIRES = 600.0
"""Seconds after which an abandoned tap's messages are gone, should nobody clear them away before."""

_BLOCK_FOR = 1.0
_TAP_OWNER = "tap"

_serials = itertools.count(1)

# A consumer's messages are in a hash by tag, and, for the moment between a blocking move and the next claim, in a list.
# Whoever claims next gives back what dead consumers had: what was claimed first ends up where it is popped first.
# Both scripts write a removal first, be it of nothing: a server without memory allows that, and from there on lets the
# script finish. Else nobody could take anything out of it.
_GIVE_BACK = """
local function give_back(queue, unacked, arriving)
  for _, payload in ipairs(redis.call('LRANGE', arriving, 0, -1)) do redis.call('RPUSH', queue, payload) end
  local tags = redis.call('HKEYS', unacked)
  table.sort(tags, function(a, b) return tonumber(a) > tonumber(b) end)
  for _, tag in ipairs(tags) do redis.call('RPUSH', queue, redis.call('HGET', unacked, tag)) end
  redis.call('DEL', unacked, arriving)
  return #tags
end
"""
_CLAIM = (
    _GIVE_BACK
    + """
local consumers, unacked, arriving, queue = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local me, ttl, limit, tag = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREM', consumers, me)
redis.call('ZADD', consumers, now + ttl, me)
local returned = 0
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', consumers, '-inf', now)) do
  returned = returned + give_back(queue, ARGV[5] .. dead, ARGV[6] .. dead)
  redis.call('ZREM', consumers, dead)
end
local claimed = {}
for index = 3, #KEYS do
  while #claimed < limit do
    local payload = redis.call('RPOP', KEYS[index])
    if not payload then break end
    redis.call('HSET', unacked, tag + #claimed, payload)
    claimed[#claimed + 1] = payload
  end
end
return {returned, claimed}
"""
)
_LEAVE = (
    _GIVE_BACK
    + """
redis.call('ZREM', KEYS[1], ARGV[1])
return give_back(KEYS[4], KEYS[2], KEYS[3])
"""
)


class RedisConnection:
    """Construction connects. Library errors come out as they are; after any of them the link has to be thrown away."""

    def __init__(
        self, address: BrokerAddress, exchange: str, clock: Clock, *, lease: float, answer_within: float
    ) -> None:
        self._exchange = exchange
        self._clock = clock
        self._lease = lease
        self._answer_within = answer_within
        self._serial = next(_serials)
        self._owner = ""
        self._queue: str | None = None
        self._tapped: Mapping[str, None] = {}
        self._room = 0
        self._next_tag = 1
        self._unacked: set[int] = set()
        self._mine: dict[str, None] = {}
        self._routes = _Routes()
        self._blocking: Any = None
        self._blocking_id = 0
        self._blocking_since: float | None = None
        self._looked_for_dead_taps = float("-inf")
        self._kept = float("-inf")
        self._transport = address.dial(socket_timeout=answer_within, socket_connect_timeout=CONNECT_WITHIN).transport
        try:
            self._transport.establish_connection()
            self._channel = self._transport.create_channel(self._transport)
            self._channel.exchange_declare(exchange=exchange, type="topic", durable=True)
            self._redis = redis.Redis(connection_pool=self._channel.pool)
            self._prefix = self._channel.global_keyprefix
            self._bindings = self._key(self._channel.keyprefix_queue % exchange)
            self._permanent = self._key(self._channel.keyprefix_binding_permanent % exchange)
            self._claim = self._redis.register_script(_CLAIM)
            self._leave = self._redis.register_script(_LEAVE)
        except BaseException:
            self.drop()
            raise

    # queues

    def declare(self, queue: str, topics: Sequence[str]) -> None:
        """Bind a queue; Redis itself makes it with its first message."""
        members = self._members(queue, topics)
        self._mine.update(dict.fromkeys(members))
        self._bind(members, self._bindings, self._permanent)

    def _bind(self, members: Collection[str], *sets: str) -> None:
        """Add what is missing. Looked for first: a server without memory refuses to add even what is there.

        It refuses transactions, too; whoever adds to one set and not to the other does so again.
        """
        if not members:
            return
        with self._redis.pipeline(transaction=False) as pipe:
            for key in sets:
                pipe.smismember(key, list(members))
            for key, found in zip(sets, pipe.execute(), strict=True):
                if not all(found):
                    pipe.sadd(key, *members)
            pipe.execute()

    def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue; 0 for one that does not exist."""
        with self._redis.pipeline(transaction=False) as pipe:
            for key in self._lists(queue):
                pipe.llen(key)
            return sum(pipe.execute())

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

    def publish(self, entries: Sequence[JournalEntry]) -> int:
        """Push all into all their queues in one transaction; return how many no queue wanted.

        The bindings are read once, and watched: when one changes in between, the transaction is void and made anew.
        """
        self._clear_dead_taps()
        pipe: Any
        with self._redis.pipeline() as pipe:
            while True:
                try:
                    pipe.watch(self._bindings)
                    known = pipe.smembers(self._bindings)
                    lost = [member for member in self._mine if member.encode() not in known]
                    self._routes.learn(known.union(member.encode() for member in lost), self._channel.sep)
                    pipe.multi()
                    if lost:  # somebody emptied Redis; what this process declared is made again
                        pipe.sadd(self._bindings, *lost)
                        pipe.sadd(self._permanent, *lost)
                    unroutable = self._push(pipe, entries)
                    pipe.execute()
                except redis.WatchError as error:
                    if error.__context__ is not None:  # redis-py's word for a connection lost while watching
                        raise
                else:
                    return unroutable

    def _push(self, pipe: Any, entries: Sequence[JournalEntry]) -> int:
        unroutable = 0
        envelopes: dict[str, list[str]] = {}
        stem, number = uuid.uuid4().hex, itertools.count()
        for entry in entries:
            queues = self._routes.of(entry.event.topic)
            if not queues:
                unroutable += 1
                continue
            front = _envelope(entry, self._exchange)
            for queue in queues:
                # A tag of its own for each copy: kombu's consumers keep what is unacknowledged by tag, for all queues.
                envelopes.setdefault(queue, []).append(f'{front}"{stem}-{next(number)}"}}}}')
        for queue, payloads in envelopes.items():
            key = self._key(queue)
            pipe.lpush(key, *payloads)
            if queue.startswith(TAP_PREFIX):
                pipe.ltrim(key, 0, TAP_KEEPS - 1)
                pipe.pexpire(key, int(TAP_EXPIRES * 1000))
        return unroutable

    def _clear_dead_taps(self) -> None:
        """Remove the taps of processes that died: nobody else would, and they would be pushed to for ever."""
        now = self._clock.monotonic()
        if now - self._looked_for_dead_taps < self._lease:
            return
        self._looked_for_dead_taps = now
        members = [_text(member) for member in self._redis.smembers(self._bindings)]
        taps = {queue for member in members if (queue := _queue_of(member, self._channel.sep)).startswith(TAP_PREFIX)}
        for queue in taps:
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
        self._queue, self._room, self._owner = queue, prefetch, consumer
        self._give_back(queue)

    def _give_back(self, queue: str) -> None:
        keys = self._consumer_keys(queue, self._owner)
        self._leave(keys=[*keys, self._key(queue)], args=[self._owner])

    def tap(self, topics: Sequence[str], prefetch: int) -> None:
        """Claim what is published from now on, by a queue that lives as long as this consumer keeps it alive."""
        self._clear_dead_taps()
        queue = f"{TAP_PREFIX}{uuid.uuid4().hex}"
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
    def _look_again(self) -> float:
        return min(_BLOCK_FOR, self._lease / 3)

    def _consumer_keys(self, queue: str, owner: str) -> list[str]:
        return [
            self._key(f"bridge.consumers.{queue}"),
            self._key(f"bridge.unacked.{queue}.{owner}"),
            self._key(f"bridge.arriving.{queue}.{owner}"),
        ]

    def receive(self, wake: int) -> list[Received]:
        """Return what could be claimed; waits for it until `wake` is readable, or the lease wants renewing."""
        queue = self._queue
        if queue is None:
            wait_readable(wake, seconds=self._lease / 3)
            return []
        if self._blocking_since is None:
            claimed = self._claim_some(queue)
            if claimed:
                return claimed
            if self._room <= len(self._unacked):
                wait_readable(wake, seconds=self._look_again)
                return []
            self._block(queue)
        self._wait(wake)
        return []

    def _claim_some(self, queue: str) -> list[Received]:
        consumers, unacked, arriving = self._consumer_keys(queue, self._owner)
        lists = self._lists(queue)
        self._keep(queue)
        returned, payloads = self._claim(
            keys=[consumers, unacked, arriving, *lists],
            args=[
                self._owner,
                self._lease_ms,
                self._room - len(self._unacked),
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
        return [_received(payload, (self._serial, tag)) for payload, tag in zip(payloads, tags, strict=True)]

    def _keep(self, queue: str) -> None:
        """Say that a tap lives, and bind the queue again should somebody have emptied Redis."""
        now = self._clock.monotonic()
        if now - self._kept < self._look_again:
            return
        self._kept = now
        bindings = [*self._tapped] or [member for member in self._mine if _queue_of(member, self._channel.sep) == queue]
        if self._tapped:
            self._redis.set(self._alive(queue), 1, px=self._lease_ms)
        self._bind(bindings, self._bindings)

    def _block(self, queue: str) -> None:
        """Have Redis answer as soon as there is a message; it moves to our own list with the same stroke."""
        if self._blocking is None:
            self._blocking = self._redis.connection_pool.get_connection()
            self._blocking.send_command("CLIENT", "ID")
            self._blocking_id = int(self._blocking.read_response())
        source, arriving = self._key(queue), self._consumer_keys(queue, self._owner)[2]
        self._blocking.send_command("BLMOVE", source, arriving, "RIGHT", "LEFT", self._look_again)
        self._blocking_since = self._clock.monotonic()

    def _wait(self, wake: int) -> None:
        descriptor = self._blocking._sock.fileno()  # noqa: SLF001 - redis-py has no public name for it
        wait_readable(descriptor, wake, seconds=self._answer_within)
        if wait_readable(descriptor, seconds=0):
            self._blocking_since = None
            try:
                self._blocking.read_response()
            except redis.exceptions.OutOfMemoryError:  # it moves nothing then; claiming does, and is tried again soon
                wait_readable(wake, seconds=self._look_again)
        elif (
            self._blocking_since is not None
            and self._clock.monotonic() - self._blocking_since > self._look_again + self._answer_within
        ):
            raise TimeoutError("Redis did not answer")

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
            if self._blocking_since is not None:  # a move that happened after we left would hide a message for good
                self._redis.client_unblock(self._blocking_id)
                self._blocking.read_response()
            if self._tapped and self._queue is not None:
                self._remove_tap(self._queue, self._tapped)
            elif self._queue is not None:
                self._give_back(self._queue)
        except (redis.RedisError, OSError) as error:
            log.warning(
                "broker.closed_with_unacked",
                reason=type(error).__name__,
                consequence=f"returns after {self._lease:.0f} s",
            )
        self.drop()

    def drop(self) -> None:
        """Close without a word."""
        with contextlib.suppress(redis.RedisError, OSError, AttributeError, KeyError):
            if self._blocking is not None:
                self._blocking.disconnect()
                self._redis.connection_pool.release(self._blocking)
            self._transport.close_connection(self._transport)


class _Routes:
    """Which queues want a topic, by the bindings as they were last read."""

    def __init__(self) -> None:
        self._members: frozenset[bytes] | set[bytes] = frozenset()
        self._patterns: list[tuple[str, re.Pattern[str]]] = []
        self._queues: dict[str, tuple[str, ...]] = {}

    def learn(self, members: set[bytes], separator: str) -> None:
        """Take these bindings from now on."""
        if members == self._members:
            return
        self._members = members
        rows = [_text(member).split(separator) for member in sorted(members)]
        self._patterns = [(row[-1], _expression(row[0])) for row in rows if len(row) > 1 and row[-1]]
        self._queues = {}

    def of(self, topic: str) -> tuple[str, ...]:
        """Return the queues that want `topic`, each once."""
        queues = self._queues.get(topic)
        if queues is None:
            dotted = f".{topic}"
            wanted = dict.fromkeys(queue for queue, pattern in self._patterns if pattern.fullmatch(dotted))
            queues = self._queues[topic] = tuple(wanted)
        return queues


def _expression(binding: str) -> re.Pattern[str]:
    """Return the meaning that AMQP gives a binding, `#` anywhere included, for a topic with a dot before each word."""
    words = {"*": r"\.[^.]*", "#": r"(?:\.[^.]*)*"}
    return re.compile("".join(words.get(word, r"\." + re.escape(word)) for word in binding.split(".")))


def _text(member: bytes | str) -> str:
    return member.decode("utf-8", "replace") if isinstance(member, bytes) else member


def _queue_of(member: str, separator: str) -> str:
    return member.rpartition(separator)[2]


def _envelope(entry: JournalEntry, exchange: str) -> str:
    """Return kombu's envelope up to the delivery tag, which each copy gets by itself."""
    event = entry.event
    text = json.dumps(
        {
            "body": b64encode(event.body).decode(),
            "content-encoding": message.ENCODING,
            "content-type": message.CONTENT_TYPE,
            "headers": message.headers(entry),
            "properties": {
                **message.properties(event),
                "delivery_info": {"exchange": exchange, "routing_key": event.topic},
                "priority": 0,
                "body_encoding": "base64",
            },
        }
    )
    return text[:-2] + ', "delivery_tag": '


def _received(payload: bytes, tag: object) -> Received:
    """Read an envelope of kombu's; what is none becomes a message with a problem."""
    try:
        envelope = json.loads(payload)
        properties = envelope["properties"]
        body = envelope["body"]
        if properties.get("body_encoding") == "base64":
            body = b64decode(body)
        topic = str((properties.get("delivery_info") or {}).get("routing_key") or "")
        return message.received(topic, body, properties, envelope.get("headers"), tag)
    except (ValueError, TypeError, KeyError, AttributeError):
        return message.received("", bytes(payload), {}, None, tag)
