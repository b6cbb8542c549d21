"""Fixtures of the brokers' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bridge.adapters.kombu.broker import KombuBroker
from bridge.domain.clock import Clock

EXCHANGE = "bridge.events"


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., KombuBroker]]:
    brokers = []

    def build(url: str, **options: Any) -> KombuBroker:
        broker = KombuBroker(url, exchange=EXCHANGE, clock=Clock(), **options)
        brokers.append(broker)
        return broker

    yield build
    for broker in brokers:
        await broker.close()
