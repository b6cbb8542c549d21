"""Every broker keeps every promise of the suite."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.domain.clock import Clock
from bridge.testing.broker_suite import BrokerSuite


class KombuSuite(BrokerSuite):
    @pytest.fixture
    def exchange(self) -> str:
        return "bridge.events"

    @pytest.fixture
    async def broker(self, url: str, exchange: str) -> AsyncIterator[KombuBroker]:
        broker = KombuBroker(url, exchange=exchange, clock=Clock())
        await broker.open()
        yield broker
        await broker.close()

    @pytest.fixture
    async def second(self, url: str, exchange: str) -> AsyncIterator[KombuBroker]:
        second = KombuBroker(url, exchange=exchange, clock=Clock())
        await second.open()
        yield second
        await second.close()


class TestRabbitMQ(KombuSuite):
    @pytest.fixture
    def url(self, rabbitmq_url: str) -> str:
        return rabbitmq_url


class TestRedis(KombuSuite):
    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url


class TestRedisWithAKeyPrefix(KombuSuite):
    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return f"{redis_url}?global_keyprefix=team-a:"


class TestMemory(KombuSuite):
    @pytest.fixture
    def url(self) -> str:
        return "memory://"

    @pytest.fixture(autouse=True)
    def new_server(self) -> None:
        from kombu.transport.memory import Channel, Transport

        Transport.global_state.clear()
        Channel.queues.clear()

    @pytest.fixture
    def exchange(self) -> str:
        return f"bridge.events.{uuid.uuid4().hex}"


class TestEmbedded(BrokerSuite):
    @pytest.fixture
    async def broker(self, tmp_path: Path) -> AsyncIterator[SqliteBroker]:
        broker = SqliteBroker(tmp_path / "broker.db", clock=Clock())
        await broker.open()
        yield broker
        await broker.close()

    @pytest.fixture
    async def second(self, tmp_path: Path) -> AsyncIterator[SqliteBroker]:
        second = SqliteBroker(tmp_path / "broker.db", clock=Clock())
        await second.open()
        yield second
        await second.close()
