"""Slack's words on real processes: an unknown one is tried again and named, one about the channel stops the sink."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from harness import ask, bridge, until, write_config

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fake_endpoint import FakeEndpoint, reply

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


async def deliveries(folder: Path, config: Path, *arguments: str) -> list[dict[str, Any]]:
    done = await ask(folder, "deliveries", "list", *arguments, "--json", "-c", str(config))
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)["deliveries"]


async def test_unknown_words_of_slack_end_in_a_dead_letter(tmp_path: Path) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as receiver:
        receiver.default = reply(200, b"some_new_word")
        slack = {
            "type": "slack", "topics": ["voicemail.#"], "webhook_url": f"{receiver.url}/services/x",
            "allow_private": True, "retry": ["200ms", "200ms"],
        }  # fmt: skip
        config = write_config(tmp_path, simulator, sinks={"ops": slack})
        with bridge(tmp_path, "run", "-c", str(config)) as process:
            simulator.world.add_drop()
            await until(lambda: any(line["event"] == "delivery.dead_letter" for line in process.log), "a dead letter")
            waits = [line for line in process.log if line["event"] == "delivery.waits"]
            (letter,) = await deliveries(tmp_path, config, "--dead")
            assert await asyncio.to_thread(process.stop) == 0
    assert len(receiver.requests) == 3
    assert ["some_new_word" in line["reason"] for line in waits] == [True, True]
    assert letter["reason"] == "exhausted"
    assert letter["answer"] == {"status": 200, "body": "some_new_word"}
    assert ["some_new_word" in attempt["error"] for attempt in letter["attempts"]] == [True] * 3


async def test_an_inactive_channel_disables_the_sink_until_a_redrive(tmp_path: Path) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as receiver:
        receiver.default = reply(200, b'{"ok": false, "error": "is_inactive"}')
        slack = {
            "type": "slack", "topics": ["voicemail.#"], "bot_token": "xoxb-x", "channel": "C1",
            "api_url": f"{receiver.url}/api", "allow_private": True,
        }  # fmt: skip
        config = write_config(tmp_path, simulator, sinks={"ops": slack})
        with bridge(tmp_path, "run", "-c", str(config)) as process:
            simulator.world.add_drop()
            await until(lambda: any(line["event"] == "sink.disabled" for line in process.log), "the sink is disabled")
            (line,) = [line for line in process.log if line["event"] == "sink.disabled"]
            assert "is_inactive" in line["reason"]
            (waiting,) = await deliveries(tmp_path, config)
            assert waiting["state"] == "waiting"
            receiver.default = reply(200, b'{"ok": true}')
            done = await ask(tmp_path, "deliveries", "redrive", "ops", "--all", "-c", str(config))
            assert done.returncode == 0
            await until(lambda: len(receiver.requests) > 1, "the event is posted")
            assert await asyncio.to_thread(process.stop) == 0
    assert len(receiver.requests) == 2
