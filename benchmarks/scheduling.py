"""Detection delay of the GovDelivery source against fixed-interval polling that spends as many requests.

The real source runs on a virtual clock against an account in memory: the same code that decides, reads and counts in
production. Its competitor asks for every followed message at one fixed interval, chosen so that it spends at least as
many requests at the same rate. It is an able competitor. It finds new messages at the very same moment and at no price.
It reads recipients only if a message's counts moved, or by the same rule for counts that stand, and once at the end.
A plain one is shown, too: it reads all recipients each time, as a script does.

    python -m benchmarks.scheduling [--quick] [--seed N] [--csv FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import math
import random
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from bridge.domain.clock import Clock
from bridge.http.limiter import Limiter
from bridge.http.response import Response
from bridge.protocols.source import Page
from bridge.sources.govdelivery import GovDelivery, GovDeliverySettings
from bridge.sources.govdelivery.lifecycles import MESSAGE_KEY
from bridge.sources.govdelivery.scheduling import must_reread

HOUR = 3600.0
START = datetime(2024, 5, 1, tzinfo=UTC)
LIST = "/messages/sms"
FINALS = frozenset({"sent", "failed", "completed"})
_PER_PAGE = 50
_REREAD_EVERY = 600.0
_EDGES = (0, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, math.inf)


@dataclass(frozen=True, slots=True)
class Scenario:
    """An account's days, and what the source is told. Delays are lognormal: a median in seconds and a spread."""

    name: str
    messages: int
    hours: float
    """Messages are made during these."""
    recipients: float
    """Median of a message."""
    median: float
    """Of a delivery's delay; each message has its own, around this one."""
    spread: float
    rate: float = 4.0
    interval: float = 30.0
    follow_for: float = 24 * HOUR
    largest: int = 5000
    inconclusive: float = 0.05
    """The share that hangs for a while, often for hours, before it ends: stragglers."""
    late: float = 0.03
    """The share that changes once more after it ended, mostly long after the message completed."""
    bursts: float = 0.4
    """The share of occasions on which several messages are made within five minutes."""


SCENARIOS = (
    Scenario("everyday", messages=120, hours=24, recipients=40, median=12, spread=1.2),
    Scenario("heavy tail", messages=80, hours=12, recipients=40, median=90, spread=2.0, follow_for=12 * HOUR),
    Scenario("scarce", messages=80, hours=8, recipients=60, median=90, spread=2.0, rate=0.5, follow_for=12 * HOUR),
    Scenario("campaigns", messages=20, hours=12, recipients=600, median=60, spread=1.5, follow_for=12 * HOUR),
)
QUICK = Scenario("quick", messages=40, hours=3, recipients=30, median=60, spread=1.6, follow_for=3 * HOUR)


