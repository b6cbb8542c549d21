"""Pages read ahead of the commit of those before them, and handed on in batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

from bridge.protocols.source import Page

BATCH = 500
"""Observations in a batch: a round trip to the store costs little for so many, and others still get their turn."""
PREFETCH = 1000
"""Observations that wait at most; then the source is not asked for more."""


async def prefetched(
    pages: AsyncIterator[Page], *, batch: int = BATCH, ahead: int = PREFETCH
) -> AsyncGenerator[list[Page], None]:
    """Yield the pages in order, as many at once as have been read by now.

    While the caller commits, the source goes on reading: the provider's next answer is on its way, and a
    store that is the slower of the two gets fewer and larger commits. A batch is never waited for. What the
    source raises comes behind all pages before it. Close it when it is left early: the source is ended then.
    """
    reading = _PrefetchBuffer(ahead)
    reader = asyncio.ensure_future(reading.read(pages))
    reader.add_done_callback(lambda _: reading.news.set())
    try:
        while True:
            await reading.news.wait()
            while batch_pages := reading.take(batch):
                yield batch_pages
            if reader.done():
                reader.result()
                return
            reading.news.clear()
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


class _PrefetchBuffer:
    """What was read and not yet handed on."""

    def __init__(self, ahead: int) -> None:
        self.news = asyncio.Event()
        self._room = asyncio.Event()
        self._ahead = ahead
        self._pages: deque[Page] = deque()
        self._size = 0

    async def read(self, pages: AsyncIterator[Page]) -> None:
        """Read to the end, never further ahead than there is room."""
        async for page in pages:
            self._pages.append(page)
            self._size += _size(page)
            self.news.set()
            while self._size >= self._ahead:
                self._room.clear()
                await self._room.wait()

    def take(self, batch: int) -> list[Page]:
        """Return the next pages, of no more than `batch` observations unless the first one has more; or none."""
        batch_pages: list[Page] = []
        size = 0
        while self._pages and (not batch_pages or size + _size(self._pages[0]) <= batch):
            page = self._pages.popleft()
            batch_pages.append(page)
            size += _size(page)
        self._size -= size
        self._room.set()
        return batch_pages


def _size(page: Page) -> int:
    return len(page.observations) + 1
