"""Pushes to real processes: found within a second or so, by whichever replica, and kept through a `kill -9`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from harness import Consumer, bridge, consuming_tail, until, write_config

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.free_port import free_port

SECRET = "canary-push-secret"
QUIET = SimulatorSettings.still()


def configure(folder: Path, simulator: Simulator, name: str, port: int, **push: Any) -> Path:
    """Write a configuration that polls once an hour, so that only pushes lead to anything."""
    hooks = {"listen": f"127.0.0.1:{port}", "url": "https://hooks.example.com"}
    log = {"format": "json"}
    config = write_config(folder, simulator, name=name, interval="1h", hooks=hooks, log=log, lease="2s")
    values = yaml.safe_load(config.read_text())
    values["sources"] = {"city": {**values["sources"]["city"], "push": {"secret": [SECRET, "next"], **push}}}
    config.write_text(yaml.safe_dump(values))
    return config


async def push(port: int, path: str, simulator: Simulator, secret: str = SECRET) -> int:
    address = f"{simulator.urls['govdelivery']}{path}"
    form = {"recipient_url": address, "message_url": address.partition("/recipients")[0], "status": "canceled"}
    url = f"http://127.0.0.1:{port}/city/{secret}"
    async with aiohttp.ClientSession() as session, session.post(url, data=form) as answer:
        return answer.status


async def listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def statuses(consumer: Consumer, subject: str) -> list[str]:
    return [status for status, _, _ in consumer.histories.get(subject, [])]


@pytest.mark.acceptance
async def test_push_to_any_replica_survives_a_kill(tmp_path: Path) -> None:
    async with Simulator(QUIET) as simulator:
        message = simulator.world.add_message("sms", 3)
        first, second, third = message.recipients
        ports = free_port(), free_port()
        configs = [configure(tmp_path, simulator, f"{port}.yaml", port) for port in ports]
        async with consuming_tail(tmp_path, configs[0]) as consumer:
            with bridge(tmp_path, "run", "-c", str(configs[0]), name="one") as first_process:
                await until(lambda: len(consumer.events) == 4, "the first poll")
                with bridge(tmp_path, "run", "-c", str(configs[1]), name="two") as two:
                    await until(lambda: listening(ports[1]), "the second process listens")

                    began = time.monotonic()
                    simulator.world.move(first, "sent")
                    assert await push(ports[0], first, simulator) == 200
                    await until(lambda: statuses(consumer, first)[-1:] == ["sent"], "the first push")
                    took = time.monotonic() - began

                    # The other process polls nothing; what it is pushed, the first one looks at.
                    simulator.world.move(second, "sent")
                    assert await push(ports[1], second, simulator, "next") == 200
                    await until(lambda: statuses(consumer, second)[-1:] == ["sent"], "the push to the other process")

                    # Forged and repeated pushes lead to a look, and to nothing else.
                    asked = len(simulator.traffic["govdelivery"].times)
                    assert await push(ports[0], third, simulator, "wrong") == 404
                    assert [await push(ports[0], third, simulator) for _ in range(20)] == [200] * 20
                    await asyncio.to_thread(first_process.kill)
                    simulator.world.move(third, "failed")
                    assert await push(ports[1], third, simulator) == 200
                    await asyncio.to_thread(two.kill)
                with bridge(tmp_path, "run", "-c", str(configs[1]), name="three") as three:
                    await until(lambda: statuses(consumer, third)[-1:] == ["failed"], "the push before the kill")
                    assert await asyncio.to_thread(three.stop) == 0
        assert took < 30
        assert len(consumer.events) == len(set(consumer.ids)) == 7
        assert len(simulator.traffic["govdelivery"].times) - asked <= 40
        pushed = ["pushed" in event["data"]["observed"] for event in consumer.events]
        assert pushed == [False] * 4 + [True] * 3
        logs = "".join(process.err.read_text() for process in (first_process, two, three))
        assert SECRET not in logs
        assert "push.listens" in logs
