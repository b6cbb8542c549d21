"""Killed by SIGKILL at every point of an event's way: nothing is lost, and only what the table says comes twice.

The table is `bridge.testing.kill_points.POINTS`; every cell of it is a real `bridgectl run` that dies there, and another one that
goes on. `pytest tests/faults/test_crash_matrix.py -q` prints what was measured.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aio_pika
import pytest
import pytest_asyncio
import redis
import yaml
from aiohttp import web
from faults.mortal import Mortal
from harness import Consumer, consuming_kombu, consuming_rabbitmq, differences, expected, until

from bridge.adapters.redis.store import RedisStore
from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.domain.namespace import Namespace
from bridge.protocols.deliveries import DeliveryCounts
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.testing.fake_endpoint import FakeEndpoint
from bridge.testing.kill_points import NOTHING, POINTS, Point
from bridge.testing.servers import RabbitMQServer, RedisServer

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

STORES = ("redis", "sqlite")
BROKERS = ("rabbitmq", "redis", "embedded")
PAIRS = tuple(itertools.product(STORES, BROKERS))
AT_ONCE = 8
TRANSITIONS = 34
SOURCE = "city"
REFUSED_FOR_NOW = {"refused for now, not postponed", "postponed", "due again and claimed, not sent"}
REFUSED_FOR_GOOD = {"refused for good, not dead-lettered", "dead-lettered"}


@dataclass(frozen=True)
class Cell:
    """One square of the matrix."""

    point: Point
    store: str
    broker: str
    number: int

    def __str__(self) -> str:
        return f"{self.point.name} / {self.store} / {self.broker}"

    @property
    def namespace(self) -> Namespace:
        """All cells share one RabbitMQ."""
        return Namespace(f"cell-{self.number}")

    @property
    def sink(self) -> str:
        return f"crm{self.number}"

    @property
    def exchange(self) -> str:
        return f"bridge.events.{self.number}"

    @property
    def ordered(self) -> bool:
        return (self.number // len(PAIRS) + self.number) % 2 == 0


CELLS = [
    Cell(point, store, broker, number)
    for number, (point, (store, broker)) in enumerate(itertools.product(POINTS, PAIRS))
]


@dataclass
class Measured:
    """What one cell came to."""

    transitions: int = 0
    twice_at_consumer: int = 0
    twice_at_sink: int = 0
    at_risk: set[str] = field(default_factory=set)
    """What the endpoint side had taken, and the store not yet written down, when the process died."""
    batch: int = 0
    """How many events were being carried when the process died."""


class CrashingEndpoint:
    """A webhook's receiver that remembers what it took, from which life of the bridge."""

    def __init__(self, point: Point) -> None:
        self._point = point
        self.received: list[tuple[int, str, bytes]] = []
        self.bodies: dict[str, set[bytes]] = {}
        self.refused_for_good: set[str] = set()
        self.victim: Mortal | None = None
        self.receiver = FakeEndpoint(default=self._answer)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        life, event_id, body = int(request.headers["x-life"]), request.headers["webhook-id"], await request.read()
        self.bodies.setdefault(event_id, set()).add(body)
        if life == 1 and self._point.name in REFUSED_FOR_NOW:
            return web.Response(status=503)
        if self._point.name in REFUSED_FOR_GOOD and (not self.refused_for_good or event_id in self.refused_for_good):
            self.refused_for_good.add(event_id)
            return web.Response(status=400)
        self.received.append((life, event_id, body))
        if life == 1 and self._point.by_endpoint:
            assert self.victim is not None
            self.victim.process.kill()
            await asyncio.get_running_loop().create_future()
        return web.Response()

    @property
    def ids(self) -> Counter[str]:
        return Counter(event_id for _, event_id, _ in self.received)

    @property
    def histories(self) -> dict[str, list[tuple[str, str | None, str | None]]]:
        histories: dict[str, list[tuple[str, str | None, str | None]]] = {}
        for body in {event_id: body for _, event_id, body in self.received}.values():
            event = json.loads(body)
            data = event["data"]
            if data["channel"] == "bridge":
                continue  # what the bridge says of itself is nothing that a provider has shown
            histories.setdefault(event["subject"], []).append((data["status"], data["previous"], data["detail"]))
        return histories


