"""The process itself: how it ends, how it waits for what is away, how it is split, and what it shows of itself."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import time
from contextlib import ExitStack
from typing import Any

import aiohttp
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from harness import (
    Consumer,
    Process,
    agreed,
    ask,
    bridge,
    consuming_rabbitmq,
    consuming_tail,
    differences,
    missing,
    taps,
    until,
    write_config,
)
from prometheus_client.parser import text_string_to_metric_families

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fake_endpoint import FakeEndpoint, reply, silence
from bridge.testing.servers import RabbitMQServer, RedisServer

pytestmark = pytest.mark.acceptance

LIVELY = SimulatorSettings(
    seed=31,
    speed=60.0,
    messages_per_minute=1.5,
    recipients_per_message=8.0,
    max_recipients=60,
    drops_per_minute=10.0,
    texts_per_minute=0.0,
    emails_per_minute=0.0,
    sends_per_minute=6.0,
    email_sends_per_minute=0.0,
    failed_share=0.2,
)
PROVIDERS = {"/govdelivery/city", "/spacivox/drops", "/marketingcloud/journeys"}


def webhook(receiver: FakeEndpoint, **settings: Any) -> dict[str, Any]:
    again = ["200ms"] * 20
    return {"type": "webhook", "topics": ["#"], "url": receiver.url, "allow_private": True, "retry": again, **settings}


class ReceiverLog(Consumer):
    """What a receiver got, as a consumer."""

    def __init__(self, receiver: FakeEndpoint) -> None:
        super().__init__()
        self._receiver = receiver

    def now(self) -> ReceiverLog:
        for request in self._receiver.requests[len(self.bodies) :]:
            self.take(request.body, "")
        return self


def check_log(process: Process) -> None:
    """Hold the log against what it promises: JSON lines only, each an event with its level and its time."""
    for line in process.err.read_text().splitlines():
        said = json.loads(line)
        assert {"event", "level", "timestamp"} <= said.keys(), line


def logged(process: Process, event: str) -> bool:
    return any(line["event"] == event for line in process.log)


async def address(process: Process) -> str:
    """Return where a process that listens on any free port serves its pages."""
    await until(lambda: logged(process, "http.listens"), "the process listens", within=120)
    return "http://" + next(line["address"] for line in process.log if line["event"] == "http.listens")


async def page(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def ended(process: Process, number: int, within: float) -> int:
    """Send a signal, and return the exit code; the process has so many seconds."""
    process.process.send_signal(number)
    return await asyncio.to_thread(process.wait, within)


# --- ending -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_busy_process_within_drain_timeout(number, tmp_path):
    async with Simulator(LIVELY) as simulator, FakeEndpoint() as receiver:
        config = write_config(tmp_path, simulator, sinks={"crm": webhook(receiver)}, drain_timeout="8s")
        with bridge(tmp_path, "run", "-c", str(config), name="first") as process:
            await receiver.arrived(100, within=120)
            assert await ended(process, number, within=8) == 0
        delivered_before = len(receiver.requests)
        assert logged(process, "bridge.drains")
        assert process.log[-1]["event"] == "bridge.ended"
        with bridge(tmp_path, "run", "-c", str(config), name="second") as again:
            await receiver.arrived(delivered_before + 50, within=120)
            # A poll that was cut off in the middle has seen what nobody will see again: see `missing`.
            await agreed(simulator, ReceiverLog(receiver).now, missing)
            assert await ended(again, number, within=8) == 0
        # It went on where it stood: whoever drained in good order says nothing twice.
        ids = ReceiverLog(receiver).now().ids
        assert len(ids) == len(set(ids))
        for ended_process in (process, again):
            check_log(ended_process)
            assert ended_process.said == ""


async def test_unread_pipe_does_not_delay_the_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    blocked = {"type": "stdout", "topics": ["#"], "path": str(tmp_path / "pipe"), "send_timeout": "500ms"}
    async with Simulator(LIVELY) as simulator, FakeEndpoint() as receiver:
        sinks = {"blocked": blocked, "crm": webhook(receiver)}
        config = write_config(tmp_path, simulator, sinks=sinks, drain_timeout="8s")
        with bridge(tmp_path, "run", "-c", str(config)) as process:
            await receiver.arrived(100, within=120)
            assert await ended(process, signal.SIGTERM, within=9) == 0
        assert process.log[-1]["event"] == "bridge.ended"


async def test_second_signal_ends_at_once_and_loses_nothing(tmp_path):
    async with Simulator(LIVELY) as simulator, FakeEndpoint(default=silence()) as receiver:
        config = write_config(
            tmp_path, simulator, sinks={"crm": webhook(receiver)}, drain_timeout="100s", claim="1s", lease="1s"
        )
        with bridge(tmp_path, "run", "-c", str(config), name="first") as process:
            await receiver.arrived(16, within=120)
            process.process.send_signal(signal.SIGTERM)
            await until(lambda: logged(process, "bridge.drains"), "it drains", within=120)
            assert await ended(process, signal.SIGTERM, within=10) == -signal.SIGTERM
        unanswered = [json.loads(request.body)["id"] for request in receiver.requests]
        await receiver.stop()
        async with FakeEndpoint() as well:
            config.write_text(config.read_text().replace(receiver.url, well.url))
            with bridge(tmp_path, "run", "-c", str(config), name="second") as again:
                received = ReceiverLog(well)
                await agreed(simulator, received.now, missing)
                await until(lambda: {*unanswered} <= {*received.now().ids}, "what was in hand is told", within=120)
                assert await ended(again, signal.SIGTERM, within=120) == 0
            assert len(received.ids) == len({*received.ids})
        check_log(process)
        check_log(again)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_one_round_and_releases_claims(number, tmp_path):
    async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint(default=silence()) as receiver:
        sinks = {"crm": webhook(receiver)}
        config = write_config(tmp_path, simulator, sinks=sinks, drain_timeout="1s", claim="100s", lease="100s")
        drop = simulator.world.add_drop()
        with bridge(tmp_path, "run", "--once", "-c", str(config), name="first") as process:
            await receiver.arrived(1, within=120)
            assert await ended(process, number, within=20) == 130
        assert "Traceback" not in process.err.read_text()
        receiver.default = reply()
        # Neither a lease nor a claim of 100 seconds stands in the way of the next one.
        again = await asyncio.wait_for(ask(tmp_path, "run", "--once", "--json", "-c", str(config)), 20)
        assert (again.returncode, json.loads(again.stdout)["sinks"]["crm"]["taken"]) == (0, 1)
        assert {json.loads(request.body)["subject"] for request in receiver.requests} == {drop.path}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_is_how_a_tail_ends_well(number, tmp_path):
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator)
        with bridge(tmp_path, "tail", "-c", str(config), name="tail") as process:
            await until((tmp_path / "state" / "broker.db").exists, "tail opens the broker")
            await until(lambda: taps(tmp_path) > 0, "tail subscribes")
            assert await ended(process, number, within=120) == 0
        assert process.err.read_text() == ""


# --- waiting ----------------------------------------------------------------------------------------------------------


async def test_service_waits_for_store_and_broker_to_start(tmp_path):
    redis, rabbitmq = RedisServer(), RabbitMQServer()
    async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as receiver:
        config = write_config(
            tmp_path, simulator, store=redis.url, broker=rabbitmq.url, sinks={"crm": webhook(receiver)},
            http={"listen": "127.0.0.1:0"},
        )  # fmt: skip
        drop = simulator.world.add_drop()
        try:
            with bridge(tmp_path, "run", "-c", str(config)) as process:
                url = await address(process)
                await until(lambda: logged(process, "bridge.waits_for_store"), "it waits for the store", within=120)
                assert (await page(f"{url}/livez"))[0] == 200
                status, text = await page(f"{url}/readyz")
                assert status == 503
                assert json.loads(text)["problems"].keys() >= {"store"}
                await asyncio.to_thread(redis.start)
                await until(lambda: logged(process, "relay.waits"), "polled, and waiting for the broker", within=120)
                assert json.loads((await page(f"{url}/readyz"))[1])["problems"].keys() >= {"broker"}
                assert receiver.requests == []
                await asyncio.to_thread(rabbitmq.start)
                (request,) = await receiver.arrived(1, within=120)
                assert json.loads(request.body)["subject"] == drop.path
                await until(lambda: _ready(url), "the process is ready", within=120)
                assert await ended(process, signal.SIGTERM, within=120) == 0
            check_log(process)
            assert "guest" not in process.err.read_text()
        finally:
            redis.remove()
            rabbitmq.remove()


async def _ready(url: str) -> bool:
    return (await page(f"{url}/readyz"))[0] == 200


# --- split over processes ---------------------------------------------------------------------------------------------


async def test_separate_roles_do_the_work_of_one_process(tmp_path, redis_url, rabbitmq_url):
    async with (
        Simulator(LIVELY) as simulator,
        FakeEndpoint() as receiver,
        consuming_rabbitmq(rabbitmq_url) as consumer,
    ):
        config = write_config(
            tmp_path, simulator, store=redis_url, broker=rabbitmq_url, sinks={"crm": webhook(receiver)}
        )
        with ExitStack() as stack:
            parts = {
                role: stack.enter_context(bridge(tmp_path, "run", "--role", role, "-c", str(config), name=role))
                for role in ("poll", "relay", "sink")
            }
            await receiver.arrived(200, within=120)
            await agreed(simulator, ReceiverLog(receiver).now)
            for process in parts.values():
                assert await ended(process, signal.SIGTERM, within=120) == 0
        assert not differences(simulator, consumer)
        assert len(consumer.ids) == len(set(consumer.ids))
        assert sorted(consumer.bodies) == sorted(request.body for request in receiver.requests)
        for role, process in parts.items():
            check_log(process)
            assert [line["roles"] for line in process.log if line["event"] == "bridge.starts"] == [[role]]
            assert logged(process, "source.polled") == (role == "poll")


# --- what it shows ----------------------------------------------------------------------------------------------------


async def test_health_pages_show_state_and_no_personal_data(tmp_path):
    async with Simulator(LIVELY) as simulator, FakeEndpoint() as receiver:
        config = write_config(tmp_path, simulator, sinks={"crm": webhook(receiver)}, http={"listen": "127.0.0.1:0"})
        with bridge(tmp_path, "run", "-c", str(config)) as process:
            url = await address(process)
            await receiver.arrived(150, within=120)
            assert await page(f"{url}/readyz") == (200, '{"status": "ready"}\n')
            status, alive = await page(f"{url}/livez")
            assert (status, json.loads(alive)["status"]) == (200, "alive")
            assert (await page(f"{url}/nothing"))[0] == 404
            status, text = await page(f"{url}/metrics")
            assert status == 200
            families = list(text_string_to_metric_families(text))
            assert await ended(process, signal.SIGTERM, within=120) == 0
        assert len(families) > 10
        assert [family.name for family in families if not family.name.startswith(("bridge_", "process_"))] == []
        assert [family.name for family in families if not family.documentation] == []
        samples = [sample for family in families for sample in family.samples]
        totals = {sample.name: sum(other.value for other in samples if other.name == sample.name) for sample in samples}
        assert totals["bridge_events_total"] >= 150
        assert totals["bridge_deliveries_total"] >= 150
        values = {(name, value) for sample in samples for name, value in sample.labels.items()}
        assert {value for name, value in values if name == "source"} == {"city", "drops", "journeys"}
        for event in ReceiverLog(receiver).now().events:
            personal = (event["subject"], event["id"], event["data"].get("phone"), event["data"].get("contact_key"))
            assert not {value for _, value in values} & {*personal}
        assert [value for _, value in values if re.search(r"\d{6}|^/", value)] == []
        # A label's value is one of a few words, whatever happens.
        words = {"source", "sink", "state", "result", "type", "part", "version", "le", "kind", "name", "direction"}
        words |= {"role", "reason", "answer"}
        assert {name for name, _ in values} <= words
        check_log(process)
        assert not re.search(r"\+\d{9}", process.err.read_text())


async def test_occupied_address_costs_health_pages_only_until_free(tmp_path):
    async with Simulator(SimulatorSettings.still()) as simulator:
        with socket.create_server(("127.0.0.1", 0)) as other:
            listen = f"127.0.0.1:{other.getsockname()[1]}"
            config = write_config(tmp_path, simulator, http={"listen": listen})
            async with consuming_tail(tmp_path, config) as consumer:
                with bridge(tmp_path, "run", "-c", str(config)) as process:
                    await until(lambda: logged(process, "http.cannot_listen"), "it says so", within=120)
                    simulator.world.add_drop()
                    await until(lambda: len(consumer.events) == 1, "an event all the same", within=120)
                    other.close()
                    assert (await page(f"{await address(process)}/readyz"))[0] == 200
                    assert await asyncio.to_thread(process.stop) == 0
        check_log(process)


async def test_tail_prints_selected_topics_and_masks_phones(tmp_path):
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator)
        selected = ("tail", "voicemail.drop.#", "sms.message.not_sent", "--count", "3", "-c", str(config))
        async with consuming_tail(tmp_path, config) as consumer:
            with bridge(tmp_path, *selected, name="selected") as tail, bridge(tmp_path, "run", "-c", str(config)):
                await until(lambda: taps(tmp_path) == 2, "both subscribe", within=120)
                world = simulator.world
                world.add_message("sms", 2)
                drops = [world.add_drop(state=state) for state in (1, 3)]
                send = world.add_send_event(code=45)
                await until(lambda: len(consumer.events) == 6, "everything is published", within=120)
                assert await asyncio.to_thread(tail.wait, 60) == 0
        lines = tail.said.splitlines()
        assert len(lines) == 3
        topics = {line.split("  ")[1]: line for line in lines}
        assert topics.keys() == {"voicemail.drop.delivered", "voicemail.drop.rejected", "sms.message.not_sent"}
        assert drops[0].path in topics["voicemail.drop.delivered"]
        assert f"…{drops[0].address[-4:]}" in topics["voicemail.drop.delivered"]
        assert "InvalidMobileNumber" in topics["sms.message.not_sent"]
        assert [other for other in (drops[0].address, drops[1].address, send.to) if other in tail.said] == []


async def test_demo_shows_events_of_all_three_providers(tmp_path):
    began = time.monotonic()
    done = await ask(tmp_path, "demo", "--seconds", "5", "--json", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 20
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for line in done.stdout.splitlines():
        message = HTTPMessage({"content-type": "application/cloudevents+json"}, line.encode())
        assert from_http_event(message, JSONFormat()).get_specversion() == "1.0"
    assert {event["source"] for event in events} == PROVIDERS
    assert len(events) == len({event["id"] for event in events}) > 20
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
