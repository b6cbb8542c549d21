"""Servers killed, emptied, cut off and stalled under a living bridge: it comes back by itself, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import pytest
import redis
import redis.asyncio
from faults.witness import Witness
from harness import EXCHANGE, Process, ask, bridge, expected, until, write_config

from bridge.adapters.redis.store import RedisStore
from bridge.domain.clock import Clock
from bridge.protocols.deliveries import DeliveryCounts
from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.free_port import free_port
from bridge.testing.servers import RabbitMQServer, RedisServer
from bridge.testing.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

LIVELY = SimulatorSettings(
    seed=5,
    speed=60.0,
    messages_per_minute=3.0,
    recipients_per_message=10.0,
    drops_per_minute=15.0,
    texts_per_minute=0.0,
    emails_per_minute=0.0,
    sends_per_minute=15.0,
    email_sends_per_minute=0.0,
    failed_share=0.2,
)
QUICK = {"lease": "2s", "claim": "2s", "audit": "1s"}


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMQServer]:
    """Give a node that these tests may harm."""
    with RabbitMQServer() as server:
        yield server


@pytest.fixture
def rabbit_server(rabbit: RabbitMQServer) -> Iterator[RabbitMQServer]:
    yield rabbit
    rabbit.wipe()


@pytest.fixture
def redis_keeps() -> Iterator[RedisServer]:
    """Give a Redis whose data survives being killed."""
    with RedisServer(appendonly=True) as server:
        yield server


@dataclass
class Scene:
    """A living bridge between simulated providers and a witness."""

    folder: Path
    simulator: Simulator
    witness: Witness
    store: str
    broker: str
    port: int
    config: Path

    async def ready(self) -> tuple[int, dict[str, Any]]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
            return answer.status, await answer.json()

    async def says(self, part: str) -> bool:
        """Say whether /readyz names `part` as what is missing."""
        status, body = await self.ready()
        return status == 503 and part in json.dumps(body)

    async def well(self) -> bool:
        return (await self.ready())[0] == 200

    async def goes_on(self, more: int = 60) -> None:
        """Wait until that many further events have arrived."""
        arrived = len(self.witness.bodies)
        await until(lambda: len(self.witness.bodies) >= arrived + more, f"{more} more events arrive")

    async def all_delivered(self, within: float = 120, *, store_was_down: bool = False) -> None:
        """Stop the world, and wait until everything that was shown has arrived."""
        wrong = self.witness.broken if store_was_down else self.witness.missing
        self.simulator.time.freeze()
        await until(lambda: not self.simulator.unseen(), "the bridge has looked at every resource", within)
        try:
            await until(lambda: not wrong(self.simulator), "all has arrived", within)
        except TimeoutError:
            pytest.fail(f"told otherwise than shown: {wrong(self.simulator)}")

    async def balanced(self) -> None:
        """Wait until the books of the sink say that everything was delivered."""
        store = RedisStore(self.store, clock=Clock())
        try:

            async def balances() -> bool:
                books = await store.counts("crm")
                journals = {name: (await store.journal(name)).events for name in await store.sources()}
                return books == {name: DeliveryCounts(delivered=events) for name, events in journals.items() if events}

            await until(balances, "the books balance", within=120)
        finally:
            await store.close()


@asynccontextmanager
async def scene(
    folder: Path,
    store: str,
    broker: str,
    settings: SimulatorSettings = LIVELY,
    sink: dict[str, Any] | None = None,
    **values: Any,
) -> AsyncIterator[Scene]:
    port = free_port()
    async with Simulator(settings) as simulator, Witness() as witness:
        config = write_config(
            folder,
            simulator,
            store=store,
            broker=broker,
            http={"listen": f"127.0.0.1:{port}"},
            sinks={"crm": witness.sink(**(sink or {}))},
            **{**QUICK, **values},
        )
        yield Scene(folder, simulator, witness, store, broker, port, config)


def through(relay: TcpProxy, url: str) -> str:
    """Return `url` with the relay in between."""
    front, _, rest = url.rpartition(":")
    return f"{front}:{relay.port}/{rest.partition('/')[2]}"


def remembers(rabbit: RabbitMQServer) -> None:
    """Have the node write down which quorum queues it has; by itself it does so about a second after it made one."""
    rabbit.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")


def logged(process: Process, event: str) -> list[dict[str, Any]]:
    return [line for line in process.log if line["event"] == event]


@asynccontextmanager
async def subscribed(url: str) -> AsyncIterator[Callable[[], Awaitable[list[dict[str, Any]]]]]:
    """Bind a durable queue as a careful service would; what it yields reads all that is in it."""
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue("service", durable=True)
        await queue.bind(exchange, "#")

    async def read() -> list[dict[str, Any]]:
        connection = await aio_pika.connect(url)
        events: list[dict[str, Any]] = []

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            events.append(json.loads(message.body))

        async with connection, connection.channel() as channel:
            # All at once: asked for one by one on a busy machine, they take minutes.
            queue = await channel.get_queue("service")
            await queue.consume(take, no_ack=True)
            count = queue.declaration_result.message_count or 0
            await until(lambda: len(events) >= count, "the service has read its queue")
        return events

    yield read


# --- killed and started again -----------------------------------------------------------------------------------------


def names_the_outage(running: Process, killed: tuple[str, ...]) -> bool:
    """Say whether each part that needs an unavailable server has said so."""
    if "redis" in killed:
        return any("cannot be reached" in line.get("reason", "") for line in running.log)
    return bool(logged(running, "relay.waits") and logged(running, "sink.cannot_receive"))


@pytest.mark.parametrize("killed", [("rabbitmq",), ("redis",), ("rabbitmq", "redis")], ids=" and ".join)
async def test_restarted_servers_lose_no_event_without_an_operator(killed, tmp_path, redis_keeps, rabbit_server):
    servers = {"rabbitmq": rabbit_server, "redis": redis_keeps}
    async with (
        subscribed(rabbit_server.url) as read,
        scene(tmp_path, redis_keeps.url, rabbit_server.url) as play,
    ):
        with bridge(tmp_path, "run", "-c", str(play.config)) as running:
            await play.goes_on()
            await asyncio.to_thread(remembers, rabbit_server)
            for name in killed:
                await asyncio.to_thread(servers[name].kill)
            part = "store" if "redis" in killed else "broker"
            await until(lambda: play.says(part), f"/readyz names the {part}", within=120)
            await until(lambda: names_the_outage(running, killed), "the log names the outage", within=120)
            for name in killed:
                await asyncio.to_thread(servers[name].start)
            await until(play.well, "/readyz is well again")
            await play.goes_on()
            await play.all_delivered(store_was_down="redis" in killed)
            await play.balanced()
            assert await asyncio.to_thread(running.stop) == 0
        # The process lived: it knew all the time what it had sent, and sent nothing twice.
        assert play.witness.repeated == {}
        arrived = [event["id"] for event in await read()]
        assert {event["id"] for event in play.witness.events} <= set(arrived)


async def test_store_outage_shorter_than_lease_misses_no_status(tmp_path, redis_keeps, rabbit_server):
    async with scene(tmp_path, redis_keeps.url, rabbit_server.url, lease="20s") as play:
        with bridge(tmp_path, "run", "-c", str(play.config)) as running:
            for _ in range(30):
                await play.goes_on(20)
                await asyncio.to_thread(redis_keeps.kill)
                await asyncio.to_thread(redis_keeps.start)
                if len(logged(running, "source.cannot_write_store")) > 3:
                    break
            assert logged(running, "source.cannot_write_store"), "it never died between reading and writing"
            await play.goes_on()
            # Strictly: what was read while nothing could be written was kept, and written down later.
            await play.all_delivered()
            await play.balanced()
            assert await asyncio.to_thread(running.stop) == 0
        assert play.witness.repeated == {}


# --- cut off and stalled ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["store", "broker"])
async def test_network_cut_loses_no_event(part, tmp_path, redis_keeps, rabbit_server):
    ports = {"store": redis_keeps.port, "broker": rabbit_server.port}
    async with TcpProxy(ports[part]) as relay:
        store = through(relay, redis_keeps.url) if part == "store" else redis_keeps.url
        broker = through(relay, rabbit_server.url) if part == "broker" else rabbit_server.url
        async with scene(tmp_path, store, broker) as play:
            with bridge(tmp_path, "run", "-c", str(play.config)) as running:
                for _ in range(3):
                    await play.goes_on(30)
                    relay.cut()
                await play.goes_on(30)
                relay.refuse()
                relay.cut()
                await until(lambda: play.says(part), f"/readyz names the {part}", within=120)
                relay.refuse(refuse=False)
                await until(play.well, "/readyz is well again")
                await play.goes_on(30)
                await play.all_delivered(store_was_down=part == "store")
                assert await asyncio.to_thread(running.stop) == 0
            assert play.witness.repeated == {}


@pytest.mark.parametrize("part", ["store", "broker"])
async def test_hanging_server_is_named_and_work_resumes_after_it(part, tmp_path, redis_keeps, rabbit_server):
    ports = {"store": redis_keeps.port, "broker": rabbit_server.port}
    async with TcpProxy(ports[part]) as relay:
        store = through(relay, redis_keeps.url) if part == "store" else redis_keeps.url
        broker = through(relay, rabbit_server.url) if part == "broker" else rabbit_server.url
        async with scene(tmp_path, store, broker) as play:
            with bridge(tmp_path, "run", "-c", str(play.config)) as running:
                await play.goes_on()
                relay.stall()
                await until(lambda: play.says(part), f"/readyz names the {part}", within=120)
                relay.resume()
                await until(play.well, "/readyz is well again")
                await play.goes_on()
                await play.all_delivered(store_was_down=part == "store")
                assert await asyncio.to_thread(running.stop) == 0
            assert play.witness.repeated == {}


# --- a broker that forgets --------------------------------------------------------------------------------------------

MANY = SimulatorSettings.still(seed=9)


def place(simulator: Simulator, recipients: int = 1200) -> None:
    """Place more than a sink has in hand, and has on its way there: twice 256."""
    simulator.world.add_message("sms", recipients, status="sending", recipient_status="sending")


def move_some(simulator: Simulator, count: int = 150) -> None:
    world = simulator.world
    message = world.messages["sms"][0]
    for index in range(count):
        world.move(message.recipient(index), "failed" if index % 2 else "sent")


@asynccontextmanager
async def piled_up(play: Scene) -> AsyncIterator[Process]:
    """Give a living bridge whose sink has more in its queue than it can hold in hand."""
    play.witness.gate.clear()
    place(play.simulator)
    with bridge(play.folder, "run", "-c", str(play.config)) as running:
        await until(lambda: not play.simulator.unseen(), "the bridge has looked at everything")
        await until(lambda: confirmed(play), "everything was published")
        assert not play.witness.bodies
        yield running


async def confirmed(play: Scene) -> bool:
    store = RedisStore(play.store, clock=Clock())
    try:
        state = await store.journal("city")
    finally:
        await store.close()
    return state.events > 0 and not state.backlog


async def purge_rabbitmq(url: str) -> int:
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        return int((await (await channel.get_queue("bridge.sink.crm")).purge()).message_count or 0)


async def delete_rabbitmq(url: str) -> int:
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        queue = await channel.get_queue("bridge.sink.crm")
        return int((await queue.delete(if_unused=False, if_empty=False)).message_count or 0)


@pytest.mark.parametrize("forget", [purge_rabbitmq, delete_rabbitmq], ids=["purged", "deleted"])
async def test_emptied_queue_is_refilled_from_the_journal(forget, tmp_path, redis_keeps, rabbit_server):
    async with scene(tmp_path, redis_keeps.url, rabbit_server.url, MANY, {"concurrency": 4}) as play:
        async with piled_up(play) as running:
            assert await forget(rabbit_server.url) > 50
            play.witness.gate.set()
            await play.all_delivered()
            await play.balanced()
            move_some(play.simulator)
            await play.all_delivered()
            await play.balanced()
            assert await asyncio.to_thread(running.stop) == 0
        assert sum(line["events"] for line in logged(running, "audit.lost_events_requeued")) > 50
        assert play.witness.repeated == {}


async def test_a_rabbitmq_that_comes_back_empty_costs_no_event(tmp_path, redis_keeps, rabbit_server):
    async with scene(tmp_path, redis_keeps.url, rabbit_server.url, MANY, {"concurrency": 4}) as play:
        async with piled_up(play) as running:
            await asyncio.to_thread(rabbit_server.kill)
            shutil.rmtree(rabbit_server.folder / "mnesia")
            await asyncio.to_thread(rabbit_server.start)
            play.witness.gate.set()
            await play.all_delivered()
            move_some(play.simulator)
            await play.all_delivered()
            await play.balanced()
            assert await asyncio.to_thread(running.stop) == 0
        assert play.witness.repeated == {}


async def test_a_redis_broker_that_was_flushed_costs_no_event(tmp_path, redis_keeps):
    broker = redis_keeps.url.replace("/0", "/1")
    async with scene(tmp_path, redis_keeps.url, broker, MANY, {"concurrency": 4}) as play:
        async with piled_up(play) as running:
            with redis.Redis.from_url(broker) as client:
                assert client.dbsize() > 0
                client.flushdb()
            play.witness.gate.set()
            await play.all_delivered()
            move_some(play.simulator)
            await play.all_delivered()
            await play.balanced()
            assert await asyncio.to_thread(running.stop) == 0
        assert play.witness.repeated == {}


# --- a store that forgets ---------------------------------------------------------------------------------------------


def ids_by_transition(witness: Witness) -> dict[tuple[str, str], str]:
    return {(event["subject"], event["data"]["status"]): event["id"] for event in witness.events}


def shown_now(simulator: Simulator) -> set[tuple[str, str]]:
    """Return each resource and the status in which it was shown last."""
    return {(subject, history[-1][0]) for subject, history in expected(simulator).items()}


async def received_all_again(play: Scene, before: dict[str, int], *, still: set[tuple[str, str]]) -> None:
    """Wait until every resource's present status was told once more, with the id that it had before."""
    ids = ids_by_transition(play.witness)
    await until(
        lambda: all(play.witness.times[ids[subject]] > before[ids[subject]] for subject in still),
        "all statuses are told again",
    )
    assert ids_by_transition(play.witness) == ids


