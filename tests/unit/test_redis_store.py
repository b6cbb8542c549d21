"""What is Redis' own: URLs, how little a recipient takes, how seldom is written, and what an operator is told."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
import structlog
from hypothesis import given
from hypothesis import strategies as st

from bridge.adapters.redis import ledger as redis_ledger
from bridge.adapters.redis.client import RedisClient
from bridge.adapters.redis.keys import Keys, bucket_of
from bridge.adapters.redis.store import RedisStore, describe
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.protocols.deliveries import NewDelivery
from bridge.protocols.ledger import Commit, Key
from bridge.testing.ledger_suite import MONTH_SECONDS, change, event, events, histories
from bridge.testing.servers import RedisServer
from bridge.testing.settlement_suite import later


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    made = RedisStore(redis_url, clock=Clock(), begin=0)
    await made.open()
    yield made
    await made.close()


def calls(url: str, command: str) -> int:
    with redis.Redis.from_url(url) as client:
        stats = client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return int(stats["calls"])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:canary@localhost:6379/0", "redis://localhost:6379/0"),
        ("rediss://app:canary@cache.example.com:6380/1?ssl_cert_reqs=none", "rediss://app@cache.example.com:6380/1"),
        ("redis://localhost?password=canary", "redis://localhost"),
        ("redis://app:canary/with@odd@localhost/0", "redis://app@localhost/0"),
        ("redis://canary/@localhost/0", "redis://localhost/0"),
        ("unix://app:canary@/run/redis.sock", "unix://app@/run/redis.sock"),
        ("redis+sentinel://:canary@h1:26379,h2:26379/main/2", "redis+sentinel://h1:26379,h2:26379/main/2"),
        ("canary", "a URL without a scheme"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert describe(url) == shown


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("canary", "not a Redis URL"),
        ("postgres://app:canary@localhost", "not a Redis URL"),
        ("redis://:can/ary@localhost/0", "percent-encode"),
        ("redis://localhost:port/0", "cannot be read"),
        ("redis+sentinel://:canary@localhost:26379", "names no primary"),
        ("redis+sentinel://localhost:26379/main/nine", "cannot be read"),
        ("redis+sentinel://,localhost/main", "lacks a host"),
        ("redis+cluster://:canary@localhost/3", "only database 0"),
    ],
)
def test_unusable_store_url_is_refused_before_connecting(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        RedisStore(url, clock=Clock(), begin=0)
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:1/0", "rediss://user:pw@localhost:1/0?ssl_cert_reqs=none", "unix:///nowhere/redis.sock?db=2",
        "redis+sentinel://user:pw@localhost:1,localhost:2/main/3?sentinel_password=x", "rediss+sentinel://localhost:1/main",
        "redis+cluster://user:pw@localhost:1,localhost:2", "rediss+cluster://localhost:1/0",
    ],
)  # fmt: skip
async def test_store_url_of_any_kind_is_tried_on_first_use(url: str) -> None:
    store = RedisStore(url, clock=Clock(), begin=0, timeout=1.0)
    with pytest.raises(Unavailable, match=r"cannot be reached|no node"):
        await store.open()
    await store.close()


async def test_credentials_reach_a_sentinels_primary_and_a_clusters_nodes() -> None:
    link = RedisClient("redis+sentinel://user:p%40ss@h:1/main/3", timeout=1.0, connections=4)
    options = link.client.connection_pool.connection_kwargs
    assert (options["username"], options["password"], options["db"]) == ("user", "p@ss", 3)
    await link.close()
    link = RedisClient("rediss+cluster://user:p%40ss@h:1", timeout=1.0, connections=4)
    options = link.client.connection_kwargs
    assert (options["username"], options["password"]) == ("user", "p@ss")
    await link.close()


async def test_a_unix_socket_is_as_good_as_a_port(tmp_path: Path) -> None:
    with RedisServer(options=("--unixsocket", str(tmp_path / "redis.sock"))):
        store = RedisStore(f"unix://{tmp_path}/redis.sock?db=3", clock=Clock(), begin=0)
        await store.open()
        assert await store.commit(None, Commit("city", events=events(1))) == 1
        await store.close()


@given(st.text(), st.text())
def test_different_names_have_different_places(first: str, two: str) -> None:
    assert (bucket_of(first) == bucket_of(two)) == (first == two)


@given(st.integers(0, 10**18 - 1))
def test_neighbouring_numbers_share_a_bucket_of_128(number: int) -> None:
    bucket, kept = bucket_of(str(number))
    assert int(bucket) * 128 + int(kept) == number
    assert int(kept) < 128


def test_leases_lie_in_the_slot_of_what_they_protect() -> None:
    keys = Keys("b")
    assert keys.lease("source/city").startswith(keys.source("city") + ":")
    assert keys.lease("relay/city").startswith(keys.source("city") + ":")
    assert len({keys.lease(name) for name in ("source/", "source", "sink/crm", "source/city", "relay/city")}) == 5


async def test_stores_of_different_prefixes_know_nothing_of_each_other(store: RedisStore, redis_url: str) -> None:
    await store.commit(None, Commit("city", events=events(1)))
    other = RedisStore(redis_url, prefix="other", clock=Clock(), begin=0)
    assert list(await other.sources()) == []
    await other.commit(None, Commit("town", events=events(1)))
    await other.close()
    assert list(await store.sources()) == ["city"]
    with redis.Redis.from_url(redis_url) as client:
        assert all(key.lstrip(b"{").startswith((b"bridge:", b"other:")) for key in client.scan_iter())


async def test_a_tracked_recipient_takes_less_than_twenty_bytes(store: RedisStore, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        for start in range(364_000, 384_000, 500):
            statuses = [change(str(number), None, "nsf") for number in range(start, start + 500)]
            await store.commit(None, Commit("city", statuses))
        kept = sum(
            client.memory_usage(key, samples=0) for key in client.scan_iter("{bridge:src:city}:[bi]:*", count=1000)
        )
        assert kept / 20_000 < 12
        assert client.object("encoding", "{bridge:src:city}:b:/messages/sms/1:2850") == b"listpack"


async def test_reading_writes_once_in_a_quarter_of_the_retention(redis_url: str) -> None:
    now = datetime.now(UTC)
    store = RedisStore(redis_url, clock=Clock(now=lambda: now))
    await store.commit(None, Commit("city", [change("1", None, "n"), change("900", None, "n")]))
    with redis.Redis.from_url(redis_url) as client:
        client.config_resetstat()
    for _ in range(20):
        assert await histories(store, "1", "900") == ["n", "n"]
    assert calls(redis_url, "evalsha") + calls(redis_url, "eval") <= 2
    before = calls(redis_url, "evalsha")
    now += timedelta(seconds=0.26 * MONTH_SECONDS)
    await histories(store, "1")
    assert calls(redis_url, "evalsha") == before + 1
    await store.close()


async def test_redis_store_remembers_a_bounded_number_of_scopes(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_ledger, "_SCOPES_REMEMBERED", 3)
    for number in range(20):
        await store.last_seen("city", [Key(f"scope-{number}", "1")], 60.0)
    assert len(store._memory.kept) <= 4


async def test_what_a_process_remembers_of_lost_answers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_ledger, "_MAX_UNCERTAIN_COMMITS", 3)
    with RedisServer() as server:
        store = RedisStore(server.url, clock=Clock(), begin=0)
        await store.commit(None, Commit("city", cursor={"a": "1"}))
    for number in range(20):
        with pytest.raises(Unavailable):
            await store.commit(None, Commit("city", events=events(number)))
    assert len(store._memory.uncertain_commits) <= 4
    await store.close()


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        ((), {"store.not_appendonly"}),
        (("--appendonly", "yes"), set()),
        (("--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"), {"store.may_evict"}),
        (("--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "noeviction"), set()),
    ],
    ids=["not durable", "durable", "evicting", "bounded"],
)
async def test_forgetful_server_is_reported_on_opening(options: tuple[str, ...], warnings: set[str]) -> None:
    with RedisServer(options=options) as server, structlog.testing.capture_logs() as logs:
        store = RedisStore(server.url, clock=Clock(), begin=0)
        await store.open()
        await store.close()
    assert {line["event"] for line in logs} == warnings
    assert all(line["store"] == server.url and line["consequence"] for line in logs)


async def test_user_without_info_permission_can_use_the_store(redis_url: str, redis_server: RedisServer) -> None:
    password = secrets.token_hex(8)
    with redis.Redis.from_url(redis_url) as client:
        client.acl_setuser("app", enabled=True, passwords=[f"+{password}"], keys=["*"], commands=["+@all", "-info"])
        try:
            with structlog.testing.capture_logs() as logs:
                store = RedisStore(f"redis://app:{password}@127.0.0.1:{redis_server.port}/0", clock=Clock(), begin=0)
                await store.open()
                await store.close()
        finally:
            client.acl_deluser("app")
    assert [line["event"] for line in logs] == ["store.info_denied"]
    assert password not in str(logs)


async def test_a_server_that_is_too_old_is_named(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def facts() -> dict[str, str]:
        return {"redis_version": "5.0.14"}

    monkeypatch.setattr(store._link, "server_info", facts)
    with pytest.raises(Unavailable, match=r"is Redis 5\.0\.14; the bridge needs 6\.2"):
        await store.open()


async def test_an_unknown_answer_is_told_by_its_first_word_only(store: RedisStore) -> None:
    with pytest.raises(Unavailable, match=r"answered with an error \(\w+\)"):
        await store._link.command("EVAL", "canary secret", 0)


async def test_redis_store_drops_foreign_events_after_a_month(redis_url: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    store = RedisStore(redis_url, clock=Clock(now=lambda: now))
    settled, waiting = await store.accept_foreign("crm", event(1)), await store.accept_foreign("crm", event(2))
    await store.accept("crm", [NewDelivery(settled), NewDelivery(waiting)], later())
    await store.settle("crm", [settled])
    now += timedelta(days=31)
    newest = await store.accept_foreign("crm", event(3))
    kept = await store.entries([settled, waiting, newest])
    assert [entry and entry.event for entry in kept] == [None, event(2), event(3)]
    assert await store.accept_foreign("crm", event(2)) == waiting
    await store.close()
