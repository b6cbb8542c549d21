"""Two installations on the same servers: apart with a namespace, and without one refused before anything is mixed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from harness import ask, bridge, write_config

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fake_endpoint import FakeEndpoint

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


@pytest.fixture(params=["redis", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest, redis_url: str) -> str:
    return redis_url if request.param == "redis" else str(request.getfixturevalue("rabbitmq_url"))


class Installation:
    """One simulated world, one configuration and one receiver."""

    def __init__(self, folder: Path, simulator: Simulator, receiver: FakeEndpoint, **config: Any) -> None:
        self.folder = folder
        self.world = simulator.world
        self.receiver = receiver
        self.expected: set[str] = set()
        sink = {"type": "webhook", "topics": ["voicemail.#"], "url": receiver.url, "allow_private": True}
        folder.mkdir()
        self.config = write_config(folder, simulator, sinks={"crm": sink}, **config)

    async def __call__(self, *arguments: str) -> Any:
        return await ask(self.folder, *arguments, "-c", str(self.config))

    def add(self, count: int = 3) -> None:
        self.expected |= {self.world.add_drop().path for _ in range(count)}

    @property
    def received(self) -> Sequence[str]:
        return [json.loads(request.body)["subject"] for request in self.receiver.requests]


async def test_two_namespaces_share_servers_and_mix_nothing(tmp_path: Path, redis_url: str, broker_url: str) -> None:
    """Sources and sinks are called the same, and staging's events never reach production's receiver."""
    worlds = [Simulator(SimulatorSettings.still(seed=seed)) for seed in (3, 4)]
    async with worlds[0], worlds[1], FakeEndpoint() as production_crm, FakeEndpoint() as staging_crm:
        servers = {"store": redis_url, "broker": broker_url}
        production = Installation(tmp_path / "production", worlds[0], production_crm, **servers)
        staging = Installation(tmp_path / "staging", worlds[1], staging_crm, namespace="staging", **servers)
        with bridge(production.folder, "run", "-c", str(production.config)) as service:
            for _ in range(2):
                staging.add()
                production.add()
                assert (await staging("run", "--once")).returncode == 0
            async with asyncio.timeout(60):
                while set(production.received) != production.expected:
                    await asyncio.sleep(0.05)
            assert await asyncio.to_thread(service.stop) == 0
    assert sorted(production.received) == sorted(production.expected)
    assert sorted(staging.received) == sorted(staging.expected)


async def test_equal_names_on_one_broker_are_refused_until_a_takeover(
    tmp_path: Path, redis_url: str, broker_url: str
) -> None:
    worlds = [Simulator(SimulatorSettings.still(seed=seed)) for seed in (3, 4)]
    async with worlds[0], worlds[1], FakeEndpoint() as production_crm, FakeEndpoint() as staging_crm:
        production = Installation(tmp_path / "production", worlds[0], production_crm, broker=broker_url)
        staging = Installation(tmp_path / "staging", worlds[1], staging_crm, broker=broker_url)
        production.add()
        staging.add()
        for unmarked in (production, staging):
            assert (await unmarked("check")).returncode == 0, "check leaves no mark"
        assert (await production("run", "--once")).returncode == 0
        for arguments in (("run",), ("run", "--once"), ("check",)):
            refused = await staging(*arguments)
            said = refused.stdout + refused.stderr
            assert refused.returncode == 3
            assert "belongs to another installation" in said
            assert "`namespace`" in said
            assert "takeover`" in said
        assert staging.received == []
        asked = await staging("takeover")
        assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
        accepted = await staging("takeover", "--yes")
        assert (accepted.returncode, "taken over: installation " in accepted.stdout) == (0, True)
        assert (await production("check")).returncode == 3
        assert (await staging("run", "--once")).returncode == 0
        assert "nothing to take over" in (await staging("takeover")).stdout
    assert sorted(staging.received) == sorted(staging.expected)
    assert sorted(production.received) == sorted(production.expected)


async def test_servers_of_before_there_were_marks_are_used_on(tmp_path: Path, redis_url: str) -> None:
    """The first start of this version on the store and broker of an earlier one says nothing and repeats nothing."""
    async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as crm:
        servers = {"store": redis_url, "broker": redis_url}
        installation = Installation(tmp_path / "production", simulator, crm, **servers)
        installation.add()
        assert (await installation("run", "--once")).returncode == 0
        with redis.Redis.from_url(redis_url) as client:
            assert client.delete("bridge:installation", "bridge.installation") == 2
            assert client.hdel("bridge:notes", '["installation", "broker"]') == 1
        installation.add()
        done = await installation("run", "--once")
        assert (done.returncode, "installation" in done.stderr) == (0, False)
        assert (await installation("check")).returncode == 0
    assert sorted(installation.received) == sorted(installation.expected)


async def test_a_broker_at_another_place_is_used_and_said(tmp_path: Path, redis_url: str) -> None:
    """An ordinary move of the broker stops no service; only another installation's broker does."""
    async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as crm:
        former, following = (
            Installation(tmp_path / name, simulator, crm, store=redis_url, broker=f"{redis_url[:-1]}{number}")
            for number, name in ((1, "one"), (2, "two"))
        )
        former.add()
        assert (await former("run", "--once")).returncode == 0
        following.add()
        moved = await following("run", "--once")
        assert (moved.returncode, moved.stderr.count("broker.moved")) == (0, 1)
        assert (await following("check")).returncode == 0
    assert sorted(following.received) == sorted(former.expected | following.expected)
