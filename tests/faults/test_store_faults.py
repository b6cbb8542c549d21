"""Stores whose servers are killed, full, paused or locked: what was answered is there, nothing is half there."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Self

import pytest
import redis

from bridge.adapters.redis.store import RedisStore
from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.domain.errors import AccessRefused, Conflict, Unavailable
from bridge.protocols.deliveries import Attempt, DeliveryCounts
from bridge.protocols.ledger import Commit, Key, Ledger
from bridge.protocols.store import Store
from bridge.testing.free_port import free_port
from bridge.testing.ledger_suite import change, event, events, held, histories
from bridge.testing.servers import RedisServer, wait_for
from bridge.testing.settlement_suite import arrivals, at, later

pytestmark = pytest.mark.faults


def page(number: int) -> Commit:
    """Give the commit that leads from `number - 1` to `number`: a status, an event and a cursor."""
    statuses = [
        change(str(number), None, f"t{number}"),
        change("last", str(number - 1) if number > 1 else None, str(number)),
    ]
    return Commit("city", statuses, events(number), {"page": str(number)})


async def assert_whole(ledger: Ledger, acknowledged: int) -> int:
    """Check that all that was acknowledged is there and nothing is half there; return how many pages there are."""
    committed = (await ledger.journal("city")).committed
    assert committed in {acknowledged, acknowledged + 1}, "a page that was acknowledged is gone"
    assert [entry.event for entry in await ledger.read("city", 0, 10**6)] == events(*range(1, committed + 1))
    assert await ledger.cursor("city") == ({"page": str(committed)} if committed else {})
    seen = await histories(ledger, "last", *(str(number) for number in range(1, committed + 2)))
    assert seen == [str(committed) if committed else None, *(f"t{number}" for number in range(1, committed + 1)), None]
    return committed


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Give a server that the test may harm."""
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture
async def store(own_redis: RedisServer) -> AsyncIterator[RedisStore]:
    made = RedisStore(own_redis.url, clock=Clock(), begin=0, timeout=2.0)
    await made.open()
    yield made
    await made.close()


