"""What a broker promises: topics, a durable queue for each sink, and batches that are held when the call returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from bridge.domain.errors import BridgeError, Unavailable
from bridge.domain.event import JournalEntry, Position, WireEvent
from bridge.domain.installation import Mark


class Unpublishable(BridgeError):
    """The broker will never accept these entries as it is configured: set them aside, and go on.

    It holds all other entries of the same call; `unroutable` is the number of those that no queue wanted.
    """

    def __init__(self, reasons: Mapping[Position, str], unroutable: int = 0) -> None:
        """Keep the reason for each entry; reasons are fit for a log."""
        super().__init__("; ".join(f"{position}: {reason}" for position, reason in reasons.items()))
        self.reasons = reasons
        self.unroutable = unroutable


class PartlyPublished(Unavailable):
    """The call failed, but the broker confirmed `confirmed` before: only the other entries have to be published again.

    `unroutable` is the number of those that the broker returned because no queue wanted them.
    """

    def __init__(self, message: str, confirmed: Iterable[Position], unroutable: int = 0) -> None:
        """Keep what the broker holds; `message` is fit for a log."""
        super().__init__(message)
        self.confirmed = frozenset(confirmed)
        self.unroutable = unroutable


@dataclass(slots=True)  # not frozen, as there is one for each event: see `WireEvent`
class Received:
    """A message that a queue brought; it stays the queue's until it is acknowledged."""

    event: WireEvent
    position: Position | None
    """Where it stands in our journal; None for another publisher's message."""
    tag: Any
    """What `ack` wants; of the adapter's own making."""
    problem: str | None = None
    """Why the message cannot be an event, where it cannot; fit for a log. `event.body` are its bytes all the same."""


class Inbox(Protocol):
    """One subscription. Its messages are shared with other consumers of the same queue."""

    async def get(self, limit: int, timeout: float) -> Sequence[Received]:  # noqa: ASYNC109 - empty is an answer, no error
        """Return up to `limit` messages, waiting up to `timeout` seconds for the first; empty when there is none."""
        ...

    async def ack(self, received: Sequence[Received]) -> None:
        """Tell the queue to forget these. Unacknowledged ones come back, to this consumer or another one."""
        ...


class Broker(Protocol):
    """Carries events to everyone who subscribed. Every method raises `Unavailable` when the broker cannot be reached.

    A failed call may be repeated: consumers may then see an event twice, with the same id, and never miss one. The
    adapter reconnects by itself, on the next call.
    """

    def sink_queue(self, sink: str) -> str:
        """Return the name of a sink's queue, in the namespace of this installation."""
        ...

    @property
    def place(self) -> str:
        """Where the broker is, fit for a log."""
        ...

    async def mark(self) -> Mark | None:
        """Return the installation whose mark the broker has; None if it has none, or can have none."""
        ...

    async def claim_for(self, mark: Mark) -> None:
        """Use the broker for one installation only, from now on and after each reconnect.

        A broker without a mark gets this one. Raises `OtherInstallation`, as every later call does for as long as the
        broker has another mark, and `Unavailable`.
        """
        ...

    async def take_over(self, mark: Mark) -> None:
        """Give the broker this mark instead of its own."""
        ...

    async def declare(self, queue: str, topics: Sequence[str]) -> None:
        """Make a durable queue bound to `topics`; repeating it changes nothing."""
        ...

    async def publish(self, entries: Sequence[JournalEntry], *, queue: str | None = None) -> int:
        """Return when the broker holds them all, in every queue that wants them; the number that no queue wanted.

        With `queue`, they go to this one declared queue, whatever its topics are. Raises `Unpublishable`, once the
        broker holds all others, for entries that it will never accept, such as one over its largest message; and
        `PartlyPublished` where the adapter knows which entries the broker holds although the call failed.
        """
        ...

    def inbox(self, queue: str, *, prefetch: int = 256) -> AbstractAsyncContextManager[Inbox]:
        """Consume a queue that was declared."""
        ...

    def tap(self, topics: Sequence[str]) -> AbstractAsyncContextManager[Inbox]:
        """Consume what is published from now on, by a queue of our own that goes when we do."""
        ...

    async def depth(self, queue: str) -> int:
        """Return roughly how many messages wait in a queue."""
        ...

    async def has_queue(self, queue: str) -> bool:
        """Return whether a queue exists: on brokers other than RabbitMQ, whether it is bound to the exchange."""
        ...

    async def ping(self) -> None:
        """Return if the broker answers."""
        ...

    async def check_rights(self, queues: Sequence[str]) -> None:
        """Try each right that publishing to the topics and consuming these queues needs, and leave nothing behind.

        Raises `MissingRight` that names what is refused, and `Unavailable` if the broker could not do it.
        """
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


class OpenBroker(Broker, Protocol):
    """A broker that has to be opened before it is used."""

    async def open(self) -> None:
        """Connect; raises `Unavailable`."""
        ...

    async def reach(self) -> None:
        """Return if the broker answers, opened or not; no queue and no file is made. Raises `Unavailable`."""
        ...
