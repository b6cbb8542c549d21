"""What a provider's push leads to: a hint that a thing should be looked at now, kept until somebody has looked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable

from bridge.domain.pushes import PushReader

EVERYTHING = "*"
"""The thing that a push names if it says only that there is news: the source is polled."""


class Hint(NamedTuple):
    """One thing that a push was about. Further pushes about it are the same hint until it is dropped."""

    thing: str
    """What to look at, by the name that the source gives it: a message's path, a record's id, or `EVERYTHING`."""
    since: float
    """When the first of its pushes was stored, in seconds since 1970."""
    version: int
    """Grows with each further push."""


class HintStore(Protocol):
    """The hints of all sources. Every method raises `Unavailable` if the store cannot be reached.

    A hint is durable when the call returns, as far as the store's own configuration makes it so.
    """

    async def add_hints(self, source: str, things: Collection[str], limit: int) -> bool:
        """Keep a hint for each of the things; False, and nothing is kept, if there would be more than `limit`."""
        ...

    async def hints(self, source: str, limit: int) -> Sequence[Hint]:
        """Return up to `limit` hints, the oldest first; writes nothing."""
        ...

    async def count_hints(self, source: str) -> int:
        """Return how many things have a hint; writes nothing."""
        ...

    async def drop_hints(self, source: str, hints: Sequence[Hint]) -> None:
        """Forget hints, apart from those that had a further push since they were read: they stay, as of that push."""
        ...


@dataclass(frozen=True, slots=True)
class PushSubscription:
    """What the provider calls, and when, as the provider has it."""

    id: str
    """Its path at the provider."""
    event: str
    """The provider's word for what it pushes."""
    url: str = field(repr=False)
    """The address that is called; it may end with a secret."""


@runtime_checkable
class RegistersPushes(Protocol):
    """A source whose provider can be told by requests where to push. All methods raise as `Source.pages` does."""

    push_events: Sequence[str]
    """The provider's words for what it should push; each needs a subscription."""

    async def subscriptions(self) -> Sequence[PushSubscription]:
        """Return all that the account has, ours or not."""
        ...

    async def subscribe(self, event: str, url: str) -> None:
        """Have the provider call `url`."""
        ...

    async def unsubscribe(self, subscription: PushSubscription) -> None:
        """Remove one; nothing happens if it is gone."""
        ...


@runtime_checkable
class TakesPushes(Protocol):
    """A source that can look at single things at once, because its provider pushes.

    What the provider answers to that look is what counts: a push that is forged, late or repeated costs one look.
    """

    @property
    def pushes(self) -> PushReader | None:
        """What verifies and reads the provider's pushes; None if the settings say nothing of pushes."""
        ...

    def expect_news(self, things: Mapping[str, datetime], *, early: bool) -> None:
        """Have the next `pages` look at these things, each with the time of its push, besides what is due.

        An `early` poll comes between two regular ones, and does only what the things need. Things that the source does
        not know, or follows no longer, are passed over; that may cost a look at the provider's list.
        """
        ...

    @property
    def postponed(self) -> Collection[str]:
        """The things that the last `pages` had no time for."""
        ...
