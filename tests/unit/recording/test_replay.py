"""A life of the bridge, recorded and played again, also with another configuration."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from rigs.recording import (
    SMALL,
    Life,
    configured,
    everything_on,
    living,
    play,
    reasons,
    recorded,
)

from bridge.config.loading import load
from bridge.domain.errors import ConfigError
from bridge.recording import Replay, Side, UnmatchedRequest, compare, offline
from bridge.simulator import Simulator, SimulatorSettings

STAND_INS = ("phone", "contact_key", "message_key", "reference", "provider")


def comparable(event: dict[str, Any]) -> dict[str, Any]:
    """Return all that an event says, apart from when it was recorded and from what has a stand-in."""
    left_out = {"recordedtime"}
    if event["source"].startswith("/marketingcloud/"):
        left_out |= {"id", "subject", "partitionkey"}  # made from the message's key
    return {name: value for name, value in event.items() if name not in left_out} | {
        "data": {name: value for name, value in event["data"].items() if name not in STAND_INS}
    }


FAULTS: dict[str, dict[str, float]] = {
    "none": {},
    "errors": {"http_500": 0.1, "http_502": 0.1, "http_503": 0.1, "not_found": 0.05, "too_many": 0.02},
    "torn": {"torn_body": 0.1, "truncated_json": 0.1, "reset_midway": 0.1, "empty_body": 0.05, "invalid_utf8": 0.1},
    "other answers": {"html_page": 0.1, "still_building": 0.2, "json_null": 0.05, "wrong_shape": 0.05},
    "links": {"absolute_links": 0.5, "page_in_path": 0.3, "cyclic_next": 0.2, "shifted_pages": 0.3},
    "identity": {"items_with_id": 0.3, "absolute_self_links": 0.3, "no_identity": 0.2, "duplicated_items": 0.3},
    "history": {"regress": 0.3, "late_bounce": 0.3, "reopen": 0.3, "cancelling_changes": 0.3, "stale_answer": 0.1},
    "feed": {"short_pages": 0.5, "inclusive_start": 0.5, "watermark_absent": 0.3, "keys_at_top_level": 0.5},
    "tokens": {"token_expires_early": 0.7, "token_short_lived": 0.5, "token_refused": 0.3, "rest_url_absent": 0.3},
    "unknown": {"unknown_status": 0.3, "unknown_fields": 0.3, "other_category": 0.3, "clock_ahead": 0.3},
    "windows": {"window_413": 1.0, "exclusive_ends": 0.5},
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
async def test_replay_repeats_the_recorded_events_and_errors(tmp_path, time, faults):
    async with living(tmp_path, time, changes={"city": {"concurrency": 4}}) as (simulator, life):
        await life.poll()
        active_faults = [simulator.switch_on(name, share=share) for name, share in faults.items()]
        for _ in range(3):
            time.ahead += 12
            await life.poll()
        simulator.switch_off()
        time.ahead += 60
        await life.poll()
    events, replay = await play(tmp_path, life.config)
    assert list(map(comparable, events)) == list(map(comparable, life.events))
    times = [(event["recordedtime"], event["data"]["observed"]["by"]) for event in events]
    assert all(datetime.fromisoformat(recorded) >= datetime.fromisoformat(by) for recorded, by in times)
    assert reasons(replay) == life.failures
    assert replay.summary.missing == {}
    assert replay.summary.polls == life.polls
    assert replay.summary.unasked <= len(life.failures)  # what came while the poll was being given up
    assert len(events) > 100
    assert len({event["id"] for event in events}) == len(events)
    assert not active_faults or any(fault.applied for fault in active_faults)


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
async def test_no_recorded_file_has_personal_data_or_secrets(tmp_path, time, compress):
    changes = {"drops": {"records": ["voicemail_drop", "text", "email"]}, "journeys": {"kinds": ["sms", "email"]}}
    world = SimulatorSettings(**{name: getattr(SMALL, name) for name in ("seed", "speed", "messages_per_minute")})
    async with living(tmp_path, time, world=world, changes=changes, compress=compress) as (simulator, life):
        await life.poll()
        for name in ("unknown_fields", "fields_other_type", "truncated_json", "error_in_200", "token_refused"):
            simulator.switch_on(name, share=0.2)
        for _ in range(2):
            time.ahead += 15
            await life.poll()
        world_ = simulator.world
        messages = [message for channel in ("sms", "voice") for message in world_.messages[channel]]
        phones_ = {phone for message in messages for phone in message.addresses}
        phones_ |= {record.address for kind in world_.records for record in world_.records[kind]}
        canaries = {phone.removeprefix("+1").removeprefix("+") for phone in phones_}
        sends = [event for feed in world_.sends for event in world_.sends[feed]]
        for event in sends:
            canaries |= {event.message_key, event.contact_key, event.to}
        canaries |= {record.reference for kind in world_.records for record in world_.records[kind]}
        canaries -= {None}
    text = everything_on(tmp_path / "tape")
    settings_ = simulator.settings
    secrets = {settings_.govdelivery_token, settings_.spacivox_token, settings_.client_secret, settings_.client_id}
    fixed = {"simulated-access", "Today is sunny", "example.com", "hello.wav", "Example Mobile", "127.0.0.1"}
    assert len(canaries) > 300
    assert [canary for canary in canaries | secrets | fixed if canary in text] == []
    phone = re.compile(r'"(?:formatted_)?phone":"([^"]+)"')
    assert len(set(phone.findall(text))) > 50
    assert len(set(re.findall(r'"access[^"]*"', text))) == 0


async def test_details_of_calls_are_looked_up_again_as_they_were(tmp_path, time):
    world = SimulatorSettings(seed=3, speed=60.0, messages_per_minute=1.0, voice_share=1.0, backlog=0.0, page_size=5)
    async with living(tmp_path, time, world=world) as (simulator, life):
        simulator.switch_on("not_found", share=0.5, path="/recipients/(human|machine|busy|no_answer)")
        wanted, details = {"human", "machine", "busy", None}, set()
        for number in range(40):
            await life.poll("city")
            time.ahead += 7
            details |= {event["data"]["detail"] for event in life.events}
            if number >= 5 and details >= wanted and '"line":"completing"' in everything_on(tmp_path / "tape"):
                break
    assert '"line":"completing"' in everything_on(tmp_path / "tape")
    events, replay = await play(tmp_path, life.config)
    assert list(map(comparable, events)) == list(map(comparable, life.events))
    assert {event["data"]["detail"] for event in events} >= wanted
    assert replay.summary.missing == {}


async def test_a_tape_goes_on_after_a_restart_and_over_replicas(tmp_path, time):
    async with Simulator(SMALL, time.world) as simulator:
        config = configured(tmp_path, simulator)
        lives = []
        for _ in range(2):
            async with Life(tmp_path, config, time.clock) as first, Life(tmp_path, config, time.clock) as other:
                for life in (first, other, other, first):
                    life.read = {name: (await life.store.journal(name)).committed for name in life.sources}
                    time.ahead += 15
                    await life.poll()
                lives += [first, other]
    events, replay = await play(tmp_path, config)
    lived = [event for life in lives for event in life.events]
    by_id = {event["id"]: comparable(event) for event in lived if not event["source"].startswith("/marketing")}
    assert {event["id"]: comparable(event) for event in events if event["id"] in by_id} == by_id
    assert len(events) == len(lived)
    assert replay.summary.missing == {}
    assert len(list((tmp_path / "tape").iterdir())) == 12


async def test_recording_begun_mid_life_replays_the_same_events(tmp_path, time):
    async with Simulator(SMALL, time.world) as simulator:
        config = configured(tmp_path, simulator)
        async with Life(tmp_path, config, time.clock) as before:
            for _ in range(2):
                await before.poll()
                time.ahead += 15
        for path in (tmp_path / "tape").iterdir():
            path.unlink()
        async with Life(tmp_path, config, time.clock) as life:
            for _ in range(3):
                await life.poll()
                time.ahead += 15
    events, replay = await play(tmp_path, config)
    assert list(map(comparable, events)) == list(map(comparable, life.events))
    assert {event["data"]["transition"] for event in events} > {"first", "advance"}
    assert {event["subject"] for event in events} & {event["subject"] for event in before.events}
    assert replay.summary.missing == {}


async def test_what_the_tape_has_met_is_remembered_within_bounds(tmp_path, time, monkeypatch):
    monkeypatch.setattr("bridge.recording.recorder._NOTED", 5)
    async with living(tmp_path, time) as (_, life):
        for _ in range(3):
            await life.poll()
            time.ahead += 15
    assert '"line":"seen"' in everything_on(tmp_path / "tape")
    events, replay = await play(tmp_path, life.config)
    assert list(map(comparable, events)) == list(map(comparable, life.events))
    assert replay.summary.missing == {}


@pytest.mark.parametrize("keep", [0.15, 0.4, 0.6, 0.85])
async def test_truncated_recording_is_played_to_its_end(tmp_path, time, keep):
    async with living(tmp_path, time) as (_, life):
        for _ in range(3):
            await life.poll()
            time.ahead += 15
    for path in (tmp_path / "tape").iterdir():
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    events, replay = await play(tmp_path, life.config)
    lived = [comparable(event) for event in life.events]
    assert all(comparable(event) in lived for event in events)
    assert len(events) < len(lived)
    assert replay.summary.missing == {}
    assert not [reason for reason in reasons(replay) if "tape" in reason]


async def test_what_operators_named_is_followed_again(tmp_path, time):
    world = SimulatorSettings.still()
    async with living(tmp_path, time, world=world, changes={"city": {"discover": False}}) as (simulator, life):
        first, other = (simulator.world.add_message("sms", 2) for _ in range(2))
        await life.store.watch("city", first.path)
        await life.poll("city")
        await life.store.unwatch("city", first.path)
        await life.store.watch("city", other.path)
        time.ahead += 60
        await life.poll("city")
    events, replay = await play(tmp_path, life.config)
    assert list(map(comparable, events)) == list(map(comparable, life.events))
    assert {event["subject"].partition("/recipients")[0] for event in events} == {first.path, other.path}
    assert replay.summary.missing == {}


async def test_changed_configuration_reports_unrecorded_requests(tmp_path, time):
    simulator, _ = await recorded(tmp_path, time)
    changed = configured(tmp_path, simulator, "changed.yaml", city={"page_size": 7}, journeys={"page_size": 9})
    events, replay = await play(tmp_path, changed)
    assert replay.summary.missing == {
        UnmatchedRequest("city", "GET", "/messages/sms?page_size=7&sort_by=created_at&sort_order=DESC"): 2,
        UnmatchedRequest("journeys", "GET", "/messaging/v1/sms/messages/?type=notSent&$pageSize=9"): 2,
    }
    assert replay.summary.unasked > 0
    assert "the tape has no answer to it" in " ".join(reasons(replay))
    assert {event["source"].split("/")[2] for event in events} == {"city", "drops"}
    assert str(min(replay.summary.missing)).startswith("city: GET /messages/sms?page_size=7")


async def test_sources_that_the_configuration_does_not_have_are_passed_over(tmp_path, time):
    simulator, life = await recorded(tmp_path, time)
    values = yaml.safe_load(life.config.read_text())
    values["sources"]["drops"] = values["sources"]["city"]
    del values["sources"]["journeys"]
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(values))
    events, replay = await play(tmp_path, other)
    assert {event["source"] for event in events} == {"/govdelivery/city"}
    assert replay.summary.passed_over == [
        f"journeys: on the tape, and not in {other}",
        f"drops: of type spacivox on the tape, and govdelivery in {other}",
    ]
    del simulator


async def differences(folder: Path, first: Path, second: Path) -> list[Any]:
    async def events(config: Path) -> AsyncIterator[dict[str, Any]]:
        async for entry in Replay(folder / "tape", offline(config)).events():
            yield json.loads(entry.event.body)

    return [difference async for difference in compare(events(first), events(second))]


async def test_a_status_that_is_mapped_otherwise_shows_in_the_differences(tmp_path, time):
    simulator, life = await recorded(tmp_path, time, "unknown_status", rounds=3)
    assert await differences(tmp_path, life.config, life.config) == []
    changed = configured(tmp_path, simulator, "changed.yaml", city={"statuses": {"throttled": "sending"}})
    differing = await differences(tmp_path, life.config, changed)
    gone = [difference.event for difference in differing if difference.side is Side.FIRST]
    made = [difference.event for difference in differing if difference.side is Side.SECOND]
    assert {event["data"]["provider_status"] for event in gone if event["type"].endswith(".unknown")} == {"throttled"}
    assert "bridge.sms.recipient.sending" in {event["type"] for event in made}
    assert {event["subject"] for event in made} <= {difference.event["subject"] for difference in differing}
    assert all(event["source"] == "/govdelivery/city" for event in (*gone, *made))


async def test_a_first_sight_that_is_silent_shows_in_the_differences(tmp_path, time):
    simulator, life = await recorded(tmp_path, time)
    changed = configured(tmp_path, simulator, "changed.yaml", drops={"first_sight": "baseline"})
    differing = await differences(tmp_path, life.config, changed)
    assert {(difference.side, difference.event["source"]) for difference in differing} == {
        (Side.FIRST, "/spacivox/drops")
    }
    assert {difference.event["data"]["transition"] for difference in differing} == {"first"}


async def test_event_comparison_ignores_only_the_recording_time():
    async def side(*events: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for event in events:
            yield event

    original = {"id": "1", "recordedtime": "a", "data": {"status": "sent", "detail": None}}
    other = {"id": "1", "recordedtime": "b", "data": {"status": "failed", "detail": None, "error": "x"}, "extra": 1}
    (difference,) = [entry async for entry in compare(side(original, original), side(other, other))]
    assert difference.changes == (("data.status", "sent", "failed"), ("data.error", None, "x"), ("extra", None, 1))
    assert difference.plain() == {
        "in": "both",
        "event": original,
        "changes": [
            {"field": "data.status", "first": "sent", "second": "failed"},
            {"field": "data.error", "first": None, "second": "x"},
            {"field": "extra", "first": None, "second": 1},
        ],
    }
    assert [entry async for entry in compare(side(original), side(original | {"recordedtime": "c"}))] == []
    only = [entry async for entry in compare(side(original), side({"id": "2"}))]
    assert [(entry.side, entry.plain()["event"]["id"]) for entry in only] == [("second", "2"), ("first", "1")]


def test_variables_that_are_not_set_need_not_be(tmp_path, monkeypatch):
    monkeypatch.setenv("TEAM", "7")
    path = tmp_path / "bridge.yaml"
    path.write_text(
        "sources: {drops: {type: spacivox, url: 'https://x.example', token: '${NO_SUCH_TOKEN}', "
        "team: '${TEAM}', interval: '${NO_SUCH_INTERVAL:-7s}'}}"
    )
    source = offline(path).sources["drops"]
    assert (source.interval, source.team) == (7.0, 7)
    with pytest.raises(ConfigError, match="NO_SUCH_TOKEN"):
        load(path)
    with pytest.raises(ConfigError):
        offline(tmp_path / "none.yaml")
