"""What does not come is news: real processes publish it in time and once, also after a `kill -9`."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Consumer, ask, bridge, consuming_tail, until, write_config

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.free_port import free_port

QUIET = SimulatorSettings.still()
IN_TIME = timedelta(seconds=5)
OVERDUE = "sms.recipient.overdue"


def configure(folder: Path, simulator: Simulator) -> Path:
    """Write a configuration that expects much, and has a sink that nobody answers for."""
    config = write_config(folder, simulator, interval="300ms", lease="2s", log={"format": "json"})
    values = yaml.safe_load(config.read_text())
    expect = {"final_within": "3s", "activity_within": "2s"}
    values["sources"] = {"city": {**values["sources"]["city"], "expect": expect}}
    url = f"http://127.0.0.1:{free_port()}/"
    values["sinks"] = {
        "down": {
            "type": "webhook", "topics": ["#"], "url": url, "allow_private": True, "retry": [], "alarm_after": 2,
        }
    }  # fmt: skip
    config.write_text(yaml.safe_dump(values))
    return config


def of(consumer: Consumer, topic: str) -> list[dict[str, Any]]:
    return [event for event, topic_of in zip(consumer.events, consumer.topics, strict=True) if topic_of == topic]


@pytest.mark.acceptance
async def test_silence_is_published_in_time_and_once(tmp_path: Path) -> None:
    async with Simulator(QUIET) as simulator:
        message = simulator.world.add_message("sms", 3)
        late, lost, sent = message.recipients
        config = configure(tmp_path, simulator)
        async with consuming_tail(tmp_path, config) as consumer:
            with bridge(tmp_path, "run", "-c", str(config), name="one") as first:
                await until(lambda: len(of(consumer, "sms.recipient.new")) == 3, "the first poll")
                simulator.world.move(sent, "sent")
                await until(lambda: of(consumer, "sms.recipient.sent"), "a final status in time")
                await asyncio.to_thread(first.kill)
            with bridge(tmp_path, "run", "-c", str(config), name="two") as second:
                await until(lambda: len(of(consumer, OVERDUE)) == 2, "what is overdue after a kill")
                await until(lambda: of(consumer, "bridge.source.quiet"), "the source is quiet")
                simulator.world.move(late, "sent")
                await until(lambda: len(of(consumer, "sms.recipient.sent")) == 2, "the late status")
                await until(lambda: of(consumer, "bridge.source.active"), "the source speaks again")
                await until(lambda: of(consumer, "bridge.delivery.dead"), "the dead letters")
                await until(lambda: of(consumer, "bridge.sink.failing"), "the sink fails")
                status = json.loads((await ask(tmp_path, "status", "--json", "-c", str(config))).stdout)
                traced = await ask(tmp_path, "trace", late, "-c", str(config))
                assert await asyncio.to_thread(second.stop) == 0

    overdue = {event["subject"]: event for event in of(consumer, OVERDUE)}
    assert overdue.keys() == {late, lost}
    assert len(consumer.ids) == len(set(consumer.ids))
    for event in overdue.values():
        due = datetime.fromisoformat(event["data"]["due"])
        started = datetime.fromisoformat(second.log[0]["timestamp"])
        assert (
            due <= datetime.fromisoformat(event["recordedtime"]) <= max(due, started + timedelta(seconds=4)) + IN_TIME
        )
        assert (event["data"]["stands_in"], event["data"]["transition"]) == ("new", "advance")
    resolving = [event["data"].get("resolves") for event in of(consumer, "sms.recipient.sent")]
    assert resolving == [None, overdue[late]["id"]]
    assert f"resolves   the overdue event {overdue[late]['id']}" in traced.stdout
    (city,) = status["sources"]
    assert city["awaiting_final"] == 0
    letters = [letter for event in of(consumer, "bridge.delivery.dead") for letter in event["data"]["dead"]]
    assert {event["subject"] for event in of(consumer, "bridge.delivery.dead")} == {"/sinks/down"}
    assert len(letters) == len({letter["position"] for letter in letters})
    assert {letter["topic"] for letter in letters}.isdisjoint({"bridge.delivery.dead", "bridge.sink.failing"})
