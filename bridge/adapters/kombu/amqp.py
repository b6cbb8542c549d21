"""One connection to RabbitMQ, used by one thread: batches with publisher confirms, quorum queues, consumers."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import amqp
import structlog
from amqp.method_framing import frame_handler

from bridge.adapters import message
from bridge.adapters.kombu.amqp_codec import DeliverDecoder, PublishEncoder
from bridge.adapters.kombu.url import BrokerAddress
from bridge.concurrency.thread_worker import wait_readable
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.event import JournalEntry
from bridge.protocols.broker import Received

log = structlog.get_logger()

HEARTBEAT = 30.0
"""Seconds; a connection that was silent for twice as long is given up."""
TAP_KEEPS = 10_000
"""Messages that wait for a slow tap; then the oldest are dropped."""

_TICK = 5.0
_MOMENT = 0.05
_AT_ONCE = 500
_WRITTEN_AT_ONCE = 64
_READ_AHEAD = 16_384
_READ_AT_ONCE = 131_072
_HEADER_FRAME = 2
_HEADER_FIXED_PART = 12
_NO_PROPERTIES = b"\0\0"

_serials = itertools.count(1)


class PublishBlocked(OSError):
    """RabbitMQ is there, but does not take or confirm what it is sent; the text says why, and is fit for a log."""


class AmqpConnection:
    """Construction connects. Library errors come out as they are; after any of them the link has to be thrown away.

    `differing` are the queues that are known to be of another type, and grows.
    """

    def __init__(
        self,
        address: BrokerAddress,
        exchange: str,
        clock: Clock,
        *,
        confirm_within: float,
        answer_within: float,
        differing: set[str],
    ) -> None:
        self._exchange = exchange
        self._clock = clock
        self._confirm_within = confirm_within
        self._frames: PublishEncoder | None = None
        self._deliveries: DeliverDecoder | None = None
        self._lowest = 1
        self._differing = differing
        self._blocked = False
        self._serial = next(_serials)
        self._arrived: list[Received] = []
        self._unacked: dict[int, None] = {}
        self._unconfirmed: set[int] = set()
        self._refused = 0
        self._returned = 0
        self._sent = 0
        self._connection = address.dial(
            heartbeat=HEARTBEAT,
            read_timeout=answer_within,
            write_timeout=answer_within,
            # The library's default of one second would end a connection that RabbitMQ holds up for a moment.
            socket_settings={socket.TCP_USER_TIMEOUT: int(answer_within * 1000)},
            frame_handler=_lenient_frames,
            on_blocked=self._on_blocked,
            on_unblocked=self._on_unblocked,
        ).transport.establish_connection()
        self._tick = min(_TICK, (self._connection.heartbeat or HEARTBEAT) / 4)
        try:
            self._transport = self._connection.transport
            self._socket = self._connection.sock
            self._tls = isinstance(self._socket, ssl.SSLSocket)
            self._read_ahead()
            self._channel = self._open_channel()
            self._channel.exchange_declare(exchange=exchange, type="topic", durable=True, auto_delete=False)
        except BaseException:
            self._connection.collect()
            raise

    # queues

    def declare(self, queue: str, topics: Sequence[str]) -> None:
        """Make a quorum queue and bind it; a queue of that name that is of another type is used as it is."""
        try:
            self._channel.queue_declare(
                queue=queue, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
            )
        except amqp.exceptions.PreconditionFailed:  # RabbitMQ closed the channel; py-amqp has opened it again
            self._channel.queue_declare(queue=queue, passive=True)
            if queue not in self._differing:
                self._differing.add(queue)
                log.info("broker.queue_differs", queue=queue, consequence="used as it was made, not as a quorum queue")
        for topic in topics:
            self._channel.queue_bind(queue=queue, exchange=self._exchange, routing_key=topic)

    def depth(self, queue: str) -> int:
        """Return how many messages are ready in a queue; 0 for one that does not exist."""
        try:
            return int(self._channel.queue_declare(queue=queue, passive=True).message_count)
        except amqp.exceptions.NotFound:
            return 0

    def ping(self) -> None:
        """Ask for something that RabbitMQ has to look up."""
        self._channel.exchange_declare(exchange=self._exchange, type="topic", durable=True, passive=True)

    # publishing

    def publish(self, entries: Sequence[JournalEntry]) -> int:
        """Send all, then wait once for all confirms; return how many no queue wanted."""
        frames = self._frames or self._open_confirming()
        self._wait_while(lambda: self._blocked)
        self._refused = self._returned = 0
        self._lowest = self._sent + 1
        self._unconfirmed = set(range(self._lowest, self._lowest + len(entries)))
        self._sent += len(entries)
        for start in range(0, len(entries), _WRITTEN_AT_ONCE):
            # RabbitMQ works on these while the next are being put together.
            self._transport.write(b"".join(map(frames.of, entries[start : start + _WRITTEN_AT_ONCE])))
            self._connection.bytes_sent += 1  # py-amqp's count of frames, by which it knows that no heartbeat is due
        self._wait_while(lambda: bool(self._unconfirmed))
        if self._refused:
            raise Unavailable(
                f"a queue refused {self._refused} of {len(entries)} events: it is full, or has lost its majority; "
                "they have to be published again"
            )
        return self._returned

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        deadline = self._clock.monotonic() + self._confirm_within
        while condition():
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise self._held_up()
            with contextlib.suppress(TimeoutError):
                self._connection.drain_events(timeout=min(left, self._tick))
            self._connection.heartbeat_tick()

    def _held_up(self) -> PublishBlocked:
        if self._blocked:
            return PublishBlocked("a memory or disk alarm blocks publishers; events wait until it is over")
        return PublishBlocked(
            f"{len(self._unconfirmed)} events were not confirmed within {self._confirm_within:.0f} s; "
            "see whether each bound queue has a leader"
        )

    def _open_confirming(self) -> PublishEncoder:
        channel = self._open_channel()
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        self._frames = PublishEncoder(channel.channel_id, self._exchange, self._connection.frame_max)
        return self._frames

    def _on_ack(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - py-amqp's signature
        if multiple:
            self._unconfirmed.difference_update(range(self._lowest, tag + 1))
            self._lowest = tag + 1
        else:
            self._unconfirmed.discard(tag)

    def _on_nack(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - py-amqp's signature
        before = len(self._unconfirmed)
        self._on_ack(tag, multiple)
        self._refused += before - len(self._unconfirmed)

    def _on_return(self, *_: object) -> None:
        self._returned += 1

    def _on_blocked(self, _reason: str) -> None:
        self._blocked = True
        log.warning("broker.blocked", reason="memory or disk alarm", consequence="events wait in the journal")

    def _on_unblocked(self) -> None:
        self._blocked = False
        log.info("broker.unblocked")

    # consuming

    def consume(self, queue: str, prefetch: int, consumer: str) -> None:
        """Have the queue's messages delivered, up to `prefetch` ahead of their acknowledgement."""
        self._channel.basic_qos(0, prefetch, False)
        self._channel.basic_consume(queue=queue, consumer_tag=consumer, callback=self._on_message)
        self._deliveries = DeliverDecoder(self._channel.channel_id, consumer)

    def tap(self, topics: Sequence[str], prefetch: int) -> None:
        """Have what is published from now on delivered, by a queue that goes with this connection."""
        queue = f"bridge.tap.{uuid.uuid4().hex}"
        self._channel.queue_declare(
            queue=queue, exclusive=True, auto_delete=True, arguments={"x-max-length": TAP_KEEPS}
        )
        for topic in topics:
            self._channel.queue_bind(queue=queue, exchange=self._exchange, routing_key=topic)
        self.consume(queue, prefetch, queue)

    def receive(self, wake: int) -> list[Received]:
        """Return what has arrived; waits until something has, `wake` is readable, or a heartbeat is due."""
        sock = self._socket.fileno()
        if self._arrived or self._at_hand() or wait_readable(sock, wake, seconds=self._tick):
            self._read_what_came(sock)
        self._connection.heartbeat_tick()
        arrived, self._arrived = self._arrived, []
        return arrived

    def _read_what_came(self, sock: int) -> None:
        while len(self._arrived) < _AT_ONCE:
            if self._take_ahead():
                continue
            readable = self._pending() or wait_readable(sock, seconds=0)
            if not (readable or self._transport._read_buffer):  # noqa: SLF001 - as below
                return
            try:
                if not (readable and self._read_more()):
                    self._connection.drain_events(timeout=_MOMENT)
            except TimeoutError:  # half a frame, or a heartbeat
                return

    def _take_ahead(self) -> bool:
        """Take what was read ahead, as far as it is messages of our own making; say whether there were any."""
        ahead = self._transport._read_buffer  # noqa: SLF001 - as below
        if self._deliveries is None or not ahead:
            return False
        taken, length = self._deliveries.take(ahead, _AT_ONCE)
        if not taken:
            return False
        self._transport._read_buffer = ahead[length:]  # noqa: SLF001 - as below
        self._connection.bytes_recv += len(taken)  # py-amqp's count of frames, by which it knows that RabbitMQ lives
        for one in taken:
            properties = {"message_id": one.id, "timestamp": one.timestamp}
            self._arrive(one.tag, one.topic, one.body, properties, {message.POSITION_HEADER: one.position})
        return True

    def _read_more(self) -> bool:
        """Read on into what was read ahead, if the library would not have to make sense of that first."""
        transport = self._transport
        ahead = transport._read_buffer  # noqa: SLF001 - as below
        if self._deliveries is None or len(ahead) >= _READ_AT_ONCE:
            return False
        with transport.having_timeout(_MOMENT):
            more = transport._quick_recv(_READ_AT_ONCE)  # noqa: SLF001 - as below
        transport._read_buffer = ahead + more  # noqa: SLF001 - as below
        return bool(more)  # at its end, the library says what that means

    def _pending(self) -> bool:
        return bool(self._tls and self._socket.pending())

    def _at_hand(self) -> bool:
        """Say whether there are bytes that the socket would not tell of: read ahead, or decrypted already."""
        return bool(self._transport._read_buffer) or self._pending()  # noqa: SLF001 - the only place that knows

    def _on_message(self, delivered: Any) -> None:
        info, properties = delivered.delivery_info, delivered.properties
        body, headers = bytes(delivered.body or b""), properties.get("application_headers")
        self._arrive(info["delivery_tag"], info["routing_key"], body, properties, headers)

    def _arrive(self, tag: int, topic: str, body: bytes, properties: Mapping[str, Any], headers: object) -> None:
        self._unacked[tag] = None
        self._arrived.append(message.received(topic, body, properties, headers, (self._serial, tag)))

    def ack(self, tags: Sequence[tuple[int, int]]) -> None:
        """Acknowledge those tags that this connection gave out; the queue has taken the others back by itself."""
        unacked = self._unacked
        mine = {tag for serial, tag in tags if serial == self._serial and tag in unacked}
        upto = 0
        for tag in unacked:  # in order of delivery
            if tag not in mine:
                break
            upto = tag
        if upto:
            self._channel.basic_ack(upto, multiple=True)
        for tag in mine:
            if tag > upto:
                self._channel.basic_ack(tag)
            del unacked[tag]

    # the connection

    def interrupt(self) -> None:
        """Make whatever blocks fail at once; for another thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Say goodbye, within a few seconds; what was not acknowledged goes back to its queue."""
        with contextlib.suppress(OSError, amqp.exceptions.AMQPError):
            self._connection.close()
        self.drop()

    def drop(self) -> None:
        """Close without a word."""
        self._connection.collect()

    def _open_channel(self) -> Any:
        channel = self._connection.channel()
        channel.auto_decode = False  # bodies are bytes, and stay what they are
        return channel

    def _read_ahead(self) -> None:
        # py-amqp asks the socket for each part of a frame by itself; what comes beyond it keeps. That saves most calls.
        receive = self._transport._quick_recv  # noqa: SLF001 - there is no public way
        self._transport._quick_recv = lambda wanted: receive(max(wanted, _READ_AHEAD))  # noqa: SLF001 - likewise


def _lenient_frames(connection: Any, callback: Callable[..., Any]) -> Callable[[Any], Any]:
    """Read frames as py-amqp does, but take a message whose properties cannot be decoded for one without properties.

    RabbitMQ carries properties unread. Without this, one property that is not UTF-8 would end the connection each time
    the message is delivered, and the queue behind it would stand still for ever.
    """
    read = frame_handler(connection, callback)

    def on_frame(frame: tuple[int, int, bytes]) -> Any:
        kind, channel, content = frame
        if kind != _HEADER_FRAME:
            return read(frame)
        try:
            return read(frame)
        except (ValueError, IndexError, OverflowError, struct.error, amqp.exceptions.FrameSyntaxError):
            return read((kind, channel, content[:_HEADER_FIXED_PART] + _NO_PROPERTIES))

    return on_frame
