"""Fixtures of spacivox's tests."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rigs.spacivox import NOW, TOKEN, Bridge, Memory, Vendor

from bridge.sources.spacivox import SpacivoxSettings, plugin
from bridge.testing.fakes import ManualTime


@pytest.fixture
def time():
    return ManualTime(NOW)


@pytest.fixture
async def vendor():
    poller = Vendor()
    app = web.Application()
    app.router.add_get("/{tail:.*}", poller.handle)
    async with TestServer(app) as server:
        poller.url = str(server.make_url("/"))
        yield poller


@pytest.fixture
async def bridge(vendor, time):
    made = []

    def make(memory: Memory | None = None, **options) -> Bridge:
        values = {"type": "spacivox", "url": vendor.url, "token": TOKEN, "rate": "1000/s", **options}
        source = plugin.build("drops", SpacivoxSettings.model_validate(values), time.clock)
        made.append(source)
        return Bridge(source, memory or Memory(), time)

    yield make
    for source in made:
        await source.close()