@dataclass
class Servers:
    """The servers that all cells share, and the numbers of databases that are free."""

    redis: RedisServer
    rabbitmq: RabbitMQServer
    slots: asyncio.Queue[int] = field(default_factory=asyncio.Queue)

    def redis_url(self, number: int) -> str:
        return self.redis.url.removesuffix("0") + str(number)


class Run:
    """One cell being played."""

    def __init__(self, cell: Cell, folder: Path, servers: Servers, slot: int) -> None:
        self.cell = cell
        self.point = cell.point
        self.folder = folder
        self.store_url = servers.redis_url(2 * slot) if cell.store == "redis" else f"sqlite:///{folder / 'bridge.db'}"
        self.broker_url = {
            "redis": servers.redis_url(2 * slot + 1),
            "rabbitmq": servers.rabbitmq.url,
            "embedded": "embedded",
        }[cell.broker]
        self.simulator = Simulator(SimulatorSettings.still(seed=cell.number + 1))
        self.endpoint = CrashingEndpoint(cell.point)
        self.lives: list[Mortal] = []

    def config(self, life: int) -> str:
        city = sources(self.simulator.urls, self.simulator.settings, interval="150ms")[SOURCE]
        path = self.folder / f"life{life}.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "state": str(self.folder),
                    "store": self.store_url,
                    "broker": self.broker_url,
                    "namespace": self.cell.namespace.name,
                    "exchange": self.cell.exchange,
                    "http": {"listen": None},
                    "lease": "1s",
                    "claim": "1s",
                    "audit": "400ms",
                    "sources": {SOURCE: {**city, "rate": "500/s"}},
                    "sinks": {
                        self.cell.sink: {
                            "type": "webhook",
                            "topics": ["#"],
                            "url": self.endpoint.receiver.url,
                            "allow_private": True,
                            "headers": {"X-Life": str(life)},
                            "concurrency": 4,
                            "ordered": self.cell.ordered,
                            "retry": ["300ms"] * 50,
                        }
                    },
                }
            )
        )
        return str(path)

    def start(self, life: int, *options: str, point: str | None = None) -> Mortal:
        arguments = ("run", "-c", self.config(life), *options)
        process = Mortal(self.folder, *arguments, name=f"life{life}", point=point)
        self.lives.append(process)
        return process

    @asynccontextmanager
    async def opened_store(self) -> AsyncIterator[RedisStore | SqliteStore]:
        clock = Clock()
        store: RedisStore | SqliteStore
        if self.cell.store == "redis":
            store = RedisStore(self.store_url, clock=clock, namespace=self.cell.namespace)
        else:
            store = SqliteStore(self.folder / "bridge.db", clock=clock)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def consuming(self) -> AsyncIterator[Consumer]:
        match self.cell.broker:
            case "rabbitmq":
                async with consuming_rabbitmq(self.broker_url, self.cell.exchange) as consumer:
                    yield consumer
            case "redis":
                async with consuming_kombu(self.broker_url, self.cell.exchange) as consumer:
                    yield consumer
            case _:
                async with consuming_embedded(self.folder / f"broker-{self.cell.namespace.name}.db") as consumer:
                    yield consumer

    async def purge(self) -> None:
        """Throw away what the sink's queue holds, behind everybody's back."""
        queue = self.cell.namespace.sink_queue(self.cell.sink)
        match self.cell.broker:
            case "rabbitmq":
                connection = await aio_pika.connect(self.broker_url)
                async with connection, connection.channel() as channel:
                    purged = (await (await channel.get_queue(queue)).purge()).message_count
            case "redis":
                with redis.Redis.from_url(self.broker_url) as client:
                    purged = client.llen(queue)
                    client.delete(queue)
            case _:
                with sqlite3.connect(self.folder / f"broker-{self.cell.namespace.name}.db") as db:
                    purged = db.execute(
                        "DELETE FROM items WHERE queue IN (SELECT id FROM queues WHERE name = ?)", (queue,)
                    ).rowcount
                db.close()
        assert purged > 0


@asynccontextmanager
async def consuming_embedded(path: Path) -> AsyncIterator[Consumer]:
    """Subscribe to everything that an embedded broker's file brings."""
    consumer = Consumer()
    broker = SqliteBroker(path, clock=Clock())
    await broker.open()

    async with broker.tap(["#"]) as tap:

        async def follow() -> None:
            while True:
                for delivered in await tap.get(500, 1.0):
                    consumer.take(delivered.event.body, delivered.event.topic)

        following = asyncio.ensure_future(follow())
        try:
            yield consumer
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    await broker.close()


