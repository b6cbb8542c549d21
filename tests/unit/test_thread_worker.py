"""The thread worker: calls that last too long, and ends that do not wait for them."""

from __future__ import annotations

import asyncio
import threading

import pytest
import structlog
from rigs.threads import bridge_threads

from bridge.concurrency.thread_worker import ThreadWorker, wait_readable
from bridge.domain.errors import Unavailable


def resting(wake: int) -> None:
    wait_readable(wake, seconds=60)


async def test_a_call_that_takes_too_long_is_interrupted() -> None:
    stuck, interrupted = threading.Event(), threading.Event()

    def hang() -> None:
        stuck.set()
        assert interrupted.wait(60)

    worker = ThreadWorker("bridge-test", rest=resting, interrupt=interrupted.set)
    with pytest.raises(Unavailable, match="the far side: no answer within"):
        await worker.call(hang, within=0.5, what="the far side")
    assert stuck.is_set()
    assert await worker.call(lambda: "again", within=5, what="") == "again"
    await worker.close()
    assert bridge_threads() == []


async def test_abandoned_call_is_skipped_if_not_begun() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []
    worker = ThreadWorker("bridge-test", rest=resting)

    def first() -> None:
        begun.set()
        go_on.wait(60)
        done.append("first")

    running = worker.submit(first)
    await asyncio.to_thread(begun.wait, 10)
    waiting = worker.submit(lambda: done.append("second"))
    running.cancel()
    waiting.cancel()
    go_on.set()
    await worker.call(lambda: done.append("third"), within=5, what="")
    await worker.close()
    assert done == ["first", "third"]


async def test_closing_interrupts_what_does_not_end_by_itself() -> None:
    interrupted = threading.Event()
    worker = ThreadWorker("bridge-test", rest=resting, interrupt=interrupted.set)
    hanging = worker.submit(lambda: interrupted.wait(60))
    await worker.close(grace=0.05)
    assert hanging.result() is True
    assert bridge_threads() == []


async def test_uninterruptible_thread_is_abandoned_and_reported() -> None:
    free = threading.Event()
    worker = ThreadWorker("bridge-test", rest=resting)
    worker.submit(lambda: free.wait(60))
    with structlog.testing.capture_logs() as logs:
        await worker.close(grace=0.02)
    assert [line["event"] for line in logs] == ["worker.abandoned"]
    (thread,) = [running for running in threading.enumerate() if running.name == "bridge-test"]
    free.set()
    await asyncio.to_thread(thread.join, 10)


async def test_closing_that_is_cancelled_still_ends_the_thread() -> None:
    interrupted = threading.Event()
    worker = ThreadWorker("bridge-test", rest=resting, interrupt=interrupted.set)
    worker.submit(lambda: interrupted.wait(60))
    (thread,) = [running for running in threading.enumerate() if running.name == "bridge-test"]
    closing = asyncio.create_task(worker.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


def test_a_loop_that_has_gone_does_not_hold_the_thread() -> None:
    released = threading.Event()

    worker = ThreadWorker("bridge-test", rest=resting)

    async def leave() -> None:
        worker.submit(lambda: released.wait(60))

    asyncio.run(leave())
    (thread,) = [running for running in threading.enumerate() if running.name == "bridge-test"]
    assert thread.daemon
    released.set()
    worker._stopping = True
    worker._wake()
    thread.join(60)
    assert not thread.is_alive()
