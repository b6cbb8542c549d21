"""Where a walk along a Marketing Cloud feed stands, and where its cursor goes; pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FeedCursor:
    """The watermark that the cursor keeps, and the place to ask from next, which may be further on.

    Nothing is lost, because the watermark moves only to what the provider states, never back. Nothing loops, because
    the place to ask from grows with every request. Three cases beside the plain one, in which both are the stated
    watermark:

    - No watermark is stated (absent, null, 0) with events: the highest event's id takes its place, for otherwise the
      feed would show the same page for ever.
    - The stated watermark stands still or goes back, with events beyond the place asked from: the walk goes on from the
      highest of them, but the watermark stays, and the next poll sees them again. If the provider only echoes the
      place, the next answer states it; if it holds its watermark back on purpose, so do we.
    - Events at or before the place asked from (the start is inclusive) alone: that is the end, unless the page is full
      with the one asked from. Then the walk goes on right behind it, and the watermark stays.
    """

    watermark: int | None = None
    position: int | None = None
    onward: bool = False
    """Whether to ask once more, from `position`."""

    @classmethod
    def at(cls, watermark: int | None) -> FeedCursor:
        """Return the place from which a new walk starts."""
        return cls(watermark, watermark)

    def move(self, stated: int | None, highest: int, *, empty: bool, full: bool = False) -> bool:
        """Take in what a page states and its highest event's id (0 for none); say whether to ask once more.

        `full` says that the page has no room for one more event.
        """
        asked = self.position or 0
        watermark = max(self.watermark or 0, highest if stated is None else stated)
        self.watermark = watermark or None
        onward = watermark if watermark > asked else highest
        if full and 0 < onward == asked:
            onward = asked + 1
        self.onward = not empty and onward > asked
        if self.onward:
            self.position = onward
        return self.onward
