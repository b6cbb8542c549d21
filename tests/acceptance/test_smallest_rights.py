"""The smallest rights that the pages give: the whole job runs with exactly these, and not with one fewer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from harness import ask, bridge, until, write_config

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.kombu.redis_rights import needed as needed_of_broker
from bridge.adapters.redis.rights import needed as needed_of_store
from bridge.adapters.redis.store import RedisStore
from bridge.domain.clock import Clock
from bridge.domain.errors import MissingRight
from bridge.domain.event import JournalEntry, Position, WireEvent
from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fake_endpoint import FakeEndpoint, reply
from bridge.testing.free_port import free_port
from bridge.testing.servers import RabbitMQServer, RedisServer

pytestmark = pytest.mark.acceptance

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
PASSWORD = "c4n4ry"  # noqa: S105 - of a server that the test starts
QUEUE = "bridge.sink.crm"


def lines(page: str, start: str) -> list[str]:
    """Return the lines to copy that a page has."""
    return [line for line in (HOW_TO / page).read_text().splitlines() if line.startswith(start)]


USERS = {line.split()[1]: line.replace("PASSWORD", PASSWORD) for line in lines("set-up-redis.md", "user ")}
STORE, BROKER, BOTH = (USERS[name] for name in ("bridge-store", "bridge-broker", "bridge"))
(PERMISSIONS,) = lines("set-up-rabbitmq.md", "rabbitmqctl set_permissions")
PATTERNS = re.findall(r"'(\S+)'", PERMISSIONS)


def test_pages_give_no_right_that_the_code_does_not_need() -> None:
    of_transactions = {"MULTI", "DISCARD"}
    store, broker = needed_of_store() | of_transactions, needed_of_broker() | of_transactions | {"EXEC"}
    for line, needed in ((STORE, store), (BROKER, broker), (BOTH, store | broker)):
        given = {word[1:].replace("|", " ").upper() for word in line.split() if word.startswith("+")}
        assert given == needed


@contextmanager
def redis_with(folder: Path, *users: str) -> Iterator[RedisServer]:
    """Give a server whose ACL file has these lines."""
    acl = folder / "users.acl"
    acl.write_text("\n".join(["user default on nopass ~* &* +@all", *users, ""]))
    with RedisServer(options=("--aclfile", str(acl))) as server:
        yield server


def url_of(server: RedisServer, name: str) -> str:
    return server.url.replace("//", f"//{name}:{PASSWORD}@")


@contextmanager
def permitted(server: RabbitMQServer) -> Iterator[tuple[str, Callable[..., None]]]:
    """Give the URL of the page's user, and what changes its permissions."""

    def permit(*patterns: str) -> None:
        server.ctl("set_permissions", "-p", "/", "bridge", *patterns)

    server.ctl("add_user", "bridge", PASSWORD)
    try:
        permit(*PATTERNS)
        yield server.url.replace("guest:guest", f"bridge:{PASSWORD}"), permit
    finally:
        server.ctl("delete_user", "bridge")


def refusals(text: str) -> list[str]:
    """Return the lines that tell of a missing right, apart from the one that the pages leave to the operator."""
    lines = [line for line in text.splitlines() if re.search("NOPERM|ACCESS_REFUSED|lacks", line)]
    return [line for line in lines if "store.info_denied" not in line]


class Job:
    """One installation, from `check` to `reconcile`."""

    def __init__(self, folder: Path, config: Path, simulator: Simulator, receiver: FakeEndpoint) -> None:
        self.folder = folder
        self.config = config
        self.simulator = simulator
        self.receiver = receiver

    async def command(self, *arguments: str) -> str:
        done = await ask(self.folder, *arguments, "-c", self.config.name)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        assert refusals(done.stdout + done.stderr) == []
        return done.stdout

    async def serve(self) -> str:
        """Run until events were delivered and one is a dead letter; return a recipient that has two events."""
        message = self.simulator.world.add_message("voice", 2)
        first, second = message.recipients
        with bridge(self.folder, "run", "-c", str(self.config)) as process:
            await self.receiver.arrived(3)
            self.receiver.answer(reply(400))
            for path in (first, second):
                self.simulator.world.move(path, "sending")
            await self.receiver.arrived(5)
            await until(lambda: any(line["event"] == "delivery.dead_letter" for line in process.log), "a dead letter")
            assert process.stop() == 0
        assert refusals(process.err.read_text()) == []
        return second


