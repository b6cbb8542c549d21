"""Every memory of handled events keeps the promises of `SeenEvents`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis

from bridge.adapters.redis.seen import RedisSeen
from bridge.adapters.sqlite.seen import SqliteSeen
from bridge.client.memory import MemorySeen
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.protocols.seen import SeenEvents
from bridge.testing.free_port import free_port

Make = Callable[..., SeenEvents]


class SeenSuite:
    """Subclass it, and give `make`: a function that returns a memory with these windows."""

    @pytest.fixture
    async def seen(self, make: Make) -> AsyncIterator[SeenEvents]:
        seen = make()
        yield seen
        await seen.close()

    async def test_a_finished_event_is_not_begun_again(self, seen):
        assert await seen.begin("a") == 1
        await seen.finish("a")
        assert await seen.begin("a") == 0
        assert await seen.begin("b") == 1

    async def test_one_step_finishes_and_begins(self, seen):
        assert await seen.begin("a") == 1
        assert await seen.begin("b", finished="a") == 1
        assert await seen.begin("a") == 0
        assert await seen.begin("b", finished="b") == 0

    async def test_tries_are_counted_until_an_event_is_finished(self, seen):
        assert [await seen.begin("a") for _ in range(3)] == [1, 2, 3]
        await seen.forget_try("a")
        assert await seen.begin("a") == 3
        await seen.finish("a")
        await seen.finish("a")
        assert await seen.begin("a") == 0

    async def test_the_oldest_ids_leave_the_window(self, make):
        seen = make(keep_ids=3)
        for name in "abcdef":
            await seen.begin(name)
            await seen.finish(name)
            await asyncio.sleep(0.002)  # Redis counts in milliseconds
        assert [await seen.begin(name) for name in "fed"] == [0, 0, 0]
        assert await seen.begin("a") == 1
        await seen.close()

    async def test_an_id_leaves_the_window_with_time(self, make):
        seen = make(keep_seconds=0.2)
        await seen.begin("a")
        await seen.finish("a")
        assert await seen.begin("a") == 0
        await asyncio.sleep(0.25)
        assert await seen.begin("a") == 1
        assert await seen.begin("a") == 2
        await seen.close()


class SharedSuite(SeenSuite):
    async def test_processes_on_one_queue_share_it(self, make, seen):
        other, another_queue = make(), make(queue="another")
        assert await seen.begin("a") == 1
        assert await other.begin("a") == 2
        await other.finish("a")
        assert await seen.begin("a") == 0
        assert await another_queue.begin("a") == 1
        await other.close()
        await another_queue.close()


class TestMemory(SeenSuite):
    @pytest.fixture
    def make(self) -> Make:
        def build(keep_ids: int = 1000, keep_seconds: float = 600.0) -> SeenEvents:
            return MemorySeen(keep_ids=keep_ids, keep_seconds=keep_seconds, clock=Clock())

        return build


class TestSqlite(SharedSuite):
    @pytest.fixture
    def make(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
        monkeypatch.setattr("bridge.adapters.sqlite.seen._TRIM_EVERY_EVENTS", 1)

        def build(queue: str = "billing", keep_ids: int = 1000, keep_seconds: float = 600.0) -> SeenEvents:
            path = tmp_path / "folder" / "seen.db"
            return SqliteSeen(path, queue, keep_ids=keep_ids, keep_seconds=keep_seconds, clock=Clock())

        return build

    async def test_a_file_that_cannot_be_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        seen = SqliteSeen(tmp_path / "file" / "seen.db", "q", keep_ids=1, keep_seconds=1, clock=Clock())
        with pytest.raises(Unavailable, match=r"seen\.db"):
            await seen.begin("a")
        await seen.close()


class TestRedis(SharedSuite):
    @pytest.fixture
    def make(self, redis_url: str) -> Make:
        def build(queue: str = "billing", keep_ids: int = 1000, keep_seconds: float = 600.0) -> SeenEvents:
            return RedisSeen(redis_url, queue, keep_ids=keep_ids, keep_seconds=keep_seconds)

        return build

    async def test_redis_keeps_nothing_beyond_the_window(self, make, redis_url):
        seen = make(keep_ids=2)
        for name in "abcdef":
            await seen.begin(name)
            await seen.finish(name)
        with redis.Redis.from_url(redis_url) as client:
            assert client.zcard("bridge.seen.{billing}.finished") == 2
            assert client.hlen("bridge.seen.{billing}.tries") == 0
        await seen.close()

    async def test_a_redis_that_is_gone_is_unavailable(self):
        seen = RedisSeen(f"redis://127.0.0.1:{free_port()}/0", "q", keep_ids=1, keep_seconds=1)
        with pytest.raises(Unavailable):
            await seen.begin("a")
        await seen.close()
