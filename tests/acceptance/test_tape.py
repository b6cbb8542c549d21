"""A tape of the real service, played by the real command line: the same events, and nothing personal on the way."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Consumer, ask, bridge, consuming_tail, until, write_config

from bridge.simulator import Simulator, SimulatorSettings

LIVELY = SimulatorSettings(
    seed=17,
    speed=60.0,
    messages_per_minute=1.0,
    recipients_per_message=10.0,
    drops_per_minute=5.0,
    texts_per_minute=0.0,
    emails_per_minute=0.0,
    sends_per_minute=5.0,
    email_sends_per_minute=0.0,
    failed_share=0.2,
    late_share=0.05,
)
FAULTS = ("http_500", "torn_body", "still_building", "html_page", "reset_midway", "unknown_status", "token_short_lived")
STAND_INS = ("phone", "contact_key", "message_key", "reference", "provider")
pytestmark = pytest.mark.acceptance


def comparable(event: dict[str, Any]) -> dict[str, Any]:
    """Return all that an event says, apart from when it was recorded and from what has a stand-in."""
    left_out = {"recordedtime"}
    if event["source"].startswith("/marketingcloud/"):
        left_out |= {"id", "subject", "partitionkey"}  # made from the message's key
    return {name: value for name, value in event.items() if name not in left_out} | {
        "data": {name: value for name, value in event["data"].items() if name not in STAND_INS}
    }


def sources_of(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the events of each source, in order: sources are polled side by side."""
    by_source: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["data"]["channel"] != "bridge":
            by_source.setdefault(event["source"], []).append(comparable(event))
    return by_source


async def silence(consumer: Consumer) -> None:
    """Return when nothing more comes: the service has ended, and the tail has printed all of it."""
    before = -1

    def quiet() -> bool:
        nonlocal before
        last, before = before, len(consumer.events)
        return last == before

    await until(quiet, "the tail has printed all events")


