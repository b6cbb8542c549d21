"""Doubles for tests of what stands around sources and sinks: a scripted provider, a sink that keeps, clocks."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry
from bridge.domain.events.govdelivery import (
    RecipientData,
    RecipientFailed,
    RecipientNew,
    RecipientSending,
    RecipientSent,
)
from bridge.domain.lifecycle import Lifecycle
from bridge.protocols.ledger import Commit, JournalState, Key, Lease
from bridge.protocols.sink import Outgoing
from bridge.protocols.source import Facts, Observation, Page, Probe, ResourceType

LIFECYCLE = Lifecycle(
    status_by_value={"new": "new", "sending": "sending", "sent": "sent", "failed": "failed"},
    follows={"new": ("sending",), "sending": ("sent", "failed")},
    finals=frozenset({"sent", "failed"}),
)


def _describe(observation: Observation) -> Facts:
    item = observation.item or {}
    return Facts(
        subject=f"{observation.scope}/recipients/{observation.key}",
        time=item.get("time"),
        fields={"message": observation.scope, "phone": item.get("phone"), "error": item.get("error")},
        model=RecipientData,
        first_time=item.get("first_time"),
    )


KIND = ResourceType(
    "sms",
    "recipient",
    LIFECYCLE,
    {"new": RecipientNew, "sending": RecipientSending, "sent": RecipientSent, "failed": RecipientFailed},
    _describe,
)


def observe(
    key: str, status: str, *, scope: str = "/messages/sms/1", kind: ResourceType = KIND, **item: object
) -> Observation:
    """Return an observation of a recipient."""
    return Observation(kind, scope, key, status, item)


@dataclass
class ScriptedSource:
    """A source that yields the pages it was given, poll after poll; an exception among them is raised there."""

    polls: list[list[Page | Exception]] = field(default_factory=list)
    retention: float = 86400.0
    problems: list[str] = field(default_factory=list)
    behind: bool = False
    details: Mapping[str, str] = field(default_factory=dict)
    """What `complete` finds out: a detail for a resource's name."""
    cursors: list[dict[str, str]] = field(default_factory=list)
    """The cursor each poll was asked with."""
    completed: list[str] = field(default_factory=list)

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        """Yield the next poll's pages; without any left, nothing."""
        del watched
        self.cursors.append(dict(cursor))
        for page in self.polls.pop(0) if self.polls else []:
            if isinstance(page, Exception):
                raise page
            yield page

    async def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        """Yield the next poll's pages without their cursors."""
        del start, end
        async for page in self.pages({}, ()):
            yield replace(page, cursor={})

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        """Add the details."""
        self.completed += [observation.key for observation in observations]
        return [
            replace(observation, detail=self.details.get(observation.key), awaits_detail=False)
            for observation in observations
        ]

    def resource(self, text: str) -> str:
        """Take every name as it is."""
        return text

    async def probe(self) -> Probe:
        """Say that all is well."""
        return Probe("scripted", 1.0)

    async def close(self) -> None:
        """Do nothing."""


@dataclass
class KeepingSink:
    """A sink that keeps what it was given; `answer` may raise, or wait."""

    answer: Callable[[Outgoing], None] = lambda _: None
    delivered: list[Outgoing] = field(default_factory=list)
    tries: int = 0
    most_at_once: int = 0
    gate: asyncio.Event | None = None
    """Sends wait until it is set."""
    _now: int = 0

    async def open(self) -> None:
        """Do nothing."""

    async def send(self, outgoing: Outgoing) -> None:
        """Keep the event, unless `answer` raises."""
        self.tries += 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            if self.gate is not None:
                await self.gate.wait()
            else:
                await asyncio.sleep(0)
            self.answer(outgoing)
            self.delivered.append(outgoing)
        finally:
            self._now -= 1

    async def probe(self) -> str:
        """Say where events go."""
        return "a list"

    async def close(self) -> None:
        """Do nothing."""


@dataclass
class Jumping:
    """A clock that runs, and jumps over every wait: what would take hours is done at once, in the right order."""

    ahead: float = 0.0
    clock: Clock = field(init=False)
    """For what is polled: its waits are jumps."""
    world: Clock = field(init=False)
    """For the provider: it shows the same time, and its waits are real."""

    def __post_init__(self) -> None:
        rng = random.Random(7)
        self.clock = Clock(now=self.now, monotonic=self.monotonic, sleep=self.sleep, random=rng)
        self.world = Clock(now=self.now, monotonic=self.monotonic)

    def now(self) -> datetime:
        """Return the time, and what was jumped over."""
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        """Return the same in seconds that only grow."""
        return time.monotonic() + self.ahead

    async def sleep(self, seconds: float) -> None:
        """Jump over it."""
        self.ahead += max(0.0, seconds)
        await asyncio.sleep(0)


@dataclass
class ManualTime:
    """Time that passes only when somebody sleeps, or when a test says so. Nothing waits."""

    start: datetime
    seconds: float = 0.0
    """How much time has passed."""
    set_by: float = 0.0
    """Seconds by which the wall clock was set, forwards or back; `monotonic` does not know of it."""
    slept: list[float] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        """What the wall clock shows."""
        return self.start + timedelta(seconds=self.seconds + self.set_by)

    @now.setter
    def now(self, moment: datetime) -> None:
        self.seconds = (moment - self.start).total_seconds() - self.set_by

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self.seconds

    def passes(self, **span: float) -> None:
        """Let time pass; the arguments are those of `timedelta`."""
        self.seconds += timedelta(**span).total_seconds()

    async def sleep(self, seconds: float) -> None:
        """Let so much time pass at once."""
        self.slept.append(seconds)
        self.seconds += max(0.0, seconds)
        await asyncio.sleep(0)

    @cached_property
    def clock(self) -> Clock:
        """A clock that shows this time, with a generator of random numbers that repeats itself."""
        return Clock(now=lambda: self.now, monotonic=self.monotonic, sleep=self.sleep, random=random.Random(7))


@dataclass
class MemoryLedger:
    """A ledger for one source that lasts as long as a test."""

    entries: dict[str, str] = field(default_factory=dict)
    histories: dict[Key, str] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)

    async def cursor(self, source: str) -> dict[str, str]:
        """Return the cursor's entries."""
        return dict(self.entries)

    async def watched(self, source: str) -> list[str]:
        """Return what an operator named: nothing."""
        return []

    async def journal(self, source: str) -> JournalState:
        """Return how much was committed."""
        return JournalState(committed=len(self.bodies))

    async def read(self, source: str, after: int, limit: int) -> list[JournalEntry]:
        """Return no entry: what was committed is in `bodies`."""
        return []

    async def last_seen(self, source: str, keys: Sequence[Key], retention: float) -> list[str | None]:
        """Return the history of each key."""
        return [self.histories.get(key) for key in keys]

    async def commit(self, lease: Lease | None, commit: Commit) -> int:
        """Keep what is committed, with any lease or none; return the last position."""
        self.histories |= {change.key: change.history for change in commit.statuses}
        self.bodies += [event.body for event in commit.events]
        for name, value in commit.cursor.items():
            if value is None:
                self.entries.pop(name, None)
            else:
                self.entries[name] = value
        return len(self.bodies)


@dataclass
class FakeTime:
    """A wall clock that stands until a test moves it; waiting still takes real, but short, time."""

    moment: datetime

    def clock(self) -> Clock:
        """Return a clock that shows this time."""
        return Clock(now=lambda: self.moment)
