"""What the simulator notes as shown is what an answer said."""

from __future__ import annotations

import aiohttp
import pytest
from rigs.simulator import FEED, window

from bridge.simulator import PROVIDERS
from bridge.simulator.ground_truth import GroundTruth, ShownStatus
from bridge.simulator.provider_api import SimRequest, path_of


async def test_ground_truth_has_served_states_only(sim, reader):
    message = sim.world.add_message("voice", 1, status="sending", recipient_status="sending")
    recipients = f"{message.path}/recipients"
    await reader.get(recipients)
    sim.world.move(message.recipient(), "inconclusive")
    sim.world.move(message.recipient(), "failed", detail="busy")
    await reader.get(recipients)
    await reader.get(recipients)
    await reader.get(f"{recipients}/busy")
    sim.world.move(message.recipient(), "sending")
    sim.world.move(message.recipient(), "failed", detail="no_answer")
    await reader.get(recipients)
    shown = sim.ground_truth("govdelivery")
    assert [(transition.previous, transition.status, transition.detail) for transition in shown] == [
        (None, "sending", None),
        ("sending", "failed", "busy"),
    ]
    assert shown[0].subject == message.recipient()
    assert message.path in sim.unseen()
    await reader.get(message.path)
    assert sim.unseen() == []


async def test_a_detail_after_a_second_failure_belongs_to_the_second(sim, reader):
    message = sim.world.add_message("voice", 1, recipient_status="new")
    for detail in ("busy", "busy"):
        sim.world.move(message.recipient(), "failed", detail=detail)
        await reader.get(f"{message.path}/recipients")
        await reader.get(f"{message.path}/recipients/busy")
        sim.world.move(message.recipient(), "sending")
        await reader.get(f"{message.path}/recipients")
    shown = [(transition.status, transition.detail) for transition in sim.ground_truth()]
    assert shown == [("failed", "busy"), ("sending", None), ("failed", "busy"), ("sending", None)]


def test_unread_view_can_be_left_out_exactly():
    shown_history = GroundTruth("govdelivery")
    subject = "/messages/sms/1"
    for at, (view, raw) in enumerate(
        [("messages", "new"), ("message", "new"), ("messages", "sending"), ("message", "new"), ("message", "completed")]
    ):
        shown_history.saw(view, [ShownStatus(subject, raw)], at)
    assert [transition.status for transition in shown_history.transitions()] == ["new", "sending", "new", "completed"]
    assert [transition.status for transition in shown_history.transitions(without={"messages"})] == ["new", "completed"]


def test_every_mark_is_one_transition_however_often_it_is_shown():
    shown_history = GroundTruth("marketingcloud")
    statuses = [ShownStatus("/m/1", "SMSNotSent", None, "sms:1"), ShownStatus("/m/1", "SMSNotSent", None, "sms:2")]
    shown_history.saw("events", statuses, 1.0)
    shown_history.saw("events", statuses, 2.0)
    assert [(transition.status, transition.mark) for transition in shown_history.transitions()] == [
        ("not_sent", "sms:1"),
        ("not_sent", "sms:2"),
    ]


async def test_what_an_answer_shows_is_what_its_body_says(reader, sim):
    voice = sim.world.add_message("voice", 60, live=True, at=sim.time.now() - 60)
    sim.world.add_message("sms", 60, live=True, at=sim.time.now() - 60)
    for number in range(4):
        sim.world.add_drop(state=number)
        sim.world.add_send_event(message_key="" if number else None)
    paths = [
        "/messages/voice",
        "/messages/sms",
        voice.path,
        voice.recipient(),
        f"/j/voicemail_drop_records?{window(sim)}",
    ]
    paths += [FEED, *(f"{voice.path}/recipients{rest}" for rest in ("", "?page=2", "/failed", "/human", "/machine"))]
    for path in paths:
        await reader.get(path)
    shown = sim.ground_truth()
    sim.switch_on("unknown_fields")  # from here on, what is shown is read from the bodies themselves
    for path in paths:
        await reader.get(path)
    assert sim.board.applied["unknown_fields"] == len([path for path in paths if await reader.get(path)])
    assert sim.ground_truth() == shown
    assert {transition.provider for transition in shown} == set(PROVIDERS)


async def test_a_torn_answer_was_not_seen(sim, reader):
    message = sim.world.add_message("sms", 1)
    sim.switch_on("torn_body", limit=1)
    with pytest.raises(aiohttp.ClientPayloadError):
        await reader.get(message.path)
    assert sim.ground_truth() == []
    await reader.get(message.path)
    assert [transition.status for transition in sim.ground_truth()] == ["new"]


async def test_unknown_status_is_shown_with_its_raw_value(sim, reader):
    message = sim.world.add_message("sms", 1)
    sim.world.move(message.path, "paused")
    await reader.get(message.path)
    assert [(transition.status, transition.raw) for transition in sim.ground_truth()] == [("unknown", "paused")]


@pytest.mark.parametrize(
    "payload",
    [
        None,
        3,
        [3, {}, {"status": "new"}, {"id": 7}, {"_links": [], "status": "x"}],
        {"messages": [{}, 4]},
        {"messages": 3},
    ],
)
async def test_bodies_without_sense_show_nothing(sim, payload):
    ask = SimRequest("GET", "/messages/sms", {}, {}, b"", "messages", "http://127.0.0.1")
    for api in sim._apis:
        assert api.shown_statuses(ask, payload) == []


def test_links_may_be_absolute():
    assert path_of("http://127.0.0.1:1/messages/sms/1") == "/messages/sms/1"
    assert path_of("/messages/sms/1") == "/messages/sms/1"
    assert path_of(None) is None
