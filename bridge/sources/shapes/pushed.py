"""The things that the next poll of a source looks at because its provider pushed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(slots=True)
class PushedThings:
    """What was pushed, until a poll takes it."""

    things: Mapping[str, datetime] = field(default_factory=dict)
    """Each with the time of its push."""
    early: bool = False
    """Whether the poll is only made for them."""
    left: Collection[str] = ()
    """The things that the last poll had no time for."""

    def put(self, things: Mapping[str, datetime], *, early: bool) -> None:
        """Keep what the next poll looks at."""
        self.things, self.early = dict(things), early

    def take(self) -> tuple[Mapping[str, datetime], bool]:
        """Return the things, and whether the poll is early: that is for one poll alone."""
        things, early = self.things, self.early
        self.things, self.early, self.left = {}, False, ()
        return things, early
