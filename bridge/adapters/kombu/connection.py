"""What one connection to a broker does, for any transport."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bridge.domain.event import JournalEntry
from bridge.domain.installation import Mark
from bridge.protocols.broker import Received

_serials = itertools.count(1)


def next_serial() -> int:
    """Return a number for a new connection of this process: its tags begin with it, so it knows them again."""
    return next(_serials)


@dataclass(slots=True)
class PublishProgress:
    """What the broker holds of a publication that failed; a connection writes it before its error comes out."""

    confirmed: list[JournalEntry] = field(default_factory=list)
    unroutable: int = 0
    """How many of the confirmed entries no queue wanted."""

    def add(self, entries: Iterable[JournalEntry], unroutable: int) -> None:
        """Note entries that the broker confirmed."""
        self.confirmed += entries
        self.unroutable += unroutable


class KombuConnection(Protocol):
    """One connection, used by one thread.

    Construction connects. Library errors come out as they are; after any of them the connection has to be dropped.
    """

    def prepare(self) -> None: ...  # noqa: D102 - makes the exchange, which a check of rights must not
    def check_rights(self, queues: Sequence[str]) -> None: ...  # noqa: D102 - as Broker says
    def mark(self) -> Mark | None: ...  # noqa: D102 - as Broker says

    def marked(self, mark: Mark) -> Mark:
        """Return the mark that the broker has; one without any gets `mark`.

        A broker that cannot have a mark passes for one that has this one.
        """
        ...

    def take_over(self, mark: Mark) -> None: ...  # noqa: D102 - as Broker says
    def declare(self, queue: str, topics: Sequence[str]) -> None: ...  # noqa: D102 - as Broker says

    def restore(self, queue: str, topics: Sequence[str]) -> None:
        """Declare again what this process declared on an earlier connection, if the broker has forgotten it."""
        ...

    def publish(self, entries: Sequence[JournalEntry], progress: PublishProgress, queue: str | None = None) -> int:
        """Publish as `Broker` says; where it fails, `progress` has what the broker confirmed before."""
        ...

    def depth(self, queue: str) -> int: ...  # noqa: D102 - as Broker says
    def has_queue(self, queue: str) -> bool: ...  # noqa: D102 - as Broker says
    def ping(self) -> None: ...  # noqa: D102 - as Broker says
    def consume(self, queue: str, prefetch: int, consumer: str) -> None: ...  # noqa: D102 - as Broker.inbox says
    def tap(self, topics: Sequence[str], prefetch: int) -> None: ...  # noqa: D102 - as Broker says

    def receive(self, wake: int) -> list[Received]:
        """Return the messages that arrived; wait a few seconds for them at most, or until `wake` is readable."""
        ...

    def ack(self, tags: Sequence[Any]) -> None:
        """Acknowledge those tags that this connection gave out."""
        ...

    def interrupt(self) -> None:
        """Make a blocking call fail at once; another thread calls this."""
        ...

    def close(self) -> None:
        """Close in good order, within a few seconds."""
        ...

    def drop(self) -> None:
        """Close at once."""
        ...