def text_of(folder: Path) -> str:
    files = sorted(folder.iterdir())
    return "".join(
        (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode() for path in files
    )


def events_of(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
async def test_recording_with_faults_replays_the_same_events_offline(tmp_path, compress):
    options = ["--record", "tape", *(["--record-gzip"] if compress else [])]
    async with Simulator(LIVELY) as simulator:
        config = write_config(tmp_path, simulator)
        async with consuming_tail(tmp_path, config) as consumer:
            with bridge(tmp_path, "run", "-c", str(config), *options) as running:
                await until(lambda: len(consumer.events) > 200, "200 events")
                for fault in FAULTS:
                    simulator.switch_on(fault, share=0.1)
                await until(lambda: len(consumer.events) > 500, "500 events")
                assert await asyncio.to_thread(running.stop) == 0
            await silence(consumer)
        failing = {line["reason"] for line in running.log if line["event"] == "source.resource_fails"}
        people = [
            person
            for channel in simulator.world.messages.values()
            for message in channel
            for person in message.addresses
        ]
        sends = [sent for feed in simulator.world.sends.values() for sent in feed]
    played = await ask(tmp_path, "replay-tape", "tape", "-c", str(config), "--json")
    assert played.returncode == 0, played.stderr
    assert sources_of(events_of(played.stdout)) == sources_of(consumer.events)
    assert failing
    again = await ask(tmp_path, "replay-tape", "tape", "-c", str(config), "--json")
    assert again.stdout == played.stdout
    text = text_of(tmp_path / "tape")
    canaries = {person.removeprefix("+1").removeprefix("+") for person in people}
    canaries |= (
        {str(send.message_key) for send in sends} | {send.contact_key for send in sends} | {send.to for send in sends}
    )
    settings = simulator.settings
    canaries |= {settings.govdelivery_token, settings.spacivox_token, settings.client_secret, "simulated-access"}
    assert len(canaries) > 200
    assert [canary for canary in canaries if canary in text] == []
    assert all(path.stat().st_mode & 0o77 == 0 for path in (tmp_path / "tape").iterdir())


async def test_recording_continues_after_kill_and_restart(tmp_path):
    def runs() -> int:
        return len({path.name.split(".")[1] for path in (tmp_path / "tape").iterdir()})

    async with Simulator(LIVELY) as simulator:
        config = write_config(tmp_path, simulator, lease="2s")
        async with consuming_tail(tmp_path, config) as consumer:
            with bridge(tmp_path, "run", "-c", str(config), "--record", "tape") as running:
                await until(lambda: len(consumer.events) > 150, "150 events")
                await asyncio.to_thread(running.kill)
            with bridge(tmp_path, "run", "-c", str(config), "--record", "tape") as running:
                await until(lambda: runs() == 2, "the second one records")
                so_far = len(consumer.events)
                await until(lambda: len(consumer.events) > so_far + 150, "150 more events")
                assert await asyncio.to_thread(running.stop) == 0
            await silence(consumer)
    played = await ask(tmp_path, "replay-tape", "tape", "-c", str(config), "--json")
    assert played.returncode == 0, played.stderr
    lived = [event for event in consumer.events if not event["source"].startswith("/marketingcloud/")]
    made = {event["id"]: event for event in events_of(played.stdout)}
    assert len(lived) > 150
    assert [event["subject"] for event in lived if event["id"] not in made] == []
    assert Counter(event["type"] for event in lived) == Counter(made[event["id"]]["type"] for event in lived)
    assert runs() == 2


async def test_recording_of_a_running_service_replays_the_same_events(tmp_path):
    async with Simulator(LIVELY) as simulator:
        config = write_config(tmp_path, simulator)
        async with consuming_tail(tmp_path, config) as consumer:
            with bridge(tmp_path, "run", "-c", str(config), name="before") as running:
                await until(lambda: len(consumer.events) > 150, "150 events")
                assert await asyncio.to_thread(running.stop) == 0
            await silence(consumer)
            before = len(consumer.events)
            with bridge(tmp_path, "run", "-c", str(config), "--record", "tape") as running:
                await until(lambda: len(consumer.events) > before + 150, "150 more")
                assert await asyncio.to_thread(running.stop) == 0
            await silence(consumer)
    played = await ask(tmp_path, "replay-tape", "tape", "-c", str(config), "--json")
    assert played.returncode == 0, played.stderr
    assert sources_of(events_of(played.stdout)) == sources_of(consumer.events[before:])
    assert "advance" in {event["data"]["transition"] for event in consumer.events[before:]}


@pytest.fixture(scope="module")
def tape(tmp_path_factory):
    """Give a tape of one round, with its configuration; the world that it came from is gone."""
    return asyncio.run(record(tmp_path_factory.mktemp("tape")))


async def record(folder: Path) -> tuple[Path, Path]:
    async with Simulator(LIVELY) as simulator:
        simulator.switch_on("unknown_status", share=0.5)
        config = write_config(folder, simulator)
        done = await ask(folder, "run", "-c", str(config), "--once", "--record", "tape")
        assert done.returncode == 0, done.stderr
    return folder, config


def changed(folder: Path, config: Path, name: str, **sources: dict[str, Any]) -> str:
    values = yaml.safe_load(config.read_text())
    for source, more in sources.items():
        values["sources"][source] |= more
    (folder / name).write_text(yaml.safe_dump(values))
    return name


async def test_replay_prints_readable_lines_and_a_summary(tape):
    folder, config = tape
    done = await ask(folder, "replay-tape", "tape", "-c", str(config))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 100
    assert any("  voicemail.drop.delivered  /j/voicemail_drop_records/" in line for line in lines)
    assert f"3 polls, {len(lines)} events" in done.stderr


async def test_a_replay_needs_no_secret_no_server_and_no_state(tape):
    folder, config = tape
    values = yaml.safe_load(config.read_text())
    values |= {"store": "redis://127.0.0.1:1/0", "broker": "amqp://127.0.0.1:1//", "state": "/nowhere/at/all"}
    for source in values["sources"].values():
        source |= {key: "${SECRET_OF_PRODUCTION}" for key in ("token", "client_secret") if key in source}
    (folder / "production.yaml").write_text(yaml.safe_dump(values))
    expected = await ask(folder, "replay-tape", "tape", "-c", str(config), "--json")
    done = await ask(folder, "replay-tape", "tape", "-c", "production.yaml", "--json")
    assert (done.returncode, done.stdout) == (0, expected.stdout), done.stderr


async def test_unrecorded_requests_are_named_with_exit_code_1(tape):
    folder, config = tape
    other = changed(folder, config, "pages.yaml", journeys={"page_size": 7})
    done = await ask(folder, "replay-tape", "tape", "-c", other)
    assert done.returncode == 1
    assert "1 requests were made that the tape does not have:" in done.stderr
    assert "journeys: GET /messaging/v1/sms/messages/?type=notSent&$pageSize=7  (1 times)" in done.stderr


async def test_two_configurations_show_where_they_differ(tape):
    folder, config = tape
    done = await ask(folder, "diff-tape", "tape", "-c", str(config), "-c", str(config))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "no event differs" in done.stderr
    mapped = changed(folder, config, "mapped.yaml", city={"statuses": {"throttled": "sending"}})
    done = await ask(folder, "diff-tape", "tape", "-c", str(config), "-c", mapped)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert any(line.startswith("- ") and ".unknown  " in line for line in lines)
    assert any(line.startswith("+ ") and ".recipient.sending  " in line for line in lines)
    assert f"{sum(line[0] in '-+~' for line in lines)} events differ" in done.stderr
    assert "does not have" not in done.stderr
    as_json = await ask(folder, "diff-tape", "tape", "-c", str(config), "-c", mapped, "--json")
    differing = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert {"first", "second"} <= {difference["in"] for difference in differing} <= {"first", "second", "both"}
    silent = changed(folder, config, "silent.yaml", drops={"first_sight": "baseline"})
    done = await ask(folder, "diff-tape", "tape", "-c", str(config), "-c", silent)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert len(lines) > 10
    assert all(line.startswith("- ") and "voicemail.drop." in line for line in lines)


async def test_the_events_of_another_version_are_compared_from_a_file(tape):
    folder, config = tape
    before = await ask(folder, "replay-tape", "tape", "-c", str(config), "--json")
    (folder / "before.jsonl").write_text(before.stdout)
    done = await ask(folder, "diff-tape", "tape", "-c", str(config), "--against", "before.jsonl")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    first, *rest = events_of(before.stdout)
    first["data"]["error"] = "another text"
    (folder / "before.jsonl").write_text("".join(json.dumps(event) + "\n" for event in [first, *rest[:-1]]))
    done = await ask(folder, "diff-tape", "tape", "-c", str(config), "--against", "before.jsonl")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("~ ")
    assert lines[1].startswith('    data.error: "another text" -> ')
    assert lines[2].startswith("+ ")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "--record", "bridge.yaml/tape", "--once"), 4, "cannot be written to (Not a directory); give another"),
        (("run", "--record", "tape2", "--record-max", "much", "--once"), 2, "'much' is not a size"),
        (
            ("replay-tape", "nowhere"),
            1,
            "nowhere: there is no tape; `",
        ),
        (("diff-tape", "tape"), 2, "give two configurations with -c, or one and --against FILE"),
        (("diff-tape", "tape", "--against", "no-events"), 1, "no-events:1: not an event"),
    ],
)
async def test_what_cannot_be_done_is_said_in_one_line(tape, arguments, code, said):
    folder, config = tape
    (folder / "no-events").write_text("{}\n")
    done = await ask(folder, *arguments, "-c", str(config))
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_full_recording_stops_and_service_continues(tmp_path):
    async with Simulator(LIVELY) as simulator:
        config = write_config(tmp_path, simulator)
        async with consuming_tail(tmp_path, config) as consumer:
            limited = ("--record", "tape", "--record-max", "50kB")
            with bridge(tmp_path, "run", "-c", str(config), *limited) as running:
                await until(lambda: len(consumer.events) > 400, "400 events")
                assert await asyncio.to_thread(running.stop) == 0
    assert sum(path.stat().st_size for path in (tmp_path / "tape").iterdir()) <= 50_000
    said = [line for line in running.log if line["event"].startswith("tape.")]
    assert [line["event"] for line in said] == ["tape.records", "tape.full"]
    assert said[1]["consequence"] == "nothing more is recorded; polling goes on"
    done = await ask(tmp_path, "replay-tape", "tape", "-c", str(config))
    assert done.returncode == 0, done.stderr