class TestRedis:
    @pytest.mark.parametrize("after", [0.02, 0.11, 0.23])
    async def test_a_server_killed_during_commits_keeps_what_it_answered(
        self, own_redis: RedisServer, store: RedisStore, after: float
    ) -> None:
        acknowledged = 0

        async def poll() -> None:
            nonlocal acknowledged
            while True:
                await store.commit(None, page(acknowledged + 1))
                acknowledged += 1

        polling = asyncio.create_task(poll())
        await asyncio.wait([polling], timeout=after)
        await asyncio.to_thread(own_redis.kill)
        with pytest.raises(Unavailable, match="cannot be reached"):
            await polling
        await asyncio.to_thread(own_redis.start)
        committed = await assert_whole(store, acknowledged)
        assert await store.commit(None, page(committed + 1)) == committed + 1

    @pytest.mark.parametrize(
        "commit",
        [
            Commit("city", [change("1", "n", "nf"), change("2", None, "n")], events(2), {"page": "2", "old": None}),
            Commit("city", [change("1", "n", "nf")]),
            Commit("city", events=events(2)),
            Commit("city", cursor={"old": None, "page": "2"}),
        ],
        ids=["a page", "statuses", "events", "a cursor"],
    )
    async def test_a_server_out_of_memory_takes_all_or_nothing(self, store: RedisStore, commit: Commit) -> None:
        await store.commit(None, Commit("city", [change("1", None, "n")], events(1), {"old": "1"}))
        admin = store._link.client
        await admin.config_set("maxmemory", "1mb")
        before = (await store.journal("city"), await histories(store, "1", "2"), await store.cursor("city"))
        # A cursor entry's removal needs no memory: then the whole commit goes through, which is also whole.
        with contextlib.suppress(Unavailable):
            await store.commit(None, commit)
        whole = (await store.cursor("city")) == {"page": "2"} and not commit.events and not commit.statuses
        if not whole:
            assert (await store.journal("city"), await histories(store, "1", "2"), await store.cursor("city")) == before
            with pytest.raises(Unavailable, match="out of memory"):
                await store.commit(None, commit)
            with pytest.raises(Unavailable, match="out of memory"):
                await store.ping()
            await admin.config_set("maxmemory", "0")
            await store.commit(None, commit)

    async def test_a_server_out_of_memory_still_lets_deliveries_end(self, store: RedisStore) -> None:
        await store.accept("crm", arrivals(1, 2, 3), later())
        await store._link.client.config_set("maxmemory", "1mb")
        with pytest.raises(Unavailable, match="out of memory"):
            await store.accept("crm", arrivals(4), later())
        await store.settle("crm", at(1))
        assert await store.counts("crm") == {"city": DeliveryCounts(delivered=1, waiting=2)}

    async def test_full_store_is_emptied_also_by_a_new_bridge(self, own_redis: RedisServer, store: RedisStore) -> None:
        await store.commit(None, Commit("city", events=events(*range(1, 9))))
        await store.accept("crm", arrivals(1, 2), later())
        await store.enqueue("crm", arrivals(3, 4, 5, 6), 1.0)
        await store._link.client.config_set("maxmemory", "1mb")
        late = RedisStore(own_redis.url, clock=Clock(), begin=0, timeout=2.0)
        await late.open()
        assert len(await late.claim("crm", 2.0, later(), 9)) == 4
        await late.extend("crm", at(3, 4), later())
        await late.postpone("crm", at(3)[0], later(), Attempt(1.0, "busy"))
        await late.dead_letter("crm", at(4)[0], "permanent", Attempt(2.0, "no"))
        await late.redrive("crm", at(4), later())
        await late.discard("crm", at(5))
        await late.settle("crm", at(1, 2, 3, 4, 6))
        assert await late.counts("crm") == {"city": DeliveryCounts(delivered=5, discarded=1)}
        await late.confirm(await held(late, "relay/city"), "city", 8)
        await late.raise_low_watermark("crm", "city", 6)
        assert await late.trim("city", 7) == 6
        await late.forget("city", 7)
        assert await late.low_watermark("crm", "city") == 6
        await late.close()

    async def test_a_primary_that_became_a_replica_takes_no_writes(self, store: RedisStore) -> None:
        admin = store._link.client
        await admin.execute_command("REPLICAOF", "127.0.0.1", free_port())
        with pytest.raises(Unavailable, match="read-only replica"):
            await store.commit(None, page(1))
        with pytest.raises(Unavailable, match="read-only replica"):
            await store.accept("crm", arrivals(1), later())
        await admin.execute_command("REPLICAOF", "NO", "ONE")
        assert await store.commit(None, page(1)) == 1

    async def test_a_server_without_enough_replicas_takes_no_writes(self, store: RedisStore) -> None:
        admin = store._link.client
        await admin.config_set("min-replicas-to-write", "1")
        with pytest.raises(Unavailable, match="too few replicas"):
            await store.commit(None, page(1))
        await admin.config_set("min-replicas-to-write", "0")
        await assert_whole(store, 0)
        assert await store.commit(None, page(1)) == 1

    async def test_hanging_server_is_abandoned_in_time_and_found_again(
        self, own_redis: RedisServer, store: RedisStore
    ) -> None:
        own_redis.pause()
        started = time.monotonic()
        with pytest.raises(Unavailable, match=r"did not answer within 2 s"):
            await store.commit(None, page(1))
        assert time.monotonic() - started < 12
        own_redis.resume()
        # The server runs what it was sent while it hung: sent again, the page is known by its nonce.
        assert await store.commit(None, page(1)) == 1
        await assert_whole(store, 1)

    async def test_restarted_server_is_found_again(self, own_redis: RedisServer, store: RedisStore) -> None:
        await store.commit(None, page(1))
        await asyncio.to_thread(own_redis.stop)
        for call in (store.ping(), store.journal("city"), store.entries(at(1, 500)), store.counts("crm"), store.open()):
            with pytest.raises(Unavailable, match="cannot be reached"):
                await call
        await asyncio.to_thread(own_redis.start)
        assert await store.commit(None, page(2)) == 2

    async def test_a_server_that_forgot_its_scripts_learns_them_again(self, store: RedisStore) -> None:
        await store.commit(None, page(1))
        await store._link.client.script_flush()
        assert await store.commit(None, page(2)) == 2

    async def test_refused_credentials_are_named_without_the_password(self) -> None:
        with RedisServer() as server:
            with redis.Redis(port=server.port) as admin:
                admin.config_set("requirepass", "secret-canary")
            for url in (f"redis://:wrong-canary@127.0.0.1:{server.port}/0", server.url):
                store = RedisStore(url, clock=Clock(), begin=0)
                with pytest.raises(AccessRefused) as caught:
                    await store.open()
                assert "password" in str(caught.value)
                assert "canary" not in str(caught.value)
                await store.close()
            store = RedisStore(f"redis://:secret-canary@127.0.0.1:{server.port}/0", clock=Clock(), begin=0)
            await store.open()
            await store.close()

    async def test_another_program_under_our_keys_is_named(self, store: RedisStore) -> None:
        await store._link.command("SET", "{bridge:src:city}:s", "somebody else's")
        with pytest.raises(Unavailable, match="another program"):
            await store.journal("city")


