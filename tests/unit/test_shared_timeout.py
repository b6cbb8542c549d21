"""One timer for many calls, with what `asyncio.timeout` promises for each."""

from __future__ import annotations

import asyncio

import pytest

from bridge.concurrency.shared_timeout import SharedTimeout

WITHIN = 60.0


async def test_timed_call_returns_its_result_or_error():
    max_wait = SharedTimeout(WITHIN)
    assert await max_wait.wait_for(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ZeroDivisionError):
        await max_wait.wait_for(_fails())


async def _fails() -> None:
    raise ZeroDivisionError


async def test_each_call_has_its_own_time_on_one_timer():
    max_wait = SharedTimeout(0.05)
    silent = asyncio.Event()
    loop = asyncio.get_running_loop()
    took: dict[int, float] = {}

    async def ask(number: int) -> None:
        began = loop.time()
        with pytest.raises(TimeoutError):
            await max_wait.wait_for(silent.wait())
        took[number] = loop.time() - began

    async with asyncio.timeout(WITHIN), asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(ask(number))
            assert await max_wait.wait_for(asyncio.sleep(0.01, True))
    assert len(took) == 5
    assert min(took.values()) >= 0.05


async def test_a_task_goes_on_after_its_call_was_given_up():
    max_wait = SharedTimeout(0.01)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await max_wait.wait_for(asyncio.Event().wait())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await max_wait.wait_for(asyncio.sleep(0, 7)) == 7


async def test_who_is_cancelled_from_outside_is_cancelled():
    max_wait = SharedTimeout(WITHIN)
    task = asyncio.ensure_future(max_wait.wait_for(asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancellation_at_the_timeout_is_not_lost():
    max_wait = SharedTimeout(0.01)
    silent = asyncio.Event()

    async def stubborn() -> None:
        try:
            await silent.wait()
        finally:
            asyncio.current_task().cancel()  # type: ignore[union-attr]  # as somebody else would, in this very moment

    task = asyncio.ensure_future(max_wait.wait_for(stubborn()))
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_within_another_tells_whose_time_was_over():
    outer, inner = SharedTimeout(WITHIN), SharedTimeout(0.01)

    async def call() -> str:
        try:
            await inner.wait_for(asyncio.Event().wait())
        except TimeoutError:
            return "the inner one"
        return "none"

    assert await outer.wait_for(call()) == "the inner one"
    with pytest.raises(TimeoutError):
        await inner.wait_for(outer.wait_for(asyncio.Event().wait()))


async def test_call_succeeding_after_its_timeout_leaves_nothing():
    max_wait = SharedTimeout(0.01)

    async def deaf() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "late"
        return "never"

    assert await max_wait.wait_for(deaf()) == "late"
    await asyncio.sleep(0)  # a cancellation that was left over would come here
