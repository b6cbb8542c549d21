"""Stores and brokers keep the mark of one installation, and let nobody in who has another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import amqp
import pytest
import redis

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.redis.store import RedisStore
from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, OtherInstallation
from bridge.domain.installation import Mark
from bridge.domain.namespace import Namespace
from bridge.runtime.installation import KeptInstallation, claim_broker, claim_store, take_over
from bridge.testing.broker_suite import entry

NAMES = Namespace("staging")
OURS, THEIRS = Mark("aaaa1111bbbb2222", "staging"), Mark("cccc3333dddd4444", "staging")

Make = Callable[[], Any]


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[Any], Awaitable[Any]]]:
    parts: list[Any] = []

    async def opened(part: Any) -> Any:
        parts.append(part)
        await part.open()
        return part

    yield opened
    for part in parts:
        await part.close()


@pytest.fixture(params=["rabbitmq", "redis", "embedded"])
def broker_url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "embedded" else str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def make_broker(broker_url: str, tmp_path: Path) -> Make:
    if not broker_url:
        return lambda: SqliteBroker(tmp_path / "broker.db", clock=Clock(), namespace=NAMES)
    return lambda: KombuBroker(broker_url, exchange=NAMES.exchange, clock=Clock(), namespace=NAMES)


@pytest.fixture(params=["redis", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "store.db", clock=Clock())
    url = request.getfixturevalue("redis_url")
    return lambda: RedisStore(url, clock=Clock(), namespace=NAMES)


# --- brokers ----------------------------------------------------------------------------------------------------------


async def test_a_broker_without_a_mark_gets_the_first_claim(make_broker: Make, opened: Any) -> None:
    first, second = await opened(make_broker()), await opened(make_broker())
    assert await first.mark() is None
    await first.claim_for(OURS)
    assert await second.mark() == OURS
    await second.claim_for(OURS)
    await second.declare("bridge-staging.sink.crm", ["#"])
    assert await second.publish([entry(1)]) == 0


async def test_a_marked_broker_refuses_every_call_of_another(make_broker: Make, opened: Any) -> None:
    first, second = await opened(make_broker()), await opened(make_broker())
    await first.claim_for(OURS)
    await first.declare("bridge-staging.sink.crm", ["#"])
    with pytest.raises(OtherInstallation, match=rf"mark is {OURS.id}, the store's is {THEIRS.id}.*bridgectl takeover"):
        await second.claim_for(THEIRS)
    await second.close()
    for call in (
        lambda broker: broker.publish([entry(1)]),
        lambda broker: broker.declare("bridge-staging.sink.crm", ["#"]),
        lambda broker: broker.ping(),
        consume,
    ):
        other = await opened(make_broker())
        await other.ping()  # connected before it is claimed
        with suppress(OtherInstallation):
            await other.claim_for(THEIRS)
        with pytest.raises(OtherInstallation):
            await call(other)
    assert await first.depth("bridge-staging.sink.crm") == 0


async def consume(broker: Any) -> None:
    async with broker.inbox("bridge-staging.sink.crm") as inbox:
        await inbox.get(1, 5.0)


async def test_taking_over_replaces_the_mark_of_a_broker(make_broker: Make, opened: Any) -> None:
    first, second = await opened(make_broker()), await opened(make_broker())
    await first.claim_for(OURS)
    await second.take_over(THEIRS)
    assert await second.mark() == THEIRS
    await second.claim_for(THEIRS)


async def test_brokers_that_are_claimed_at_once_have_one_mark(make_broker: Make, opened: Any) -> None:
    brokers = [await opened(make_broker()) for _ in range(4)]
    marks = [Mark(f"{number}" * 16, "staging") for number in range(1, 5)]
    claims = [broker.claim_for(mark) for broker, mark in zip(brokers, marks, strict=True)]
    results = await asyncio.gather(*claims, return_exceptions=True)
    assert [result for result in results if result is not None and not isinstance(result, OtherInstallation)] == []
    assert results.count(None) == 1
    assert await (await opened(make_broker())).mark() == marks[results.index(None)]


async def test_a_longest_namespace_still_tells_whose_broker_it_is(rabbitmq_url: str, opened: Any) -> None:
    """RabbitMQ cuts a refusal off at 255 bytes; the mark stands before that where no vhost is called at length."""
    names = Namespace("n" * 30)
    broker = await opened(KombuBroker(rabbitmq_url, exchange="e", clock=Clock(), namespace=names))
    await broker.claim_for(Mark(OURS.id, names.name))
    assert await broker.mark() == Mark(OURS.id, names.name)
    with pytest.raises(OtherInstallation, match="belongs to another installation"):
        await broker.claim_for(Mark(THEIRS.id, names.name))


async def test_a_user_without_the_right_to_mark_publishes_anyway(rabbitmq_server: Any, opened: Any) -> None:
    rabbitmq_server.ctl("add_user", "unmarked", "pass")
    rabbitmq_server.ctl("set_permissions", "unmarked", r"^.*\.(events|sink\..*)$", ".*", ".*")
    url = f"amqp://unmarked:pass@127.0.0.1:{rabbitmq_server.port}//"
    broker = await opened(KombuBroker(url, exchange=NAMES.exchange, clock=Clock(), namespace=NAMES))
    try:
        await broker.claim_for(OURS)
        await broker.declare("bridge-staging.sink.crm", ["#"])
        assert await broker.publish([entry(1)]) == 0
        assert await broker.mark() is None
    finally:
        await broker.close()
        rabbitmq_server.ctl("delete_user", "unmarked")
        rabbitmq_server.wipe()


# --- a mark that appears while a connection is away -------------------------------------------------------------------


async def test_a_mark_that_appears_later_refuses_the_next_connection(
    make_broker: Make, broker_url: str, opened: Any, tmp_path: Path
) -> None:
    broker = await opened(make_broker())
    await broker.claim_for(OURS)
    other = await opened(make_broker())
    await other.take_over(THEIRS)
    for _ in range(2):
        await cut(broker)
        with pytest.raises(OtherInstallation):
            await broker.publish([entry(1)])
    await other.take_over(OURS)
    await broker.declare("bridge-staging.sink.crm", ["#"])
    assert await broker.publish([entry(1)]) == 0


async def cut(broker: Any) -> None:
    """End the connection that a broker publishes by."""
    if isinstance(broker, SqliteBroker):
        await broker._worker.call(broker._drop, within=10.0, what="test")
    else:
        await broker._publisher.worker.call(broker._publisher._drop, within=10.0, what="test")


async def test_a_broker_that_was_made_anew_gets_the_mark_again(
    make_broker: Make, broker_url: str, opened: Any, tmp_path: Path
) -> None:
    broker = await opened(make_broker())
    await broker.claim_for(OURS)
    await cut(broker)
    forget(broker_url, tmp_path)
    await broker.ping()
    assert await broker.mark() == OURS


def forget(broker_url: str, folder: Path) -> None:
    """Do to a broker what the loss of its disk does to its mark."""
    if broker_url.startswith("amqp"):
        with amqp.Connection(broker_url.split("@")[1].strip("/")) as connection:
            connection.channel().exchange_delete("bridge-staging.installation")
    elif broker_url:
        with redis.Redis.from_url(broker_url) as client:
            client.flushall()
    else:
        for file in folder.glob("broker.db*"):
            file.unlink()


# --- stores -----------------------------------------------------------------------------------------------------------


async def test_stores_that_are_claimed_at_once_agree_on_one_mark(make_store: Make, opened: Any) -> None:
    stores = [await opened(make_store()) for _ in range(4)]
    assert await stores[0].mark() is None
    marks = set(await asyncio.gather(*(store.claim_for(Mark.new(NAMES)) for store in stores)))
    assert len(marks) == 1
    assert {await store.mark() for store in stores} == marks


async def test_a_reconnect_to_the_store_of_another_is_refused(make_store: Make, opened: Any) -> None:
    store, other = await opened(make_store()), await opened(make_store())
    kept = await store.claim_for(OURS)
    assert kept == OURS
    await other.take_over(THEIRS)
    await cut_store(store)
    for call in (store.ping, lambda: store.set_status("source/city", {"state": "ok"}), store.sources):
        with pytest.raises(OtherInstallation, match=f"its mark is {THEIRS.id}"):
            await call()
        await cut_store(store)
    await other.take_over(OURS)
    await store.ping()


async def cut_store(store: Any) -> None:
    if isinstance(store, SqliteStore):
        for worker in (store._file.writer, store._file.reader):
            worker._drop()
    else:
        await store._link.client.connection_pool.disconnect()


async def test_a_store_that_was_emptied_gets_its_mark_again(redis_url: str, opened: Any) -> None:
    store = await opened(RedisStore(redis_url, clock=Clock(), namespace=NAMES))
    await store.claim_for(OURS)
    for empty in ("FLUSHALL", "cut"):
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        if empty == "cut":
            await cut_store(store)
            await store.sources()
        else:
            await store.ping()
        assert await store.mark() == OURS


# --- both -------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The end of a process, at a write."""