@pytest.mark.parametrize("living", [True, False], ids=["under a living bridge", "while the bridge is down"])
async def test_reset_store_republishes_everything_under_the_same_ids(living, tmp_path, rabbit_server):
    with RedisServer() as forgetful:
        async with scene(tmp_path, forgetful.url, rabbit_server.url, MANY) as play:
            place(play.simulator, 60)
            with bridge(tmp_path, "run", "-c", str(play.config)) as running:
                await play.all_delivered()
                await play.balanced()
                before = dict(play.witness.times)
                still = shown_now(play.simulator)
                if not living:
                    assert await asyncio.to_thread(running.stop) == 0
                await asyncio.to_thread(forgetful.kill)
                await asyncio.to_thread(forgetful.start)
                with redis.Redis.from_url(forgetful.url) as client:
                    assert client.dbsize() < 20
                if not living:  # the broker has the mark of the lost store
                    command = await ask(tmp_path, "takeover", "--yes", "-c", str(play.config))
                    assert (command.returncode, "taken over" in command.stdout) == (0, True)
                again = bridge(tmp_path, "run", "-c", str(play.config), name="again")
                with nullcontext(running) if living else again as process:
                    await received_all_again(play, before, still=still)
                    # What is new now has numbers that no old delivery, and no message in a queue, ever had.
                    move_some(play.simulator, 40)
                    await until(lambda: not play.simulator.unseen(), "the bridge has looked at everything")
                    await until(
                        lambda: shown_now(play.simulator) <= ids_by_transition(play.witness).keys(),
                        "what is new has arrived",
                    )
                    await play.balanced()
                    assert await asyncio.to_thread(process.stop) == 0
        assert all(count <= 2 for count in play.witness.times.values())


