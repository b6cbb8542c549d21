"""The simulated world, its time, and its server."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from rigs.simulator import Reader, window

from bridge.domain.clock import Clock
from bridge.simulator import PROVIDERS, Simulator, SimulatorSettings, demo_settings
from bridge.simulator.clock import WorldClock
from bridge.simulator.config_snippet import configuration
from bridge.simulator.govdelivery import SimulatedGovDelivery
from bridge.simulator.histories import FINALS
from bridge.simulator.request_log import RequestLog
from bridge.simulator.spacivox import SimulatedSpacivox
from bridge.simulator.world import World

BEGIN = datetime(2026, 3, 15, 21, 0, tzinfo=UTC)


def still_clock(moment=BEGIN):
    return WorldClock(Clock(now=lambda: moment, monotonic=lambda: 0.0), manual=True)


def lively(seed):
    world = World(SimulatorSettings(seed=seed, late_share=0.2), still_clock())
    history = []
    for _ in range(12):
        world.clock.advance(5)
        history.append(
            (
                [(m.path, m.state, m.completed, tuple(m.states), m.addresses) for m in world.settled("voice")],
                [(m.path, m.state, m.completed, tuple(m.states), m.addresses) for m in world.settled("sms")],
                [(r.path, r.state(world.now()), r.born, r.address) for r in world.records["voicemail_drop"]],
                [(e.number, e.code, e.at, e.message_key) for e in world.sends["sms"]],
            )
        )
    return history


def test_world_depends_on_its_seed():
    assert lively(3) == lively(3)
    assert lively(3) != lively(4)


def test_reading_a_world_does_not_change_it():
    often = lively(5)[-1]
    once = World(SimulatorSettings(seed=5, late_share=0.2), still_clock())
    once.clock.advance(60)
    assert [(m.path, m.state, m.completed, tuple(m.states), m.addresses) for m in once.settled("sms")] == often[1]


def test_every_recipient_ends_and_every_ending_occurs():
    settings = SimulatorSettings.still(
        seed=2, late_share=0.05, canceled_share=0.3, inconclusive_share=0.1, blacklisted_share=0.05, failed_share=0.2
    )
    world = World(settings, still_clock())
    messages = [world.add_message(("sms", "voice", "email")[n % 3], 120, live=True) for n in range(12)]
    world.clock.advance(30 * 86400)
    ends, details = Counter(), Counter()
    for message in messages:
        message.settle(world.now())
        assert message.state.status in {"completed", "canceled"}
        assert sum(message.counts.values()) == len(message.states)
        assert all(state.status in FINALS for state in message.states)
        ends.update(state.status for state in message.states)
        details.update(state.detail for state in message.states)
        for name, members in message.members.items():
            assert members == [i for i, state in enumerate(message.states) if name in (state.status, state.detail)]
            assert message.details[name] == len(members)
    assert set(ends) == FINALS | {key for key in ends if not ends[key]}
    assert {"human", "machine", "busy", "no_answer", "could_not_connect"} <= set(details)


def test_a_final_status_may_still_change_after_completion():
    world = World(SimulatorSettings.still(late_share=1.0, failed_share=0.0), still_clock())
    message = world.add_message("sms", 20, live=True)
    while message.settle(world.now()).state.status != "completed":
        world.clock.advance(10)
    assert message.counts["failed"] == 0
    world.clock.advance(30 * 86400)
    assert message.settle(world.now()).counts["failed"] >= 15


def test_drops_end_delivered_failed_or_rejected():
    world = World(SimulatorSettings.still(drops_per_minute=60, failed_share=0.3, late_share=0.2), still_clock())
    world.clock.advance(300)
    world.now()
    ends = Counter(record.steps[-1].state.status for record in world.records["voicemail_drop"])
    assert set(ends) == {"1", "2", "3"}
    assert all(record.steps[0].state.status == "0" for record in world.records["voicemail_drop"])


def test_an_old_world_forgets_and_does_not_grow():
    world = World(SimulatorSettings(keep_messages=10, keep_records=20), still_clock())
    world.clock.advance(60)
    assert all(len(world.settled(channel)) <= 10 for channel in world.messages)
    assert all(len(records) <= 20 for records in (*world.records.values(), *world.sends.values()))


@pytest.mark.parametrize("path", ["", "/messages/sms", "/messages/sms/x", "/messages/sms/1", "{path}/recipients/1"])
def test_moving_what_does_not_exist_is_an_error(path):
    world = World(SimulatorSettings.still(), still_clock())
    message = world.add_message("sms", ["+15555550100"])
    with pytest.raises(KeyError):
        world.move(path.format(path=message.path), "sent")
    with pytest.raises(IndexError):
        message.recipient(1)


def test_a_recipient_can_be_moved_at_a_later_time():
    world = World(SimulatorSettings.still(), still_clock())
    message = world.add_message("sms", ["+15555550100"])
    world.move(message.recipient(), "sent", at=world.now() + 5)
    assert message.states[0].status == "new"
    world.clock.advance(6)
    assert world.message("sms", message.number).states[0].status == "sent"


def test_swapping_needs_one_of_each():
    world = World(SimulatorSettings.still(), still_clock())
    message = world.add_message("voice", 2, recipient_status="sent")
    assert not world.swap(message)
    world.move(message.recipient(0), "failed", detail="busy")
    before = dict(message.counts)
    assert world.swap(message)
    assert dict(message.counts) == before
    assert [state.status for state in message.states] == ["sent", "failed"]


def test_demo_shows_a_failure_and_all_providers_in_five_seconds():
    world = World(demo_settings(), still_clock())
    world.now()
    assert world.records["voicemail_drop"]
    assert world.sends["sms"]
    world.clock.advance(4)
    messages = [*world.settled("sms"), *world.settled("voice")]
    assert sum(message.counts["failed"] for message in messages) >= 1
    changes = sum(message.version for message in messages)
    world.clock.advance(10)
    assert sum(message.version for message in [*world.settled("sms"), *world.settled("voice")]) > changes


def test_the_worlds_time_runs_stands_and_never_goes_back():
    real = [100.0]
    clock = WorldClock(Clock(now=lambda: BEGIN, monotonic=lambda: real[0]), begins_ago=10)
    begin = BEGIN.timestamp() - 10
    real[0] += 5
    assert clock.now() == begin + 5
    clock.freeze()
    real[0] += 5
    assert (clock.now(), clock.frozen) == (begin + 5, True)
    clock.thaw()
    clock.thaw()
    real[0] += 1
    assert clock.now() == begin + 6
    assert clock.advance(10) == begin + 16
    with pytest.raises(ValueError, match="never goes back"):
        clock.advance(-1)


def test_a_speed_of_nothing_is_refused():
    with pytest.raises(ValueError, match="speed"):
        SimulatorSettings(speed=0)


async def test_each_provider_can_have_a_port_of_its_own():
    async with Simulator(SimulatorSettings.still(separate_ports=True)) as sim, aiohttp.ClientSession() as session:
        assert len(set(sim.urls.values())) == 3
        async with session.get(sim.urls["spacivox"] + "/messages/sms") as response:
            assert response.status == 404
        async with session.get(sim.urls["spacivox"] + "/j/text_records") as response:
            assert response.status == 403


async def test_occupied_port_is_an_error(sim):
    other = Simulator(SimulatorSettings.still())
    with pytest.raises(OSError, match="in use"):
        await other.start(port=int(sim.url.rpartition(":")[2]))


@pytest.mark.parametrize("name", ["never_answers", "headers_only", "slow_answer", "slow_drip", "refused"])
async def test_stopping_disconnects_waiting_clients(name):
    async with Simulator(SimulatorSettings.still()) as sim, aiohttp.ClientSession() as session:
        sim.switch_on(name, value=3600)
        asking = asyncio.create_task(Reader(sim, session).full("/"))
        async with asyncio.timeout(60):
            while not sim.board.applied:  # noqa: ASYNC110 - a counter rings no bell
                await asyncio.sleep(0.005)
            await sim.stop()
            with pytest.raises(aiohttp.ClientError):
                await asking
            with pytest.raises(aiohttp.ClientConnectorError):
                await Reader(sim, session).full("/")


async def test_a_client_that_leaves_in_the_middle_was_shown_nothing(sim):
    sim.world.add_message("sms", 50)
    sim.switch_on("slow_drip", value=1)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.1)) as session:
        with pytest.raises(TimeoutError):
            await Reader(sim, session).full("/messages/sms")
    assert sim.board.applied == {"slow_drip": 1}
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        sim.switch_off()
        await Reader(sim, session).full("/")
    assert sim.ground_truth() == []


async def test_requests_are_counted_by_kind_and_by_second(sim, reader):
    message = sim.world.add_message("sms", 1)
    for _ in range(3):
        await reader.get(message.path)
    await reader.get("/")
    _, report = await reader.control("requests")
    assert report["govdelivery"]["count"] == 4
    assert report["govdelivery"]["views"] == {"message": 3, "root": 1}
    assert report["govdelivery"]["statuses"] == {"200": 4}
    assert report["spacivox"]["count"] == 0
    await reader.control("requests", "DELETE")
    assert (await reader.control("requests"))[1]["govdelivery"]["count"] == 0


def test_the_most_requests_in_any_second_are_found():
    traffic = RequestLog()
    for at in (0.0, 0.9, 1.0, 1.5, 1.89, 5.0):
        traffic.begin("x", at)
        traffic.end(200)
    assert traffic.most_in(1.0) == 4
    assert traffic.times[-1] == 5.0
    assert traffic.views == {"x": 6}
    assert traffic.report()["most_at_once"] == 1


async def test_a_test_of_another_process_can_pull_all_strings(sim, reader):
    _, made = await reader.control("world", "POST", json={"add_message": {"channel": "voice", "recipients": 2}})
    await reader.get(f"{made['subject']}/recipients")
    move = {"path": made["recipients"][0], "status": "failed", "detail": "busy"}
    assert (await reader.control("world", "POST", json={"move": move}))[0] == 200
    _, drop = await reader.control("world", "POST", json={"add_drop": {"team": 2}})
    await reader.control("world", "POST", json={"move_drop": {"subject": drop["subject"], "state": 2}})
    _, event = await reader.control("world", "POST", json={"add_send_event": {"code": 51}})
    _, books = await reader.control("books")
    assert books["govdelivery"]["recipients"]["failed"] == 1
    assert books["govdelivery"]["messages"][0]["recipient_detail_counts"]["busy"] == 1
    assert books["spacivox"]["voicemail_drop"] == {"2": 1}
    assert books["marketingcloud"] == {"sms": 1, "email": 0}
    assert books["unseen"] == 4
    _, unseen = await reader.control("unseen")
    assert set(unseen) == {made["subject"], made["recipients"][0], drop["subject"], event["subject"]}
    _, transitions = await reader.control("truth?provider=govdelivery&without=messages,message")
    assert [transition["status"] for transition in transitions["govdelivery"]] == ["new", "new"]
    assert transitions["govdelivery"][0]["at"].endswith("Z")


async def test_time_and_faults_are_pulled_from_another_process_too(sim, reader):
    _, before = await reader.control("")
    _, after = await reader.control("advance?seconds=60", "POST")
    assert datetime.fromisoformat(after["time"]) - datetime.fromisoformat(before["time"]) == timedelta(seconds=60)
    assert (await reader.control("freeze", "DELETE"))[1]["frozen"] is False
    assert (await reader.control("freeze", "POST"))[1]["frozen"] is True
    _, on = await reader.control("faults", "POST", json={"name": "http_500", "limit": 1})
    assert on["active"][0]["struck"] == 0
    assert (await reader.full("/"))[0] == 500
    assert (await reader.full("/"))[0] == 200
    assert (await reader.control("faults"))[1]["struck"] == {"http_500": 1}
    assert (await reader.control("faults", "DELETE"))[1]["active"] == []


@pytest.mark.parametrize(
    ("path", "method", "body", "status"),
    [
        ("nothing", "GET", None, 404),
        ("advance", "POST", None, 400),
        ("faults", "POST", {"name": "http_999"}, 400),
        ("faults", "POST", {"name": "http_500", "often": 1}, 400),
        ("world", "POST", {"destroy": {}}, 400),
        ("world", "POST", {"move_drop": {"subject": "/j/1", "state": 1}}, 400),
        ("truth?provider=x", "GET", None, 400),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(reader, path, method, body, status):
    assert (await reader.control(path, method, **({"json": body} if body else {})))[0] == status


async def test_running_world_advances_until_it_is_frozen():
    settings = SimulatorSettings(seed=1, speed=600, faults=())
    async with Simulator(settings) as sim, aiohttp.ClientSession() as session:
        reader = Reader(sim, session)
        sim.time.freeze()
        while sim.unseen():
            for channel in ("sms", "voice"):
                for message in sim.world.settled(channel):
                    for path in (message.path, *(f"{message.path}/recipients?page={n}" for n in range(1, 42))):
                        if not await reader.get(path):
                            break
            for kind in ("voicemail_drop", "text", "email"):
                await reader.get(f"/j/{kind}_records?{window(sim)}")
            for feed in ("sms", "email"):
                await reader.get(f"/messaging/v1/{feed}/messages/?type=notSent&$pageSize=500")
        assert len(sim.ground_truth()) > 30


def test_a_configuration_of_the_bridge_names_all_three(tmp_path):
    made = configuration(dict.fromkeys(PROVIDERS, "http://127.0.0.1:1"), SimulatorSettings(), state=tmp_path)
    assert {source["type"] for source in made["sources"].values()} == set(PROVIDERS)
    assert made["state"] == str(tmp_path)


def test_provider_apis_know_their_own_paths():
    world = World(SimulatorSettings.still(), still_clock())
    assert SimulatedGovDelivery(world).view("/messages/voice/1/recipients/human") == "recipients.human"
    assert SimulatedGovDelivery(world).view("/messages/voice/1/recipients/7") == "recipient"
    assert SimulatedGovDelivery(world).view("/j/text_records") is None
    assert SimulatedSpacivox(world).view("/messages/sms") is None