class Mortal:
    """A part that lets so many writes pass, and dies before the next one."""

    def __init__(self, part: Any, left: list[int]) -> None:
        self._part = part
        self._left = left

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._part, name)
        if name not in ("claim_for", "set_status", "take_over"):
            return value

        async def mortal(*arguments: Any) -> Any:
            if self._left[0] == 0:
                raise Killed
            self._left[0] -= 1
            return await value(*arguments)

        return mortal


async def start(store: Any, broker: Any) -> Mark:
    mark = await claim_store(store, NAMES)
    await claim_broker(store, broker, mark)
    return mark


@pytest.mark.parametrize("writes", range(4))
async def test_a_kill_between_the_marks_locks_nobody_out(
    writes: int, make_store: Make, make_broker: Make, opened: Any
) -> None:
    left = [writes]
    with suppress(Killed):
        await start(Mortal(await opened(make_store()), left), Mortal(await opened(make_broker()), left))
    store, broker = await opened(make_store()), await opened(make_broker())
    mark = await start(store, broker)
    assert (await store.mark(), await broker.mark()) == (mark, mark)
    assert await start(await opened(make_store()), await opened(make_broker())) == mark


@pytest.mark.parametrize("writes", range(4))
async def test_a_killed_takeover_is_done_by_the_next(
    writes: int, make_store: Make, make_broker: Make, opened: Any
) -> None:
    store, broker = await opened(make_store()), await opened(make_broker())
    await broker.take_over(THEIRS)
    await store.set_status("installation", {"broker": "amqp://former"})
    left = [writes]
    with suppress(Killed):
        await take_over(Mortal(store, left), Mortal(broker, left), NAMES)
    mark = await take_over(store, broker, NAMES)
    assert await start(await opened(make_store()), await opened(make_broker())) == mark


