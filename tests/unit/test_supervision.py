"""A part of the process that ends without being told to is started again, and the process says so meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from bridge.concurrency.stop_event import StopEvent
from bridge.domain.clock import Clock
from bridge.observability.metrics import Metrics
from bridge.runtime.supervisor import Supervisor
from bridge.web.health_server import Health


async def _short_sleep(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.01))


CLOCK = Clock(sleep=_short_sleep)


class Part:
    """Work that ends in one way at its first start, and lasts at its second."""

    def __init__(self, end: Callable[[], object]) -> None:
        self.starts = 0
        self.lasts = asyncio.Event()
        self._end = end

    async def work(self) -> None:
        self.starts += 1
        if self.starts == 1:
            self._end()
            return
        self.lasts.set()
        await asyncio.Event().wait()


@pytest.fixture
async def stop() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def supervisor(stop: asyncio.Event) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(CLOCK, Metrics(), Health(), stop)
    yield supervisor
    await supervisor.close()


def _raise() -> None:
    raise ValueError("a phone number")


def _end_as_what_it_waits_for() -> None:
    raise asyncio.CancelledError


ENDS = {
    "raises": (_raise, "ValueError at "),
    "returns": (lambda: None, "it ended by itself"),
    "waits for what is cancelled": (_end_as_what_it_waits_for, "a task of it was cancelled"),
}


@pytest.mark.parametrize(("end", "reason"), ENDS.values(), ids=ENDS)
async def test_part_that_ends_by_itself_is_started_again(
    end: Callable[[], object], reason: str, stop: asyncio.Event
) -> None:
    metrics, health, part = Metrics(), Health(), Part(end)
    supervisor = Supervisor(CLOCK, metrics, health, stop)
    with capture_logs() as logs:
        supervisor.start("sink/crm", part.work)
        await asyncio.wait_for(part.lasts.wait(), 20)
    assert health.problems["part/sink/crm"].startswith(f"started again: {reason}")
    assert [entry["event"] for entry in logs] == ["part.restarted"]
    assert metrics.restarts.labels("sink/crm")._value.get() == 1
    await supervisor.close()


async def test_part_whose_task_is_cancelled_is_started_again(supervisor: Supervisor) -> None:
    part = Part(lambda: None)
    part.starts = 1
    supervisor.start("relays", part.work)
    await asyncio.wait_for(part.lasts.wait(), 20)
    part.lasts.clear()
    supervisor._tasks["relays"].cancel()
    await asyncio.wait_for(part.lasts.wait(), 20)
    assert supervisor.names == {"relays"}


async def test_part_that_is_told_to_end_ends(supervisor: Supervisor, stop: asyncio.Event) -> None:
    async def work() -> None:
        await stop.wait()

    supervisor.start("books", work)
    supervisor.start("relays", work)
    await supervisor.join(0.01)
    assert supervisor.names == {"books", "relays"}
    stop.set()
    await asyncio.wait_for(supervisor.join(), 20)
    assert supervisor.names == frozenset()


async def test_closing_ends_parts_and_starts_none_again(supervisor: Supervisor) -> None:
    part = Part(lambda: None)
    part.starts = 1
    supervisor.start("relays", part.work)
    await asyncio.wait_for(part.lasts.wait(), 20)
    await supervisor.close()
    assert (part.starts, supervisor.names) == (2, frozenset())


async def test_part_with_a_stop_of_its_own_ends_alone(supervisor: Supervisor, stop: asyncio.Event) -> None:
    own, all_of_it = StopEvent(), asyncio.Event()
    ends = {"sink/crm": own, "books": all_of_it}

    def work(name: str) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            await ends[name].wait()

        return run

    for name, event in ends.items():
        supervisor.start(name, work(name), event)
    own.set()
    await supervisor.end("sink/crm", 20)
    assert supervisor.names == {"books"}
    all_of_it.set()
    await supervisor.end("books", 20)
    await supervisor.end("never there", 20)
    assert supervisor.names == frozenset()
    assert not stop.is_set()


async def test_part_that_does_not_end_in_time_is_cancelled(supervisor: Supervisor) -> None:
    part, stop = Part(lambda: None), StopEvent()
    part.starts = 1
    supervisor.start("source/city", part.work, stop)
    await asyncio.wait_for(part.lasts.wait(), 20)
    stop.set()
    await supervisor.end("source/city", 0.01)
    assert (part.starts, supervisor.names) == (2, frozenset())


def test_stop_event_sets_those_below_it() -> None:
    top = StopEvent()
    first, second = top.below(), top.below()
    deeper = first.below()
    first.set()
    assert (top.is_set(), deeper.is_set(), second.is_set()) == (False, True, False)
    top.set()
    assert second.is_set()
    assert top.below().is_set()