async def with_job(folder: Path, store: str, broker: str, work: Callable[[Job], Awaitable[None]]) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as receiver:
        sink = {"type": "webhook", "allow_private": True, "topics": ["#"], "url": receiver.url}
        config = write_config(folder, simulator, store=store, broker=broker, sinks={"crm": sink})
        await work(Job(folder, config, simulator, receiver))


async def test_every_command_works_with_the_smallest_redis_acl(tmp_path: Path) -> None:
    with redis_with(tmp_path, BOTH) as server, redis.Redis(port=server.port) as admin:

        async def work(job: Job) -> None:
            await job.command("check")
            assert admin.keys("*") == [], "a check leaves nothing behind"
            recipient = await job.serve()
            assert len(json.loads(await job.command("trace", recipient, "--json"))) == 2
            (dead,) = json.loads(await job.command("deliveries", "list", "--json"))["deliveries"]
            await job.command("deliveries", "redrive", "crm", dead["id"])
            await job.command("replay", "crm", "--since", "1h")
            await job.command("run", "--once")
            assert json.loads(await job.command("deliveries", "list", "--json"))["deliveries"] == []
            await job.command("watch", "add", "city", "/messages/voice/1")
            await job.command("watch", "remove", "city", "/messages/voice/1")
            await job.command("backfill", "city", "--start", "1h")
            await job.command("reconcile", "city")
            await job.command("sources")

        url = url_of(server, "bridge")
        await with_job(tmp_path, url, url, work)


async def test_the_job_works_with_the_smallest_rabbitmq_permissions(
    tmp_path: Path, rabbitmq_server: RabbitMQServer, rabbitmq_url: str
) -> None:
    with redis_with(tmp_path, STORE) as server, permitted(rabbitmq_server) as (url, permit):
        assert rabbitmq_url

        async def work(job: Job) -> None:
            await job.command("check")
            assert "bridge." not in rabbitmq_server.ctl("list_exchanges", "name"), "a check leaves nothing behind"
            assert "bridge." not in rabbitmq_server.ctl("list_queues", "name")
            await job.serve()
            await job.command("replay", "crm", "--since", "1h")
            await job.command("run", "--once")
            permit(PATTERNS[0], PATTERNS[1], "")
            done = await ask(tmp_path, "check", "-c", job.config.name)
            assert done.returncode == 4
            assert re.search(
                r"^broker +lacks a right .*read on the queue bridge\.sink\.crm .*refused for user",
                done.stdout,
                re.MULTILINE,
            )
            assert PASSWORD not in done.stdout + done.stderr

        await with_job(tmp_path, url_of(server, "bridge-store"), url, work)


async def test_one_redis_right_fewer_is_named_by_the_check(tmp_path: Path) -> None:
    with redis_with(tmp_path, STORE, BROKER) as server, redis.Redis(port=server.port) as admin:
        for line in (STORE, BROKER):
            _, name, *words = line.split()
            for word in [word for word in words if word[0] in "+~"]:
                admin.execute_command("ACL", "SETUSER", name, "reset", *(other for other in words if other != word))
                with pytest.raises(MissingRight, match="NOPERM") as caught:
                    await check(server, name)
                shown = word[1:].replace("|", " ").upper() if word[0] == "+" else f"keys like {word[1:].rstrip('*')}"
                connecting = f"'{shown.lower()}' command"
                assert shown in str(caught.value) or connecting in str(caught.value)
                assert PASSWORD not in str(caught.value)
            admin.execute_command("ACL", "SETUSER", name, "reset", *words)
            await check(server, name)


async def test_redis_broker_works_with_its_smallest_acl(tmp_path: Path) -> None:
    with redis_with(tmp_path, BROKER) as server, redis.Redis(port=server.port) as admin:
        broker = KombuBroker(url_of(server, "bridge-broker"), exchange="bridge.events", clock=Clock())
        await broker.declare(QUEUE, ["#"])
        entry = JournalEntry(Position("city", 1), WireEvent("e1", "a.b", 1, b'{"id": "e1"}'))
        for _ in range(2):
            assert await broker.publish([entry]) == 0
            async with broker.inbox(QUEUE) as inbox:
                received = await inbox.get(10, 10.0)
                assert [message.event.id for message in received] == ["e1"]
                await inbox.ack(received)
        with pytest.raises(MissingRight, match="'set' command"):
            async with broker.tap(["#"]):
                pass
        admin.execute_command("ACL", "SETUSER", "bridge-broker", "+set")
        async with broker.tap(["#"]) as tap:
            await broker.publish([entry])
            assert [message.event.id for message in await tap.get(10, 10.0)] == ["e1"]
        assert await broker.depth(QUEUE) == 1
        await broker.close()


