"""A service that subscribes by `bridge.client` is killed, or loses its broker: nothing is lost, nothing handled twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from harness import until

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.client import subscribe
from bridge.domain.clock import Clock
from bridge.protocols.broker import Broker
from bridge.testing.broker_suite import entry
from bridge.testing.servers import RabbitMQServer, RedisServer
from bridge.testing.tcp_proxy import TcpProxy

pytestmark = pytest.mark.faults

EVENTS = 500
KILLED_AFTER = (80, 240)
PROGRAM = Path(__file__).parent / "subscriber.py"


class Lives:
    """The lives of one subscriber: each writes the ids that it was given to a file of its own."""

    def __init__(self, folder: Path, url: str, seen: str) -> None:
        self.folder = folder
        self.arguments = (url, seen)
        self.files: list[Path] = []

    @contextmanager
    def life(self) -> Iterator[subprocess.Popen[bytes]]:
        file = self.folder / f"life-{len(self.files)}.txt"
        file.touch()
        self.files.append(file)
        process = subprocess.Popen([sys.executable, PROGRAM, *self.arguments, file], stdin=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.kill()
            process.wait(30)

    def given(self) -> list[list[str]]:
        return [file.read_text().split() for file in self.files]

    def handled(self) -> set[str]:
        return {event_id for ids in self.given() for event_id in ids}

    def count(self) -> int:
        return sum(map(len, self.given()))

    def repeated(self) -> set[str]:
        """Return what was given again although its turn was over: all of a life but its last event."""
        finished = [event_id for ids in self.given() for event_id in ids[:-1]]
        again = {event_id for event_id in finished if finished.count(event_id) > 1}
        for number, ids in enumerate(self.given()):
            later = {event_id for following in self.given()[number + 1 :] for event_id in following}
            again |= later & set(ids[:-1])
        return again


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Broker]:
    broker: KombuBroker | SqliteBroker
    if url.startswith("sqlite:"):
        broker = SqliteBroker(Path(url.removeprefix("sqlite:///")), clock=Clock())
    else:
        broker = KombuBroker(url, exchange="bridge.events", clock=Clock())
    await broker.open()
    yield broker
    await broker.close()


async def killed_subscriber(folder: Path, url: str, seen: str) -> Lives:
    """Publish, some of it twice, and kill the subscriber in the middle, twice; return when it has all."""
    folder.mkdir()
    lives = Lives(folder, url, seen)
    expected = {f"event-{seq}" for seq in range(1, EVENTS + 1)}
    async with opened(url) as broker:
        await broker.declare("billing", ["#"])
        await broker.publish([entry(seq) for seq in range(1, EVENTS + 1)])
        await broker.publish([entry(seq) for seq in range(1, EVENTS + 1, 10)])
        for limit in KILLED_AFTER:
            with lives.life():
                await until(lambda limit=limit: lives.count() >= limit, f"{limit} events are handled")
        with lives.life():
            await until(lambda: lives.handled() == expected, "every event was handled")
            await until(lambda: emptied(broker), "the second copies are gone")
    return lives


async def emptied(broker: Broker) -> bool:
    return not await broker.depth("billing")


async def test_killed_subscribers_lose_nothing_and_repeat_nothing(tmp_path, rabbitmq_url, redis_url):
    places = {
        "rabbitmq": (rabbitmq_url, f"sqlite:///{tmp_path / 'rabbitmq-seen.db'}"),
        "redis": (redis_url, redis_url),
        "embedded": (f"sqlite:///{tmp_path / 'broker.db'}", f"sqlite:///{tmp_path / 'embedded-seen.db'}"),
    }
    subscribers = await asyncio.gather(
        *(killed_subscriber(tmp_path / name, url, seen) for name, (url, seen) in places.items())
    )
    for lives in subscribers:
        assert len(lives.files) == 3
        assert all(lives.given()), "each life was given something"
        assert lives.repeated() == set()
        assert lives.count() <= EVENTS + len(KILLED_AFTER), "only what a kill interrupted was given again"


@pytest.mark.parametrize("kind", ["rabbitmq", "redis"])
async def test_subscribers_survive_cut_connections(kind, request):
    server: RabbitMQServer | RedisServer = request.getfixturevalue(f"{kind}_server")
    url: str = request.getfixturevalue(f"{kind}_url")
    handled: list[str] = []
    async with TcpProxy(server.port) as proxy, opened(url) as broker:
        await broker.declare("billing", ["#"])
        await broker.publish([entry(seq) for seq in range(1, 301)])
        through_proxy = url.replace(f":{server.port}/", f":{proxy.port}/")
        async with asyncio.timeout(60), subscribe(through_proxy, queue="billing", lease_seconds=1.0) as events:
            async for event in events:
                handled.append(event.id)
                if len(handled) in {50, 150}:
                    proxy.cut()
                if len(handled) == 300:
                    events.stop()
        assert proxy.cuts == 2
        assert handled == [f"event-{seq}" for seq in range(1, 301)]
        await until(lambda: emptied(broker), "everything is acknowledged")


async def test_subscribers_wait_for_a_broker_that_comes_later(tmp_path):
    with RedisServer() as server:
        server.stop()
        handled: list[str] = []

        async def work() -> None:
            async with subscribe(server.url, queue="billing") as events:
                async for event in events:
                    handled.append(event.id)
                    events.stop()

        working = asyncio.create_task(work())
        await asyncio.sleep(0.2)  # it has tried, and there is nobody
        server.start()
        async with asyncio.timeout(60), opened(server.url) as broker:
            while await broker.publish([entry(1)]):
                await asyncio.sleep(0.05)
            await working
    assert handled == ["event-1"]