# --- what happens -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Message:
    """A message with its whole history, and its state at the time to which it was settled."""

    number: int
    born: float
    steps: list[tuple[float, int, str]]
    """When, who (0 is the message itself, recipients count from 1) and into which status, in order of time."""
    size: int
    completed: float
    at: int = 0
    """How many steps have happened."""
    status: str = "new"
    states: list[str] = field(default_factory=list)
    ended: list[float | None] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.states = ["new"] * self.size
        self.ended = [None] * self.size
        self.counts = {"new": self.size}

    @property
    def path(self) -> str:
        return f"{LIST}/{self.number}"

    @property
    def pages(self) -> int:
        return math.ceil(self.size / _PER_PAGE)

    def settle(self, now: float) -> Message:
        while self.at < len(self.steps) and self.steps[self.at][0] <= now:
            at, who, status = self.steps[self.at]
            self.at += 1
            if who == 0:
                self.status = status
                continue
            self.counts[self.states[who - 1]] -= 1
            self.counts[status] = self.counts.get(status, 0) + 1
            self.states[who - 1] = status
            self.ended[who - 1] = at if status in FINALS else None
            self.bodies.pop((who - 1) // _PER_PAGE, None)
        return self

    def shown(self) -> dict[str, object]:
        """Return the item of a list; like the documented one, it has no counts."""
        done = stamp(self.completed) if self.status == "completed" else None
        links = {"self": self.path}
        return {"status": self.status, "created_at": stamp(self.born), "completed_at": done, "_links": links}

    def page(self, number: int) -> bytes:
        if number not in self.bodies:
            first = number * _PER_PAGE
            self.bodies[number] = json.dumps(
                [
                    {
                        "status": self.states[index],
                        "created_at": stamp(self.born),
                        "completed_at": None if self.ended[index] is None else stamp(self.ended[index] or 0.0),
                        "_links": {"self": f"{self.path}/recipients/{index + 1}"},
                    }
                    for index in range(first, min(first + _PER_PAGE, self.size))
                ]
            ).encode()
        return self.bodies[number]


@lru_cache(maxsize=100_000)
def stamp(seconds: float) -> str:
    return (START + timedelta(seconds=int(seconds))).strftime("%Y-%m-%dT%H:%M:%SZ")


def arrivals(scenario: Scenario, rng: random.Random) -> list[float]:
    times: list[float] = []
    while len(times) < scenario.messages:
        occasion = rng.uniform(0, scenario.hours * HOUR)
        burst = rng.randint(3, 20) if rng.random() < scenario.bursts else 1
        times += [occasion + rng.uniform(0, 300.0 if burst > 1 else 0.0) for _ in range(burst)]
    return sorted(times[: scenario.messages])


def history(scenario: Scenario, number: int, born: float, rng: random.Random) -> Message:
    size = max(1, min(scenario.largest, round(scenario.recipients * rng.lognormvariate(0.0, 1.2))))
    median = math.log(scenario.median) + rng.gauss(0.0, 0.7)
    queued = born + rng.lognormvariate(0.7, 0.5)
    sending = queued + rng.lognormvariate(1.6, 0.7)
    steps = [(queued, 0, "queued"), (sending, 0, "sending")]
    completed = sending
    for who in range(1, size + 1):
        at = sending + who / 20
        steps.append((at, who, "sending"))
        at += rng.lognormvariate(median, scenario.spread)
        completed = max(completed, at)
        if rng.random() < scenario.inconclusive:
            steps.append((at, who, "inconclusive"))
            at += rng.lognormvariate(math.log(30 * 60), 1.5)
        ended = "failed" if rng.random() < 0.1 else "sent"
        steps.append((at, who, ended))
        if rng.random() < scenario.late:
            at += rng.lognormvariate(math.log(2 * HOUR), 1.3)
            steps.append((at, who, "sent" if ended == "failed" else "failed"))
    # A message completes when each of its recipients was tried; it does not wait for weeks.
    completed = min(completed, sending + 4 * HOUR)
    steps.append((completed, 0, "completed"))
    end = completed + scenario.follow_for
    return Message(number, born, sorted(step for step in steps if step[0] < end), size, completed)


def account(scenario: Scenario, seed: int) -> list[Message]:
    """Return the messages of a scenario, the oldest first."""
    times = arrivals(scenario, random.Random(f"{seed}/arrivals"))
    return [
        history(scenario, number, born, random.Random(f"{seed}/{number}")) for number, born in enumerate(times, start=1)
    ]


# --- the provider, and a clock that nobody waits for ------------------------------------------------------------------


@dataclass
class Time:
    """Moves when somebody sleeps; the budget of requests lets one sleep at a time."""

    seconds: float = 0.0

    async def sleep(self, seconds: float) -> None:
        self.seconds += max(0.0, seconds)
        await asyncio.sleep(0)

    def clock(self) -> Clock:
        return Clock(
            now=lambda: START + timedelta(seconds=self.seconds),
            monotonic=lambda: self.seconds,
            sleep=self.sleep,
            random=random.Random(7),
        )


class Provider:
    """Stands where the source's HTTP client does: spends the same budget, and answers at once from memory."""

    def __init__(self, messages: Sequence[Message], time: Time, clock: Clock, rate: float) -> None:
        self._messages = {message.path: message for message in messages}
        self._time = time
        self._clock = clock
        self._unborn = sorted(messages, key=lambda message: -message.born)
        self._newest_first: list[Message] = []
        self.limiter = Limiter(rate, clock)
        self.asked = 0
        self.listed = 0
        self.found_at: dict[str, float] = {}
        """When each message was asked for the first time."""

    async def get(self, target: str, *_: object) -> Response:
        await self.limiter.start()
        self.asked += 1
        parts = urlsplit(target)
        page = int(parse_qs(parts.query).get("page", ["1"])[0])
        if parts.path == LIST:
            self.listed += 1
            body, more = self._list(page)
        else:
            path = parts.path.partition("/recipients")[0]
            message = self._messages[path].settle(self._time.seconds)
            if parts.path == path:
                self.found_at.setdefault(path, self._time.seconds)
                counts = {"total": message.size, **message.counts}
                body, more = json.dumps({**message.shown(), "recipient_counts": counts}).encode(), False
            else:
                body, more = message.page(page - 1), page < message.pages
        headers = CIMultiDict({"Link": f'<{parts.path}?page={page + 1}>; rel="next"'} if more else {})
        now = self._clock.now()
        url = URL(f"https://provider.example{parts.path}")
        return Response(f"GET {parts.path}", 200, body, now, now, url, CIMultiDictProxy(headers))

    def _list(self, page: int, size: int = 100) -> tuple[bytes, bool]:
        while self._unborn and self._unborn[-1].born <= self._time.seconds:
            self._newest_first.insert(0, self._unborn.pop())
        shown = self._newest_first[(page - 1) * size : page * size]
        items = [message.settle(self._time.seconds).shown() for message in shown]
        return json.dumps(items).encode(), page * size < len(self._newest_first)

    async def close(self) -> None:
        """There is nothing to give back."""


class Witness:
    """Knows every change, and hears of each when an observation first shows it."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._awaited: dict[tuple[str, str], list[tuple[float, str]]] = {}
        for message in messages:
            for at, who, status in reversed(message.steps):
                key = str(who) if who else MESSAGE_KEY
                self._awaited.setdefault((message.path, key), []).append((at, status))
        self.delays: list[float] = []

    def hear(self, page: Page) -> None:
        by = (page.by - START).total_seconds()
        for observation in page.observations:
            awaited = self._awaited.get((observation.scope, observation.key))
            while awaited and awaited[-1][0] <= by:
                at, status = awaited.pop()
                self.delays.append(by - at)
                assert (awaited and awaited[-1][0] <= by) or status == observation.status, (
                    "an observation is not the truth"
                )

    @property
    def unseen(self) -> int:
        return sum(map(len, self._awaited.values()))


# --- the two ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way of polling came to."""

    requests: int
    delays: list[float]
    unseen: int = 0
    every: float | None = None
    """The fixed interval."""

    @property
    def mean(self) -> float:
        return sum(self.delays) / len(self.delays)

    def quantile(self, share: float) -> float:
        return sorted(self.delays)[int(share * (len(self.delays) - 1))]


async def ours(scenario: Scenario, messages: Sequence[Message]) -> tuple[Outcome, Provider]:
    """Poll with the real source as the service does, until nothing is followed any more."""
    time = Time()
    clock = time.clock()
    settings = GovDeliverySettings.model_validate(
        {
            "type": "govdelivery",
            "token": "none",
            "channels": ["sms"],
            "interval": scenario.interval,
            "rate": f"{scenario.rate}/s",
            "follow_for": scenario.follow_for,
            "reread_every": _REREAD_EVERY,
        }
    )
    source = GovDelivery("bench", settings, clock)
    provider = Provider(messages, time, clock, scenario.rate)
    source._opened = provider  # type: ignore[assignment]  # noqa: SLF001 - the one seam: everything above it is real
    witness = Witness(messages)
    cursor: dict[str, str] = {}
    end = max(message.completed for message in messages) + scenario.follow_for + HOUR
    jitter = random.Random(11)
    while time.seconds < end:
        began = time.seconds
        async with aclosing(source.pages(dict(cursor), ())) as pages:
            async for page in pages:
                witness.hear(page)
                for key, value in page.cursor.items():
                    if value is None:
                        cursor.pop(key, None)
                    else:
                        cursor[key] = value
        assert not source.problems, source.problems[0]
        if not source.behind:
            wait = scenario.interval * jitter.uniform(0.95, 1.05)
            await time.sleep(max(0.1 * wait, wait - (time.seconds - began)))
    return Outcome(provider.asked, witness.delays, witness.unseen), provider


@dataclass(slots=True)
class Visited:
    """What fixed-interval polling knows of a message."""

    message: Message
    times: list[float]
    read: int = 0
    swept: float = -math.inf


def fixed(
    scenario: Scenario,
    messages: Sequence[Message],
    found_at: Mapping[str, float],
    every: float,
    *,
    use_cached_counts: bool = True,
) -> Outcome:
    """Look at each message at one interval from the moment it was found; see the module."""
    delays: list[float] = []
    requests = 0
    free = 0.0
    due = [
        (found_at[message.path], message.number, Visited(message, [at for at, _, _ in message.steps]))
        for message in messages
    ]
    heapify(due)
    while due:
        then, number, known = heappop(due)
        message = known.message
        end = message.completed + scenario.follow_for
        free = max(then, free) + 1 / scenario.rate
        requests += 1
        happened = bisect_right(known.times, free)
        completed = message.completed if message.completed <= free else None
        moved = happened > known.read
        if (
            not use_cached_counts
            or moved
            or then >= end
            or must_reread(free, known.swept, 0.0, completed, _REREAD_EVERY)
        ):
            for at, who, _ in message.steps[known.read : happened]:
                page = math.ceil(who / _PER_PAGE)
                delays.append(free + page / scenario.rate - at)
            known.read, known.swept = happened, free
            requests += message.pages
            free += message.pages / scenario.rate
        if then < end:
            heappush(due, (min(max(then + every, free), end), number, known))
    return Outcome(requests, delays, sum(len(message.steps) for message in messages) - len(delays), every)


def spending(run: Callable[[float], Outcome], requests: int) -> Outcome:
    """Return the outcome of the longest interval that still spends as many requests."""
    low, high = 1.0, 48 * HOUR
    for _ in range(24):
        every = math.sqrt(low * high)
        low, high = (every, high) if run(every).requests >= requests else (low, every)
    return run(low)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One scenario's outcome."""

    scenario: Scenario
    changes: int
    ours: Outcome
    fixed: Outcome
    plain: Outcome

    @property
    def ratio(self) -> float:
        """Mean delay of fixed-interval polling ÷ ours."""
        return self.fixed.mean / self.ours.mean

    @property
    def ratio_p95(self) -> float:
        return self.fixed.quantile(0.95) / self.ours.quantile(0.95)


def compare(scenario: Scenario, seed: int = 1) -> Comparison:
    """Run both; the same arguments give the same figures."""
    messages = account(scenario, seed)
    mine, provider = asyncio.run(ours(scenario, messages))
    left = mine.requests - provider.listed

    def competitor(*, use_cached_counts: bool) -> Outcome:
        outcome = spending(
            lambda every: fixed(scenario, messages, provider.found_at, every, use_cached_counts=use_cached_counts), left
        )
        return replace(outcome, requests=outcome.requests + provider.listed)

    changes = sum(len(message.steps) for message in messages)
    return Comparison(scenario, changes, mine, competitor(use_cached_counts=True), competitor(use_cached_counts=False))


# --- what is printed --------------------------------------------------------------------------------------------------

_ROW = "{:<12}{:<31}{:>9}{:>9}{:>8}{:>8}{:>8}{:>8}{:>9}{:>8}"


def table(comparison: Comparison) -> str:
    rows = [("ours", comparison.ours), ("fixed", comparison.fixed), ("fixed, reads everything", comparison.plain)]
    lines = []
    for name, outcome in rows:
        label = name if outcome.every is None else f"{name}, {outcome.every:.0f} s"
        ratio = "" if outcome is comparison.ours else f"{outcome.mean / comparison.ours.mean:.1f}"
        tail = "" if outcome is comparison.ours else f"{outcome.quantile(0.95) / comparison.ours.quantile(0.95):.1f}"
        figures = [f"{value:.1f}" for value in (outcome.mean, *map(outcome.quantile, (0.5, 0.95, 0.99)))]
        lines.append(
            _ROW.format(comparison.scenario.name, label, outcome.requests, len(outcome.delays), *figures, ratio, tail)
        )
    return "\n".join(lines)


def shares(delays: Sequence[float]) -> list[float]:
    ordered = sorted(delays)
    below = [bisect_right(ordered, edge) if edge else 0 for edge in _EDGES]
    return [(high - low) / len(ordered) for low, high in pairwise(below)]


def histogram(comparison: Comparison) -> str:
    lines = [f"\n{comparison.scenario.name}: share of changes by detection delay, ours # and fixed o"]
    for (low, high), mine, theirs in zip(
        pairwise(_EDGES), shares(comparison.ours.delays), shares(comparison.fixed.delays), strict=True
    ):
        label = f"{low}-{high:.0f} s" if high < math.inf else f"> {low} s"
        lines.append(f"{label:>12} {mine:6.1%} {'#' * round(mine * 50)}")
        lines.append(f"{'':>12} {theirs:6.1%} {'o' * round(theirs * 50)}")
    return "\n".join(lines)


def write_csv(file: Path, comparisons: Sequence[Comparison]) -> None:
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["scenario", "from_seconds", "to_seconds", "ours", "fixed"])
        for comparison in comparisons:
            both = zip(pairwise(_EDGES), shares(comparison.ours.delays), shares(comparison.fixed.delays), strict=True)
            writer.writerows([comparison.scenario.name, low, high, mine, theirs] for (low, high), mine, theirs in both)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one small scenario only")
    parser.add_argument("--seed", type=int, default=1, help="of the histories (default 1)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the histograms too")
    chosen = parser.parse_args()
    started = time.perf_counter()
    print(_ROW.format("scenario", "polling", "requests", "changes", "mean s", "p50", "p95", "p99", "÷ mean", "÷ p95"))
    comparisons = []
    for scenario in (QUICK,) if chosen.quick else SCENARIOS:
        comparisons.append(compare(scenario, chosen.seed))
        print(table(comparisons[-1]), flush=True)
    for comparison in comparisons:
        print(histogram(comparison))
    if chosen.csv is not None:
        write_csv(chosen.csv, comparisons)
    print(f"\n{time.perf_counter() - started:.0f} s of real time; the lowest ratio of means is", end=" ")
    print(f"{min(comparison.ratio for comparison in comparisons):.1f}, of the 95th percentiles", end=" ")
    print(f"{min(comparison.ratio_p95 for comparison in comparisons):.1f}")


if __name__ == "__main__":
    main()
