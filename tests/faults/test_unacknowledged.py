"""An outage of the store that is longer than RabbitMQ returns a message: what waits in the queue is still there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from harness import until

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.sqlite.store import SqliteStore
from bridge.delivery.worker import DeliveryBackends, DeliveryWorker
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.protocols.sink import SinkSettings
from bridge.testing.servers import RabbitMQServer

pytestmark = pytest.mark.faults

MAX_RETURNS = 20
"""After so many returns RabbitMQ 4 drops a message of a quorum queue by itself; here a policy says so."""
QUEUE = "bridge.sink.crm"


class AwayStore(SqliteStore):
    """A store whose writes of arrivals fail until it is there again."""

    away = True
    refused = 0

    async def accept(self, *arguments: Any) -> Any:
        self._fail()
        return await super().accept(*arguments)

    async def accept_foreign(self, *arguments: Any) -> Any:
        self._fail()
        return await super().accept_foreign(*arguments)

    def _fail(self) -> None:
        if self.away:
            self.refused += 1
            raise Unavailable("the store is away")


async def briefly(seconds: float) -> None:
    """Wait as long as a loop may at most: an outage of a hundred tries lasts seconds."""
    await asyncio.sleep(min(seconds, 0.05))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AwayStore]:
    store = AwayStore(tmp_path / "bridge.db", clock=Clock())
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def dropping_url(rabbitmq_server: RabbitMQServer, rabbitmq_url: str) -> str:
    """Give a node that drops what was returned too often."""
    limit = json.dumps({"delivery-limit": MAX_RETURNS})
    rabbitmq_server.ctl("set_policy", "--apply-to", "queues", "drop", r"^bridge\.", limit)
    return rabbitmq_url


async def test_long_store_outage_returns_no_message_to_rabbitmq(store: AwayStore, dropping_url: str) -> None:
    clock = Clock(sleep=briefly)
    broker = KombuBroker(dropping_url, exchange="bridge.events", clock=clock)
    sent: list[str] = []

    async def send(claimed: Any) -> None:
        sent.append(claimed.event.id)

    async def changed(*_: object) -> None:
        pass

    worker = DeliveryWorker(
        "crm", SinkSettings(type="keeping", topics=["#"]), DeliveryBackends(store, store, broker), clock,
        send=send, outcome=lambda _: None, changed=changed,
    )  # fmt: skip
    stop = asyncio.Event()
    await broker.declare(QUEUE, ["#"])
    await asyncio.to_thread(publish_foreign, dropping_url, range(30))
    working = asyncio.ensure_future(worker.run(stop, grace=5.0))
    try:
        await until(lambda: store.refused > 3 * MAX_RETURNS, "the outage is longer than the returns")
        assert not sent
        store.away = False
        await until(lambda: len(set(sent)) == 30, "nothing was dropped")
        assert sorted(sent) == sorted(f"theirs-{number}" for number in range(30))
        await until(lambda: is_empty(broker), "all is acknowledged")
    finally:
        stop.set()
        await working
        await broker.close()


async def is_empty(broker: KombuBroker) -> bool:
    return await broker.depth(QUEUE) == 0


def publish_foreign(url: str, numbers: range) -> None:
    """Publish events of another program: no journal has them, so only the queue can keep them."""
    with kombu.Connection(url) as connection:
        producer = connection.Producer(auto_declare=False)
        for number in numbers:
            producer.publish(
                {"id": f"theirs-{number}"}, exchange="bridge.events", routing_key="their.topic",
                message_id=f"theirs-{number}", delivery_mode=2,
            )  # fmt: skip