async def test_replicas_that_start_together_agree(make_store: Make, make_broker: Make, opened: Any) -> None:
    replicas = [(await opened(make_store()), await opened(make_broker())) for _ in range(3)]
    marks = await asyncio.gather(*(start(*replica) for replica in replicas))
    assert len(set(marks)) == 1
    assert await replicas[0][1].mark() == marks[0]


async def test_a_lost_store_is_refused_until_the_takeover(make_store: Make, make_broker: Make, opened: Any) -> None:
    broker = await opened(make_broker())
    await broker.claim_for(THEIRS)
    store = await opened(make_store())
    with pytest.raises(OtherInstallation):
        (await KeptInstallation.read(store)).check_broker(broker.place, await broker.mark())
    ours = await opened(make_broker())
    for _ in range(2):
        with pytest.raises(OtherInstallation):
            await start(store, ours)
    mark = await take_over(store, await opened(make_broker()), NAMES)
    assert mark == await store.mark(), "replicas that run go on with the mark of the store"
    await start(store, ours)
    with pytest.raises(BridgeError):
        await (await opened(make_broker())).claim_for(THEIRS)


async def test_a_file_of_another_namespace_is_refused(tmp_path: Path, opened: Any) -> None:
    store = await opened(SqliteStore(tmp_path / "store.db", clock=Clock()))
    await claim_store(store, Namespace("production"))
    with pytest.raises(OtherInstallation, match="has the namespace 'production', this configuration has no namespace"):
        await claim_store(store, Namespace(""))