class Cutter:
    """A proxy that hands requests on and cuts the connection instead of giving an answer, when it is told to."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.cuts = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        forward = asyncio.create_task(self.forward(reader, back))
        try:
            while answer := await there.read(65536):
                if self.cuts and not answer.startswith((b"-NOSCRIPT", b"+")):
                    self.cuts -= 1
                    break
                writer.write(answer)
                await writer.drain()
        finally:
            forward.cancel()
            await asyncio.gather(forward, return_exceptions=True)
            for end in (writer, back):
                end.close()

    async def forward(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        while request := await reader.read(65536):
            back.write(request)
            await back.drain()


class TestLostAnswers:
    """The server has written, and the answer never came."""

    @pytest.fixture
    async def cutter(self, redis_server: RedisServer, redis_url: str) -> AsyncIterator[Cutter]:
        async with Cutter(redis_server.port) as cutter:
            yield cutter

    @pytest.fixture
    async def store(self, cutter: Cutter) -> AsyncIterator[RedisStore]:
        made = RedisStore(f"redis://127.0.0.1:{cutter.port}/0", clock=Clock(), begin=0, timeout=2.0)
        await made.commit(None, Commit("city", cursor={"a": "1"}))
        yield made
        await made.close()

    @pytest.mark.parametrize("commit", [page(1), Commit("city", events=events(1))], ids=["a page", "a pure event"])
    async def test_a_commit_whose_answer_was_lost_is_written_once(
        self, store: RedisStore, cutter: Cutter, commit: Commit
    ) -> None:
        cutter.cuts = 1
        assert await store.commit(None, commit) == 1
        assert cutter.cuts == 0
        assert len(await store.read("city", 0, 9)) == 1

    @pytest.mark.parametrize("commit", [page(1), Commit("city", events=events(1))], ids=["a page", "a pure event"])
    async def test_a_commit_that_the_caller_repeats_is_written_once(
        self, store: RedisStore, cutter: Cutter, commit: Commit
    ) -> None:
        cutter.cuts = 2
        with pytest.raises(Unavailable, match="cannot be reached"):
            await store.commit(None, commit)
        assert await store.commit(None, commit) == 1
        assert len(await store.read("city", 0, 9)) == 1
        # Only a repetition is one: the same events committed on purpose are written.
        assert await store.commit(None, Commit("city", events=events(1))) == 2

    async def test_commit_arriving_after_its_retry_is_written_once(self, store: RedisStore) -> None:
        commit, sent = Commit("city", events=events(1)), []
        run = store._link.run

        async def keep_back(*words: object) -> object:
            sent.append(words)
            if len(sent) == 1:
                raise Unavailable("the answer does not come")
            return await run(*words)

        store._link.run = keep_back
        assert await store.commit(None, commit) == 1
        assert await run(*sent[0]) == 1
        assert len(await store.read("city", 0, 9)) == 1

    async def test_a_caller_that_reads_again_finds_what_was_written(self, store: RedisStore, cutter: Cutter) -> None:
        cutter.cuts = 2
        with pytest.raises(Unavailable):
            await store.commit(None, page(1))
        assert await histories(store, "1") == ["t1"]
        with pytest.raises(Conflict):
            await store.commit(None, Commit("city", [change("1", None, "other")], events(2)))

    async def test_settlement_with_lost_answer_may_be_repeated(self, store: RedisStore, cutter: Cutter) -> None:
        await store.accept("crm", arrivals(1), later())
        cutter.cuts = 1
        with pytest.raises(Unavailable):
            await store.settle("crm", at(1))
        await store.settle("crm", at(1))
        assert await store.counts("crm") == {"city": DeliveryCounts(delivered=1)}

    async def test_no_command_is_sent_twice_behind_our_back(self, store: RedisStore, cutter: Cutter) -> None:
        await store.enqueue("crm", arrivals(1, 2, 3, 4), 1.0)
        cutter.cuts = 1
        with pytest.raises(Unavailable):
            await store.claim("crm", 2.0, later(), 1)
        assert len(await store.claim("crm", 2.0, later(), 9)) == 3


class TestClusterAndSentinel:
    async def exercise(self, store: Store) -> None:
        """Use every sort of key."""
        await store.open()
        for source in ("city", "town", "drops"):
            lease = await held(store, f"source/{source}")
            assert await store.commit(lease, Commit(source, [change("1", None, "n")], events(1, 2), {"a": "1"})) == 2
            await store.confirm(await held(store, f"relay/{source}"), source, 2)
        assert list(await store.sources()) == ["city", "drops", "town"]
        wanted = [*at(1), *at(2, source="town"), *at(2, source="drops")]
        assert [entry and entry.event for entry in await store.entries(wanted)] == events(1, 2, 2)
        keys = [Key("/messages/sms/1", name) for name in ("1", "4000", "x", "y")]
        assert await store.last_seen("city", keys, 60.0) == ["n", None, None, None]
        for sink in ("crm", "ops"):
            assert list(await store.accept(sink, arrivals(1, 2, partition="a"), later())) == at(1)
            assert await store.settle(sink, at(1)) == 1
            accepted = await store.accept_foreign(sink, event(9))
            assert [entry and entry.event for entry in await store.entries([accepted, *at(1)])] == events(9, 1)
            assert [delivery.position.seq for delivery in await store.deliveries(sink)] == [2]
        await store.set_status("source/city", {"a": "b"})
        assert await store.statuses("source/") == {"source/city": {"a": "b"}}
        await store.forget("city", 2)
        assert await store.trim("city", 2) == 1

    async def test_cluster_keeps_each_source_and_sink_on_one_node(self) -> None:
        with contextlib.ExitStack() as stack:
            nodes = [
                stack.enter_context(
                    RedisServer(options=("--cluster-enabled", "yes", "--cluster-port", str(free_port())))
                )
                for _ in range(3)
            ]
            clients = [stack.enter_context(redis.Redis(port=node.port, decode_responses=True)) for node in nodes]
            for number, client in enumerate(clients):
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * 5462, min(number * 5462 + 5461, 16383))
                for other in nodes:
                    bus = str(other.options[-1])
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
            wait_for(lambda: all(client.cluster("INFO")["cluster_state"] == "ok" for client in clients), "the cluster")
            wait_for(lambda: all(len(client.cluster("NODES")) == 3 for client in clients), "all nodes")
            store = RedisStore(
                f"redis+cluster://127.0.0.1:{nodes[0].port},127.0.0.1:{nodes[1].port}", clock=Clock(), begin=0
            )
            try:
                await self.exercise(store)
                assert sum(client.dbsize() > 0 for client in clients) == 3
            finally:
                await store.close()

    async def test_a_sentinels_new_primary_is_found(self, tmp_path: Path) -> None:
        with RedisServer() as primary, RedisServer(options=("--replicaof", "127.0.0.1", str(primary.port))) as replica:
            port = free_port()
            config = tmp_path / "sentinel.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {primary.port} 1\n"
                "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
            )
            sentinel = spawn("redis-server", config, "--sentinel")
            try:
                store = RedisStore(f"redis+sentinel://127.0.0.1:{port}/main/0", clock=Clock(), begin=0, timeout=1.0)
                with redis.Redis(port=port, decode_responses=True) as watcher:
                    wait_for(lambda: self.sees_replica(watcher), "the sentinel")
                    await self.exercise(store)
                    with redis.Redis(port=primary.port) as client:
                        client.wait(1, 5000)
                    await asyncio.to_thread(primary.kill)
                    deadline = time.monotonic() + 30
                    while True:
                        assert time.monotonic() < deadline, "no new primary"
                        try:
                            assert await store.commit(None, Commit("city", events=events(3))) == 3
                            break
                        except Unavailable:
                            await asyncio.sleep(0.1)
                with redis.Redis(port=replica.port) as client:
                    assert client.exists("{bridge:src:city}:j")
                await store.close()
            finally:
                sentinel.kill()
                sentinel.communicate()

    def sees_replica(self, watcher: redis.Redis) -> bool:
        try:
            replicas = watcher.sentinel_slaves("main")
        except redis.RedisError:
            return False
        return any(replica["master-link-status"] == "ok" for replica in replicas)


HOLDER = textwrap.dedent("""
    import sqlite3, sys
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    print("held", flush=True)
    sys.stdin.read()
