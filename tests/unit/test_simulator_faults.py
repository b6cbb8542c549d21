"""Every fault of the simulator strikes when it is asked for, does what it says, and is counted."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import aiohttp
import pytest
import pytest_asyncio

from bridge.simulator import FaultRule, Simulator, SimulatorSettings
from bridge.simulator.fault_catalogue import FAULTS

DEADLINE = 60.0


@dataclass
class Got:
    status: int = 0
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    error: BaseException | None = None
    elapsed: float = 0.0

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def link(self):
        return self.headers.get("Link", "")


class Place:
    """A small still world, and a plain client that notes what comes."""

    def __init__(self, sim: Simulator, session: aiohttp.ClientSession) -> None:
        self.sim = sim
        self.session = session
        world = sim.world
        self.message = world.add_message("sms", 120, status="completed", recipient_status="sent")
        for index in range(5):
            world.move(self.message.recipient(index), "failed", error="no such number")
        others = [world.add_message("sms", 1, status="completed", at=sim.time.now() - n) for n in range(1, 60)]
        self.other = others[0]
        self.drops = [world.add_drop(state=n, at=sim.time.now() - 10 - n) for n in range(3)]
        self.events = [world.add_send_event(code=24) for _ in range(4)]
        start, end = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + by)) for by in (-86400, 3600))
        feed = "/messaging/v1/sms/messages/?type=notSent"
        self.paths = {
            "root": "/",
            "list": "/messages/sms",
            "list2": "/messages/sms?page=2",
            "message": self.message.path,
            "page": f"{self.message.path}/recipients",
            "page2": f"{self.message.path}/recipients?page=2",
            "page3": f"{self.message.path}/recipients?page=3",
            "drops": f"/j/voicemail_drop_records?start={start}&end={end}",
            "events": feed,
            "four": f"{feed}&$pageSize=4",
            "after": f"{feed}&lastEventId={self.events[1].number}",
            "none": f"{feed}&lastEventId={self.events[-1].number + 100}",
            "token": "/v2/token",
        }
        self.token = ""

    async def get(self, name: str, limit: float = DEADLINE) -> Got:
        settings = self.sim.settings
        path = self.paths.get(name, name)
        headers = {"X-AUTH-TOKEN": settings.govdelivery_token, "Authorization": f"Bearer {settings.spacivox_token}"}
        if path.startswith("/messaging"):
            headers["Authorization"] = f"Bearer {self.token}"
        credentials = {
            "grant_type": "client_credentials",
            "client_id": settings.client_id,
            "client_secret": settings.client_secret,
        }
        asked = {"json": credentials} if name == "token" else {}
        method = "POST" if name == "token" else "GET"
        got = Got()
        begun = time.monotonic()
        try:
            async with self.session.request(
                method,
                self.sim.url + path,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=limit),
                **asked,
            ) as response:
                got.status, got.headers = response.status, dict(response.headers)
                got.body = await response.read()
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            got.error = error
        got.elapsed = time.monotonic() - begun
        return got

    def seen(self) -> int:
        return len(self.sim.ground_truth())


@pytest_asyncio.fixture
async def place():
    async with Simulator(SimulatorSettings.still()) as sim, aiohttp.ClientSession() as session:
        session._retry_connection = False  # else aiohttp asks again by itself, and hides a connection that was cut
        place = Place(sim, session)
        place.token = (await place.get("token")).json["access_token"]
        yield place


def answered(status, text=b"", **headers):
    def check(got, plain):
        assert got.status == status
        assert text in got.body
        for name, value in headers.items():
            assert got.headers[name.replace("_", "-")] == value

    return check


def failed(got, plain):
    assert got.error is not None


def unreadable(got, plain):
    assert got.status == 200
    with pytest.raises((ValueError, RecursionError)):
        json.loads(got.body)


def says(expression):
    """Make a check of an expression over `got`, `plain` and their JSON `new`, `old`."""

    def check(got, plain):
        assert got.status == 200, got
        assert expression(got.json, plain.json)

    return check


def shows(expression):
    """Make a check of an expression over the JSON that came."""
    return says(lambda new, old: old is not None and expression(new))


def linked(expression):
    def check(got, plain):
        assert got.status == 200
        assert got.json == plain.json
        assert expression(got.link), got.link

    return check


def same_content(**headers):
    def check(got, plain):
        assert got.json == plain.json
        for name, value in headers.items():
            assert got.headers[name.replace("_", "-")] == value

    return check


def slow(got, plain):
    assert got.body == plain.body
    assert got.elapsed > 0.15


def ids(payload):
    items = payload["messages"] if isinstance(payload, dict) else payload
    return [item["eventID"] if "eventID" in item else item["_links"]["self"] for item in items]


def wants_a_minute_by_date(got, plain):
    assert got.status == 429
    assert 50 < parsedate_to_datetime(got.headers["Retry-After"]).timestamp() - time.time() <= 61


def without_retry_after(got, plain):
    assert got.status == 429
    assert "Retry-After" not in got.headers


def nothing_inside(got, plain):
    assert (got.status, got.body) == (200, b"")
    assert plain.body


def with_bom(got, plain):
    assert got.body == b"\xef\xbb\xbf" + plain.body


def larger_than(size):
    def check(got, plain):
        assert len(got.body) > size
        assert got.json == plain.json

    return check


TABLE = {
    # other answers
    "http_500": ("page", {}, answered(500, b"Internal")),
    "http_502": ("drops", {}, answered(502, b"<html>")),
    "http_503": ("events", {}, answered(503)),
    "http_504": ("drops", {}, answered(504, b"<html>")),
    "http_408": ("page", {}, answered(408)),
    "http_410": ("page", {}, answered(410)),
    "too_many": ("page", {"value": 7}, answered(429, Retry_After="7")),
    "too_many_date": ("page", {"value": 60}, wants_a_minute_by_date),
    "too_many_bare": ("page", {}, without_retry_after),
    "retry_after_garbage": ("page", {}, answered(429, Retry_After="soon")),
    "retry_after_absurd": ("page", {}, answered(429, Retry_After="31536000")),
    "unavailable_retry_after": ("drops", {"value": 2}, answered(503, Retry_After="2")),
    "unauthorized": ("events", {}, answered(401)),
    "forbidden": ("page", {}, answered(403)),
    "not_found": ("message", {}, answered(404)),
    "redirect_moved": ("page", {}, answered(301)),
    "redirect_elsewhere": ("root", {"value": "http://127.0.0.2:1"}, answered(302, Location="http://127.0.0.2:1/")),
    "html_page": ("page", {}, answered(200, b"<html>")),
    "empty_body": ("drops", {}, nothing_inside),
    "json_null": ("page", {}, shows(lambda new: new is None)),
    "error_in_200": ("page", {}, shows(lambda new: "errors" in new)),
    "wrong_shape": ("events", {}, shows(lambda new: new == 42)),
    "deep_nesting": ("page", {}, unreadable),
    "still_building": ("page", {}, answered(202)),
    "vanished_message": ("message", {}, answered(404)),
    "window_400": ("drops", {}, answered(400)),
    "window_413": ("drops", {}, answered(413)),
    "window_504": ("drops", {}, answered(504)),
    "rate_limited_50100": ("events", {}, answered(429, b"50100", Retry_After="5")),
    "blocked_50200": ("events", {}, answered(429, b"50200")),
    "token_refused": ("token", {}, answered(401, b"invalid_client")),
    # the world
    "shifted_pages": ("page2", {}, says(lambda new, old: ids(new)[1:] == ids(old)[:-1])),
    "skipping_pages": ("page2", {}, says(lambda new, old: ids(new)[:-1] == ids(old)[1:])),
    "born_during_walk": ("list2", {}, says(lambda new, old: len(new) == len(old) + 1)),
    "cancelling_changes": ("page", {}, says(lambda new, old: _moved(new, old) == {"sent", "failed"})),
    "late_bounce": ("page", {}, says(lambda new, old: _moved(new, old) == {"failed"})),
    "regress": ("page", {}, says(lambda new, old: _moved(new, old) == {"new"})),
    "reopen": ("page", {}, says(lambda new, old: _moved(new, old) == {"sending"})),
    "inclusive_start": ("after", {}, says(lambda new, old: ids(new)[1:] == ids(old))),
    "feed_starts_over": ("after", {}, says(lambda new, old: ids(new)[2:] == ids(old))),
    "short_pages": ("four", {}, says(lambda new, old: ids(new) == ids(old)[:2] and new["lastEventID"] == ids(new)[-1])),
    "token_expires_early": ("events", {}, answered(401)),
    "exclusive_ends": ("drops", {}, says(lambda new, old: new == old)),
    # content
    "duplicated_items": ("page", {}, says(lambda new, old: new == [*old, old[0]])),
    "reversed_items": ("events", {}, says(lambda new, old: new["messages"] == old["messages"][::-1])),
    "null_item": ("drops", {}, says(lambda new, old: [item for item in new if item] == old and len(new) > len(old))),
    "no_identity": ("page", {}, shows(lambda new: sum("_links" not in item for item in new) == 1)),
    "unknown_fields": ("message", {}, says(lambda new, old: new["carrier"]["name"] and new.items() >= old.items())),
    "fields_null": ("page", {}, shows(lambda new: all(item["created_at"] is None for item in new))),
    "fields_absent": ("drops", {}, shows(lambda new: all({*item} == {"id", "state"} for item in new))),
    "fields_other_type": ("drops", {}, shows(lambda new: all(isinstance(item["state"], str) for item in new))),
    "status_null": ("page", {}, shows(lambda new: sum(item["status"] is None for item in new) == 1)),
    "clock_ahead": (
        "message",
        {},
        says(lambda new, old: _hour(new["created_at"]) == (_hour(old["created_at"]) + 1) % 24),
    ),
    "clock_behind": (
        "message",
        {},
        says(lambda new, old: (_hour(new["created_at"]) + 1) % 24 == _hour(old["created_at"])),
    ),
    "garbled_times": (
        "drops",
        {},
        says(lambda new, old: not {item["timestamp"] for item in new} & {item["timestamp"] for item in old}),
    ),
    "unknown_status": ("page", {}, shows(lambda new: sum(item["status"] == "throttled" for item in new) == 1)),
    "items_with_id": ("page", {}, shows(lambda new: new[0]["_links"]["self"].endswith(f"/{new[0]['id']}"))),
    "items_with_id_alone": (
        "list",
        {},
        shows(lambda new: all("_links" not in item and item["id"] for item in new)),
    ),
    "absolute_self_links": ("page", {}, shows(lambda new: all(link.startswith("http://") for link in ids(new)))),
    "counts_do_not_add_up": ("message", {}, says(lambda new, old: new["recipient_counts"] != old["recipient_counts"])),
    "counts_absent": ("message", {}, shows(lambda new: "recipient_counts" not in new)),
    "counts_null": ("message", {}, shows(lambda new: new["recipient_counts"] is None)),
    "watermark_absent": ("events", {}, shows(lambda new: "lastEventID" not in new)),
    "watermark_null": ("events", {}, shows(lambda new: new["lastEventID"] is None)),
    "watermark_zero": ("events", {}, shows(lambda new: new["lastEventID"] == 0)),
    "watermark_backwards": ("events", {}, says(lambda new, old: new["lastEventID"] == old["lastEventID"] - 1000)),
    "watermark_text": ("events", {}, says(lambda new, old: new["lastEventID"] == str(old["lastEventID"]))),
    "messages_null": ("none", {}, shows(lambda new: new["messages"] is None)),
    "messages_absent": ("none", {}, shows(lambda new: "messages" not in new)),
    "keys_at_top_level": ("events", {}, shows(lambda new: all("messageKey" in item for item in new["messages"]))),
    "unknown_reason": ("events", {}, shows(lambda new: 9999 in [item["statusCode"] for item in new["messages"]])),
    "other_category": ("events", {}, shows(lambda new: "SMSQueued" in str(new))),
    "token_short_lived": ("token", {}, shows(lambda new: new["expires_in"] == 1)),
    "token_without_expiry": ("token", {}, shows(lambda new: "expires_in" not in new)),
    "rest_url_bare": ("token", {}, says(lambda new, old: new["rest_instance_url"] + "/" == old["rest_instance_url"])),
    "rest_url_absent": ("token", {}, shows(lambda new: "rest_instance_url" not in new)),
    "rest_url_elsewhere": ("token", {}, shows(lambda new: new["rest_instance_url"] == "http://127.0.0.1:9/")),
    "absolute_links": ("page", {}, linked(lambda link: "<http://127.0.0.1" in link)),
    "page_in_path": ("page", {}, linked(lambda link: 'recipients/page/2>; rel="next"' in link)),
    "link_blank_inside": ("page", {}, linked(lambda link: "< /messages" in link)),
    "link_no_blank": ("page", {}, linked(lambda link: '",<' in link)),
    "link_trailing_comma": ("page", {}, linked(lambda link: link.endswith(","))),
    "link_unquoted": ("page", {}, linked(lambda link: "rel=next" in link)),
    "link_upper_case": ("page", {}, linked(lambda link: 'REL="NEXT"' in link)),
    "link_empty": ("page3", {}, linked(lambda link: link == "")),
    "cyclic_next": ("page2", {}, linked(lambda link: 'page=2>; rel="next"' in link)),
    "endless_pages": ("page3", {}, linked(lambda link: 'page=4>; rel="next"' in link)),
    "next_elsewhere": (
        "page",
        {"value": "http://127.0.0.2:1"},
        linked(lambda link: "<http://127.0.0.2:1/mess" in link),
    ),
    # bytes
    "no_content_204": ("none", {}, answered(204)),
    "bom": ("page", {}, with_bom),
    "wrong_content_type": ("page", {}, same_content(Content_Type="text/html")),
    "wrong_charset": ("page", {}, same_content(Content_Type="application/json; charset=utf-16")),
    "unknown_charset": ("page", {}, same_content(Content_Type="application/json; charset=x-none")),
    "gzip": ("page", {}, same_content(Content_Encoding="gzip")),
    "deflate": ("page", {}, same_content(Content_Encoding="deflate")),
    "truncated_json": ("drops", {}, unreadable),
    "invalid_utf8": ("page", {}, unreadable),
    "broken_gzip": ("page", {}, failed),
    "gzip_bomb": ("page", {"value": 4 << 20}, larger_than(4 << 20)),
    # the wire
    "torn_body": ("page", {}, failed),
    "torn_chunks": ("page", {}, failed),
    "reset_midway": ("page", {}, failed),
    "reset": ("page", {}, failed),
    "closed_unanswered": ("page", {}, failed),
    "refused": ("page", {"value": 0.2}, failed),
    "broken_status_line": ("page", {}, failed),
    "huge_header": ("page", {}, failed),
    "huge_body": ("page", {"value": 1 << 20}, larger_than(1 << 20)),
    "slow_answer": ("page", {"value": 0.2}, slow),
    "slow_drip": ("page", {"value": 0.2}, slow),
    "idle_close": ("page", {"value": 0.02}, same_content()),
    "never_answers": ("page", {}, failed),
    "headers_only": ("page", {}, failed),
}


def _hour(text):
    return int(text[11:13])


def _moved(new, old):
    return {now["status"] for now, was in zip(new, old, strict=True) if now["status"] != was["status"]}


@pytest.mark.parametrize("name", sorted(set(FAULTS) - {"stale_answer"}))
async def test_every_fault_has_its_effect_and_is_counted(place, name):
    path, options, check = TABLE[name]
    plain = await place.get(path)
    assert plain.error is None
    before = place.seen()
    place.sim.switch_on(name, limit=1, **options)
    got = await place.get(path, limit=0.3 if name in {"never_answers", "headers_only"} else DEADLINE)
    check(got, plain)
    assert place.sim.board.applied == {name: 1}
    if not FAULTS[name].reads:
        assert place.seen() == before


def test_the_table_of_faults_is_tested_whole_and_long():
    assert {*TABLE, "stale_answer"} == set(FAULTS)
    assert len(FAULTS) > 80
    assert all(fault.summary for fault in FAULTS.values())


async def test_stale_answer_repeats_the_last_and_counts_as_shown(place):
    place.sim.switch_on("stale_answer")
    first = await place.get("message")
    place.sim.world.move(place.message.path, "canceled")
    assert (await place.get("message")).json == first.json
    assert place.sim.board.applied == {"stale_answer": 1}
    assert (await place.get("message")).json["status"] == "canceled"
    shown = [transition.status for transition in place.sim.ground_truth() if transition.subject == place.message.path]
    assert shown == ["completed", "canceled"]


async def test_a_refusing_provider_opens_again_on_the_same_port(place):
    place.sim.switch_on("refused", limit=1, value=0.2)
    assert (await place.get("page")).error is not None
    assert isinstance((await place.get("page")).error, aiohttp.ClientConnectorError)
    async with asyncio.timeout(DEADLINE):
        while (await place.get("page")).error is not None:
            pass
    assert place.sim.board.applied == {"refused": 1}


async def test_a_reopened_recipient_returns_to_where_it_was(place):
    place.sim.switch_on("reopen", limit=1, value=30)
    path = f"{place.message.path}/recipients"
    await place.get("page")
    place.sim.time.advance(31)
    await place.get(path)
    subject = place.message.recipient(5)
    assert [transition.status for transition in place.sim.ground_truth() if transition.subject == subject] == [
        "sending",
        "sent",
    ]


async def test_endless_pages_never_end_and_never_grow(place):
    place.sim.switch_on("endless_pages")
    pages = [await place.get(f"{place.message.path}/recipients?page={number}") for number in range(1, 9)]
    assert all('rel="next"' in page.link for page in pages)
    assert pages[7].json == pages[3].json


@pytest.mark.parametrize("name", ["huge_body", "gzip_bomb"])
async def test_too_large_answer_counts_as_not_shown(place, name):
    place.sim.switch_on(name, limit=1, value=32 << 20)
    before = place.seen()
    headers = {"X-AUTH-TOKEN": place.sim.settings.govdelivery_token}
    async with place.session.get(place.sim.url + place.message.path, headers=headers) as response:
        assert len(await response.content.read(1 << 16)) > 0
    assert (await place.get("root")).status == 200
    assert place.seen() == before


async def test_counts_have_another_type_and_a_record_another_state(place):
    place.sim.switch_on("fields_other_type")
    counts = (await place.get("message")).json["recipient_counts"]
    assert set(map(type, counts.values())) == {str}
    place.sim.switch_on("unknown_status")
    assert 9 in [item["state"] for item in (await place.get("drops")).json]
    assert "unknown" in [transition.status for transition in place.sim.ground_truth("spacivox")]


async def test_page_in_path_equals_page_in_query(place):
    in_path = await place.get(f"{place.message.path}/recipients/page/2")
    assert in_path.json == (await place.get("page2")).json


async def test_a_vanished_message_is_gone_from_every_list(place):
    place.sim.switch_on("vanished_message", limit=1)
    await place.get("page")
    assert (await place.get("message")).status == 404
    assert place.message.path not in ids((await place.get("/messages/sms?page_size=100")).json)


async def test_windows_that_exclude_their_ends_lose_what_stands_on_them(place):
    born = place.drops[0].born
    stamp = (await place.get("drops")).json[-1]["timestamp"]
    assert abs(born - time.time()) < 60
    path = f"/j/voicemail_drop_records?start={stamp}&end={stamp}"
    assert len((await place.get(path)).json) == 1
    place.sim.switch_on("exclusive_ends")
    assert (await place.get(path)).json == []


async def test_seed_selects_the_share_of_faulty_requests(place):
    place.sim.switch_on("http_503", share=0.5)
    statuses = [(await place.get("message")).status for _ in range(40)]
    assert 5 < statuses.count(503) < 35
    place.sim.switch_off("http_503")
    assert (await place.get("message")).status == 200
    place.sim.switch_on("http_503", share=0.5)
    assert [(await place.get("message")).status for _ in range(40)] == statuses


async def test_fault_applies_only_to_its_paths(place):
    place.sim.switch_on("http_500", path=r"^/j/")
    assert (await place.get("message")).status == 200
    assert (await place.get("drops")).status == 500


async def test_faults_combine_and_ineffective_ones_do_not_count(place):
    for name in ("watermark_absent", "watermark_zero", "messages_null", "gzip", "slow_answer"):
        place.sim.switch_on(name, value=0.1 if name == "slow_answer" else None)
    got = await place.get("events")
    assert "lastEventID" in got.json or got.json["messages"]
    assert got.headers["Content-Encoding"] == "gzip"
    assert "messages_null" not in place.sim.board.applied
    assert {"watermark_absent", "gzip", "slow_answer"} <= set(place.sim.board.applied)


async def test_an_answer_given_instead_can_still_be_torn(place):
    place.sim.switch_on("http_500")
    place.sim.switch_on("http_503")
    place.sim.switch_on("torn_body")
    assert (await place.get("page")).error is not None
    assert place.sim.board.applied == {"http_500": 1, "torn_body": 1}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("window_400", "/j/voicemail_drop_records"),
        ("window_400", "/j/voicemail_drop_records?start=2026-01-01T00:00:00Z&end=2026-01-01T01:00:00Z"),
        ("exclusive_ends", "/j/voicemail_drop_records"),
        ("vanished_message", "/messages/sms/1"),
        ("cancelling_changes", "/messages/sms/1"),
        ("regress", "other"),
        ("born_during_walk", "list"),
        ("shifted_pages", "page"),
        ("inclusive_start", "events"),
        ("inclusive_start", "/messaging/v1/sms/messages/?type=notSent&lastEventId=1"),
        ("short_pages", "/messaging/v1/sms/messages/?type=notSent&$pageSize=1"),
        ("no_content_204", "events"),
        ("link_empty", "page"),
        ("cyclic_next", "page3"),
        ("link_unquoted", "/messages/voice"),
        ("fields_null", "/messages/sms/1"),
        ("counts_null", "new"),
        ("counts_absent", "new"),
        ("counts_do_not_add_up", "new"),
        ("bom", "empty"),
        ("duplicated_items", "none"),
        ("late_bounce", "new"),
    ],
)
async def test_fault_without_a_matching_request_does_not_count(place, name, path):
    new = place.sim.world.add_message("sms", 1)
    place.paths |= {"new": new.path, "other": new.path}
    if path == "empty":
        place.sim.switch_on("still_building")
    place.sim.switch_on(name)
    await place.get("page" if path == "empty" else path)
    assert name not in place.sim.board.applied


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("http_500", FaultRule("http_500", share=0.1)),
        ("http_500:share=0.5,limit=3", FaultRule("http_500", share=0.5, limit=3)),
        ("too_many:path=^/j/,value=30", FaultRule("too_many", share=0.1, path="^/j/", value=30.0)),
        ("next_elsewhere:value=http://127.0.0.2:1", FaultRule("next_elsewhere", share=0.1, value="http://127.0.0.2:1")),
    ],
)
def test_rule_is_read_from_one_command_line_word(text, rule):
    assert FaultRule.parse(text, share=0.1) == rule


@pytest.mark.parametrize("text", ["a:share=2", "a:limit=-1", "a:limit=x", "a:often=1", "a:share"])
def test_senseless_rule_is_refused_with_a_reason(text):
    with pytest.raises(ValueError, match=r"share|limit|number"):
        FaultRule.parse(text)


async def test_an_unknown_fault_is_refused_by_name(place):
    with pytest.raises(ValueError, match="'http_999' is not a fault"):
        place.sim.switch_on("http_999")


async def test_an_idle_connection_is_closed_after_its_time(place):
    place.sim.switch_on("idle_close", limit=1, value=0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(place.sim.url.rpartition(":")[2]))
    head = f"GET / HTTP/1.1\r\nHost: x\r\nX-AUTH-TOKEN: {place.sim.settings.govdelivery_token}\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(DEADLINE):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert b"200 OK" in answer
    assert b"Connection: close" not in answer
