"""A past range of one source, step by step, apart from the live cursor; an interruption costs one step at most."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, Conflict, Permanent, Transient, Unauthorized
from bridge.domain.retry import backoff
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.ingest.intake import Intake, PollResult
from bridge.protocols.ledger import Ledger
from bridge.protocols.source import ResumableBackfill, Source

Span = tuple[datetime, datetime]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STALE = timedelta(days=1)
_TRIES = 6
_RETRY_AFTER_CAP_SECONDS = 300.0
_ROOM_EVERY_SECONDS = 1.0


def uncovered(start: datetime, end: datetime, done: Sequence[Span]) -> Iterator[Span]:
    """Yield the parts of a range that no span of `done` covers, in order."""
    for span, other in sorted(done):
        if span >= end:
            break
        if start < span:
            yield start, span
        start = max(start, other)
    if start < end:
        yield start, end


def grid_steps(start: datetime, end: datetime, size: float | None) -> Iterator[Span]:
    """Cut a range on a grid of `size` seconds that stays put from run to run; None leaves it whole."""
    if size is None:
        yield start, end
        return
    step = timedelta(seconds=size)
    while start < end:
        then = min(_EPOCH + ((start - _EPOCH) // step + 1) * step, end)
        yield start, then
        start = then


def merge_spans(spans: Sequence[Span]) -> list[Span]:
    """Return the same time in as few spans as possible, in order."""
    merged: list[Span] = []
    for span, other in sorted(spans):
        if merged and span <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], other))
        else:
            merged.append((span, other))
    return merged


@dataclass(slots=True)
class BackfillProgress:
    """How far a backfill is, and at its end what it came to."""

    start: datetime
    end: datetime
    step: Span
    """The part that is being read."""
    covered: float = 0.0
    """Seconds of the range that were read, now or by the run that was interrupted; in a step, as the source has it."""
    resumed: float = 0.0
    """Seconds of the range that were read by the run that was interrupted."""
    observed: int = 0
    events: int = 0
    yielded: int = 0
    """Changes that were left to the poller, which has seen the same resources move at the same time."""
    problems: list[str] = field(default_factory=list)
    waits: str | None = None
    """Why nothing is read at the moment."""


class Backfill:
    """Runs one backfill; a second one of the same source does no harm, but each forgets the other's progress.

    The parts that were read whole are kept in the store, as the note `backfill/NAME`, until the whole range is done or
    a day has passed: a request for the same time after that reads it once more.
    """

    def __init__(
        self,
        name: str,
        intake: Intake,
        source: Source,
        ledger: Ledger,
        clock: Clock,
        *,
        room: Callable[[], Awaitable[str | None]],
        on_progress: Callable[[BackfillProgress], None] = lambda _: None,
    ) -> None:
        self._note = f"backfill/{name}"
        self._intake = intake
        self._size = source.backfill_step if isinstance(source, ResumableBackfill) else None
        self._ledger = ledger
        self._clock = clock
        self._room = room
        self._on_progress = on_progress

    async def run(self, start: datetime, end: datetime, *, restart: bool = False) -> BackfillProgress:
        """Read everything between two times that was not read before the last interruption, the oldest first.

        A step that fails is tried again a few times; then its error is raised, as are `Unauthorized` and `Permanent` at
        once. What had problems with single resources is not noted as done.
        """
        done = [] if restart else await self._done()
        state = BackfillProgress(start, end, (start, start))
        parts = list(uncovered(start, end, done))
        state.covered = state.resumed = (end - start).total_seconds() - _seconds(parts)
        for part in parts:
            for step in grid_steps(*part, self._size):
                state.step = step
                self._on_progress(state)
                covered = state.covered
                problems = await self._step(step, state)
                state.problems += problems
                state.covered = covered + _seconds([step])
                if not problems:
                    done = merge_spans([*done, step])
                    await self._remember(done)
        if not state.problems:
            await self._remember([])
        self._on_progress(state)
        return state

    async def _step(self, step: Span, state: BackfillProgress) -> list[str]:
        failures = 0
        covered = state.covered
        while True:
            before = (state.observed, state.events, state.yielded)

            async def report_step(so_far: PollResult, before: tuple[int, int, int] = before) -> None:
                state.observed, state.events, state.yielded = (
                    before[0] + so_far.observed, before[1] + so_far.events, before[2] + so_far.yielded
                )  # fmt: skip
                state.covered = max(state.covered, covered + so_far.progress * _seconds([step]))
                await self._wait_for_room(state)
                self._on_progress(state)

            try:
                return (await self._intake.backfill(*step, report_step)).problems
            except (Unauthorized, Permanent):
                raise
            except (Transient, Conflict) as error:
                failures += 1
                if failures == _TRIES:
                    raise
                await self._pause(error, failures, state)

    async def _pause(self, error: BridgeError, failures: int, state: BackfillProgress) -> None:
        asked = error.retry_after if isinstance(error, Transient) and error.retry_after else 0.0
        wait = max(backoff(failures, self._clock.random, cap=60.0), min(asked, _RETRY_AFTER_CAP_SECONDS))
        state.waits = f"{error}; tried again in {wait:.0f} s"
        self._on_progress(state)
        await self._clock.sleep(wait)
        state.waits = None

    async def _wait_for_room(self, state: BackfillProgress) -> None:
        """Hold back as polling does: a slow broker slows a backfill instead of growing the journal without bound."""
        while (reason := await self._room()) is not None:
            state.waits = reason
            self._on_progress(state)
            await self._clock.sleep(_ROOM_EVERY_SECONDS)
        state.waits = None

    async def _done(self) -> list[Span]:
        note = (await self._ledger.statuses(self._note)).get(self._note, {})
        if not note or self._clock.now() - datetime.fromisoformat(note["at"]) > _STALE:
            return []
        return [
            (datetime.fromisoformat(span), datetime.fromisoformat(other)) for span, other in json.loads(note["done"])
        ]

    async def _remember(self, done: Sequence[Span]) -> None:
        written = [[span.isoformat(), other.isoformat()] for span, other in done]
        at = rfc3339(truncate_to_millis(self._clock.now()))
        await self._ledger.set_status(self._note, {"done": json.dumps(written), "at": at})


def _seconds(spans: Sequence[Span]) -> float:
    return sum((other - span).total_seconds() for span, other in spans)