def populate(simulator: Simulator) -> None:
    """Place 22 resources."""
    simulator.world.add_message("sms", 12, status="sending", recipient_status="sending")
    simulator.world.add_message("voice", 8, status="sending", recipient_status="sending")


def move_on(simulator: Simulator) -> None:
    """Let 12 of them reach the next status, so that they differ from what the killed process had seen."""
    world = simulator.world
    sms, voice = world.messages["sms"][0], world.messages["voice"][0]
    for index in range(6):
        world.move(sms.recipient(index), "sent" if index % 2 else "failed")
    for index in range(5):
        world.move(voice.recipient(index), "failed", detail="busy")
    world.move(voice.path, "completed")


def all_delivered(endpoint: CrashingEndpoint, simulator: Simulator, *, ordered: bool) -> bool:
    """Say whether the endpoint side has received all that the provider has shown, but for what it refused for good."""
    shown, received = expected(simulator), endpoint.histories
    if endpoint.refused_for_good:
        return sum(map(len, received.values())) == sum(map(len, shown.values())) - 1
    if ordered:
        return received == shown
    return {subject: sorted(map(str, history)) for subject, history in received.items()} == {
        subject: sorted(map(str, history)) for subject, history in shown.items()
    }


async def play(cell: Cell, folder: Path, servers: Servers) -> Measured:
    """Play one cell from the first poll to balanced books."""
    slot = await servers.slots.get()
    try:
        for number in (2 * slot, 2 * slot + 1):
            with redis.Redis.from_url(servers.redis_url(number)) as client:
                client.flushdb()
        run = Run(cell, folder, servers, slot)
        try:
            async with run.simulator, run.endpoint.receiver, run.consuming() as consumer:
                return await _play(run, consumer)
        finally:
            for life in run.lives:
                life.kill()
    finally:
        servers.slots.put_nowait(slot)


async def _play(run: Run, consumer: Consumer) -> Measured:
    measured = Measured()
    populate(run.simulator)
    await die(run, measured)
    await recover(run, consumer, measured)
    evaluate(run, consumer, measured)
    return measured


BEFORE = {"relay": ("poll",), "delivery": ("poll", "relay"), "audit": ("poll", "relay")}
"""What was done by an earlier life, so that the one that dies has nothing else on its way at that moment."""


async def die(run: Run, measured: Measured) -> None:
    """Let the process come to its point, and find out what the endpoint side had taken and the store does not know."""
    cell = run.cell
    if roles := BEFORE.get(cell.point.step):
        before = run.start(0, "--once", *(word for role in roles for word in ("--role", role)))
        await until(lambda: before.ended is not None, f"{cell}: one round ends", within=120)
        assert before.ended == 0, before.err.read_text()
    if cell.point.step == "audit":
        await run.purge()
    first = run.endpoint.victim = run.start(1, point=None if cell.point.by_endpoint else cell.point.name)
    await until(lambda: first.ended is not None, f"{cell}: the process dies", within=120)
    assert first.killed, first.err.read_text()
    mark = first.mark
    assert cell.point.by_endpoint or (mark is not None and mark["point"] == cell.point.name)
    measured.batch = mark["count"] if mark else 1
    async with run.opened_store() as store:
        entries = await store.read(SOURCE, 0, 1000)
        settled = {entry.event.id for entry in entries if await store.settled(cell.sink, entry.position)}
    measured.at_risk = set(run.endpoint.ids) - settled


async def recover(run: Run, consumer: Consumer, measured: Measured) -> None:
    """Start it again, let the world move on, and wait until everybody has received everything and the books balance."""
    cell, endpoint, simulator = run.cell, run.endpoint, run.simulator
    second = run.start(2)
    for again in (False, True):
        if again:
            move_on(simulator)
        await until(lambda: not simulator.unseen(), f"{cell}: the second life polls", within=120)
        await until(
            lambda: all_delivered(endpoint, simulator, ordered=cell.ordered),
            f"{cell}: everything is delivered",
            within=120,
        )
    await until(lambda: not differences(simulator, consumer), f"{cell}: the consumer hears all", within=120)
    async with run.opened_store() as store:
        measured.transitions = len(await store.read(SOURCE, 0, 1000))
        dead = len(endpoint.refused_for_good)

        async def balanced() -> bool:
            books = (await store.counts(cell.sink)).get(SOURCE)
            return books == DeliveryCounts(delivered=measured.transitions - dead, dead=dead)

        await until(balanced, f"{cell}: the books balance", within=120)
    second.terminate()
    await until(lambda: second.ended is not None, f"{cell}: the second life ends", within=120)
    assert second.ended == 0, second.err.read_text()


