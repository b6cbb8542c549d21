"""Fixtures of marketingcloud's tests."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rigs.marketingcloud import NOW, SECRET, Bridge, Memory, Vendor

from bridge.sources.marketingcloud import (
    MarketingCloudSettings,
    plugin,
)
from bridge.testing.fakes import ManualTime


@pytest.fixture
def time():
    return ManualTime(NOW)


@pytest.fixture
async def vendor():
    vendor = Vendor()
    app = web.Application()
    app.router.add_post("/v2/token", vendor.give_token)
    app.router.add_get("/{tail:.*}", vendor.give_events)
    async with TestServer(app) as server:
        vendor.url = str(server.make_url("/"))
        yield vendor


@pytest.fixture
async def bridge(vendor, time):
    made = []

    def make(memory: Memory | None = None, **options) -> Bridge:
        values = {"type": "marketingcloud", "auth_url": vendor.url, "client_id": "id", "client_secret": SECRET}
        checked = MarketingCloudSettings.model_validate({**values, "rate": "1000/s", **options})
        source = plugin.build("journeys", checked, time.clock)
        made.append(source)
        return Bridge(source, memory or Memory(), time)

    yield make
    for source in made:
        await source.close()
