"""Who asked what, and how fast: the requests of each provider, for tests of politeness."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any


class RequestLog:
    """The requests to one provider since it began, or since it was last cleared."""

    def __init__(self) -> None:
        self._times = array("d")
        self._views: Counter[str] = Counter()
        self._statuses: Counter[int] = Counter()
        self._open = 0
        self._most_open = 0

    def begin(self, view: str, at: float) -> None:
        """Note a request of a kind at a time in seconds."""
        self._times.append(at)
        self._views[view] += 1
        self._open += 1
        self._most_open = max(self._most_open, self._open)

    def end(self, status: int) -> None:
        """Note that a request was answered; 0 is one that was not."""
        self._open -= 1
        self._statuses[status] += 1

    def clear(self) -> None:
        """Forget what was; requests under way stay counted as open."""
        self._times = array("d")
        self._views.clear()
        self._statuses.clear()
        self._most_open = self._open

    @property
    def times(self) -> list[float]:
        """Return when each request came, in seconds of the monotonic clock."""
        return list(self._times)

    @property
    def views(self) -> dict[str, int]:
        """Return how many requests of each kind came."""
        return dict(self._views)

    def most_in(self, seconds: float = 1.0) -> int:
        """Return the most requests that came within any window of so many seconds."""
        most = first = 0
        for count, at in enumerate(self._times, 1):
            while self._times[first] <= at - seconds:
                first += 1
            most = max(most, count - first)
        return most

    def report(self) -> dict[str, Any]:
        """Return what `/_simulator/requests` says of a provider."""
        return {
            "count": len(self._times),
            "most_in_one_second": self.most_in(),
            "most_at_once": self._most_open,
            "views": dict(sorted(self._views.items())),
            "statuses": {str(status): count for status, count in sorted(self._statuses.items())},
            "times": [round(at - self._times[0], 6) for at in self._times],
        }