def evaluate(run: Run, consumer: Consumer, measured: Measured) -> None:
    """Nothing lost, nothing made up; twice only what the table says, and exactly what nobody had written down."""
    point, endpoint = run.cell.point, run.endpoint
    assert measured.transitions == sum(map(len, expected(run.simulator).values())) == TRANSITIONS
    assert all(len(bodies) == 1 for bodies in endpoint.bodies.values()), "an id came with other bytes"
    events = [event for event in consumer.events if event["data"]["channel"] != "bridge"]
    texts: dict[str, str] = {}
    for event in events:
        assert texts.setdefault(event["id"], json.dumps(event)) == json.dumps(event)
    twice = {event_id for event_id, count in endpoint.ids.items() if count > 1}
    assert max(endpoint.ids.values()) <= 2
    assert twice == measured.at_risk
    measured.twice_at_sink = len(twice)
    measured.twice_at_consumer = len(events) - len(texts)
    assert point.to_sink != NOTHING or not twice
    assert measured.twice_at_consumer == (0 if point.to_consumers == NOTHING else measured.batch)


@pytest.fixture(scope="module")
def own_servers() -> Iterator[tuple[RedisServer, RabbitMQServer]]:
    with RedisServer(appendonly=True) as store, RabbitMQServer() as broker:
        yield store, broker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def matrix(
    own_servers: tuple[RedisServer, RabbitMQServer],
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[dict[Cell, asyncio.Future[Measured]]]:
    """Play the cells that this session asks for, several at once, and print the table of those that were played."""
    servers = Servers(*own_servers)
    for slot in range(AT_ONCE):
        servers.slots.put_nowait(slot)
    wanted = [
        item.callspec.params["cell"]
        for item in request.session.items
        if getattr(item, "callspec", None) and "cell" in item.callspec.params
    ]
    played = {
        cell: asyncio.ensure_future(play(cell, tmp_path_factory.mktemp(f"cell{cell.number}"), servers))
        for cell in wanted
    }
    yield played
    for future in played.values():
        future.cancel()
    await asyncio.gather(*played.values(), return_exceptions=True)
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{report(played)}")  # noqa: T201 - the figures are for a reader


def report(played: dict[Cell, asyncio.Future[Measured]]) -> str:
    """Return the measured matrix: for each point what came twice at a consumer and at the sink, on each pair."""
    lines = [
        "killed when an event was                       lost  twice: at a consumer / at the sink",
        " " * 52 + "".join(f"{f'{store}+{broker}':>17}" for store, broker in PAIRS),
    ]
    for point in POINTS:
        row = {}
        for cell, future in played.items():
            if cell.point == point and future.done() and not future.cancelled():
                row[cell.store, cell.broker] = "FAILED" if future.exception() else _figures(future.result())
        if row:
            lost = "?" if "FAILED" in row.values() else "0"
            lines.append(f"{point.name:<46}{lost:>5} " + "".join(f"{row.get(pair, ''):>17}" for pair in PAIRS))
    return "\n".join(lines)


def _figures(measured: Measured) -> str:
    return f"{measured.twice_at_consumer} / {measured.twice_at_sink}"


@pytest.mark.parametrize("cell", CELLS, ids=str)
async def test_kill_point_loses_nothing_and_repeats_only_as_documented(
    cell: Cell, matrix: dict[Cell, asyncio.Future[Measured]]
) -> None:
    measured = await matrix[cell]
    assert measured.transitions == TRANSITIONS


async def test_the_page_on_delivery_has_the_same_table() -> None:
    lines = (Path(__file__).parents[2] / "docs" / "explanation" / "delivery.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    rows = {row[1]: (row[3], row[4]) for row in cells if len(row) == 5 and row[0].isdecimal()}
    assert rows == {point.name: (point.to_consumers, point.to_sink) for point in POINTS}


async def test_the_table_has_every_step_of_an_events_way() -> None:
    assert {point.step for point in POINTS} == {"intake", "relay", "delivery", "audit"}
    assert len({point.name for point in POINTS}) == len(POINTS)
