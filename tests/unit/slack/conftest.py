"""Fixtures of slack's tests."""

from __future__ import annotations

import pytest
from rigs.slack import Time

from bridge.testing.fake_endpoint import FakeEndpoint, reply
from bridge_slack import SlackSettings, plugin


@pytest.fixture
async def receiver():
    async with FakeEndpoint(default=reply(200, b"ok")) as receiver:
        yield receiver


@pytest.fixture
def time():
    return Time()


@pytest.fixture
async def slack(receiver, time):
    values = {"type": "slack", "topics": ["#"], "webhook_url": f"{receiver.url}/services/T0/B0/canary",
              "allow_private": True}  # fmt: skip
    sink = plugin.build("ops", SlackSettings.model_validate(values), time.clock())
    await sink.open()
    post = sink._outbound.post

    async def counted(*arguments):
        with time.under_way():
            return await post(*arguments)

    sink._outbound.post = counted
    yield sink
    await sink.close()
