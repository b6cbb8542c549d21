"""When to try again, decided with values: schedules of deliveries and back-off of polls."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.domain.errors import Permanent, Transient

RETRY_AFTER_CAP = 24 * 3600.0
"""Seconds: an endpoint that asks for a longer wait is asked again after this one."""
RECONNECT = 5.0
"""The longest wait between two tries to reach the store or the broker again: all else waits for them."""
_JITTER_SHARE = 0.1
_QUIET_POLLS = 10


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Try once more, `after` seconds from now."""

    after: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Try no more; `reason` is a word that is also a metric's label: `permanent` or `exhausted`."""

    reason: str


Decision = RetryAfter | GiveUp


def decide(error: Exception, attempts: int, schedule: Sequence[float], rng: random.Random) -> Decision:
    """Decide what follows the failure of attempt number `attempts` (1 for the first).

    The wait is the schedule's, with up to a tenth of jitter, and never less than what the endpoint asked for (up to a
    day). An error of no known kind counts as transient: giving up an event needs a reason.
    """
    if isinstance(error, Permanent):
        return GiveUp("permanent")
    if attempts > len(schedule):
        return GiveUp("exhausted")
    wait = schedule[attempts - 1] * (1 + _JITTER_SHARE * rng.random())
    asked = error.retry_after if isinstance(error, Transient) and error.retry_after else 0.0
    return RetryAfter(max(wait, min(asked, RETRY_AFTER_CAP)))


def idle_interval(interval: float, quiet: int, slowdown: float) -> float:
    """Return how long to wait after `quiet` polls in a row that showed nothing new: longer, up to `slowdown` times.

    The first ten change nothing; from then on each one adds a tenth.
    """
    return interval * min(slowdown, 1.1 ** max(0, quiet - _QUIET_POLLS))


def backoff(failures: int, rng: random.Random, *, base: float = 1.0, cap: float = 300.0) -> float:
    """Return how long to wait after `failures` failures in a row: full jitter below a doubling bound, in seconds.

    Half of the bound is the minimum, so that a dead endpoint is never asked in a tight loop.
    """
    bound: float = min(cap, base * 2.0 ** min(failures - 1, 30))
    return bound / 2 + rng.random() * bound / 2


class Backoff:
    """Counts the failures in a row of one activity, and returns how long to wait after each."""

    def __init__(self, rng: random.Random, *, base: float = 1.0, cap: float = 300.0) -> None:
        self._rng = rng
        self._base = base
        self._cap = cap
        self.failures = 0
        """Failures since the last success."""

    def on_failure(self) -> float:
        """Count a failure; return the seconds to wait before the next attempt, as `backoff` does."""
        self.failures += 1
        return backoff(self.failures, self._rng, base=self._base, cap=self._cap)

    def on_success(self) -> None:
        """Start counting anew."""
        self.failures = 0
