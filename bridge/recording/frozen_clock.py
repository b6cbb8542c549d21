"""Time as a source on tape has it: it stands still between what is on the tape, so that it can be had again exactly.

While a source works on a poll, its clock shows when the last thing happened that the tape knows: the poll began, or an
answer arrived in this very task. What it reads is at most a little older than the real time, and the same in a replay:
the times in its questions, its cursor and its pages are equal to the microsecond. Its random numbers begin anew for
each poll, from a number that is on the tape.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from bridge.domain.clock import Clock
from bridge.http.client import Transport
from bridge.protocols.request_context import bind, reset

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FrozenTime:
    """The frozen time of a task, and the random numbers of its poll."""

    now: datetime
    monotonic: float
    rng: random.Random

    def later(self, seconds: float) -> FrozenTime:
        """Return the same, some time later."""
        return replace(self, now=self.now + timedelta(seconds=seconds), monotonic=self.monotonic + seconds)


_FROZEN: ContextVar[FrozenTime | None] = ContextVar("_STANDING", default=None)


def advance_to(now: datetime, monotonic: float) -> None:
    """Let the time of this task stand at another moment; it does not go back."""
    frozen = _FROZEN.get()
    if frozen is not None:
        now, monotonic = max(now, frozen.now), max(monotonic, frozen.monotonic)
        _FROZEN.set(replace(frozen, now=now, monotonic=monotonic))


@contextmanager
def real_time() -> Iterator[None]:
    """Let time flow as it does for everybody else."""
    token = _FROZEN.set(None)
    try:
        yield
    finally:
        _FROZEN.reset(token)


class _PollRng(random.Random):
    """The random numbers of the poll in whose context they are drawn, and plain ones elsewhere."""

    def random(self) -> float:
        frozen = _FROZEN.get()
        return super().random() if frozen is None else frozen.rng.random()

    def getrandbits(self, k: int, /) -> int:
        frozen = _FROZEN.get()
        return super().getrandbits(k) if frozen is None else frozen.rng.getrandbits(k)


def frozen_clock(everybody: Clock) -> Clock:
    """Return a clock that stands still for sources on tape, and is `everybody`'s for all others."""

    def now() -> datetime:
        frozen = _FROZEN.get()
        return everybody.now() if frozen is None else frozen.now

    def monotonic() -> float:
        frozen = _FROZEN.get()
        return everybody.monotonic() if frozen is None else frozen.monotonic

    async def sleep(seconds: float) -> None:
        await everybody.sleep(seconds)
        frozen = _FROZEN.get()
        if frozen is not None:
            _FROZEN.set(frozen.later(max(0.0, seconds)))

    return Clock(now=now, monotonic=monotonic, sleep=sleep, random=_PollRng())


class PollContext:
    """The inside of one piece of a source's work, such as a poll: its wire, and its time from step to step."""

    def __init__(self, wire: Transport, frozen: FrozenTime) -> None:
        self._wire = wire
        self._frozen_time = frozen

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Make wire and time those of this work; tasks that are begun here keep them."""
        wire = bind(transport=self._wire)
        outside = _FROZEN.set(self._frozen_time)
        try:
            yield
        finally:
            self._frozen_time = _FROZEN.get() or self._frozen_time
            _FROZEN.reset(outside)
            reset(wire)

    async def steps(self, pages: AsyncIterator[T], step: Callable[[], Awaitable[None]]) -> AsyncGenerator[T, None]:
        """Yield what `pages` yields; only its own work is done inside, and `step` is awaited before it."""
        try:
            while True:
                await step()
                with self.entered():
                    try:
                        page = await anext(pages)
                    except StopAsyncIteration:
                        return
                yield page
        finally:
            await self._end(pages)

    async def _end(self, pages: Any) -> None:
        if hasattr(pages, "aclose"):
            with self.entered():
                await pages.aclose()