""")

COMMITTER = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from bridge.adapters.sqlite.store import SqliteStore
    from bridge.domain.clock import Clock
    from bridge.protocols.ledger import Commit
    from bridge.testing.ledger_suite import change, events

    async def main():
        store = SqliteStore(Path(sys.argv[1]), clock=Clock(), begin=0)
        number = 0
        while True:
            number += 1
            before = str(number - 1) if number > 1 else None
            statuses = [change(str(number), None, f"t{number}"), change("last", before, str(number))]
            await store.commit(None, Commit("city", statuses, events(number), {"page": str(number)}))
            print(number, flush=True)

    asyncio.run(main())
""")


def spawn(*command: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(start)
        file.write(content)


class TestSqlite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "bridge.db"

    @pytest.fixture
    async def store(self, path: Path) -> AsyncIterator[SqliteStore]:
        made = SqliteStore(path, clock=Clock(), begin=0, busy_timeout=0.2)
        await made.open()
        yield made
        await made.close()

    async def test_locked_file_is_readable_and_written_later(self, store: SqliteStore, path: Path) -> None:
        await store.commit(None, page(1))
        await assert_whole(store, 1)
        with spawn(sys.executable, "-c", HOLDER, path) as holder:
            assert holder.stdout is not None
            assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
            with pytest.raises(Unavailable, match="locked by another process") as caught:
                await store.commit(None, page(2))
            assert str(path) in str(caught.value)
            await assert_whole(store, 1)
            holder.kill()
        assert await store.commit(None, page(2)) == 2

    async def test_a_full_disk_takes_all_or_nothing(self, store: SqliteStore) -> None:
        await store.commit(None, page(1))
        pages = await store._file.writer.do(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        await store._file.writer.do(lambda db: db.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone())
        big = Commit("city", [change("2", None, "n")], [event(2, body=bytes(100_000))], {"page": "9"})
        done = await asyncio.gather(store.commit(None, big), store.ping(), return_exceptions=True)
        assert isinstance(done[0], Unavailable)
        assert "is full" in str(done[0])
        await assert_whole(store, 1)
        assert await store.commit(None, page(2)) == 2

    async def test_a_file_that_may_not_be_written_says_so(self, path: Path) -> None:
        # Byte 18 is the version of the format for writing: one that this SQLite does not know makes the file read-only.
        with contextlib.closing(sqlite3.connect(path)) as made:
            made.execute("CREATE TABLE x (y)")
        overwrite(path, 18, b"\x09")
        store = SqliteStore(path, clock=Clock(), begin=0)
        with pytest.raises(Unavailable, match=r"bridge\.db cannot be written to"):
            await store.open()
        await store.close()

    async def test_a_folder_that_cannot_be_made_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        store = SqliteStore(tmp_path / "file" / "bridge.db", clock=Clock(), begin=0)
        with pytest.raises(Unavailable, match="cannot be opened"):
            await store.open()
        with pytest.raises(Unavailable, match="cannot be opened"):
            await store.counts("crm")
        await store.close()

    async def test_file_that_is_no_database_is_named_and_kept(self, path: Path) -> None:
        minutes = b"minutes of the meeting\n" * 100
        overwrite(path, 0, minutes)
        store = SqliteStore(path, clock=Clock(), begin=0)
        with pytest.raises(Unavailable, match="is not a SQLite database"):
            await store.open()
        await store.close()
        assert await asyncio.to_thread(path.read_bytes) == minutes

    async def test_a_damaged_file_says_so(self, path: Path) -> None:
        store = SqliteStore(path, clock=Clock(), begin=0)
        await store.commit(None, Commit("city", events=[event(n, body=bytes(3000)) for n in range(60)]))
        await store.close()
        overwrite(path, 8192, b"\x55" * 100_000)
        again = SqliteStore(path, clock=Clock(), begin=0)
        with pytest.raises(Unavailable, match="is damaged"):
            await again.read("city", 0, 99)
        await again.close()

    async def test_a_process_killed_during_commits_keeps_what_it_told(self, path: Path) -> None:
        with spawn(sys.executable, "-c", COMMITTER, path) as child:
            assert child.stdout is not None
            for _ in range(40):
                assert await asyncio.to_thread(child.stdout.readline)
            child.kill()
            last_reported = 40 + len(child.stdout.read().splitlines())
        store = SqliteStore(path, clock=Clock(), begin=0)
        try:
            committed = await assert_whole(store, last_reported)
            assert await store.commit(None, page(committed + 1)) == committed + 1
        finally:
            await store.close()
