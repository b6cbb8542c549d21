"""What a provider's bad answers do: one line in the log for each failed poll, patience, and nothing lost or doubled."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import datetime
from typing import Any

import aiohttp
import pytest
import yaml
from harness import Process, agreed, ask, bridge, consuming_tail, differences, missing, until, write_config
from prometheus_client.parser import text_string_to_metric_families

from bridge.simulator import Simulator, SimulatorSettings

pytestmark = pytest.mark.acceptance

LIVELY = SimulatorSettings(
    seed=23,
    speed=60.0,
    messages_per_minute=1.0,
    recipients_per_message=6.0,
    max_recipients=30,
    drops_per_minute=6.0,
    texts_per_minute=0.0,
    emails_per_minute=0.0,
    sends_per_minute=6.0,
    email_sends_per_minute=0.0,
    late_share=0.05,
    failed_share=0.2,
)
# Each source, and the requests of its provider.
PATHS = {"city": r"^/messages", "drops": r"^/j/", "journeys": r"^/messaging"}
PROVIDERS = {"city": "govdelivery", "drops": "spacivox", "journeys": "marketingcloud"}
# What came in the same moment in which another answer of one poll was bad is asked for again: see `missing`.
SEEN = {"city": missing, "drops": differences, "journeys": differences}
ANSWERS = {
    "unauthorized": "401",
    "forbidden": "403",
    "html_page": "JSON",
    "empty_body": "answered nothing",
    "torn_body": "the connection broke",
    "http_500": "500",
    "too_many": "429",
}
CONSEQUENCE = "nothing is lost: the next good poll goes on where this one stood"


def lines(process: Process, source: str, *events: str) -> list[dict[str, Any]]:
    return [line for line in process.log if line["event"] in events and line.get("source") == source]


def requests(simulator: Simulator, source: str) -> int:
    return len(simulator.traffic[PROVIDERS[source]].times)


def check_log(process: Process) -> None:
    """Hold the log against what it promises: JSON lines only, and no traceback."""
    for line in process.err.read_text().splitlines():
        assert json.loads(line)["event"], line


async def address(process: Process) -> str:
    """Return where a process that listens on any free port serves its pages."""
    await until(lambda: any(line["event"] == "http.listens" for line in process.log), "the process listens", within=120)
    return "http://" + next(line["address"] for line in process.log if line["event"] == "http.listens")


async def page(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def failed_polls(url: str) -> dict[str, int]:
    """Return how many polls of each source failed, by the process's own figures."""
    _, text = await page(f"{url}/metrics")
    return {
        sample.labels["source"]: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "bridge_polls_total" and sample.labels["result"] == "failed"
    }


@pytest.mark.parametrize("source", PATHS)
async def test_bad_answer_is_one_line_and_delays_no_other_source(source, tmp_path):
    others = [other for other in PATHS if other != source]
    async with Simulator(LIVELY) as simulator:
        config = write_config(tmp_path, simulator, http={"listen": "127.0.0.1:0"})
        async with consuming_tail(tmp_path, config) as consumer:
            with bridge(tmp_path, "run", "-c", str(config)) as process:
                url = await address(process)
                await until(lambda: len(consumer.events) > 30, "30 events")
                for fault, word in ANSWERS.items():
                    recovered = len(lines(process, source, "source.recovers"))
                    asked = {other: requests(simulator, other) for other in others}
                    simulator.switch_on(fault, path=PATHS[source])
                    await until(
                        lambda word=word: any(
                            word in line["reason"] for line in lines(process, source, "source.backs_off")
                        ),
                        f"a poll fails by {fault}",
                        within=120,
                    )
                    for other in others:
                        await until(
                            lambda other=other, asked=asked: requests(simulator, other) > asked[other] + 1,
                            f"{other} is asked during {fault}",
                            within=120,
                        )
                    simulator.switch_off(fault)
                    await until(
                        lambda recovered=recovered: len(lines(process, source, "source.recovers")) > recovered,
                        f"a poll ends well after {fault}",
                        within=120,
                    )
                figures = await failed_polls(url)
                await agreed(simulator, lambda: consumer, SEEN[source])
                assert await asyncio.to_thread(process.stop) == 0
        assert len(consumer.ids) == len(set(consumer.ids))
        failures = lines(process, source, "source.backs_off")
        assert sum(line.get("repeated", 1) for line in failures) == figures[source]
        for line in failures:
            assert line["consequence"] == CONSEQUENCE
            assert line["again_in"] >= 0.5 * 2 ** (line["failures"] - 1) - 0.05
        assert [lines(process, other, "source.backs_off") for other in others] == [[], []]
        check_log(process)
        assert any(line["again_in"] >= 1 for line in failures)


