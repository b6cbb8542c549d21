"""The commands that tell what a run has left behind, and those that change what the next one does."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ask, bridge, until, write_config

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fake_endpoint import FakeEndpoint, reply
from bridge.testing.free_port import free_port

pytestmark = pytest.mark.acceptance


@dataclass
class Story:
    """A finished run: a call that failed, one that was answered, a drop that was rejected, an SMS that was not sent."""

    folder: Path
    config: Path
    simulator: Simulator
    crm: FakeEndpoint
    audit: FakeEndpoint
    failed: str = ""
    sent: str = ""
    drop: str = ""
    phones: list[str] = field(default_factory=list)
    moved: list[datetime] = field(default_factory=list)
    """When the call that failed began, and when it failed."""

    async def command(self, *arguments: str, code: int = 0) -> str:
        done = await ask(self.folder, *arguments, "-c", self.config.name)
        assert (done.returncode, done.stderr) == (code, "")
        return done.stdout

    async def json(self, *arguments: str) -> Any:
        return json.loads(await self.command(*arguments, "--json"))

    def received(self, receiver: FakeEndpoint) -> list[tuple[str, str]]:
        bodies = [json.loads(request.body) for request in receiver.requests]
        return [(body["subject"], body["data"]["status"]) for body in bodies]

    @property
    def life(self) -> list[dict[str, Any]]:
        """The events of the call that failed, as the receiver got them."""
        bodies = [json.loads(request.body) for request in self.crm.requests]
        return [body for body in bodies if body["subject"] == self.failed]


@asynccontextmanager
async def world(folder: Path, **settings: Any) -> AsyncIterator[tuple[Simulator, Path, FakeEndpoint, FakeEndpoint]]:
    async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as crm, FakeEndpoint() as audit:
        shared = {"type": "webhook", "allow_private": True, "retry": ["200ms"] * 5}
        sinks = {
            "crm": {**shared, "url": f"{crm.url}/hooks/s3cr3t", "topics": ["#"], "ordered": True},
            "audit": {**shared, "url": f"{audit.url}/hooks/s3cr3t", "topics": ["voicemail.#"]},
        }
        yield simulator, write_config(folder, simulator, sinks=sinks, **settings), crm, audit


@pytest.fixture
async def story(tmp_path) -> AsyncIterator[Story]:
    async with world(tmp_path) as (simulator, config, crm, audit):
        message = simulator.world.add_message("voice", 2)
        drop = simulator.world.add_drop()
        story = Story(tmp_path, config, simulator, crm, audit)
        story.failed, story.sent = message.recipients
        story.drop = drop.path
        story.phones = [*message.addresses, drop.address]
        with bridge(tmp_path, "run", "-c", str(config)) as process:
            await crm.arrived(4, within=120)
            story.moved.append(datetime.now(UTC))
            for path in (message.path, *message.recipients):
                simulator.world.move(path, "sending")
            await crm.arrived(7, within=120)
            story.moved.append(datetime.now(UTC))
            simulator.world.move(story.failed, "failed", detail="busy", error="SIP 486")
            simulator.world.move(story.sent, "sent", detail="human")
            simulator.world.move_drop(drop, 3)
            simulator.world.add_send_event(code=45)
            await crm.arrived(11, within=120)
            await audit.arrived(2, within=120)
            assert await asyncio.to_thread(process.stop) == 0
        yield story


# --- what was ---------------------------------------------------------------------------------------------------------


async def test_the_state_of_each_source_after_a_run_is_shown(story):
    by_name = {source["name"]: source for source in await story.json("sources")}
    assert {name: source["type"] for name, source in by_name.items()} == {
        "city": "govdelivery",
        "drops": "spacivox",
        "journeys": "marketingcloud",
    }
    assert {name: source["committed"] for name, source in by_name.items()} == {"city": 8, "drops": 2, "journeys": 1}
    now = datetime.now(UTC)
    for source in by_name.values():
        assert (source["state"], source["reported"]) == ("not polled", "ok")  # the run has ended
        assert (source["lag"], source["failures"], source["error"]) == (0, 0, None)
        assert source["confirmed"] == source["committed"] == source["kept"]
        assert source["holder"] is None
        assert source["last_ok"] == source["last_poll"]
        last, following = (datetime.fromisoformat(source[name]) for name in ("last_poll", "next_poll"))
        assert now - timedelta(minutes=1) < last <= now
        assert last < following
    table = await story.command("sources")
    assert re.search(r"^city +govdelivery +not polled \(was ok\) ", table, re.MULTILINE)


async def test_trace_shows_the_history_of_one_recipient_only(story):
    events = await story.json("trace", story.failed)
    assert [(shown["topic"], shown["previous"], shown["transition"]) for shown in events] == [
        ("voice.recipient.new", None, "first"),
        ("voice.recipient.sending", "new", "advance"),
        ("voice.recipient.failed.busy", "sending", "advance"),
    ]
    assert {shown["subject"] for shown in events} == {story.failed}
    assert [shown["id"] for shown in events] == [event["id"] for event in story.life]
    assert [shown["error"] for shown in events] == [None, None, "SIP 486"]
    for shown, moved in zip(events[1:], story.moved, strict=True):
        after, by = (datetime.fromisoformat(shown["observed"][name]) for name in ("after", "by"))
        assert after < moved < by <= datetime.fromisoformat(shown["recorded"])
    for shown in events:
        assert shown["confirmed"]
        audit, crm = shown["sinks"]
        assert (crm["sink"], crm["state"], crm["attempts"]) == ("crm", "taken", [])
        assert (audit["sink"], audit["state"]) == ("audit", "filtered")
        assert audit["said"] == "not sent: its topics are voicemail.#"
    # The same by the id of any of its events, and by a table for a person.
    assert await story.json("trace", events[1]["id"]) == events
    text = await story.command("trace", story.failed)
    assert text.count("broker     has confirmed it") == 3
    assert "voice.recipient.failed.busy (was sending)  advance" in text
    assert [phone for phone in story.phones if phone in text] == []
    nothing = await ask(story.folder, "trace", "/messages/voice/1/recipients/1", "-c", story.config.name)
    assert nothing.returncode == 1
    assert "was not seen, did not change, or changed longer than 168h ago" in nothing.stderr


async def test_trace_shows_unpublished_baseline(tmp_path):
    async with world(tmp_path) as (simulator, config, *_receivers):
        values = yaml.safe_load(config.read_text())
        for source in values["sources"].values():
            source["first_sight"] = "baseline"
        config.write_text(yaml.safe_dump(values))
        message = simulator.world.add_message("voice", 1)
        for path in (message.path, *message.recipients):
            simulator.world.move(path, "sending")
        assert (await ask(tmp_path, "run", "--once", "-c", config.name)).returncode == 0
        said = "recorded at a first start (first_sight: baseline), status sending, not published"
        for resource, path in (
            (message.recipients[0],) * 2,
            (message.path,) * 2,
            (message.path.split("/")[-1], message.path),
        ):
            result = await ask(tmp_path, "trace", resource, "-c", config.name)
            assert (result.returncode, result.stdout) == (0, f"{path}: {said}\n")
        result = await ask(tmp_path, "trace", message.path, "--json", "-c", config.name)
        assert json.loads(result.stdout) == [
            {"subject": message.path, "source": "city", "status": "sending", "said": said}
        ]
        nothing = await ask(tmp_path, "trace", "/j/voicemail_drop_records/1", "-c", config.name)
        assert nothing.returncode == 1
        assert "was there at the first start of city or drops or journeys" in nothing.stderr


async def test_replay_reaches_one_sink_with_original_ids(story):
    before = {request.headers["webhook-id"]: request.body for request in story.crm.requests}
    story.crm.requests.clear()
    arguments = ("replay", "crm", "--since", "1h", "--topic", "voicemail.#", "--topic", "*.recipient.failed.#")
    assert await story.json(*arguments) == {"sink": "crm", "selected": 3, "replayed": 3}
    assert (
        await story.command("replay", "crm", "--since", "1h", "--until", "30m") == "crm: 0 of 0 events are due again\n"
    )
    waiting = (await story.json("deliveries", "list"))["deliveries"]
    assert {delivery["subject"] for delivery in waiting} == {story.failed, story.drop}
    with bridge(story.folder, "run", "-c", str(story.config)) as process:
        await story.crm.arrived(3, within=120)
        await until(lambda: _none(story), "nothing waits any more", within=120)
        assert await asyncio.to_thread(process.stop) == 0
    assert sorted(story.received(story.crm)) == sorted(
        [(story.failed, "failed"), (story.drop, "sent"), (story.drop, "rejected")]
    )
    assert all(before[request.headers["webhook-id"]] == request.body for request in story.crm.requests)
    assert len(story.audit.requests) == 2


async def _none(story: Story) -> bool:
    return not (await story.json("deliveries", "list"))["deliveries"]


async def test_tail_since_an_hour_prints_the_journal(story):
    printed = await story.command("tail", "--since", "1h", "--json", "--count", "11")
    assert sorted(line.encode() for line in printed.splitlines()) == sorted(r.body for r in story.crm.requests)


async def test_retried_delivery_is_shown_with_every_attempt(story):
    story.crm.default = reply(503)
    story.simulator.world.add_drop()
    ran = await ask(story.folder, "run", "--once", "--json", "-c", story.config.name)
    assert ran.returncode == 0, ran.stderr
    done = json.loads(ran.stdout)
    assert done["sources"]["drops"] == {"observed": 2, "events": 1, "problems": []}
    assert done["published"] == 1
    (delivery,) = (await story.json("deliveries", "list", "crm"))["deliveries"]
    assert delivery["topic"] == "voicemail.drop.sent"
    (change,) = await story.json("trace", delivery["subject"])
    audit, crm = change["sinks"]
    assert (crm["state"], audit["state"]) == (delivery["state"], "taken")
    assert crm["attempts"] == delivery["attempts"]
    assert {attempt["error"] for attempt in delivery["attempts"]} == {f"http://127.0.0.1:{story.crm.port} answered 503"}


# --- what shall be ----------------------------------------------------------------------------------------------------


async def test_named_message_is_followed_without_discovery(tmp_path):
    async with world(tmp_path) as (simulator, config, crm, _):
        values = yaml.safe_load(config.read_text())
        values["sources"]["city"]["discover"] = False
        config.write_text(yaml.safe_dump(values))
        messages = [simulator.world.add_message("sms", 1) for _ in range(2)]
        story = Story(tmp_path, config, simulator, crm, crm)
        with bridge(tmp_path, "run", "-c", str(config)) as process:
            drop = simulator.world.add_drop()
            await crm.arrived(1, within=120)
            assert story.received(crm) == [(drop.path, "sent")]
            said = await story.command("watch", "add", "city", messages[1].path)
            assert said == f"{messages[1].path}: is followed from the next poll on\n"
            assert await story.json("watch", "list") == [{"source": "city", "resource": messages[1].path}]
            await crm.arrived(3, within=120)
            simulator.world.move(messages[1].recipient(), "sending")
            simulator.world.move(messages[0].recipient(), "sending")
            await crm.arrived(4, within=120)
            assert await story.command("watch", "remove", "city", messages[1].path) == (
                f"{messages[1].path}: is followed no longer\n"
            )
            assert await story.json("watch", "list", "city") == []
            assert await asyncio.to_thread(process.stop) == 0
        assert sorted(story.received(crm)[1:]) == sorted(
            [(messages[1].path, "new"), (messages[1].recipient(), "new"), (messages[1].recipient(), "sending")]
        )


async def test_configuration_is_shown_with_defaults_without_secrets(tmp_path):
    async with world(tmp_path) as (simulator, config, crm, _):
        done = await ask(tmp_path, "config", "show", "--json", "-c", str(config))
        result = await ask(tmp_path, "config", "show", "-c", str(config))
    shown = json.loads(done.stdout)
    assert shown == yaml.safe_load(result.stdout)
    assert shown["exchange"] == "bridge.events"
    assert shown["sources"]["city"]["interval"] == "250ms"
    assert shown["sources"]["city"]["follow_for"] == "72h"
    assert shown["sinks"]["crm"]["privacy"] == "full"
    assert shown["sinks"]["crm"]["url"] == f"{crm.url}/********"
    settings = simulator.settings
    secrets = ("s3cr3t", settings.govdelivery_token, settings.spacivox_token, settings.client_secret)
    assert [secret for secret in secrets if secret in done.stdout + result.stdout] == []


async def test_separate_simulator_is_polled_by_its_own_configuration(tmp_path):
    arguments = ("simulate", "--listen", "127.0.0.1:0", "--seed", "4", "--speed", "60", "--messages-per-minute", "4")
    with bridge(tmp_path, *arguments, "--write-config", "demo.yaml", "--json", name="simulate") as simulate:
        await until(lambda: simulate.said.endswith("\n"), "it says where it is", within=120)
        said = json.loads(simulate.said)
        assert (said["seed"], said["config"]) == (4, "demo.yaml")
        checked = await ask(tmp_path, "check", "--json", "-c", "demo.yaml")
        assert {part["state"] for part in json.loads(checked.stdout)["parts"]} == {"ok"}
        ran = await ask(tmp_path, "run", "--once", "--json", "-c", "demo.yaml")
        assert ran.returncode == 0
        simulate.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(simulate.wait, 20) == 0
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {event["source"] for event in events} == {"/govdelivery/city", "/spacivox/drops", "/marketingcloud/journeys"}
    # The sink prints events on standard output, so the outcome is on standard error.
    report = json.loads(ran.stderr[ran.stderr.index("\n{\n") :] if not ran.stderr.startswith("{\n") else ran.stderr)
    assert report["failures"] == {}
    assert sum(source["events"] for source in report["sources"].values()) == report["published"] == len(events)
    assert report["sinks"]["screen"]["taken"] == len(events)


async def test_once_reports_on_stdout_unless_a_sink_writes_there(tmp_path):
    async with Simulator(SimulatorSettings.still()) as simulator:
        simulator.world.add_drop()
        lines = tmp_path / "events.jsonl"
        sinks = {"file": {"type": "stdout", "topics": ["#"], "path": str(lines)}}
        config = write_config(tmp_path, simulator, sinks=sinks)
        done = await ask(tmp_path, "run", "--once", "--json", "-c", config.name)
        assert (done.returncode, json.loads(done.stdout)["sinks"]["file"]["taken"]) == (0, 1)
        assert len(lines.read_text().splitlines()) == 1
        # A sink that prints, but not in this round.
        sinks["screen"] = {"type": "stdout", "topics": ["#"]}
        config = write_config(tmp_path, simulator, sinks=sinks)
        done = await ask(tmp_path, "run", "--once", "--json", "--role", "poll", "-c", config.name)
        assert json.loads(done.stdout)["published"] == 0


# --- what the events are ----------------------------------------------------------------------------------------------


async def test_catalogue_names_every_event_and_its_fields(story):
    done = await ask(story.folder, "events", "list", "--json")
    catalogue = {entry["class"]: entry for entry in json.loads(done.stdout)}
    assert {"RecipientFailed", "VoicemailRejected", "SMSNotSent", "UnknownStatus", "SourceStalled"} <= catalogue.keys()
    assert {"sms.recipient.failed", "voice.recipient.failed.busy"} <= {*catalogue["RecipientFailed"]["topics"]}
    event = story.life[-1]
    schema = json.loads((await ask(story.folder, "events", "schema", "RecipientFailed")).stdout)
    assert event["data"].keys() <= schema["properties"].keys()
    assert {*schema["required"]} <= event["data"].keys()
    assert schema["$id"] == event["dataschema"]


# --- exit codes -------------------------------------------------------------------------------------------------------

NEEDS_STORE = [
    ("sources",),
    ("sinks",),
    ("pause", "city"),
    ("resume", "crm"),
    ("poll", "city"),
    ("trace", "/messages/voice/1"),
    ("replay", "crm", "--since", "1h"),
    ("watch", "add", "city", "/messages/voice/1"),
    ("watch", "list"),
    ("deliveries", "list"),
    ("deliveries", "redrive", "crm", "--dead"),
    ("run", "--once"),
    ("check",),
    ("tail",),
]


async def test_unreachable_redis_is_exit_code_4_without_password(tmp_path):
    port = free_port()
    url = f"redis://:canary-0123456789@127.0.0.1:{port}/0"
    async with world(tmp_path, store=url, broker=url.replace("/0", "/1")) as (_, config, *_receivers):
        done = await asyncio.gather(*(ask(tmp_path, *arguments, "-c", str(config)) for arguments in NEEDS_STORE))
    for arguments, result in zip(NEEDS_STORE, done, strict=True):
        assert result.returncode == 4, arguments
        assert "canary" not in result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        if arguments != ("check",):
            assert result.stdout == ""
            lines = [line for line in result.stderr.splitlines() if not line.startswith("{")]
            assert len(lines) == 1, result.stderr
            assert f"127.0.0.1:{port}" in lines[0]
    (checked,) = [result for arguments, result in zip(NEEDS_STORE, done, strict=True) if arguments == ("check",)]
    assert re.search(rf"^store +unreachable .*127\.0\.0\.1:{port}", checked.stdout, re.MULTILINE)
    assert re.search(r"^source city +ok ", checked.stdout, re.MULTILINE)


WRONG_USAGE = [
    (("run", "--role", "cook", "-c", "bridge.yaml"), "there is no 'cook'; choose from poll, relay, sink"),
    (("fly",), "no such command 'fly'"),
    (("tail", "a.#.b", "-c", "bridge.yaml"), "'#' may only be the last"),
    (("replay", "nobody", "--since", "1h", "-c", "bridge.yaml"), "there is no sink 'nobody'"),
    (("replay", "crm", "-c", "bridge.yaml"), "missing option '--since'"),
    (("replay", "crm", "--since", "yesterday", "-c", "bridge.yaml"), "'yesterday' is not a time"),
    (("watch", "add", "nowhere", "1", "-c", "bridge.yaml"), "there is no source 'nowhere'"),
    (("watch", "add", "drops", "1", "-c", "bridge.yaml"), "nothing to name"),
    (("watch", "add", "city", "10507", "-c", "bridge.yaml"), "may be a message of several channels"),
    (("deliveries", "redrive", "-c", "bridge.yaml"), "say which"),
    (("deliveries", "list", "nobody", "-c", "bridge.yaml"), "there is no sink 'nobody'"),
    (("events", "schema", "Nothing"), "Nothing"),
    (("plugins", "schema", "nothing"), "there is no source or sink 'nothing' installed"),
    (("simulate", "--fault", "nothing"), "--list-faults"),
    (("simulate", "--listen", "here"), "is not HOST:PORT"),
    (("demo", "a.#.b"), "'#' may only be the last"),
]


async def test_wrong_usage_is_exit_code_2_with_the_remedy(tmp_path):
    async with world(tmp_path):
        done = await asyncio.gather(*(ask(tmp_path, *arguments) for arguments, _ in WRONG_USAGE))
    for (arguments, words), result in zip(WRONG_USAGE, done, strict=True):
        assert (result.returncode, result.stdout) == (2, ""), (arguments, result.stderr)
        assert words in " ".join(result.stderr.split()), arguments
        assert "Traceback" not in result.stderr