async def test_messages_of_a_lost_journal_do_not_hide_new_ones(tmp_path, rabbit_server):
    with RedisServer() as forgetful:
        async with scene(tmp_path, forgetful.url, rabbit_server.url, MANY, {"concurrency": 4}) as play:
            async with piled_up(play) as running:
                # The queue is full of positions of a journal that is about to be forgotten.
                await asyncio.to_thread(forgetful.kill)
                await asyncio.to_thread(forgetful.start)
                play.witness.gate.set()
                await until(lambda: not play.witness.missing(play.simulator), "all has arrived")
                move_some(play.simulator)
                await until(lambda: not play.simulator.unseen(), "the bridge has looked at everything")
                await until(
                    lambda: shown_now(play.simulator) <= ids_by_transition(play.witness).keys(),
                    "what is new has arrived",
                )
                assert await asyncio.to_thread(running.stop) == 0
            assert all(count <= 2 for count in play.witness.times.values())
            assert play.witness.gate.is_set()


async def test_audit_finds_broker_losses_after_a_store_reset(tmp_path, rabbit_server):
    with RedisServer() as forgetful:
        async with scene(tmp_path, forgetful.url, rabbit_server.url, MANY, {"concurrency": 4}) as play:
            place(play.simulator, 20)
            with bridge(tmp_path, "run", "-c", str(play.config)) as running:
                await play.all_delivered()
                async with redis.asyncio.Redis.from_url(forgetful.url) as client:
                    await client.flushall()
                before = dict(play.witness.times)
                await received_all_again(play, before, still=shown_now(play.simulator))
                play.witness.gate.clear()
                place(play.simulator)
                await until(lambda: not play.simulator.unseen(), "the bridge has looked at everything")
                await until(lambda: confirmed(play), "everything was published")
                assert await purge_rabbitmq(rabbit_server.url) > 50
                play.witness.gate.set()
                await until(
                    lambda: shown_now(play.simulator) <= ids_by_transition(play.witness).keys(),
                    "the purged ones arrive",
                )
                assert await asyncio.to_thread(running.stop) == 0
