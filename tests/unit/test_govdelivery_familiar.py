"""A page that reads as it did when it was committed shows nothing new; whether it was committed, the cursor says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.settings import Secret
from bridge.ingest.intake import Intake
from bridge.protocols.ledger import Commit, Lease
from bridge.sources.govdelivery import GovDelivery, GovDeliverySettings
from bridge.sources.govdelivery.page_cache import PageCache

PATH = "/messages/sms/1"
PAGES = 4


class Provider:
    """One message of several pages; its counts move at every look, so that its recipients are read each time."""

    def __init__(self) -> None:
        self.statuses = dict.fromkeys(range(PAGES * 5), "sending")
        self.reads = 0
        self.asked: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.path == PATH:
            self.reads += 1
            counts = {"total": len(self.statuses), "sending": self.reads * 1000}
            return web.json_response(
                {"status": "sending", "created_at": "2026-03-01T00:00:00Z", "recipient_counts": counts}
            )
        page = int(request.path.rpartition("/")[2]) if "/page/" in request.path else 1
        people = [
            {"status": self.statuses[number], "_links": {"self": f"{PATH}/recipients/{number}"}}
            for number in list(self.statuses)[(page - 1) * 5 : page * 5]
        ]
        more = {"Link": f'<{PATH}/recipients/page/{page + 1}>; rel="next"'} if page < PAGES else {}
        return web.json_response(people, headers=more)


class Store(SqliteStore):
    """A store that counts what it is asked for, and can fail at a commit."""

    keys_read = 0
    fails_after: int | None = None

    async def last_seen(self, source: str, keys: Any, retention: float) -> Any:
        self.keys_read += len(keys)
        return await super().last_seen(source, keys, retention)

    async def commit(self, lease: Lease | None, commit: Commit) -> int:
        if self.fails_after is not None and commit.events:
            self.fails_after -= len(commit.events)
            if self.fails_after < 0:
                raise Unavailable("the store is away")
        return await super().commit(lease, commit)


class World:
    """A provider, a store, a source and an intake, on a clock that is moved by hand."""

    def __init__(self, provider: Provider, url: str, store: Store) -> None:
        self.provider = provider
        self.store = store
        self.now = datetime(2026, 3, 1, 0, 1, tzinfo=UTC)
        self.clock = Clock(now=lambda: self.now)
        self.settings = GovDeliverySettings(
            type="govdelivery", url=url, token=Secret("t"), channels=["sms"], discover=False, messages=[PATH],
            interval=10.0, rate=10_000.0, reread_every=600.0,
        )  # fmt: skip
        self.source = self.begin()

    def begin(self) -> GovDelivery:
        self.source = GovDelivery("city", self.settings, self.clock)
        self.intake = Intake("city", "govdelivery", self.source, self.store, self.clock)
        return self.source

    async def poll(self, *, after: float = 11.0) -> tuple[int, int, int]:
        """Poll once; return the events, the resources looked at, and of those how many the store was asked for."""
        self.now += timedelta(seconds=after)
        lease = await self.store.acquire("source/city", "me", 3600)
        assert lease is not None
        self.store.keys_read = 0
        outcome = await self.intake.poll(lease)
        assert outcome.problems == []
        return outcome.events, outcome.observed, self.store.keys_read

    async def journal(self) -> list[str]:
        bodies = [json.loads(entry.event.body) for entry in await self.store.read("city", 0, 1000)]
        return [f"{body['subject'].rpartition('/')[2]} {body['data']['status']}" for body in bodies]


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[World]:
    provider = Provider()
    app = web.Application()
    app.router.add_get("/{tail:.*}", provider.handle)
    store = Store(tmp_path / "bridge.db", clock=Clock())
    await store.open()
    async with TestServer(app) as server:
        made = World(provider, str(server.make_url("/")), store)
        yield made
        await made.source.close()
    await store.close()


async def test_unchanged_page_is_counted_without_parsing(world: World) -> None:
    assert await world.poll() == (21, 21, 21)
    assert await world.poll() == (0, 21, 1)
    assert world.provider.asked.count(f"{PATH}/recipients/page/4") == 2


async def test_changed_page_alone_is_read_again(world: World) -> None:
    await world.poll()
    world.provider.statuses[7] = "failed"
    assert await world.poll() == (1, 21, 6)
    assert (await world.journal())[-1] == "7 failed"
    assert await world.poll() == (0, 21, 1)
    world.provider.statuses[7] = "sending"
    assert await world.poll() == (1, 21, 6)


async def test_uncommitted_page_is_not_treated_as_known(world: World) -> None:
    await world.poll()
    for number in world.provider.statuses:
        world.provider.statuses[number] = "sent"
    world.store.fails_after = 7
    with pytest.raises(Unavailable):
        await world.poll()
    world.store.fails_after = None
    await world.poll()
    assert sorted(line for line in await world.journal() if line.endswith("sent")) == sorted(
        f"{number} sent" for number in world.provider.statuses
    )


async def test_a_store_that_forgot_everything_is_told_everything(world: World) -> None:
    await world.poll()
    assert await world.poll() == (0, 21, 1)
    new_store = Store(world.store._file.path.with_name("new.db"), clock=Clock())
    await new_store.open()
    world.store, world.intake = new_store, Intake("city", "govdelivery", world.source, new_store, world.clock)
    assert await world.poll() == (21, 21, 21)
    await new_store.close()


async def test_page_cache_is_dropped_after_another_replicas_read(world: World) -> None:
    await world.poll()
    mine, my_intake = world.source, world.intake
    world.begin()
    assert await world.poll() == (0, 21, 21)
    await world.source.close()
    world.source, world.intake = mine, my_intake
    assert await world.poll() == (0, 21, 21)
    assert await world.poll() == (0, 21, 1)


async def test_every_so_often_all_is_read_in_earnest(world: World) -> None:
    await world.poll()
    observed = [(await world.poll(after=100))[2] for _ in range(14)]
    assert set(observed) == {1, 21}
    assert observed.count(21) == 2


def test_the_messages_read_longest_ago_are_forgotten_first() -> None:
    page_cache = PageCache(kept=10)
    for number in range(5):
        reading = page_cache.begin(f"m{number}", 1.0, None, 1.0, 600.0)
        for page in range(4):
            reading.note(f"p{page}", page, 50)
        page_cache.end(f"m{number}", reading)
    known = [page_cache.begin(f"m{number}", 2.0, 1.0, 2.0, 600.0).digest("p3") for number in range(5)]
    assert known == [None, None, None, 3, 3]
