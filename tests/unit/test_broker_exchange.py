"""An exchange that was there before the bridge: it is used if it is right, and named if it is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import amqp
import pytest
import structlog

from bridge.adapters.kombu.broker import KombuBroker
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.event import JournalEntry, Position, WireEvent
from bridge.testing.servers import RabbitMQServer

EXCHANGE = "bridge.events"
QUEUE = "bridge.sink.crm"
ENTRY = JournalEntry(Position("city", 1), WireEvent("e1", "a.b", 1, b'{"id": "e1"}'))
TOPIC = {"type": "topic", "durable": True, "auto_delete": False}


def make_exchange(server: RabbitMQServer, **properties: Any) -> None:
    with amqp.Connection(f"127.0.0.1:{server.port}") as connection:
        connection.channel().exchange_declare(EXCHANGE, **properties)


@pytest.fixture
async def broker(rabbitmq_url: str) -> AsyncIterator[KombuBroker]:
    broker = KombuBroker(rabbitmq_url, exchange=EXCHANGE, clock=Clock())
    yield broker
    await broker.close()


async def test_exchange_with_an_alternate_exchange_is_used(
    broker: KombuBroker, rabbitmq_server: RabbitMQServer
) -> None:
    make_exchange(rabbitmq_server, **TOPIC, arguments={"alternate-exchange": "amq.fanout"})
    with structlog.testing.capture_logs() as logs:
        await broker.check_rights([QUEUE])
        await broker.declare(QUEUE, ["#"])
        await broker.ping()
        assert await broker.publish([ENTRY]) == 0
        async with broker.inbox(QUEUE) as inbox:
            assert [message.event.id for message in await inbox.get(10, 10.0)] == ["e1"]
    assert [line["event"] for line in logs] == ["broker.exchange_differs"]
    assert "amq.fanout" in rabbitmq_server.ctl("list_exchanges", "name", "arguments")


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ({**TOPIC, "type": "fanout"}, "its type is another one .*current is 'fanout'"),
        ({**TOPIC, "type": "direct", "arguments": {"alternate-exchange": "amq.fanout"}}, "its type is another one"),
        ({**TOPIC, "durable": False}, "its durable is another one"),
        ({**TOPIC, "auto_delete": True}, "its auto_delete is another one"),
    ],
    ids=["fanout", "direct", "transient", "deleted"],
)
async def test_exchange_of_another_kind_is_named_with_the_remedy(
    properties: dict[str, Any], says: str, broker: KombuBroker, rabbitmq_server: RabbitMQServer
) -> None:
    make_exchange(rabbitmq_server, **properties)
    for asked in (broker.check_rights([QUEUE]), broker.ping(), broker.declare(QUEUE, ["#"]), broker.publish([ENTRY])):
        with pytest.raises(Unavailable, match=f"the exchange 'bridge.events' is there, and {says}") as caught:
            await asked
        assert "set `exchange:` to another name" in str(caught.value)


async def test_internal_exchange_is_named(broker: KombuBroker, rabbitmq_server: RabbitMQServer) -> None:
    name = f'rabbit_misc:r(<<"/">>, exchange, <<"{EXCHANGE}">>)'
    rabbitmq_server.ctl("eval", f'rabbit_exchange:declare({name}, topic, true, false, true, [], <<"test">>).')
    with pytest.raises(Unavailable, match="its internal is another one"):
        await broker.check_rights([])
    rabbitmq_server.ctl("eval", f'rabbit_exchange:delete({name}, false, <<"test">>).')


async def test_foreign_exchange_is_used_without_the_right_to_change_it(
    broker: KombuBroker, rabbitmq_server: RabbitMQServer, rabbitmq_url: str
) -> None:
    make_exchange(rabbitmq_server, **TOPIC)
    queues = r"^bridge\.(sink\..*|installation)$"
    rabbitmq_server.ctl("add_user", "guest2", "pw")
    rabbitmq_server.ctl("set_permissions", "-p", "/", "guest2", queues, ".*", ".*")
    other = KombuBroker(rabbitmq_url.replace("guest:guest", "guest2:pw"), exchange=EXCHANGE, clock=Clock())
    try:
        await other.check_rights([QUEUE])
        await other.declare(QUEUE, ["#"])
        assert await other.publish([ENTRY]) == 0
    finally:
        await other.close()
        rabbitmq_server.ctl("delete_user", "guest2")
