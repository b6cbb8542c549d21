"""A time limit for many calls at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


class SharedTimeout:
    """`asyncio.timeout` for many calls that get the same time: one timer for all of them, and not one for each."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        """Of the calls that run, the earliest first."""
        self._timer: asyncio.TimerHandle | None = None
        self._given_up: set[asyncio.Task[Any]] = set()

    async def wait_for(self, call: Awaitable[T]) -> T:
        """Return what a call returns, which runs in the current task; raises `TimeoutError` when its time is over.

        A task may wait for one call at a time.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - whatever awaits is a task
        before = task.cancelling()
        self._deadlines[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._on_timer, loop)
        try:
            return await call
        except asyncio.CancelledError:
            if task not in self._given_up or task.cancelling() > before + 1:
                raise  # somebody else wants it to end
            raise TimeoutError from None
        finally:
            del self._deadlines[task]
            if task in self._given_up:
                self._given_up.discard(task)
                task.uncancel()

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for task, deadline in self._deadlines.items():
            if deadline > now:
                self._timer = loop.call_at(deadline, self._on_timer, loop)
                break
            if task not in self._given_up:
                self._given_up.add(task)
                task.cancel()
