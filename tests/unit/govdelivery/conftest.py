"""Fixtures of govdelivery's tests."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rigs.govdelivery import (
    START,
    TOKEN,
    Bridge,
    Tms,
)

from bridge.sources.govdelivery import plugin
from bridge.testing.fakes import ManualTime


@pytest.fixture
def time():
    return ManualTime(START)


@pytest.fixture
async def tms(time):
    tms = Tms(time)
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", tms.handle)
    async with TestServer(app) as server:
        tms.url = str(server.make_url("/"))
        yield tms


@pytest.fixture
async def open_bridge(tms, time):
    opened = []

    def make(**settings) -> Bridge:
        values = {"type": "govdelivery", "url": tms.url, "token": TOKEN, "rate": "5000/s", "discover": False} | settings
        source = plugin.build("city", plugin.settings.model_validate(values), time.clock)
        opened.append(source)
        return Bridge(tms, source)

    yield make
    for source in opened:
        await source.close()
