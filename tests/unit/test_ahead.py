"""Pages are read while those before them are committed: none is lost, none overtakes, and never too many wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.errors import Transient
from bridge.ingest.prefetch import prefetched
from bridge.protocols.source import Page
from bridge.testing.fakes import observe

AT = datetime(2026, 3, 1, tzinfo=UTC)


def page(number: int, size: int) -> Page:
    return Page([observe(f"{number}-{index}", "new") for index in range(size)], AT)


class Pages:
    """A provider that answers at once, or fails at its end, and knows how far it was asked."""

    def __init__(self, sizes: list[int], failure: Exception | None = None) -> None:
        self.pages = [page(number, size) for number, size in enumerate(sizes)]
        self.failure = failure
        self.asked = 0
        self.ended = False

    async def read(self) -> AsyncIterator[Page]:
        try:
            for page in self.pages:
                self.asked += 1
                yield page
                await asyncio.sleep(0)
            if self.failure is not None:
                raise self.failure
        finally:
            self.ended = True


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 12), st.integers(1, 20), st.integers(0, 5))
async def test_pages_come_once_and_in_order_at_any_speed(
    sizes: list[int], batch: int, ahead: int, slowness: int
) -> None:
    provider = Pages(sizes)
    read: list[list[Page]] = []
    async for pages in prefetched(provider.read(), batch=batch, ahead=ahead):
        read.append(pages)
        for _ in range(slowness):
            await asyncio.sleep(0)
    assert [page for pages in read for page in pages] == provider.pages
    assert all(
        pages and (len(pages) == 1 or sum(len(page.observations) + 1 for page in pages) <= batch) for pages in read
    )


async def test_pages_read_during_a_commit_come_together() -> None:
    provider = Pages([10] * 20)
    async with aclosing(prefetched(provider.read(), batch=55, ahead=1000)) as reading:
        assert len(await anext(reading)) == 1
        async with asyncio.timeout(60):
            while provider.asked < 20:
                await asyncio.sleep(0)
        assert len(await anext(reading)) == 5


async def test_a_slow_store_holds_the_source_back() -> None:
    provider = Pages([10] * 100)
    async with aclosing(prefetched(provider.read(), batch=11, ahead=44)) as reading:
        await anext(reading)
        for _ in range(500):
            await asyncio.sleep(0)
        assert provider.asked <= 6


async def test_a_failure_comes_behind_the_pages_before_it() -> None:
    provider = Pages([1, 1, 1], Transient("the provider went away"))
    read: list[Page] = []

    async def take() -> None:
        async for pages in prefetched(provider.read()):
            read.extend(pages)
            for _ in range(20):  # the failure is there long before these are committed
                await asyncio.sleep(0)

    with pytest.raises(Transient, match="went away"):
        await take()
    assert read == provider.pages


async def test_leaving_early_ends_the_source() -> None:
    provider = Pages([10] * 100)
    async with aclosing(prefetched(provider.read(), batch=11, ahead=44)) as reading:
        await anext(reading)
    assert provider.ended