async def test_redis_cluster_needs_the_rights_of_the_page(tmp_path: Path) -> None:
    more = re.findall(r"With Redis Cluster, add `(.*)`", (HOW_TO / "set-up-redis.md").read_text())[0].split()
    options = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
    with RedisServer(options=options) as server, redis.Redis(port=server.port) as admin:
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await until(lambda: "cluster_state:ok" in str(admin.execute_command("CLUSTER", "INFO")), "the cluster is there")
        url = url_of(server, "bridge-store").replace("redis://", "redis+cluster://")
        rules = STORE.split()[2:]
        for without in more:
            admin.execute_command("ACL", "SETUSER", "bridge-store", "reset", *rules, *(set(more) - {without}))
            with pytest.raises(MissingRight, match=f"NOPERM .*'{re.escape(without[1:])}' command"):
                await check_store(url)
        admin.execute_command("ACL", "SETUSER", "bridge-store", "reset", *rules, *more)
        await check_store(url)
        assert admin.dbsize() == 0


async def test_sentinel_needs_the_rights_of_the_page(tmp_path: Path) -> None:
    with redis_with(tmp_path, STORE) as server:
        file, port = tmp_path / "sentinel.conf", free_port()
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {tmp_path}",
            f"sentinel monitor main 127.0.0.1 {server.port} 1",
        ]
        file.write_text("\n".join(["user default on nopass ~* &* +@all", USERS["bridge-sentinel"], *lines, ""]))
        own = f"sentinel_username=bridge-sentinel&sentinel_password={PASSWORD}"
        url = f"redis+sentinel://bridge-store:{PASSWORD}@127.0.0.1:{port}/main/0?{own}"
        with sentinel(file), redis.Redis(port=port) as admin:
            await until(lambda: answers(admin) and admin.sentinel_masters()["main"]["flags"] == "master", "it watches")
            await check_store(url)
            admin.execute_command("ACL", "SETUSER", "bridge-sentinel", "-sentinel|masters")
            with pytest.raises(MissingRight, match="NOPERM"):
                await check_store(url)


@contextmanager
def sentinel(file: Path) -> Iterator[None]:
    process = subprocess.Popen([str(shutil.which("redis-server")), str(file), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


async def check_store(url: str) -> None:
    store = RedisStore(url, clock=Clock())
    try:
        await store.check_rights(["city"], ["crm"])
    finally:
        await store.close()


async def check(server: RedisServer, name: str) -> None:
    if name == "bridge-store":
        await check_store(url_of(server, name))
        return
    broker = KombuBroker(url_of(server, name), exchange="bridge.events", clock=Clock())
    try:
        await broker.check_rights([QUEUE])
    finally:
        await broker.close()


RIGHTS = ("configure", "write", "read")


async def test_one_rabbitmq_right_fewer_is_named_by_the_check(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str
) -> None:
    assert rabbitmq_url
    only = {"exchange bridge.events": r"^bridge\.sink\..*$", f"queue {QUEUE}": r"^bridge\.events$"}
    with permitted(rabbitmq_server) as (url, permit):
        for made in (False, True):
            if made:
                owner = KombuBroker(rabbitmq_url, exchange="bridge.events", clock=Clock())
                await owner.declare(QUEUE, ["#"])
                await owner.close()
            for index, right in enumerate(RIGHTS):
                for place, rest in only.items():
                    if made and (right, place) == ("configure", "exchange bridge.events"):
                        continue  # its owner may keep the right to change it
                    permit(*PATTERNS[:index], rest, *PATTERNS[index + 1 :])
                    broker = KombuBroker(url, exchange="bridge.events", clock=Clock())
                    with pytest.raises(
                        MissingRight, match=f"lacks {right} on the {place} .*refused for user"
                    ) as caught:
                        await broker.check_rights([QUEUE])
                    assert str(caught.value).count("ACCESS_REFUSED") == 1
                    await broker.close()
