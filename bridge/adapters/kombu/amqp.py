"""One connection to RabbitMQ, used by one thread: batches with publisher confirms, quorum queues, consumers.

It goes past py-amqp's public interface where that costs too much: `amqp_codec` writes and reads frames by itself, and
`amqp_read_ahead` reaches into private attributes of the library's transport. Both are written for py-amqp 5.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from typing import Any

import amqp
import structlog
from amqp.method_framing import frame_handler

from bridge.adapters import message, taps
from bridge.adapters.kombu.amqp_codec import DeliverDecoder
from bridge.adapters.kombu.amqp_exchange import exists, use_exchange
from bridge.adapters.kombu.amqp_mark import AmqpMark
from bridge.adapters.kombu.amqp_publisher import AmqpPublisher
from bridge.adapters.kombu.amqp_read_ahead import ReadAheadBuffer
from bridge.adapters.kombu.amqp_rights import check_rights
from bridge.adapters.kombu.connection import PublishProgress, next_serial
from bridge.adapters.kombu.url import BrokerAddress
from bridge.concurrency.thread_worker import wait_readable
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry
from bridge.domain.installation import Mark
from bridge.domain.namespace import Namespace
from bridge.protocols.broker import Received

log = structlog.get_logger()

HEARTBEAT_SECONDS = 5.0
"""A connection that was silent for twice as long is given up: a frozen node costs seconds, and another one is tried."""

_MAX_TICK_SECONDS = 5.0
_PARTIAL_FRAME_SECONDS = 0.05
_RECEIVED_AT_ONCE_MESSAGES = 500
_HEADER_FRAME = 2  # the type of a frame with a message's properties
_HEADER_FIXED_BYTES = 12
_NO_PROPERTIES = b"\0\0"


class AmqpConnection:
    """`KombuConnection` to RabbitMQ.

    `differing` names the queues and the exchange that are known to be made in another way; the connection adds to it.
    """

    def __init__(
        self,
        address: BrokerAddress,
        exchange: str,
        namespace: Namespace,
        clock: Clock,
        *,
        confirm_within: float,
        answer_within: float,
        differing: set[str],
    ) -> None:
        self._exchange = exchange
        self._namespace = namespace
        self._clock = clock
        self._confirm_within = confirm_within
        self._differing = differing
        self._label = address.label
        self._exchange_was_missing = False
        self._publisher: AmqpPublisher | None = None
        self._decoder: DeliverDecoder | None = None
        self._blocked = False
        self._serial = next_serial()
        self._arrived: list[Received] = []
        self._unacked: dict[int, None] = {}
        self._connection = address.connection(
            heartbeat=HEARTBEAT_SECONDS,
            read_timeout=answer_within,
            write_timeout=answer_within,
            # The library's default of one second would end a connection that RabbitMQ blocks for a moment.
            socket_settings={socket.TCP_USER_TIMEOUT: int(answer_within * 1000)},
            frame_handler=_lenient_frames,
            on_blocked=self._on_blocked,
            on_unblocked=self._on_unblocked,
        ).transport.establish_connection()
        self._tick_seconds = min(_MAX_TICK_SECONDS, (self._connection.heartbeat or HEARTBEAT_SECONDS) / 4)
        try:
            self._transport = self._connection.transport
            self._socket = self._connection.sock
            self._tls = isinstance(self._socket, ssl.SSLSocket)
            self._ahead = ReadAheadBuffer(self._transport)
            self._channel = self._open_channel()
            self._mark = AmqpMark(self._channel, namespace)
        except BaseException:
            self._connection.collect()
            raise

    def prepare(self) -> None:
        """Make the exchange, or use the one that is there."""
        self._exchange_was_missing = not exists(self._channel, self._exchange)
        use_exchange(self._channel, self._exchange, self._differing)

    def check_rights(self, queues: Sequence[str]) -> None:
        """Try each right without any effect."""
        check_rights(self._channel, self._label, self._exchange, queues, self._differing)
        self._mark.check_rights(self._label)

    # the installation

    def mark(self) -> Mark | None:
        """Return the installation whose mark the virtual host has; None if it has none."""
        return self._mark.read()

    def marked(self, mark: Mark) -> Mark:
        """Return the mark that the virtual host has; one without any gets `mark`."""
        return self._mark.give(mark)

    def take_over(self, mark: Mark) -> None:
        """Give the virtual host this mark instead of its own."""
        self._mark.replace(mark)

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

    def restore(self, queue: str, topics: Sequence[str]) -> None:
        """Declare a queue again if it, or the exchange with its bindings, was missing.

        A look does not wait for the whole cluster; a binding does, and stands still for as long as RabbitMQ takes to
        notice that a node is frozen (its `net_ticktime`, by default a minute).
        """
        if self._exchange_was_missing or not self.has_queue(queue):
            self.declare(queue, topics)

    def has_queue(self, queue: str) -> bool:
        """Return whether a queue exists."""
        try:
            self._channel.queue_declare(queue=queue, passive=True)
        except amqp.exceptions.NotFound:
            return False
        return True

    def depth(self, queue: str) -> int:
        """Return how many messages are ready in a queue; 0 for one that does not exist."""
        try:
            return int(self._channel.queue_declare(queue=queue, passive=True).message_count)
        except amqp.exceptions.NotFound:
            return 0

    def ping(self) -> None:
        """Ask for something that RabbitMQ has to look up."""
        self._channel.exchange_declare(exchange=self._exchange, type="topic", durable=True, passive=True)

    def publish(self, entries: Sequence[JournalEntry], progress: PublishProgress, queue: str | None = None) -> int:
        """Send all entries, then wait for all confirms; return how many no queue wanted."""
        if self._publisher is None:
            self._publisher = AmqpPublisher(
                self._connection,
                self._open_channel(),
                self._exchange,
                self._clock,
                confirm_within=self._confirm_within,
                tick_seconds=self._tick_seconds,
                is_blocked=lambda: self._blocked,
            )
        return self._publisher.publish(entries, progress, queue)

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
        self._decoder = DeliverDecoder(self._channel.channel_id, consumer, self._serial)

    def tap(self, topics: Sequence[str], prefetch: int) -> None:
        """Have what is published from now on delivered, by a queue that ends with this connection."""
        queue = taps.new_queue(self._namespace)
        self._channel.queue_declare(
            queue=queue, exclusive=True, auto_delete=True, arguments={"x-max-length": taps.MAX_MESSAGES}
        )
        for topic in topics:
            self._channel.queue_bind(queue=queue, exchange=self._exchange, routing_key=topic)
        self.consume(queue, prefetch, queue)

    def receive(self, wake: int) -> list[Received]:
        """Return the messages that arrived; wait until one arrives, `wake` is readable, or a heartbeat is due."""
        sock = self._socket.fileno()
        if self._arrived or self._has_unparsed_bytes() or wait_readable(sock, wake, seconds=self._tick_seconds):
            self._read_arrived(sock)
        self._connection.heartbeat_tick()
        arrived, self._arrived = self._arrived, []
        return arrived

    def _read_arrived(self, sock: int) -> None:
        while len(self._arrived) < _RECEIVED_AT_ONCE_MESSAGES:
            if self._decode_ahead():
                continue
            readable = self._has_decrypted_bytes() or wait_readable(sock, seconds=0)
            if not (readable or self._ahead.data):
                return
            try:
                # At the connection's end nothing comes: the library then raises what that means.
                if not (readable and self._decoder is not None and self._ahead.extend(_PARTIAL_FRAME_SECONDS)):
                    self._connection.drain_events(timeout=_PARTIAL_FRAME_SECONDS)
            except TimeoutError:  # half a frame, or a heartbeat
                return

    def _decode_ahead(self) -> bool:
        """Decode the bytes read ahead, up to the first frame that is not ours; say whether there was any message."""
        data = self._ahead.data
        if self._decoder is None or not data:
            return False
        messages, length = self._decoder.decode(data, _RECEIVED_AT_ONCE_MESSAGES)
        if not messages:
            return False
        self._ahead.skip(length)
        self._connection.bytes_recv += len(messages)  # py-amqp's count of frames: if it grows, RabbitMQ lives
        for received in messages:
            self._unacked[received.tag[1]] = None
        self._arrived += messages
        return True

    def _has_decrypted_bytes(self) -> bool:
        return bool(self._tls and self._socket.pending())

    def _has_unparsed_bytes(self) -> bool:
        """Say whether there are bytes of which the socket says nothing: read ahead, or decrypted already."""
        return bool(self._ahead.data) or self._has_decrypted_bytes()

    def _on_message(self, delivered: Any) -> None:
        info, properties = delivered.delivery_info, delivered.properties
        body, headers = bytes(delivered.body or b""), properties.get("application_headers")
        tag = info["delivery_tag"]
        self._unacked[tag] = None
        self._arrived.append(message.received(info["routing_key"], body, properties, headers, (self._serial, tag)))

    def ack(self, tags: Sequence[tuple[int, int]]) -> None:
        """Acknowledge those tags that this connection gave out; RabbitMQ has put the others back into the queue."""
        unacked = self._unacked
        own = {tag for serial, tag in tags if serial == self._serial and tag in unacked}
        upto = 0
        for tag in unacked:  # in order of delivery
            if tag not in own:
                break
            upto = tag
        if upto:
            self._channel.basic_ack(upto, multiple=True)
        for tag in own:
            if tag > upto:
                self._channel.basic_ack(tag)
            del unacked[tag]

    # the connection

    def interrupt(self) -> None:
        """Make a blocking call fail at once; another thread calls this."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close in good order, within a few seconds; unacknowledged messages return to their queue."""
        with contextlib.suppress(OSError, amqp.exceptions.AMQPError):
            self._connection.close()
        self.drop()

    def drop(self) -> None:
        """Close without telling RabbitMQ."""
        self._connection.collect()

    def _open_channel(self) -> Any:
        channel = self._connection.channel()
        channel.auto_decode = False  # bodies are bytes and stay bytes
        return channel


def _lenient_frames(connection: Any, callback: Callable[..., Any]) -> Callable[[Any], Any]:
    """Read frames as py-amqp does, but read a message whose properties cannot be decoded as one without properties.

    RabbitMQ does not read the properties that it passes on. Without this, one property that is not UTF-8 would end the
    connection each time the message is delivered, and the queue behind it would stand still for ever.
    """
    read = frame_handler(connection, callback)

    def on_frame(frame: tuple[int, int, bytes]) -> Any:
        kind, channel, content = frame
        if kind != _HEADER_FRAME:
            return read(frame)
        try:
            return read(frame)
        except (ValueError, IndexError, OverflowError, struct.error, amqp.exceptions.FrameSyntaxError):
            return read((kind, channel, content[:_HEADER_FIXED_BYTES] + _NO_PROPERTIES))

    return on_frame
