"""Which message is looked at when, and which first: pure decisions."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

MAX_WAIT_RUNNING_SECONDS = 3600.0
"""A message that is still running is looked at once an hour at least, unless the interval is longer."""
MAX_WAIT_COMPLETED_SECONDS = 4 * 3600.0
"""A completed one once in four hours at least, unless the interval is longer."""
ABANDON_AFTER_SECONDS = 30 * 86400.0
"""A message that never completes is left alone after so many quiet seconds."""
_QUIET_SHARE = 0.05
_QUIET_SHARE_AT_MOST = 0.2
_QUIET_SHARE_GROWS_FROM = 120.0
_GROWTH_FACTOR = 2.0
_PRICE_SHARE = 0.1
_OVERDUE_INTERVALS = 10.0
_OVERDUE_TURN = 5
"""One turn in so many belongs to the message that is overdue longest."""
_REREAD_SHARE = 0.25
_REREAD_COST = 10.0
"""Requests that a full reading costs at most, per request for the counts."""


def longest_wait(quiet: float, interval: float, *, completed: bool) -> float:
    """Return after how many seconds a message is looked at, whatever is expected of it.

    A twentieth of the time for which it has been quiet; from two minutes of quiet on, the share grows up to a fifth.
    """
    share = min(_QUIET_SHARE * max(1.0, quiet / _QUIET_SHARE_GROWS_FROM), _QUIET_SHARE_AT_MOST)
    return max(interval, min(quiet * share, MAX_WAIT_COMPLETED_SECONDS if completed else MAX_WAIT_RUNNING_SECONDS))


def next_sweep_at(
    now: datetime,
    created_at: datetime | None,
    completed_at: datetime | None,
    last_change: datetime | None,
    interval: float,
    follow_for: float,
    worth_after_seconds: float = math.inf,
    before: float = math.inf,
) -> datetime | None:
    """Decide when a message is looked at next; None is never again.

    As soon as that is worth it, in `worthwhile` seconds, but never before `interval` seconds and never after the
    longest wait; a completed one until `follow_for` seconds after its completion, with a last look at that very time.
    `before` is for how many seconds the look before this one put it off: at most twice as long from one look to the
    next, or a clock set ahead by a day would make a busy message one that was quiet for a day.
    """
    moved = max((moment for moment in (created_at, completed_at, last_change) if moment is not None), default=now)
    quiet = max(0.0, (now - moved).total_seconds())
    longest = longest_wait(quiet, interval, completed=completed_at is not None)
    longest = min(longest, _GROWTH_FACTOR * max(interval, before))
    then = now + timedelta(seconds=max(interval, min(worth_after_seconds, longest)))
    if completed_at is None:
        return then if quiet < ABANDON_AFTER_SECONDS else None
    end = completed_at + timedelta(seconds=follow_for)
    return min(then, end) if now < end else None


def price(interval: float) -> float:
    """Return how much waiting one more request has to end, in seconds summed over changes: a tenth of the interval.

    A lower price buys little: half of all changes are found by the first look after them in any case.
    """
    return interval * _PRICE_SHARE


def worth_reading(pending: int, waited: float, pages: int, price: float) -> bool:
    """Decide whether recipients are read, of whom `pending` are known to have changed since they were, `waited` s ago.

    A message of a few pages is read at once. The hundred pages of a huge one are not read for one straggler's sake:
    it waits for others, or until its waiting is worth the pages.
    """
    return pending > 0 and pending * waited / 2 >= price * pages


def must_reread(now: float, swept: float, took: float, completed: float | None, reread_every: float) -> bool:
    """Decide whether the recipients are read though no count moved: two opposite changes leave the counts alone.

    A reading that took long, or a message completed long ago, is repeated less often.
    """
    age = 0.0 if completed is None else (now - completed) * _REREAD_SHARE
    return now - swept >= max(reread_every, took * _REREAD_COST, age)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A message that is due."""

    path: str
    due: float
    """Since when, in seconds since 1970."""
    value: float
    """What a look at it is worth now; infinite where nobody ever looked at it."""
    cost: float
    """How many requests the look is expected to take."""
    created: float


def choose(candidates: Iterable[Candidate], now: float, interval: float, budget: float) -> list[str]:
    """Return the messages to sweep now, in this order, for `budget` requests; the first one whatever it costs.

    Messages that were never swept come first, the newest before the older, then the message of the greatest value. One
    turn in five, beginning with the first, belongs to the message that is overdue longest, if it is overdue by ten
    intervals at least: so none starves.
    """
    best = deque(sorted(candidates, key=_by_value))
    late = now - _OVERDUE_INTERVALS * interval
    overdue = deque(
        sorted(
            (candidate for candidate in best if candidate.due < late),
            key=lambda candidate: (candidate.due, candidate.path),
        )
    )
    chosen: dict[str, None] = {}
    while best:
        of_turn = overdue if overdue and len(chosen) % _OVERDUE_TURN == 0 else best
        candidate = of_turn.popleft()
        if candidate.path in chosen:
            continue
        budget -= candidate.cost
        if budget < 0 and chosen:
            break
        chosen[candidate.path] = None
    return list(chosen)


def _by_value(candidate: Candidate) -> tuple[float, float, str]:
    return -candidate.value, -candidate.created if math.isinf(candidate.value) else candidate.due, candidate.path