async def test_wrong_credentials_are_said_to_be_wrong_and_never_repeated(tmp_path):
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator)
        values = yaml.safe_load(config.read_text())
        for source, key in (("city", "token"), ("drops", "token"), ("journeys", "client_secret")):
            values["sources"][source][key] = "canary-0123456789"
        config.write_text(yaml.safe_dump(values))
        checked = await ask(tmp_path, "check", "--json", "-c", str(config))
        assert checked.returncode == 1
        parts = {part["part"]: part for part in json.loads(checked.stdout)["parts"]}
        with bridge(tmp_path, "run", "-c", str(config)) as process:
            for source in PATHS:
                await until(
                    lambda source=source: lines(process, source, "source.backs_off"), "a poll fails", within=120
                )
            assert await asyncio.to_thread(process.stop) == 0
        for source in PATHS:
            reason = lines(process, source, "source.backs_off")[0]["reason"]
            for said in (reason, parts[f"source {source}"]["said"]):
                assert re.search("credentials|token|client_id", said), said
            assert parts[f"source {source}"]["state"] == "refused"
        check_log(process)
        assert "canary" not in process.err.read_text() + checked.stdout + checked.stderr


async def test_bad_message_is_one_line_and_stops_no_other(tmp_path):
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator)
        messages = [simulator.world.add_message("sms", 2, status="sending") for _ in range(3)]
        simulator.switch_on("http_500", path=f"^{re.escape(messages[1].path)}")
        async with consuming_tail(tmp_path, config) as consumer:
            with bridge(tmp_path, "run", "-c", str(config)) as process:
                well = {messages[0].path, messages[2].path, *messages[0].recipients, *messages[2].recipients}
                await until(lambda: {*consumer.histories} >= well, "the others are told of", within=120)
                await until(lambda: lines(process, "city", "source.resource_fails"), "the bad one is named", within=120)
                assert {*consumer.histories} == well
                simulator.switch_off()
                await until(lambda: len(consumer.histories) == 9, "the third message is told of as well", within=120)
                assert await asyncio.to_thread(process.stop) == 0
        assert lines(process, "city", "source.backs_off") == []
        reasons = [line["reason"] for line in lines(process, "city", "source.resource_fails")]
        assert all(messages[1].path in reason and "500" in reason for reason in reasons)
        assert len(consumer.ids) == len(set(consumer.ids))
        check_log(process)


async def test_long_source_failure_is_an_event_and_not_ready(tmp_path):
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator, http={"listen": "127.0.0.1:0"})
        values = yaml.safe_load(config.read_text())
        values["sources"]["city"]["stall_after"] = "1s"
        config.write_text(yaml.safe_dump(values))
        async with consuming_tail(tmp_path, config) as consumer:
            with bridge(tmp_path, "run", "-c", str(config)) as process:
                url = await address(process)
                await until(lambda: _is(url, 200), "the process is ready", within=120)
                simulator.switch_on("http_503", path=PATHS["city"])
                await until(lambda: consumer.events, "SourceStalled arrives", within=120)
                await until(lambda: _is(url, 503), "the process is not ready", within=120)
                status, text = await page(f"{url}/readyz")
                assert status == 503
                assert json.loads(text)["problems"].keys() == {"source/city"}
                assert json.loads(text)["problems"]["source/city"].startswith("stalled: ")
                assert (await page(f"{url}/livez"))[0] == 200
                drop = simulator.world.add_drop()
                await until(lambda: drop.path in consumer.histories, "the other sources go on", within=120)
                simulator.switch_off()
                await until(lambda: len(consumer.events) == 3, "SourceRecovered arrives", within=120)
                await until(lambda: _is(url, 200), "the process is ready again", within=120)
                assert await asyncio.to_thread(process.stop) == 0
        stalled, _, recovered = consumer.events
        assert (stalled["type"], stalled["source"]) == ("bridge.bridge.source.stalled", "/govdelivery/city")
        assert (recovered["type"], recovered["source"]) == ("bridge.bridge.source.recovered", "/govdelivery/city")
        assert [consumer.topics[0], consumer.topics[2]] == ["bridge.source.stalled", "bridge.source.recovered"]
        assert stalled["data"]["since"] == recovered["data"]["since"]
        moments = (stalled["data"]["since"], stalled["time"], recovered["time"])
        since, reported, back = map(datetime.fromisoformat, moments)
        assert since < reported < back
        assert (reported - since).total_seconds() >= 1
        assert stalled["data"]["failures"] >= 2
        assert "503" in stalled["data"]["reason"]
        check_log(process)


async def _is(url: str, status: int) -> bool:
    return (await page(f"{url}/readyz"))[0] == status
