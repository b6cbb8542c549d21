"""How fast counters grow: a sample every few seconds, kept for ten minutes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import pairwise

SAMPLE_SECONDS = 5.0
"""Seconds between two samples."""
_KEPT_SAMPLES = 121  # ten minutes of them
_RATE_SECONDS = 30.0
"""Seconds over which a rate is measured, where there are samples that old."""


class Rates:
    """Samples of counters by name. A counter that shrinks was reset, and counts as standing still."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Mapping[str, int]]] = deque(maxlen=_KEPT_SAMPLES)

    def add(self, at: float, counters: Mapping[str, int]) -> None:
        """Keep a sample; `at` are seconds of the monotonic clock."""
        self._samples.append((at, counters))

    def per_second(self, name: str, over: float = _RATE_SECONDS) -> float | None:
        """Return the growth a second in the last seconds; None as long as there are no two samples of it."""
        samples = [(at, counters[name]) for at, counters in self._samples if name in counters]
        if len(samples) < 2:  # noqa: PLR2004 - a rate lies between two
            return None
        last, count = samples[-1]
        first, before = next((at, value) for at, value in samples if last - at <= over or (at, value) == samples[-2])
        return max(0, count - before) / (last - first) if last > first else None

    def counted(self, name: str) -> tuple[int, float]:
        """Return by how much a counter grew in all the time for which there are samples, and in how many seconds."""
        samples = [(at, counters[name]) for at, counters in self._samples if name in counters]
        grown = sum(max(0, after - before) for (_, before), (_, after) in pairwise(samples))
        return grown, samples[-1][0] - samples[0][0] if samples else 0.0

    def series(self, *names: str) -> list[float]:
        """Return the growth a second of several counters together, from sample to sample."""
        return [
            sum(max(0, after[name] - before[name]) for name in names if name in before and name in after)
            / (end - start)
            for (start, before), (end, after) in pairwise(self._samples)
            if end > start
        ]
