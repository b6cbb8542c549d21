"""One connection by any other transport of kombu's, used by one thread: what that transport promises, and no more."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from bridge.adapters import message, taps
from bridge.adapters.kombu.connection import PublishProgress, next_serial
from bridge.adapters.kombu.url import BrokerAddress
from bridge.concurrency.thread_worker import wait_readable
from bridge.domain import topics as topic_patterns
from bridge.domain.event import JournalEntry, Position
from bridge.domain.installation import Mark
from bridge.domain.namespace import Namespace
from bridge.protocols.broker import Received, Unpublishable

_READ_EVERY_SECONDS = 0.02
_IDLE_SECONDS = 5.0
_TOO_LARGE = frozenset(
    {"InvalidParameterValue", "MessageTooLong", "MessageSizeExceededError", "DocumentTooLarge", "RequestBodyTooLarge"}
)
"""What the transports' libraries call a message over their limit: names of exceptions, and SQS's own code."""


class VirtualConnection:
    """One connection. Construction connects; library errors come out as they are, and end the connection."""

    def __init__(self, address: BrokerAddress, exchange: str, namespace: Namespace) -> None:
        self._exchange = exchange
        self._namespace = namespace
        self._serial = next_serial()
        self._queue: str | None = None
        self._tapped: tuple[str, ...] = ()
        self._prefetch = 0
        self._unacked: dict[str, Any] = {}
        self._transport = address.connection().transport
        self._transport.establish_connection()
        self._channel = self._transport.create_channel(self._transport)

    def prepare(self) -> None:
        """Make the exchange."""
        self._channel.exchange_declare(exchange=self._exchange, type="topic", durable=True)

    def check_rights(self, _queues: Sequence[str]) -> None:
        """Return; these transports cannot be asked without leaving something behind."""

    def mark(self) -> Mark | None:
        """Return None: these transports keep nothing but queues."""
        return None

    def marked(self, mark: Mark) -> Mark:
        """Return the mark as it is: nothing tells whose broker it is."""
        return mark

    def take_over(self, mark: Mark) -> None:
        """Do nothing."""

    def declare(self, queue: str, topics: Sequence[str]) -> None:
        """Make a queue and bind it."""
        self._channel.queue_declare(queue=queue, durable=True, auto_delete=False)
        for key in topic_patterns.bindings(topics):
            self._channel.queue_bind(queue=queue, exchange=self._exchange, routing_key=key)

    def restore(self, queue: str, topics: Sequence[str]) -> None:
        """Declare the queue again; repeating it changes nothing."""
        self.declare(queue, topics)

    def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue; 0 for one that does not exist."""
        return int(self._channel._size(queue))  # noqa: SLF001 - a passive declaration fails where a queue is empty

    def has_queue(self, queue: str) -> bool:
        """Return whether a queue is bound, as far as the transport tells that to other processes."""
        return any(bound == queue for _, _, bound in self._channel.get_table(self._exchange))

    def ping(self) -> None:
        """Return; a connection that stands is all that can be asked of these transports."""

    def publish(self, entries: Sequence[JournalEntry], progress: PublishProgress, queue: str | None = None) -> int:
        """Put all into their queues, one after the other; return how many no queue wanted."""
        unpublishable: dict[Position, str] = {}
        for entry in entries:
            try:
                progress.add([entry], int(not self._publish_one(entry, queue)))
            except Exception as error:
                if (word := _too_large(error)) is None:
                    raise
                unpublishable[entry.position] = f"the broker does not accept {len(entry.event.body):,} bytes ({word})"
        if unpublishable:
            raise Unpublishable(unpublishable, progress.unroutable)
        return progress.unroutable

    def _publish_one(self, entry: JournalEntry, queue: str | None) -> bool:
        """Put one entry into its queues; return whether any queue wants it."""
        channel, event = self._channel, entry.event
        if queue is None and not channel._lookup(self._exchange, event.topic):  # noqa: SLF001 - these transports ignore `mandatory`
            return False
        prepared = channel.prepare_message(
            event.body,
            content_type=message.CONTENT_TYPE,
            content_encoding=message.ENCODING,
            headers=message.headers(entry),
            properties=message.properties(event),
        )
        # The default exchange delivers to the queue that the routing key names.
        channel.basic_publish(prepared, *((self._exchange, event.topic) if queue is None else ("", queue)))
        return True

    def consume(self, queue: str, prefetch: int, _consumer: str) -> None:
        """Take the queue's messages, up to `prefetch` ahead of their acknowledgement."""
        self._queue = queue
        self._prefetch = prefetch

    def tap(self, topics: Sequence[str], prefetch: int) -> None:
        """Take what is published from now on, by a queue that is deleted at the end."""
        queue = taps.new_queue(self._namespace)
        self.declare(queue, topics)
        self._tapped = tuple(topic_patterns.bindings(topics))
        self.consume(queue, prefetch, queue)

    def receive(self, wake: int) -> list[Received]:
        """Return what the queue has; looks again every few milliseconds, since these transports cannot wake anybody."""
        if self._queue is None:
            wait_readable(wake, seconds=_IDLE_SECONDS)
            return []
        arrived = []
        while len(self._unacked) < self._prefetch and (got := self._channel.basic_get(self._queue)) is not None:
            self._unacked[got.delivery_tag] = got
            topic = str((got.delivery_info or {}).get("routing_key") or "")
            tag = (self._serial, got.delivery_tag)
            arrived.append(message.received(topic, got.body, got.properties, got.headers, tag))
        if not arrived:
            wait_readable(wake, seconds=_READ_EVERY_SECONDS)
        return arrived

    def ack(self, tags: Sequence[tuple[int, str]]) -> None:
        """Forget those tags that this connection gave out."""
        for serial, tag in tags:
            if serial == self._serial and self._unacked.pop(tag, None) is not None:
                self._channel.basic_ack(tag)

    def interrupt(self) -> None:
        """Do nothing: there is no socket that all of these transports share."""

    def close(self) -> None:
        """Give back what was not acknowledged, or remove the tap, and close."""
        if self._tapped and self._queue is not None:
            for key in self._tapped:  # kombu leaves a deleted queue's bindings in its table
                self._channel.queue_unbind(self._queue, self._exchange, key)
            self._channel.queue_delete(self._queue)
        else:
            self._requeue()
        self.drop()

    def _requeue(self) -> None:
        # kombu's own way would route each message again, into every queue that matches it.
        for tag, unacked in self._unacked.items():
            self._channel._put(self._queue, unacked.serializable())  # noqa: SLF001 - no public way
            self._channel.basic_ack(tag)
        self._unacked.clear()

    def drop(self) -> None:
        """Close without a word."""
        with contextlib.suppress(OSError):
            self._transport.close_connection(self._transport)


def _too_large(error: Exception) -> str | None:
    """Return the library's word for a message over the limit; None for any other error."""
    response = getattr(error, "response", None)
    detail = response.get("Error") if isinstance(response, dict) else None
    code = detail.get("Code") if isinstance(detail, dict) else None
    return next((word for word in (code, type(error).__name__) if word in _TOO_LARGE), None)
