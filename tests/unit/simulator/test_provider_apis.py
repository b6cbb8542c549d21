"""The simulated providers answer as their documentation says."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import aiohttp
import pytest
from rigs.simulator import FEED, Reader, window

from bridge.domain.clock import Clock
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.marketingcloud import central


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
