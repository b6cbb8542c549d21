"""Gathers bursts into digests: a group's first event is posted at once, those of the next window in one message."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

from bridge.domain.clock import Clock
from bridge.domain.errors import Transient
from bridge.domain.event import Event

FIRST_WINDOW_SECONDS = 5.0
"""Length of a burst's first window; each further one is twice as long, up to the configured length."""
MAX_GROUPS = 1000
"""Groups at one time; an event of a further group is posted alone."""

Post = Callable[[list[Event]], Awaitable[None]]
"""Posts one message about these events; raises `Transient` or `Permanent`."""


@dataclass(slots=True)
class _Group:
    """The events that wait for the end of the window, each by the future of its sender."""

    waiting: dict[asyncio.Future[None], Event] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class Digests:
    """Gathers events by key. An event is sent when a message with it was accepted, and fails if that failed."""

    def __init__(
        self,
        clock: Clock,
        window: float,
        *,
        post: Post,
        acquire: Callable[[], Awaitable[None]],
        limit: int = MAX_GROUPS,
    ) -> None:
        self._clock = clock
        self._window = window
        self._post = post
        self._acquire = acquire
        self._limit = limit
        self._groups: dict[Hashable, _Group] = {}

    async def add(self, key: Hashable, event: Event) -> None:
        """Return when a message with `event` was posted; raises the error if posting failed."""
        group = self._groups.get(key)
        if group is not None:
            await self._gather(group, event)
            return
        if len(self._groups) < self._limit:
            group = self._groups[key] = _Group()
            group.task = asyncio.ensure_future(self._run(key, group))
        await self._acquire()
        await self._post([event])

    async def close(self) -> None:
        """End all groups; an event that still waits fails as transient, so that it stays due."""
        tasks = [group.task for group in self._groups.values() if group.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _gather(self, group: _Group, event: Event) -> None:
        sent = asyncio.get_running_loop().create_future()
        group.waiting[sent] = event
        try:
            await sent
        finally:
            group.waiting.pop(sent, None)  # a cancelled event is not in the digest

    async def _run(self, key: Hashable, group: _Group) -> None:
        window = min(FIRST_WINDOW_SECONDS, self._window)
        try:
            while True:
                await self._clock.sleep(window)
                if not group.waiting:
                    return
                await self._flush(group)
                window = min(2 * window, self._window)
        finally:
            del self._groups[key]
            _fail(list(group.waiting), Transient("the sink is closing"))

    async def _flush(self, group: _Group) -> None:
        futures: list[asyncio.Future[None]] = list(group.waiting)
        try:
            await self._acquire()
            futures = list(group.waiting)  # with the events that came during the wait
            if futures:
                await self._post([group.waiting.pop(future) for future in futures])
        except asyncio.CancelledError:
            _fail(futures, Transient("the sink is closing"))
            raise
        except Exception as error:  # noqa: BLE001 - the senders that wait must get any error
            _fail(futures, error)
        else:
            for future in futures:
                if not future.done():
                    future.set_result(None)


def _fail(futures: list[asyncio.Future[None]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(copy.copy(error))  # a copy for each: a raised error collects its tracebacks
