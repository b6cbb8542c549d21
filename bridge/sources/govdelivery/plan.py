"""What holds for all messages of one poll, and which of them the poll looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from bridge.sources.govdelivery.api import channel_of
from bridge.sources.govdelivery.change_rate import ChangeRate
from bridge.sources.govdelivery.page_cache import PageCache
from bridge.sources.govdelivery.scheduling import MAX_WAIT_COMPLETED_SECONDS, choose
from bridge.sources.govdelivery.state import MessageState, is_in_future, to_millis

_EARLY_INTERVALS = 0.25
"""Intervals by which a message may be looked at before it is due."""


@dataclass(frozen=True, slots=True)
class PollPlan:
    """What holds for all messages of one poll."""

    now: float
    """When the poll began, in seconds since 1970."""
    interval: float
    follow_for: float
    reread_every: float
    named: frozenset[str]
    """Messages that an operator named: they are followed for as long as they are named."""
    out_of_time: Callable[[], bool]
    """Whether the poll has lasted long enough, so that what is left goes to the next one."""
    budget: float
    """How many requests the poll has the time for."""
    report: Callable[[str], None]
    """Hears what went wrong with single resources."""
    change_rates: Mapping[str, ChangeRate]
    """How soon recipients change, by channel; learns from each look."""
    page_cache: PageCache
    """What pages looked like when they were last committed."""
    pushed: Mapping[str, datetime] = field(default_factory=dict)
    """Messages that the provider pushed, each with the time of the push."""
    once: bool = False
    """Whether nobody comes back to what could not be read: it is a backfill."""


def take_up(followed: dict[str, MessageState], named: Iterable[str], now: float, *, first: bool) -> None:
    """Begin to follow what an operator named, and go on with what was over by a clock that was ahead."""
    for path in named:
        known = followed.get(path)
        if known is None or known.over is not None:
            followed[path] = MessageState(due=to_millis(now), discovered=to_millis(now), backlog=first)
    for path, entry in followed.items():
        if is_in_future(entry.over, now):
            followed[path] = replace(entry, over=None, due=to_millis(now))


def due_messages(
    followed: Mapping[str, MessageState], plan: PollPlan, *, discover: bool, retry_failed: bool = False
) -> tuple[list[str], bool]:
    """Return the messages to sweep in this poll, the most valuable first, and whether due ones are left out.

    With `retry_failed`, messages whose last sweep failed are due now: the first poll of a process, whose credentials
    may be new, waits for no failure of the process before it.
    """
    soon = plan.now + _EARLY_INTERVALS * plan.interval
    # Nothing is ever put off by so much: the clock was set back.
    never = plan.now + 2 * max(MAX_WAIT_COMPLETED_SECONDS, plan.interval)
    present = {path: entry for path, entry in followed.items() if entry.over is None}
    paths = [
        path for path, entry in present.items() if not soon < entry.due < never or is_in_future(entry.begun, plan.now)
    ]
    if retry_failed:
        paths = list(dict.fromkeys([*paths, *(path for path, entry in present.items() if entry.failures)]))
    healthy = [path for path, entry in present.items() if not entry.failures]
    if healthy and not discover and all(present[path].failures for path in paths):
        # Without an answer from anywhere, a bad resource could not be told from a provider that is down.
        paths += [min(healthy, key=lambda path: (present[path].due, path))] if paths else []
    due = [present[path].candidate(path, plan.now, plan.change_rates[channel_of(path)]) for path in paths]
    chosen = choose(due, plan.now, plan.interval, plan.budget)
    pushed = [path for path in plan.pushed if path in present]
    return list(dict.fromkeys([*pushed, *chosen])), len(chosen) < len(due)
