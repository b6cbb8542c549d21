"""Publishes batches on one channel of RabbitMQ, with one wait for all confirms of a batch."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import amqp

from bridge.adapters.kombu.amqp_codec import PublishEncoder
from bridge.adapters.kombu.connection import PublishProgress
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry, Position
from bridge.protocols.broker import Unpublishable

_WRITTEN_AT_ONCE_ENTRIES = 64
_AFTER_REFUSAL_SECONDS = 0.5
"""The time in which the other confirms of a batch may come after RabbitMQ refused an event of it."""
_MAX_MESSAGE = re.compile(r"larger than (?:the )?(?:configured )?max(?:imum)? size '?(\d+)")
"""RabbitMQ's words for a message over `max_message_size`, which name the size and not the message."""
_TOO_LONG = "its topic, type or id has more than 255 bytes, which is all that AMQP can carry"


class PublishBlocked(OSError):
    """RabbitMQ answers, but does not accept or confirm what it is sent; the text says why, and is fit for a log."""


class AmqpPublisher:
    """Publishes on `channel`, which is its own. `is_blocked` says whether an alarm of RabbitMQ's blocks publishers."""

    def __init__(
        self,
        connection: Any,
        channel: Any,
        exchange: str,
        clock: Clock,
        *,
        confirm_within: float,
        tick_seconds: float,
        is_blocked: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self._transport = connection.transport
        self._channel = channel
        self._clock = clock
        self._confirm_within = confirm_within
        self._tick_seconds = tick_seconds
        self._is_blocked = is_blocked
        self._encoder = PublishEncoder(channel.channel_id, exchange, connection.frame_max)
        self._published = 0
        self._lowest_unconfirmed = 1
        self._unconfirmed: set[int] = set()
        self._sent: list[JournalEntry] = []
        """The entries of the last batch, in the order of their tags."""
        self._first_tag = 1
        """The tag of the first entry of the last batch."""
        self._refused: set[int] = set()
        self._returned = 0
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)

    def publish(self, entries: Sequence[JournalEntry], progress: PublishProgress, queue: str | None = None) -> int:
        """Send all entries, then wait once for all confirms; return how many no queue wanted.

        For a message that it does not accept, RabbitMQ closes the channel. Then the entries that it has not confirmed
        are sent again, without those that it will never accept. After any other error, `progress` has what RabbitMQ
        confirmed, and the connection has to be dropped: a channel that saw a queue lose its leader may be refused for
        as long as that node is down, while a new connection is confirmed at once.
        """
        encoder = self._encoder if queue is None else self._encoder.to_queue(queue)
        unpublishable: dict[Position, str] = {}
        unroutable = 0
        batches = deque([entries])
        while batches:
            try:
                self._send(batches.popleft(), encoder, unpublishable)
            except amqp.exceptions.PreconditionFailed as error:
                progress.add(self._confirmed(), self._returned)
                batches.extendleft(reversed(self._after_rejection(str(error.reply_text), unpublishable)))
            except BaseException:
                progress.add(self._confirmed(), self._returned)
                raise
            unroutable += self._returned
        if unpublishable:
            raise Unpublishable(unpublishable, unroutable)
        return unroutable

    def _send(
        self, entries: Sequence[JournalEntry], encoder: PublishEncoder, unpublishable: dict[Position, str]
    ) -> None:
        self._sent = []
        self._refused = set()
        self._returned = 0
        self._wait_while(self._is_blocked)
        self._lowest_unconfirmed = self._published + 1
        self._unconfirmed = set()
        self._first_tag = self._published + 1
        for start in range(0, len(entries), _WRITTEN_AT_ONCE_ENTRIES):
            # RabbitMQ works on these while we encode the next ones.
            self._write(entries[start : start + _WRITTEN_AT_ONCE_ENTRIES], encoder, unpublishable)
        self._wait_while(lambda: bool(self._unconfirmed))
        if self._refused:
            raise PublishBlocked(
                f"a queue refused {len(self._refused)} of {len(entries)} events: it is full, or has lost its majority; "
                "they have to be published again"
            )

    def _write(
        self, entries: Sequence[JournalEntry], encoder: PublishEncoder, unpublishable: dict[Position, str]
    ) -> None:
        try:
            frames = list(map(encoder.encode, entries))
        except ValueError:
            too_long = [entry for entry in entries if not encoder.can_encode(entry)]
            unpublishable.update(dict.fromkeys([entry.position for entry in too_long], _TOO_LONG))
            entries = [entry for entry in entries if entry not in too_long]
            frames = list(map(encoder.encode, entries))
        self._unconfirmed.update(range(self._published + 1, self._published + 1 + len(entries)))
        self._published += len(entries)
        self._sent += entries
        self._transport.write(b"".join(frames))
        self._connection.bytes_sent += 1  # py-amqp's count of frames: if it grows, no heartbeat is due

    def _after_rejection(self, reason: str, unpublishable: dict[Position, str]) -> list[Sequence[JournalEntry]]:
        """Return the batches to send again after RabbitMQ closed the channel for one message of the last batch.

        RabbitMQ names the size and not the message. For another reason, halves are sent until the message is alone.
        """
        unconfirmed = [entry for tag, entry in enumerate(self._sent, self._first_tag) if tag in self._unconfirmed]
        self._channel.confirm_select()  # py-amqp has opened the channel again
        self._published = 0
        limit = _MAX_MESSAGE.search(reason)
        if limit is not None:
            over = [entry for entry in unconfirmed if len(entry.event.body) > int(limit[1])]
            unpublishable.update({entry.position: _over_limit(entry, int(limit[1])) for entry in over})
            if over:
                return [[entry for entry in unconfirmed if entry.position not in unpublishable]]
        if len(unconfirmed) == 1:
            unpublishable[unconfirmed[0].position] = f"RabbitMQ does not accept it: {reason}"
            return []
        middle = len(unconfirmed) // 2
        return [half for half in (unconfirmed[:middle], unconfirmed[middle:]) if half]

    def _confirmed(self) -> list[JournalEntry]:
        """Return the entries of the last batch that RabbitMQ holds."""
        open_tags = self._unconfirmed | self._refused
        return [entry for tag, entry in enumerate(self._sent, self._first_tag) if tag not in open_tags]

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` is over; raises `PublishBlocked` when RabbitMQ takes too long.

        After a refusal there is little to wait for: a queue without a leader refuses one event every few seconds.
        """
        deadline = self._clock.monotonic() + self._confirm_within
        while condition():
            if self._refused:
                deadline = min(deadline, self._clock.monotonic() + _AFTER_REFUSAL_SECONDS)
            left = deadline - self._clock.monotonic()
            if left <= 0:
                if self._refused:
                    return
                raise self._publish_blocked()
            with contextlib.suppress(TimeoutError):
                self._connection.drain_events(timeout=min(left, self._tick_seconds))
            self._connection.heartbeat_tick()

    def _publish_blocked(self) -> PublishBlocked:
        if self._is_blocked():
            return PublishBlocked("a memory or disk alarm blocks publishers; events wait until it is over")
        return PublishBlocked(
            f"{len(self._unconfirmed)} events were not confirmed within {self._confirm_within:.0f} s; "
            "see whether each bound queue has a leader"
        )

    def _on_ack(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - py-amqp's signature
        if multiple:
            self._unconfirmed.difference_update(range(self._lowest_unconfirmed, tag + 1))
            self._lowest_unconfirmed = tag + 1
        else:
            self._unconfirmed.discard(tag)

    def _on_nack(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - py-amqp's signature
        before = set(self._unconfirmed)
        self._on_ack(tag, multiple)
        self._refused |= before - self._unconfirmed

    def _on_return(self, *_: object) -> None:
        self._returned += 1


def _over_limit(entry: JournalEntry, limit: int) -> str:
    size = len(entry.event.body)
    return f"the event has {size:,} bytes, and RabbitMQ accepts {limit:,} (max_message_size)"
