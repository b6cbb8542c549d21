"""The simulated providers answer as documented, and know exactly what they have shown."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
import pytest_asyncio

from bridge.domain.clock import Clock
from bridge.simulator import PROVIDERS, Simulator, SimulatorSettings, demo_settings
from bridge.simulator.clock import WorldClock
from bridge.simulator.config_snippet import configuration
from bridge.simulator.govdelivery import SimulatedGovDelivery
from bridge.simulator.ground_truth import GroundTruth, ShownStatus
from bridge.simulator.histories import FINALS
from bridge.simulator.marketingcloud import central
from bridge.simulator.provider_api import SimRequest, path_of
from bridge.simulator.request_log import RequestLog
from bridge.simulator.spacivox import SimulatedSpacivox
from bridge.simulator.world import World

BEGIN = datetime(2026, 3, 15, 21, 0, tzinfo=UTC)
FEED = "/messaging/v1/sms/messages/?type=notSent"


class Reader:
    """A plain client with the right credentials."""

    def __init__(self, sim, session):
        self.sim = sim
        self.session = session
        self.token = None

    async def raw(self, path, headers, method="GET", **options):
        async with self.session.request(method, self.sim.url + path, headers=headers, **options) as response:
            return response.status, response.headers, await response.read()

    async def full(self, path):
        settings = self.sim.settings
        if path.startswith(("/messages/", "/reports/")) or path == "/":
            headers = {"X-AUTH-TOKEN": settings.govdelivery_token}
        elif path.startswith("/j/"):
            headers = {"Authorization": f"Bearer {settings.spacivox_token}"}
        else:
            self.token = self.token or (await self.sign_in())["access_token"]
            headers = {"Authorization": f"Bearer {self.token}"}
        return await self.raw(path, headers)

    async def get(self, path):
        status, _, body = await self.full(path)
        assert status == 200, (status, body)
        return json.loads(body)

    async def sign_in(self, **changes):
        settings = self.sim.settings
        asked = {
            "grant_type": "client_credentials",
            "client_id": settings.client_id,
            "client_secret": settings.client_secret,
            "account_id": settings.account_id,
            **changes,
        }
        return json.loads((await self.raw("/v2/token", {}, "POST", json=asked))[2])

    async def control(self, path, method="GET", **options):
        status, _, body = await self.raw(f"/_simulator/{path}", {}, method, **options)
        return status, json.loads(body)


@pytest_asyncio.fixture
async def sim():
    async with Simulator(SimulatorSettings.still(manual_clock=True, begins_ago=3600)) as sim:
        yield sim


@pytest_asyncio.fixture
async def reader(sim):
    async with aiohttp.ClientSession() as session:
        yield Reader(sim, session)


def window(sim, before=3600, after=3600):
    now = datetime.fromtimestamp(sim.time.now(), UTC)
    start, end = (now + timedelta(seconds=by) for by in (-before, after))
    return f"start={start:%Y-%m-%dT%H:%M:%SZ}&end={end:%Y-%m-%dT%H:%M:%SZ}"


# --- GovDelivery ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"X-AUTH-TOKEN": "wrong"}])
async def test_govdelivery_refuses_a_wrong_token_as_documented(reader, headers):
    status, _, body = await reader.raw("/messages/sms", headers)
    assert (status, json.loads(body)) == (401, {"error": "Invalid authentication token"})


async def test_the_root_links_to_the_channels(reader):
    assert (await reader.get("/"))["_links"]["voice_messages"] == "/messages/voice"


async def test_a_call_is_shown_with_the_fields_of_the_reference(sim, reader):
    message = sim.world.add_message("voice", 2, status="completed")
    sim.world.move(message.recipient(0), "sent", detail="machine")
    sim.world.move(message.recipient(1), "failed", detail="could_not_connect", error="SIP 503")
    shown = await reader.get(message.path)
    assert {"play_url", "from_number", "created_at", "completed_at", "status", "_links"} <= set(shown)
    assert shown["recipient_counts"] == {
        "total": 2,
        "new": 0,
        "sending": 0,
        "inconclusive": 0,
        "blacklisted": 0,
        "canceled": 0,
        "sent": 1,
        "failed": 1,
    }
    assert shown["recipient_detail_counts"] == {"busy": 0, "no_answer": 0, "human": 0, "machine": 1}
    for name in ("recipients", "failed", "sent", "human", "machine", "busy", "no_answer", "could_not_connect"):
        assert isinstance(await reader.get(shown["_links"][name]), list)
    (failed,) = await reader.get(shown["_links"]["could_not_connect"])
    assert failed["status"] == "failed"
    assert failed["error_message"] == "SIP 503"
    assert failed["_links"] == {"self": message.recipient(1), "voice_message": message.path}
    assert re.fullmatch(r"\+1\d{3}55501\d\d", failed["formatted_phone"])
    assert "id" not in failed
    assert await reader.get(failed["_links"]["self"]) == failed


async def test_counts_are_absent_while_a_message_is_new(sim, reader):
    message = sim.world.add_message("voice", 1)
    assert not {"recipient_counts", "recipient_detail_counts"} & set(await reader.get(message.path))
    sim.world.move(message.path, "queued")
    assert (await reader.get(message.path))["recipient_counts"]["new"] == 1


@pytest.mark.parametrize(
    "path",
    [
        "/messages/sms/1",
        "/messages/fax",
        "/messages/sms/{number}/recipients/human",
        "/messages/sms/{number}/recipients/1",
        "/messages/sms/{number}/elsewhere",
        "/reports/messages/voice/statistics",
        "/j/call_records",
        "/messaging/v1/push/messages/",
        "/elsewhere",
    ],
)
async def test_what_does_not_exist_is_404(sim, reader, path):
    number = sim.world.add_message("sms", 1).number
    assert (await reader.full(path.format(number=number)))[0] == 404


async def test_recipients_come_in_pages_of_fifty_with_links(sim, reader):
    message = sim.world.add_message("sms", 120)
    path, recipients, relations = f"{message.path}/recipients", [], []
    while path:
        _, headers, body = await reader.full(path)
        recipients += [item["_links"]["self"] for item in json.loads(body)]
        links = {name: target for target, name in re.findall(r'<([^>]*)>; rel="(\w+)"', headers["Link"])}
        relations.append(sorted(links))
        path = links.get("next")
    assert recipients == message.recipients
    assert relations == [["first", "last", "next"], ["first", "last", "next", "prev"], ["first", "last", "prev"]]
    assert await reader.get(f"{message.path}/recipients?page=9") == []


async def test_one_page_has_no_link_header(sim, reader):
    message = sim.world.add_message("sms", 50)
    assert "Link" not in (await reader.full(f"{message.path}/recipients"))[1]


async def test_messages_come_newest_first_and_sms_lists_take_parameters(sim, reader):
    now = sim.time.now()
    paths = [sim.world.add_message("sms", 1, at=now - 100 + n).path for n in range(60)]

    async def listed(query):
        return [item["_links"]["self"] for item in await reader.get(f"/messages/sms{query}")]

    assert await listed("") == paths[::-1][:50]
    assert await listed("?page_size=100") == paths[::-1]
    assert await listed("?page_size=7&page=2&sort_order=asc") == paths[7:14]
    assert await listed("?sort_by=id&page_size=1") == paths[-1:]
    _, headers, _ = await reader.full("/messages/sms?page_size=7&page=2")
    assert "</messages/sms?page_size=7&page=3>" in headers["Link"]


@pytest.mark.parametrize("query", ["page_size=0", "page_size=101", "page_size=x", "sort_by=phone", "sort_order=UP"])
async def test_list_parameters_out_of_bounds_are_refused(reader, query):
    assert (await reader.full(f"/messages/sms?{query}"))[0] == 400


async def test_voice_lists_take_no_parameters(sim, reader):
    for number in range(3):
        sim.world.add_message("voice", 1, at=sim.time.now() + number - 10)
    assert len(await reader.get("/messages/voice?page_size=1&sort_by=nonsense")) == 3


async def test_a_listing_answers_202_while_it_is_built():
    settings = SimulatorSettings.still(manual_clock=True, builds_for=10)
    async with Simulator(settings) as sim, aiohttp.ClientSession() as session:
        reader = Reader(sim, session)
        path = f"{sim.world.add_message('sms', 2).path}/recipients"
        assert (await reader.full(path))[0] == 202
        sim.time.advance(11)
        assert len(await reader.get(path)) == 2


async def test_statistics_count_recipients_by_message_creation(sim, reader):
    sim.world.add_message("sms", 3, recipient_status="sent")
    old = sim.world.add_message("sms", 2, recipient_status="failed", at=sim.time.now() - 7200)
    counted = (await reader.get(f"/reports/messages/sms/statistics?{window(sim)}"))["recipients"]
    assert (counted["sent"], counted["failed"]) == (3, 0)
    assert old.path
    assert (await reader.full("/reports/messages/sms/statistics?start=2026-01-01T00:00:00Z"))[0] == 422


async def test_email_messages_have_addresses_instead_of_phones(sim, reader):
    message = sim.world.add_message("email", 1)
    (recipient,) = await reader.get(f"{message.path}/recipients")
    assert recipient["email"].endswith("@example.com")
    assert "phone" not in recipient


# --- Spacivox ---------------------------------------------------------------------------------------------------------


async def test_spacivox_refuses_a_wrong_token_with_403(reader):
    assert (await reader.raw("/j/voicemail_drop_records", {"Authorization": "Bearer wrong"}))[0] == 403


@pytest.mark.parametrize(
    "query",
    [
        "",
        "start=2026-01-01T00:00:00Z",
        "end=2026-01-01T00:00:00Z",
        "start=x&end=y",
        "start=2026-01-01T00:00:00&end=2026-01-02T00:00:00",
        "start=2026-01-01T00:00:00Z&end=2026-01-02T00:00:00Z&team=x",
    ],
)
async def test_spacivox_wants_both_ends_of_the_window(reader, query):
    assert (await reader.full(f"/j/voicemail_drop_records?{query}"))[0] == 400


async def test_drop_is_shown_with_documented_fields_and_changes(sim, reader):
    drop = sim.world.add_drop(team=3, campaign=4)
    sim.world.add_drop(team=1, at=sim.time.now() - 9000)
    (shown,) = await reader.get(f"/j/voicemail_drop_records?{window(sim)}&team=3")
    assert set(shown) == {"campaign", "id", "job", "number", "reference", "state", "team", "timestamp"}
    assert (shown["id"], shown["state"], shown["team"], shown["campaign"]) == (drop.number, 0, 3, 4)
    assert re.fullmatch(r"\+3363998\d{4}", shown["number"])
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{3}Z", shown["timestamp"])
    sim.world.move_drop(drop, 3, at=sim.time.now() + 60)
    assert (await reader.get(f"/j/voicemail_drop_records?{window(sim)}"))[0]["state"] == 0
    sim.time.advance(61)
    assert (await reader.get(f"/j/voicemail_drop_records?{window(sim)}"))[0]["state"] == 3
    assert [transition.status for transition in sim.ground_truth("spacivox")] == ["sent", "rejected"]


async def test_text_and_email_records_have_lists_of_their_own(sim, reader):
    sim.world.add_drop(kind="text", state=1)
    sim.world.add_drop(kind="email", state=2)
    assert await reader.get(f"/j/voicemail_drop_records?{window(sim)}") == []
    assert (await reader.get(f"/j/text_records?{window(sim)}"))[0]["state"] == 1
    assert (await reader.get(f"/j/email_records?{window(sim)}"))[0]["number"].endswith("@example.com")


# --- Marketing Cloud --------------------------------------------------------------------------------------------------


async def test_token_shows_its_lifetime_and_rest_address(sim, reader):
    token = await reader.sign_in()
    assert token["token_type"] == "Bearer"
    assert token["expires_in"] == 1079
    assert token["rest_instance_url"] == sim.url + "/"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client_secret": "x"}, "invalid_client"),
        ({"account_id": "9"}, "invalid_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
    ],
)
async def test_wrong_credentials_get_no_token(reader, changes, error):
    assert (await reader.sign_in(**changes))["error"] == error


async def test_a_token_needs_a_post_with_json(reader):
    assert (await reader.raw("/v2/token", {}))[0] == 400
    assert (await reader.raw("/v2/token", {}, "POST", data=b"no json"))[0] == 400


async def test_a_token_expires_when_it_said():
    now = [1000.0]
    clock = Clock(monotonic=lambda: now[0])
    async with Simulator(SimulatorSettings.still(token_lifetime=60), clock) as sim, aiohttp.ClientSession() as session:
        reader = Reader(sim, session)
        await reader.get(FEED)
        now[0] += 61
        assert (await reader.full(FEED))[0] == 401


async def test_an_event_is_shown_with_the_fields_of_the_reference(sim, reader):
    event = sim.world.add_send_event(code=24)
    answer = await reader.get(FEED)
    (shown,) = answer["messages"]
    assert answer["count"] == 1
    assert answer["lastEventID"] >= event.number
    assert (shown["statusCode"], shown["statusMessage"]) == (24, "ListDetectiveExclusion")
    assert shown["eventCategoryType"] == "TransactionalSendEvents.SMSNotSent"
    assert shown["eventID"] == event.number
    assert shown["info"]["messageKey"] == event.message_key
    assert not re.search(r"(Z|[+-]\d\d:?\d\d)$", shown["timestamp"])


def test_marketing_cloud_times_are_six_hours_behind_in_summer_too():
    assert central(datetime(2026, 7, 1, 18, 0, 0, 940_000, tzinfo=UTC).timestamp()) == "2026-07-01T12:00:00.94"
    assert central(datetime(2026, 1, 1, 5, 0, 0, 947_000, tzinfo=UTC).timestamp()) == "2025-12-31T23:00:00.947"


async def test_feed_is_read_by_watermark_past_its_last_event(sim, reader):
    events = [sim.world.add_send_event() for _ in range(7)]
    event_ids, last = [], 0
    while True:
        answer = await reader.get(f"{FEED}&$pageSize=3&lastEventId={last}")
        assert answer["lastEventID"] >= last
        last = answer["lastEventID"]
        if not answer["messages"]:
            break
        event_ids += [message["eventID"] for message in answer["messages"]]
    assert event_ids == [event.number for event in events]
    later = sim.world.add_send_event()
    assert later.number > last
    assert (await reader.get(f"{FEED}&lastEventId={last}"))["messages"][0]["eventID"] == later.number


@pytest.mark.parametrize("query", ["", "?type=sent", "?type=notSent&$pageSize=0", "?type=notSent&lastEventId=-1"])
async def test_a_question_the_feed_does_not_know_is_400(reader, query):
    assert (await reader.full(f"/messaging/v1/sms/messages/{query}"))[0] == 400


async def test_the_email_feed_is_a_twin(sim, reader):
    event = sim.world.add_send_event("email", message_key=None)
    answer = await reader.get("/messaging/v1/email/messages/?type=notSent")
    assert answer["messages"][0]["eventCategoryType"].endswith("EmailNotSent")
    assert [transition.subject for transition in sim.ground_truth()] == [f"/messaging/v1/email/events/{event.number}"]
    assert (await reader.get(FEED))["messages"] == []


# --- truth ------------------------------------------------------------------------------------------------------------


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


# --- the world --------------------------------------------------------------------------------------------------------


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


# --- time -------------------------------------------------------------------------------------------------------------


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


# --- the server -------------------------------------------------------------------------------------------------------


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
