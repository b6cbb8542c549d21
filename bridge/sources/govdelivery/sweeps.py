"""Sweeps of several messages at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from bridge.protocols.source import Page
from bridge.sources.govdelivery.plan import PollPlan
from bridge.sources.govdelivery.sweep import MessageSweep


class ConcurrentSweeps:
    """Looks at several messages at once, at `concurrency` of them at most."""

    def __init__(self, start: Callable[[str], MessageSweep], plan: PollPlan, concurrency: int) -> None:
        self._start = start
        self._plan = plan
        self._concurrency = concurrency
        self.behind = False
        """Whether something was left to the next poll."""
        self.begun: set[str] = set()
        """The messages that were looked at, or at least begun with."""

    async def pages(self, paths: Sequence[str]) -> AsyncGenerator[Page, None]:
        """Yield the pages of the sweeps: those of one message come in order, and few wait to be read."""
        todo = deque(paths)
        workers = min(self._concurrency, len(todo))
        ready: asyncio.Queue[Page | BaseException | None] = asyncio.Queue(maxsize=2 * max(1, workers))
        tasks = [asyncio.create_task(self._work(todo, ready)) for _ in range(workers)]
        try:
            while workers:
                match await ready.get():
                    case Page() as page:
                        yield page
                    case None:
                        workers -= 1
                    case error:
                        raise error
            self.behind |= bool(todo)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, todo: deque[str], ready: asyncio.Queue[Page | BaseException | None]) -> None:
        try:
            while todo and not self._plan.out_of_time():
                path = todo.popleft()
                self.begun.add(path)
                sweep = self._start(path)
                async with aclosing(sweep.pages()) as pages:
                    async for page in pages:
                        await ready.put(page)
                self.behind |= sweep.handed_over
            await ready.put(None)
        except Exception as error:  # noqa: BLE001 - handed to the reader, which raises it
            await ready.put(error)
