"""A right that the store takes away while the process runs: `/readyz` says what stands still, and all goes on later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis
import yaml
from harness import until

from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.runtime.assembly import Assembly
from bridge.runtime.parts import build
from bridge.runtime.service import Service
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.testing.fake_endpoint import FakeEndpoint
from bridge.testing.servers import RabbitMQServer, RedisServer

pytestmark = pytest.mark.faults

SAID_WITHIN_SECONDS = 15


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Service]:
    clock = Clock()
    service, stop = Service(build(Assembly(load(path), clock)), clock), asyncio.Event()
    task = asyncio.ensure_future(service.run(stop, listen=("127.0.0.1", 0)))
    try:
        await until(lambda: service.health.server.port, "the health pages are there")
        yield service
    finally:
        stop.set()
        await asyncio.wait_for(task, 60)


async def readyz(service: Service) -> tuple[int, dict[str, str]]:
    url = f"http://127.0.0.1:{service.health.server.port}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, (await answer.json()).get("problems", {})


def write_site(folder: Path, simulator: Simulator, receiver: FakeEndpoint, **servers: str) -> Path:
    """Write a configuration that polls a simulator and sends everything to a receiver."""
    polled: dict[str, Any] = sources(simulator.urls, simulator.settings, interval="200ms")
    webhook = {"type": "webhook", "topics": ["#"], "url": receiver.url, "allow_private": True}
    config = {
        "state": str(folder), **servers, "sources": polled, "sinks": {"crm": webhook},
        "lease": "3s", "drain_timeout": "5s",
    }  # fmt: skip
    path = folder / "bridge.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


REFUSED = {"scripts": "-eval -evalsha", "keys": "resetkeys ~nothing", "writes": "-@write"}


@pytest.mark.parametrize("rule", REFUSED.values(), ids=REFUSED)
async def test_readyz_says_which_right_is_missing(rule: str, tmp_path: Path) -> None:
    with RedisServer() as server, redis.Redis(port=server.port) as admin:
        admin.execute_command("ACL", "SETUSER", "bridge", "on", ">pass", "~*", "&*", "+@all")
        url = f"redis://bridge:pass@127.0.0.1:{server.port}/0"
        async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as receiver:
            path = write_site(tmp_path, simulator, receiver, store=url)
            async with running(path) as service:
                first = simulator.world.add_drop()
                await until(lambda: arrived(receiver, first.path), "work goes on")
                admin.execute_command("ACL", "SETUSER", "bridge", *rule.split())
                second = simulator.world.add_drop()

                async def is_said() -> bool:
                    status, problems = await readyz(service)
                    # The ping of the store alone would not tell: what cannot work has to speak up.
                    return status == 503 and bool(problems.keys() - {"store", "broker"})

                await until(is_said, "the missing right is said", within=SAID_WITHIN_SECONDS)
                admin.execute_command("ACL", "SETUSER", "bridge", "~*", "+@all")
                await until(lambda: arrived(receiver, second.path), "work goes on")

                async def is_ready() -> bool:
                    return (await readyz(service))[0] == 200

                await until(is_ready, "it is ready again")


REDIS_BROKER = {"queues": "-lpush", "claims": "-eval -evalsha", "keys": "resetkeys ~nothing"}


@pytest.mark.parametrize("rule", REDIS_BROKER.values(), ids=REDIS_BROKER)
async def test_readyz_names_the_right_that_redis_broker_lacks(rule: str, tmp_path: Path) -> None:
    with RedisServer() as server, redis.Redis(port=server.port) as admin:
        admin.execute_command("ACL", "SETUSER", "bridge", "on", ">pass", "~*", "&*", "+@all")
        url = f"redis://bridge:pass@127.0.0.1:{server.port}/0"

        def take() -> None:
            admin.execute_command("ACL", "SETUSER", "bridge", *rule.split())

        def give() -> None:
            admin.execute_command("ACL", "SETUSER", "bridge", "~*", "+@all")

        await take_and_give(url, take, give, "NOPERM", tmp_path)


PERMISSIONS = {"configure": ("", ".*", ".*"), "write": (".*", "", ".*"), "read": (".*", ".*", "")}


@pytest.mark.parametrize("permissions", PERMISSIONS.values(), ids=PERMISSIONS)
async def test_readyz_names_the_right_that_rabbitmq_user_lacks(
    permissions: tuple[str, ...], tmp_path: Path, rabbitmq_server: RabbitMQServer, rabbitmq_url: str
) -> None:
    def permit(*patterns: str) -> None:
        rabbitmq_server.ctl("set_permissions", "-p", "/", "bridge", *patterns)
        # What an open channel was allowed once, RabbitMQ does not ask again.
        rabbitmq_server.ctl("close_all_connections", "permissions have changed")

    rabbitmq_server.ctl("add_user", "bridge", "pass")
    try:
        permit(".*", ".*", ".*")
        url = rabbitmq_url.replace("guest:guest", "bridge:pass")
        await take_and_give(
            url, lambda: permit(*permissions), lambda: permit(".*", ".*", ".*"), "refused for user", tmp_path
        )
    finally:
        rabbitmq_server.ctl("delete_user", "bridge")


async def take_and_give(
    broker: str, take: Callable[[], None], give: Callable[[], None], words: str, folder: Path
) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as receiver:
        path = write_site(folder, simulator, receiver, broker=broker)
        async with running(path) as service:
            first = simulator.world.add_drop()
            await until(lambda: arrived(receiver, first.path), "work goes on")
            await asyncio.to_thread(take)
            second = simulator.world.add_drop()

            async def is_said() -> bool:
                status, problems = await readyz(service)
                assert "pass" not in str(problems).replace("password", "")
                return status == 503 and any(words in problem for problem in problems.values())

            await until(is_said, "the missing right is said", within=SAID_WITHIN_SECONDS)
            await asyncio.to_thread(give)
            await until(lambda: arrived(receiver, second.path), "work goes on")


def arrived(receiver: FakeEndpoint, path: str) -> bool:
    return path in {json.loads(request.body)["subject"] for request in receiver.requests}
