"""The simulated world's time: it runs with the real clock, stands still, or is moved by hand."""

from __future__ import annotations

from bridge.domain.clock import Clock


class WorldClock:
    """Seconds since 1970 in the world; never goes back.

    The calendar is the real one, so that a reader's own clock and the world's timestamps agree. How fast lives go is
    the world's business (`SimulatorSettings.speed`), not the clock's.
    """

    def __init__(self, clock: Clock, *, begins_ago: float = 0.0, manual: bool = False) -> None:
        """Begin `begins_ago` seconds before now; a `manual` clock stands still until `advance` or `thaw`."""
        self._clock = clock
        self._base = clock.epoch() - begins_ago
        self._mark = clock.monotonic()
        self._frozen = manual

    @property
    def frozen(self) -> bool:
        """Whether time stands still."""
        return self._frozen

    def now(self) -> float:
        """Return the world's time in seconds since 1970."""
        return self._base if self._frozen else self._base + self._clock.monotonic() - self._mark

    def advance(self, seconds: float) -> float:
        """Move the time forward by `seconds` and return it; raises `ValueError` for a step back."""
        if seconds < 0:
            raise ValueError("the world's time never goes back")
        self._base += seconds
        return self.now()

    def freeze(self) -> None:
        """Let time stand still from now on."""
        self._base = self.now()
        self._frozen = True

    def thaw(self) -> None:
        """Let time go on from where it stood."""
        if self._frozen:
            self._mark = self._clock.monotonic()
            self._frozen = False
