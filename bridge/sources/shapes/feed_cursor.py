"""How far a walk along a feed of numbered events is, and where its cursor moves; pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FeedCursor:
    """The watermark that the cursor keeps, and the position to ask from next, which may be further on.

    Nothing is lost, because the watermark only moves forward, and only to what the provider states. Nothing loops,
    because the position grows with every request. In the plain case both are the stated watermark. The other three:

    - A page with events states no watermark (it is absent, null or 0): the highest event's id replaces it. Otherwise
      the feed would show the same page for ever.
    - The stated watermark stays or goes back, and there are events after the position: the walk goes on from the
      highest of them, but the watermark stays, and the next poll sees these events again. If the provider only echoes
      the position, its next answer states it. If it holds its watermark back on purpose, so do we.
    - All events are at or before the position (the start is inclusive): this is the end, unless the page is full and
      its highest event is the one at the position. Then the walk goes on right after it, and the watermark stays.
    """

    watermark: int | None = None
    position: int | None = None
    has_more: bool = False
    """Whether to ask once more, from `position`."""

    @classmethod
    def at(cls, watermark: int | None) -> FeedCursor:
        """Return the cursor from which a new walk starts."""
        return cls(watermark, watermark)

    def advance(self, stated: int | None, highest: int | None, *, empty: bool, full: bool = False) -> bool:
        """Apply the watermark that a page states and its highest event's id, if any; say whether to ask once more.

        `full` says that the page has no room for one more event.
        """
        self.watermark = _highest(self.watermark, highest if stated is None else stated)
        following = self.watermark if _is_after(self.watermark, self.position) else highest
        if full and following is not None and following == self.position:
            following += 1
        self.has_more = not empty and _is_after(following, self.position)
        if self.has_more:
            self.position = following
        return self.has_more


def _highest(*positions: int | None) -> int | None:
    return max((position for position in positions if position is not None), default=None)


def _is_after(position: int | None, other: int | None) -> bool:
    """Return whether a position is behind another one; None is the feed's start, before all of them."""
    return position is not None and (other is None or position > other)
