"""One event over the broker's largest message, on real processes: set aside, seen everywhere, redriven once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from harness import ask, bridge, until, write_config

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fake_endpoint import FakeEndpoint
from bridge.testing.free_port import free_port
from bridge.testing.servers import RabbitMQServer

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

LIMIT_BYTES = 65_536
RECIPIENTS = 52


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQServer]:
    server = RabbitMQServer()
    server.config.write_text(f"{server.config.read_text()}max_message_size = {LIMIT_BYTES}\n")
    with server:
        yield server


async def text_of(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


def subjects(receiver: FakeEndpoint) -> Counter[str]:
    return Counter(json.loads(request.body)["subject"] for request in receiver.requests)


async def command(folder: Path, config: Path, *arguments: str, code: int = 0) -> str:
    done = await ask(folder, *arguments, "-c", str(config))
    assert (done.returncode, done.stderr) == (code, "")
    return done.stdout


@pytest.mark.parametrize("kill", [False, True])
async def test_one_large_event_is_set_aside_and_redriven(
    tmp_path: Path, rabbitmq: RabbitMQServer, *, kill: bool
) -> None:
    port = free_port()
    async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as receiver:
        sink = {"type": "webhook", "topics": ["*.recipient.failed.#"], "url": receiver.url, "allow_private": True}
        values: dict[str, Any] = {
            "sinks": {"crm": sink}, "broker": rabbitmq.url, "http": {"listen": f"127.0.0.1:{port}"},
            "exchange": f"bridge.{kill}",
        }  # fmt: skip
        config = write_config(tmp_path, simulator, **values)
        world = simulator.world
        message = world.add_message("sms", RECIPIENTS, status="sending", recipient_status="sending")
        large, others = message.recipients[2], [path for path in message.recipients if path != message.recipients[2]]
        with bridge(tmp_path, "run", "-c", str(config)) as process:
            await until(lambda: not simulator.unseen(), "all recipients are followed")
            for path in message.recipients:
                world.move(path, "failed", error="x" * 70_000 if path == large else "busy")
            await until(lambda: set(others) <= set(subjects(receiver)), "all others are delivered")
            (line,) = [line for line in process.log if line["event"] == "relay.set_aside"]
            assert "RabbitMQ accepts 65,536" in line["reason"]
            if kill:
                process.kill()
            else:
                assert await asyncio.to_thread(process.stop) == 0
        assert large not in subjects(receiver)
        with bridge(tmp_path, "run", "-c", str(config), name="second") as process:
            world.move(world.add_message("sms", 1, status="sending").recipients[0], "failed")
            await until(lambda: len(subjects(receiver)) == RECIPIENTS, "events go on after a restart")
            (letter,) = json.loads(await command(tmp_path, config, "deliveries", "list", "--json"))["deliveries"]
            assert (letter["sink"], letter["subject"], letter["state"]) == ("@relay", large, "dead")
            assert (letter["reason"], letter["attempts"][0]["error"]) == ("refused", line["reason"])
            assert "a dead letter of the relay" in await command(tmp_path, config, "trace", large)
            report = json.loads(await command(tmp_path, config, "reconcile", "city", "--json"))
            assert report["balanced"]
            assert report["sinks"]["@relay"]["dead"] == 1
            await until(lambda: _shows_dead(port), "the metrics show it")
            rabbitmq.ctl("eval", "application:set_env(rabbit, max_message_size, 1000000).")
            rabbitmq.ctl("eval", "persistent_term:put(max_message_size, 1000000).")
            rabbitmq.ctl("close_all_connections", "a new limit")
            assert "1 due again" in await command(tmp_path, config, "deliveries", "redrive", "@relay", "--dead")
            await until(lambda: large in subjects(receiver), "it arrives once the limit is raised")
            assert json.loads(await command(tmp_path, config, "deliveries", "list", "--json"))["deliveries"] == []
            assert await asyncio.to_thread(process.stop) == 0
        assert max(subjects(receiver).values()) == 1
        rabbitmq.ctl("eval", f"application:set_env(rabbit, max_message_size, {LIMIT_BYTES}).")
        rabbitmq.ctl("eval", f"persistent_term:put(max_message_size, {LIMIT_BYTES}).")
        rabbitmq.wipe()


async def _shows_dead(port: int) -> bool:
    text = await text_of(f"http://127.0.0.1:{port}/metrics")
    return any("@relay" in line and "dead" in line and line.endswith(" 1.0") for line in text.splitlines())
