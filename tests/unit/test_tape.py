"""Tapes: nothing personal is on them, and what is played from them is what was lived."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
import structlog
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, ConfigError, LeaseLost, Transient, Unavailable
from bridge.http import parsing
from bridge.http.client import HttpClient, HttpLimits, HttpRequest
from bridge.http.errors import ProviderError
from bridge.http.limiter import Limiter
from bridge.http.response import Response
from bridge.ingest.intake import Intake
from bridge.ingest.poller import describe_unexpected
from bridge.protocols.source import Observation, Page, Probe, Reconcilable
from bridge.recording import Recorder, Replay, Side, TapeError, UnmatchedRequest, compare, offline
from bridge.recording.files import Budget, Full, Poll, Writer, polls, prepare
from bridge.recording.files import sources as tapes
from bridge.recording.frozen_clock import frozen_clock
from bridge.recording.recorded_source import RecordedSource
from bridge.recording.redaction import GRANTED, JSON, TORN, Redactor
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.testing.fakes import Jumping, ScriptedSource, observe

NOW = datetime(2026, 3, 15, 21, 11, 2, 123456, tzinfo=UTC)
GIB = 1 << 30
redactor = Redactor(b"k" * 32)


# --- what a tape may keep ---------------------------------------------------------------------------------------------


def answer(
    body: Any, *, status: int = 200, url: str = "https://tms.example.com/messages/sms", **headers: str
) -> Response:
    given = CIMultiDict((name.replace("_", "-"), value) for name, value in headers.items())
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response("GET /messages/sms", status, raw, NOW, NOW, URL(url), CIMultiDictProxy(given))


def kept(body: Any) -> Any:
    return redactor.body(answer(body), "GET")[JSON]


phones = st.from_regex(r"\+?[1-9][0-9]{6,14}", fullmatch=True)


@given(st.lists(phones, min_size=2, max_size=50, unique=True))
@settings(max_examples=50)
def test_two_phones_never_become_one(phones):
    others = [redactor.digits(phone) for phone in phones]
    assert len(set(others)) == len(phones)
    assert [redactor.digits(phone) for phone in phones] == others


@given(phones)
@settings(max_examples=50)
def test_stand_in_of_a_phone_reads_as_a_phone(phone):
    other = redactor.digits(phone)
    assert len(other) == len(phone)
    assert other[:2] == phone[:2] if phone[0] == "+" else other[0] == phone[0]
    assert (parsing.phone(phone) == phone) == (parsing.phone(other) == other)


@pytest.mark.parametrize("size", range(1, 8))
def test_stand_ins_of_digits_are_a_permutation(size):
    few = [f"{number:0{size}d}" for number in range(0, 10**size, max(1, 10**size // 500))]
    assert len({redactor._stand_ins._permuted(phone) for phone in few}) == len(few)
    assert all(len(redactor._stand_ins._permuted(phone)) == size for phone in few)


def test_phone_with_and_without_country_code_stays_one():
    assert redactor.digits("+16515551000").endswith(redactor.digits("6515551000"))
    assert redactor.digits("+1 (651) 555-1000") == re.sub(
        r"(\+.)(...)(...)(....)", r"\1 (\2) \3-\4", redactor.digits("+16515551000")
    )


def test_two_tapes_have_nothing_in_common():
    other = Redactor(b"l" * 32)
    assert redactor.digits("+16515551000") != other.digits("+16515551000")
    assert redactor.token("subscriber-7") != other.token("subscriber-7")


KEPT = [
    {"id": 12345678901, "status": "sending", "created_at": "2013-03-15T21:10:30Z", "completed_at": None},
    {"state": 3, "team": 1, "job": 20260315, "campaign": "17", "timestamp": "2015-01-06T10:21:14.243Z"},
    {"lastEventID": 357749999, "count": 1, "statusCode": 24, "definitionKey": "account-reset"},
    {"eventCategoryType": "TransactionalSendEvents.SMSNotSent", "timestamp": "2018-12-17T13:05:40.94", "eventID": "77"},
    {"recipient_counts": {"total": 12345678, "failed": 2}, "recipient_detail_counts": {"no_answer": 1}},
    {"_links": {"self": "/messages/voice/10507/recipients/364898", "sms_message": "/messages/sms/10507"}},
    {"error": "invalid_client", "errorcode": 50200, "ok": True, "share": 2.0, "empty": "", "blank": "  "},
    {"error_message": "550 5.1.1 The mailbox doesn't exist \u2013 SIP 503."},
    [None, 42, True, []],
]


@pytest.mark.parametrize("value", KEPT, ids=json.dumps)
def test_what_makes_events_is_kept_as_it_is(value):
    assert kept(value) == value


PERSONAL = [
    ("body", "Your code is 4711, Ann"),
    ("say_text", "Hello Ann"),
    ("play_url", "https://media.example.com/ann.wav?sig=abc"),
    ("reference", "C-003409"),
    ("name", "ann"),
    ("campaign", "Ann's birthday"),
    ("email", "ann@example.com"),
    ("to", "ann@example.com"),
    ("id", "ann@example.com"),
    ("status", "ann@example.com"),
    ("messageKey", "5c9b8f9e-1c3e-4b7c-9d4e-2f0f6f1f4a11"),
    ("contactKey", "ann"),
    ("phone", "+16515551000"),
    ("phone", 16515551000),
    ("phone", 16515551000.0),
    ("to", "16515551000"),
    ("formatted_phone", "(651) 555-1000 x7"),
    ("nobody_knows", "+16515551000"),
    ("nobody_knows", 16515551000),
    ("nobody_knows", -93.265015),
    ("state", "6515551000"),
    ("definitionKey", "for +16515551000"),
    ("error_message", "+16515551000 is not in service"),
    ("error_message", "ann@example.com bounced"),
    ("error_message", 'no contact "Ann Smith" known'),
    ("error_message", "subscriber-7 opted out, see https://example.com/a/7"),
    ("_links", {"self": "https://ann:secret@media.example.com/ann@example.com?token=abc&to=%2B16515551000"}),
    ("_links", {"self": "/messages/sms/1?cursor=" + "QW5uIFNtaXRo" * 5}),
]


@pytest.mark.parametrize(("name", "value"), PERSONAL, ids=json.dumps)
def test_what_names_a_person_has_a_stand_in(name, value):
    text = json.dumps(kept({"channel": "voice", name: value, "nested": [{name: value}]}), ensure_ascii=False)
    for personal in ("Ann", "ann@", '"ann"', "6515551000", "555-1000", "4711", "C-0034", "5c9b8f9e", "subscriber-7"):
        assert personal not in text
    for personal in ("media", "abc", "secret", "QW5u", "265015", "Smith", "birthday", "example"):
        assert personal not in text


@pytest.mark.parametrize(
    "name", ["access_token", "refresh_token", "token", "client_secret", "Password", "apiKey", "Authorization", "sig"]
)
def test_credentials_are_not_recorded(name):
    assert kept({name: "s3cr3t", "info": [{name: {"deep": "s3cr3t"}}], "status": "new"}) == {
        "info": [{}],
        "status": "new",
    }


def test_name_quoted_by_an_error_has_the_same_stand_in():
    recorded = kept(
        {"statusMessage": "nobody called joe, sorry", "info": {"contactKey": "joe "}, "reference": "nobody"}
    )
    assert recorded["info"]["contactKey"] == redactor.token("joe")
    assert recorded["statusMessage"] == f"{redactor.token('nobody')} called joe, sorry"
    assert list(recorded) == ["statusMessage", "info", "reference"]
    recorded = kept({"statusMessage": "nobody called joey, sorry", "info": {"contactKey": "joey"}})
    assert recorded["statusMessage"] == f"nobody called {redactor.token('joey')}, sorry"


def test_key_named_after_a_person_gets_a_stand_in():
    recorded = kept({"+16515551000": 1, "ann smith": 2, "x123456": 3, "fine_name": 4})
    assert list(recorded.values()) == [1, 2, 3, 4]
    assert [name for name in recorded if not name.startswith("~")] == ["fine_name"]


def test_integers_of_any_size_and_odd_numbers_are_kept():
    assert kept(b'{"phone": %d, "x": NaN, "y": [Infinity], "phone2": 1e300}' % 10**400)["phone"] == 1 << 257


@pytest.mark.parametrize(
    ("body", "sign"),
    [
        (b"", ""),
        (b" \n", ""),
        (b"<!DOCTYPE html><p>Ann</p>", "<"),
        (b'[{"phone": "+1651555', "["),
        (b"Ann", "["),
        (b"[" * 100_000 + b"]" * 100_000, "["),
    ],
    ids=["nothing", "blank", "html", "torn", "text", "deep"],
)
def test_non_json_body_keeps_only_its_kind(body, sign):
    assert redactor.body(answer(body), "GET") == {TORN: sign}
    errors = []
    for content in (body, sign.encode()):
        with pytest.raises(ProviderError) as caught:
            answer(content).json()
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


@pytest.mark.parametrize(
    ("body", "kept_body"),
    [
        (
            {"access_token": "t", "expires_in": 1079, "rest_instance_url": "https://x", "scope": "s"},
            {"expires_in": 1079},
        ),
        ({"error": "invalid_client", "error_description": "Ann"}, {"error": "invalid_client"}),
        ("text", {}),
    ],
)
def test_of_an_access_token_only_its_lifetime_is_kept(body, kept_body):
    granted = isinstance(body, dict) and "access_token" in body
    assert redactor.body(answer(body), "POST") == {JSON: kept_body, GRANTED: granted}


def test_only_headers_that_steer_later_requests_are_kept():
    given = {
        "Content_Type": "application/json; charset=utf-8",
        "Retry_After": "7",
        "ETag": '"ann"',
        "Last_Modified": "Sat, 21 Nov 2026 03:25:47 GMT",
        "Date": "Sat, 21 Nov 2026 03:25:47 GMT",
        "Set_Cookie": "session=ann",
        "X_Request_Id": "ann",
    }
    headers = redactor.headers(answer({}, **given), URL("https://tms.example.com/"))
    assert headers == {
        "Content-Type": given["Content_Type"],
        "Retry-After": "7",
        "Etag": f'"{redactor.token(given["ETag"])}"',
        "Last-Modified": given["Last_Modified"],
        "Date": given["Date"],
    }
    odd = redactor.headers(answer({}, Retry_After="ask ann", Content_Type="ann"), URL("https://tms.example.com/"))
    assert odd == {"Retry-After": "?", "Content-Type": "?"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("</messages/sms?page=2>", "/messages/sms?page=2"),
        ("<?page=2>", "/messages/sms?page=2"),
        ("<https://tms.example.com/proxy/messages/sms/page/2>", "/messages/sms/page/2"),
        ("<https://tms.example.com/messages/sms?page=2&token=abc>", "/messages/sms?page=2&token=~"),
        ("<https://evil.example.com/messages?page=2>", "https://elsewhere.invalid/messages?page=2"),
        ("<http://[>", "http://["),
    ],
)
def test_links_lead_to_the_same_pages_without_naming_a_host(target, expected):
    given = answer([], url="https://tms.example.com/proxy/messages/sms", Link=f'{target}; rel=next, <x>; rel="ann"')
    headers = redactor.headers(given, URL("https://tms.example.com/proxy/"))
    if target == "<?page=2>":
        assert headers["Link"] == '</messages/sms?page=2>; rel="next"'
    assert headers["Link"] == f'<{expected}>; rel="next"'


def request(url: str, origin: str = "https://tms.example.com/", method: str = "GET") -> HttpRequest:
    return HttpRequest(f"{method} {URL(url).raw_path}", method, URL(url), URL(origin), None)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://tms.example.com/messages/sms?page_size=100&sort_by=created_at", "/messages/sms?page_size=100&sort_by=created_at"),
        ("https://tms.example.com/j/x?start=2026-03-15T21:11:02.123Z&end=2026-03-16T00:00:01Z", "/j/x?start=2026-03-15T21:11:02.123Z&end=2026-03-16T00:00:01Z"),
        ("https://tms.example.com/m/?type=notSent&$pageSize=50&lastEventId=1234567890", "/m/?type=notSent&$pageSize=50&lastEventId=1234567890"),
        ("https://tms.example.com/x?phone=%2B16515551000", f"/x?phone={redactor.token('+16515551000')}"),
        ("https://tms.example.com/x/ann%40example.com/7", f"/x/{redactor.token('ann@example.com')}/7"),
        ("https://tms.example.com/x?api_key=abc&page=1", "/x?api_key=~&page=1"),
    ],
)  # fmt: skip
def test_requests_are_known_by_path_and_query(url, expected):
    assert redactor.request(request(url)) == expected


def test_cursor_is_recorded_without_hosts_addresses_and_phones():
    text = '{"todo":[["","https://tms.example.com/messages/sms/1?page=2"]],"due":1773609062.123,"to":"+16515551000"}'
    assert redactor.opaque(text) == (
        '{"todo":[["","/messages/sms/1?page=2"]],"due":1773609062.123,"to":"' + redactor.digits("+16515551000") + '"}'
    )
    assert redactor.opaque("ann@example.com") == redactor.token("ann@example.com")


def test_ledger_state_is_recorded_under_the_replayed_name():
    redactor = Redactor(b"k" * 32)
    page = [{"id": "ab-7", "messageKey": "5c9b8f9e", "contactKey": "joe"}, {"id": "joe"}]
    redactor.body(answer(page), "GET")
    names = ["@", "364898", "#35760", "/messages/sms/7/recipients/9", "ab-7", "5c9b8f9e", "joe", "never met"]
    assert [redactor.name(name) for name in names] == [
        "@", "364898", "#35760", "/messages/sms/7/recipients/9", "ab-7",
        redactor.token("5c9b8f9e"), redactor.token("joe"), redactor.token("never met"),
    ]  # fmt: skip
    assert redactor.scope("/messages/sms/7") == "/messages/sms/7"
    assert redactor.scope("sms/ann@example.com") == f"sms/{redactor.token('ann@example.com')}"


@pytest.mark.parametrize(
    "key",
    ["16515551000", 16515551000, "+16515551000", "12345", 12345, 7.0, "5c9b8f9e", " joe ", "#35761", "35760",
     "2018-12-17T13:05", "/messages/sms/7"],
)  # fmt: skip
def test_phone_like_message_key_has_one_stand_in(key):
    name = str(parsing.text(key))
    name_kept = redactor.name(name, ["35760"])
    assert parsing.text(kept({"info": {"messageKey": key}, "eventID": 35760})["info"]["messageKey"]) == name_kept
    assert name_kept != name or name.startswith("2018")
    assert redactor.name("#35760", ["35760"]) == "#35760"


def test_long_numeric_ids_are_recorded_as_in_answers():
    assert kept([{"id": 2**63 - 1, "eventID": 2**63 - 2}]) == [{"id": 2**63 - 1, "eventID": 2**63 - 2}]
    assert redactor.name(str(2**63 - 1)) == str(2**63 - 1)
    assert redactor.name(f"#{2**63 - 2}", [str(2**63 - 2)]) == f"#{2**63 - 2}"
    assert redactor.history(f"n|{2**63 - 2}") == f"n|{2**63 - 2}"


@pytest.mark.parametrize(
    ("history", "kept"),
    [
        ("nsf", True),
        ("nfs2", True),
        ("", True),
        ("n(throttled)2s", True),
        ("n|35760,35761", True),
        ("n|" + "ab" * 16, True),
        ("n(%2B16515551000)", False),
        ("n(ann%40example.com)s", False),
        ("n|ann%40example.com", False),
        ("n s", False),
    ],
)
def test_status_history_is_recorded_if_it_has_statuses_only(history, kept):
    assert redactor.history(history) == (history if kept else None)


@pytest.mark.parametrize("value", ["a path", "http://[", "", 7, "#"])
def test_links_that_are_none_are_borne(value):
    recorded = kept({"_links": {"self": value}})["_links"]["self"]
    assert recorded == (value if value in {"", 7} else recorded)
    assert "a path" not in str(recorded)


def test_the_memory_of_stand_ins_is_bounded(monkeypatch):
    monkeypatch.setattr("bridge.recording.stand_ins._MAX_REMEMBERED_ENTRIES", 3)
    redactor = Redactor(b"k" * 32)
    assert len({redactor.token(str(number)) for number in range(10)}) == 10
    assert len(redactor._stand_ins._tokens) <= 3


# --- files ------------------------------------------------------------------------------------------------------------


def writer(folder: Path, *, limit: int = GIB, compress: bool = False, run: str = "r1") -> Writer:
    return Writer(folder, "city", "govdelivery", run, prepare(folder, limit), compress=compress)


def lines_of_poll(number: int = 0) -> list[dict[str, Any]]:
    at = (NOW + timedelta(seconds=number)).isoformat()
    return [
        {"line": "poll", "at": at, "monotonic": float(number), "seed": number, "cursor": {"list:sms": "7"}},
        {"line": "step"},
        {
            "line": "answer",
            "asked": at,
            "at": at,
            "monotonic": 1.0,
            "method": "GET",
            "path": "/x",
            "status": 200,
            "json": 1,
        },
        {"line": "ended", "at": at, "error": None},
    ]


def write(folder: Path, *numbers: int, **options: Any) -> Path:
    tape_writer = writer(folder, **options)
    for number in numbers:
        for line in lines_of_poll(number):
            tape_writer.write(line, NOW)
    tape_writer.close()
    (path,) = folder.glob("*.jsonl*")
    return path


def write_on(writer: Writer) -> None:
    while True:
        for line in lines_of_poll():
            writer.write(line, NOW)


def read(folder: Path) -> list[Poll]:
    return [poll for runs in tapes(folder).values() for files in runs for poll in polls(files)]


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_what_was_written_is_read_again(tmp_path, compress):
    path = write(tmp_path, 1, 2, compress=compress)
    assert path.name == ("city.r1.0001.jsonl.gz" if compress else "city.r1.0001.jsonl")
    assert path.stat().st_mode & 0o777 == 0o600
    first, second = read(tmp_path)
    assert (first.source, first.kind, first.run, first.cursor) == ("city", "govdelivery", "r1", {"list:sms": "7"})
    assert (first.begun.at, first.begun.seed, second.begun.seed) == (NOW + timedelta(seconds=1), 1, 2)
    assert [line["line"] for line in second.course] == ["step", "answer"]
    assert first.whole
    assert second.whole


def test_a_compressed_tape_is_one_that_any_tool_unpacks(tmp_path):
    lines = gzip.decompress(write(tmp_path, 1, compress=True).read_bytes()).splitlines()
    assert json.loads(lines[0])["tape"] == 1
    assert len(lines) == 5


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("cut", [1, 5, 40, 150])
def test_a_torn_last_line_counts_as_not_written(tmp_path, compress, cut):
    path = write(tmp_path, 1, 2, 3, compress=compress)
    path.write_bytes(path.read_bytes()[:-cut])
    recorded_polls = read(tmp_path)
    assert [poll.begun.seed for poll in recorded_polls] == [1, 2, 3][: len(recorded_polls)]
    assert recorded_polls
    assert all(poll.whole for poll in recorded_polls[:-1])


def test_a_tape_torn_before_its_first_line_is_empty(tmp_path):
    write(tmp_path, 1).write_bytes(b'{"tape":1')
    assert read(tmp_path) == []


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "7",
        '{"line":"poll"}',
        '{"line":"poll","at":"soon","monotonic":1,"seed":1}',
        '{"line":"answer","at":"2026-03-15T21:11:02Z","status":200}',
        '{"line":"seen","scope":"x","trails":7}',
    ],
    ids=range(6),
)
def test_invalid_line_is_named_with_file_and_number(tmp_path, line):
    path = write(tmp_path, 1)
    path.write_text(path.read_text() + line + "\n" + json.dumps(lines_of_poll()[0]) + "\n")
    with pytest.raises(TapeError, match=rf"{re.escape(str(path))}:6: not a line of a tape"):
        read(tmp_path)


def test_recording_of_another_format_names_the_version_for_it(tmp_path):
    path = write(tmp_path, 1)
    path.write_text(path.read_text().replace('"tape":1', '"tape":2').replace('"bridge":"', '"bridge":"9.'))
    with pytest.raises(TapeError, match=r"of format 2, and this version reads 1: play it with bridge 9\."):
        read(tmp_path)


def test_a_directory_without_a_tape_says_how_one_is_made(tmp_path):
    with pytest.raises(TapeError, match="there is no tape; `bridge run --record"):
        tapes(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "city.r1.0001.jsonl").mkdir()
    with pytest.raises(TapeError, match=r"city\.r1\.0001\.jsonl: cannot be read"):
        read(tmp_path)


def test_each_hour_has_a_file_and_polls_may_span_two(tmp_path, monkeypatch):
    tape_writer = writer(tmp_path)
    poll, step, got, ended = lines_of_poll(1)
    tape_writer.write(poll, NOW)
    tape_writer.write(step, NOW)
    tape_writer.write(got, NOW + timedelta(hours=1))
    tape_writer.write(ended, NOW + timedelta(hours=1))
    tape_writer.close()
    tape_writer.close()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["city.r1.0001.jsonl", "city.r1.0002.jsonl"]
    (recorded_polls,) = read(tmp_path)
    assert len(recorded_polls.course) == 2
    assert recorded_polls.whole
    monkeypatch.setattr("bridge.recording.files._ROLL_BYTES", 100)
    tape_writer.write(poll, NOW)
    tape_writer.write(ended, NOW)
    tape_writer.close()
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_size_limit_counts_existing_files_and_is_never_passed(tmp_path, compress):
    write(tmp_path / "a", 1, 2, 3, compress=compress)
    there = sum(path.stat().st_size for path in (tmp_path / "a").iterdir())
    tape_writer = writer(tmp_path / "a", limit=there + 500, compress=compress, run="r2")
    with pytest.raises(Full):
        write_on(tape_writer)
    tape_writer.close()
    assert there < sum(path.stat().st_size for path in (tmp_path / "a").iterdir()) <= there + 500
    assert [poll.run for poll in read(tmp_path / "a")][:3] == ["r1", "r1", "r1"]


def test_a_directory_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"the tape's directory .*file/tape cannot be written to \(Not a directory\)"):
        prepare(tmp_path / "file" / "tape", GIB)


def test_a_budget_that_is_used_up_takes_nothing_more():
    budget = Budget(10)
    budget.take(10)
    with pytest.raises(Full):
        budget.take(1)
    assert budget.used == 10


# --- a life, and its replay -------------------------------------------------------------------------------------------

SMALL = SimulatorSettings(
    seed=5,
    speed=60.0,
    messages_per_minute=0.25,
    recipients_per_message=7.0,
    max_recipients=150,
    drops_per_minute=1.0,
    texts_per_minute=0.0,
    emails_per_minute=0.0,
    sends_per_minute=1.0,
    email_sends_per_minute=0.0,
    failed_share=0.2,
    inconclusive_share=0.1,
    late_share=0.1,
    page_size=3,
)
STAND_INS = ("phone", "contact_key", "message_key", "reference", "provider")


def configured(folder: Path, simulator: Simulator, name: str = "bridge.yaml", **changes: dict[str, Any]) -> Path:
    """Write a configuration of all three sources, with changes to their settings."""
    opened = sources(simulator.urls, simulator.settings)
    for source in opened:
        opened[source] |= {"rate": "1000/s"} | changes.get(source, {})
    path = folder / name
    path.write_text(yaml.safe_dump({"state": str(folder / "state"), "sources": opened}))
    return path


@dataclass
class Life:
    """All sources of a configuration, polled one after the other as the service would, and recorded."""

    folder: Path
    config: Path
    clock: Clock
    options: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    polls: int = 0

    async def __aenter__(self) -> Self:
        self.recorder = Recorder(self.folder / "tape", self.clock, **{"limit": GIB} | self.options)
        assembly = self.recorder.assembly(load(self.config))
        assembly.make_state()
        self.store = assembly.store()
        await self.store.open()
        self.sources = assembly.sources()
        self.intakes = {
            name: Intake(name, assembly.config.sources[name].type, source, self.store, assembly.clock)
            for name, source in self.sources.items()
        }
        self.read = {name: (await self.store.journal(name)).committed for name in self.sources}
        return self

    async def __aexit__(self, *_: object) -> None:
        for source in self.sources.values():
            await source.close()
        self.recorder.close()
        await self.store.close()

    async def poll(self, *names: str) -> None:
        for name in names or self.sources:
            self.polls += 1
            lease = await self.store.acquire(f"source/{name}", "test", 1e9)
            assert lease is not None
            try:
                await self.intakes[name].poll(lease)
            except BridgeError as error:
                self.failures.append(f"{name}: {error}")
            self.failures += [f"{name}: {problem}" for problem in self.sources[name].problems]
            while entries := await self.store.read(name, self.read[name], 1000):
                self.events += [json.loads(entry.event.body) for entry in entries]
                self.read[name] = entries[-1].position.seq


async def play(folder: Path, config: Path) -> tuple[list[dict[str, Any]], Replay]:
    replay = Replay(folder / "tape", offline(config))
    return [json.loads(entry.event.body) async for entry in replay.events()], replay


def comparable(event: dict[str, Any]) -> dict[str, Any]:
    """Return all that an event says, apart from when it was recorded and from what has a stand-in."""
    left_out = {"recordedtime"}
    if event["source"].startswith("/marketingcloud/"):
        left_out |= {"id", "subject", "partitionkey"}  # made from the message's key
    return {name: value for name, value in event.items() if name not in left_out} | {
        "data": {name: value for name, value in event["data"].items() if name not in STAND_INS}
    }


def reasons(replay: Replay) -> list[str]:
    return [line.partition("  ")[2] for line in replay.summary.failures]


@pytest.fixture
def time():
    return Jumping()


@asynccontextmanager
async def living(
    folder: Path,
    time: Jumping,
    *,
    world: SimulatorSettings = SMALL,
    changes: Mapping[str, Any] | None = None,
    **options,
) -> AsyncIterator[tuple[Simulator, Life]]:
    async with Simulator(world, time.world) as simulator:
        config = configured(folder, simulator, **changes or {})
        async with Life(folder, config, time.clock, options) as life:
            yield simulator, life


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


def everything_on(folder: Path) -> str:
    return "".join(
        (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
        for path in folder.iterdir()
    )


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


# --- another configuration --------------------------------------------------------------------------------------------


async def recorded(folder: Path, time: Jumping, *faults: str, rounds: int = 2) -> tuple[Simulator, Life]:
    async with living(folder, time) as (simulator, life):
        for name in faults:
            simulator.switch_on(name, share=0.3)
        for _ in range(rounds):
            await life.poll()
            time.ahead += 15
    return simulator, life


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


# --- what befalls a tape ----------------------------------------------------------------------------------------------


async def test_full_recording_stops_with_one_line_and_polls_continue(tmp_path, time):
    with structlog.testing.capture_logs() as logs:
        async with living(tmp_path, time, limit=20_000) as (_, life):
            for _ in range(3):
                await life.poll()
                time.ahead += 15
    assert [line["event"] for line in logs if line["event"].startswith("tape.")] == ["tape.records", "tape.full"]
    assert sum(path.stat().st_size for path in (tmp_path / "tape").iterdir()) <= 20_000
    assert life.failures == []
    assert len(life.events) > 30
    assert life.recorder._over
    events, replay = await play(tmp_path, life.config)
    assert 0 < len(events) < len(life.events)
    assert replay.summary.missing == {}


async def test_recording_without_its_directory_stops_and_polls_continue(tmp_path, time):
    with structlog.testing.capture_logs() as logs:
        async with living(tmp_path, time) as (_, life):
            (tmp_path / "tape").rmdir()
            for _ in range(2):
                await life.poll()
    (_, over) = [line for line in logs if line["event"].startswith("tape.")]
    assert (over["event"], over["reason"]) == ("tape.cannot_be_written", "No such file or directory")
    assert life.failures == []
    assert len(life.events) > 30


async def test_recorder_defect_does_not_fail_the_poll(tmp_path, time, monkeypatch):
    def broken(*_: object) -> None:
        raise KeyError("+16515551000")

    monkeypatch.setattr("bridge.recording.redaction.Redactor.body", broken)
    with structlog.testing.capture_logs() as logs:
        async with living(tmp_path, time) as (_, life):
            await life.poll()
    (over,) = [line for line in logs if line["event"] == "tape.cannot_be_written"]
    assert "KeyError at test_tape.py" in over["reason"]
    assert "6515551000" not in str(logs)
    assert life.failures == []
    assert len(life.events) > 30


# --- a source of somebody else, and odd answers -----------------------------------------------------------------------


@dataclass
class Asking(ScriptedSource):
    """A source that asks its provider for paths, one after the other, and shows what time it was meanwhile."""

    client: HttpClient | None = None
    clock: Clock = field(default_factory=Clock)
    paths: Sequence[str] = ()
    seen: list[tuple[Any, ...]] = field(default_factory=list)
    backfill_step: float = 7.0

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        self.problems = []
        self.behind = True
        assert self.client is not None
        for path in self.paths:
            before = self.clock.now(), self.clock.monotonic()
            rng = self.clock.random.random(), self.clock.random.randint(0, 10**9)
            try:
                got = await (self.client.post_json(path, {}) if path == "/v2/token" else self.client.get(path))
                self.seen.append((before, rng, got.asked, got.at, got.unchanged, got.json()))
            except BridgeError as error:
                self.problems.append(str(error))
                self.seen.append((before, rng, type(error), getattr(error, "retry_after", None), str(error)))
            assert self.clock.now() >= before[0]
            await self.clock.sleep(2.5)
            yield Page((observe(path, "new"),), by=self.clock.now())

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        assert self.client is not None
        try:
            self.seen.append(("complete", self.clock.now(), (await self.client.get("/detail")).at))
        except BridgeError as error:
            self.seen.append(("complete", self.clock.now(), str(error)))
        return observations

    def groups(self, cursor: Mapping[str, str], watched: Sequence[str], *, everything: bool) -> AsyncIterator[str]:
        raise NotImplementedError

    async def count(self, group: str, cursor: Mapping[str, str], *, ask: bool) -> None:
        return None

    def members(self, group: str, cursor: Mapping[str, str]) -> None:
        return None


@dataclass
class Far:
    """A provider that answers by path, and counts."""

    answers: dict[str, Callable[[web.Request], web.StreamResponse]]
    asked: Counter[str] = field(default_factory=Counter)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        return self.answers.get(request.path, lambda _: web.json_response({"n": self.asked.total()}))(request)


def tagged(request: web.Request) -> web.Response:
    if request.headers.get("If-None-Match") == '"v1"':
        return web.Response(status=304)
    return web.json_response({"status": "sent"}, headers={"ETag": '"v1"'})


def cut_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


ODD: dict[str, Callable[[web.Request], web.StreamResponse]] = {
    "/tagged": tagged,
    "/large": lambda _: web.Response(body=b"x" * 3_000_000),
    "/cut": cut_off,
    "/later": lambda _: web.Response(status=429, headers={"Retry-After": "3"}),
    "/date": lambda _: web.Response(status=503, headers={"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}),
    "/moved": lambda _: web.Response(status=301),
    "/code": lambda _: web.json_response({"errorcode": 10006, "message": "Ann"}, status=400),
    "/html": lambda _: web.Response(text="<p>Ann</p>"),
    "/nothing": lambda _: web.Response(),
    "/v2/token": lambda _: web.json_response({"access_token": "s3cr3t", "expires_in": 9}),
}
ROUND = ("/tagged", "/tagged", "/cut", "/large", "/moved", "/code", "/html", "/nothing", "/v2/token", "/later", "/date")


@asynccontextmanager
async def asking(paths: Sequence[str], clock: Clock, prefix: str = "") -> AsyncIterator[tuple[Asking, Far]]:
    far = Far({f"{prefix}{path}": answer for path, answer in ODD.items()})
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", far.handle)
    async with TestServer(app) as server:
        limits = HttpLimits(body=2 << 20, retries=1)
        url = f"{server.make_url('/')}{prefix.lstrip('/')}"
        client = HttpClient(url, limiter=Limiter(1000.0, clock), clock=clock, limits=limits)
        try:
            yield Asking(client=client, clock=clock, paths=paths), far
        finally:
            await client.close()


async def drain(source: Any) -> list[Page]:
    return [page async for page in source.pages({"place": "7"}, ["/messages/sms/1"])]


async def replayed(folder: Path, paths: Sequence[str], prefix: str = "") -> tuple[Asking, Far, Any]:
    """Play the tape of `folder` to a new source, poll after poll."""
    from bridge.recording.playback import Playback, ReplayTime, Summary

    (tape,) = tapes(folder).values()
    now, summary = ReplayTime(), Summary()
    clock = frozen_clock(now.clock())
    hooks = Playback("lamp", now, summary)
    async with asking(paths, clock, prefix) as (source, far):
        recorded = RecordedSource(source, hooks)

        async def poll() -> None:
            await drain(recorded)
            await recorded.complete([])

        for step in polls(tape[0]):
            await hooks.play(step, poll())
    return source, far, summary


async def test_every_odd_answer_replays_with_the_same_outcome(tmp_path, time):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)
    async with asking(ROUND, recorder.clock, "/proxy") as (source, _):
        recorded = recorder.record("lamp", "lamp", source)
        for _ in range(2):
            await drain(recorded)
            await recorded.complete([])
            time.ahead += 4000
        assert recorded.behind
        assert recorded.problems == source.problems
    recorder.close()
    again, far, summary = await replayed(tmp_path, ROUND, "/proxy")
    live = [tuple("on tape" if isinstance(part, dict) else part for part in item) for item in source.seen]
    replay = [tuple("on tape" if isinstance(part, dict) else part for part in item) for item in again.seen]
    assert replay == live
    assert [item[-1] for item in again.seen if item[-1] == {"status": "sent"}] == [{"status": "sent"}] * 4
    assert {"access_token": "on-tape", "expires_in": 9, "rest_instance_url": str(again.client.origin)} in [
        item[-1] for item in again.seen
    ]
    assert {item[2] for item in source.seen if isinstance(item[2], type)} >= {ProviderError}
    assert any(item[4] is True for item in source.seen if len(item) == 6)
    assert sum("account was asked for quiet" in str(item[-1]) for item in again.seen) == 2
    assert far.asked == {}
    assert summary.missing == {}
    assert summary.unasked == 0
    assert "Ann" not in everything_on(tmp_path)
    assert "s3cr3t" not in everything_on(tmp_path)


async def test_time_is_frozen_for_the_recorded_source_alone(tmp_path, time):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)
    async with asking(("/a", "/b"), recorder.clock) as (source, _):
        pages = recorder.record("lamp", "lamp", source).pages({}, [])
        page = await anext(pages)
        time.ahead += 100
        assert recorder.clock.now() > page.by + timedelta(seconds=90)
        assert recorder.clock.monotonic() > time.clock.monotonic() - 1
        await pages.aclose()
    first = source.seen[0]
    assert len(source.seen) == 1
    assert page.by == first[3] + timedelta(seconds=2.5)
    recorder.close()


async def test_request_forbidden_by_lost_lease_ends_the_poll(tmp_path, time, monkeypatch):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)

    async def lost(*_: object) -> None:
        raise LeaseLost("the lease has ended")

    async with asking(("/a",), recorder.clock) as (source, _):
        recorded = recorder.record("lamp", "lamp", source)
        monkeypatch.setattr(Asking, "pages", _breaking_off)
        monkeypatch.setattr(HttpClient, "_ask", lost)
        with pytest.raises(LeaseLost):
            await drain(recorded)
    recorder.close()
    (poll,) = read(tmp_path)
    assert [line["line"] for line in poll.course] == ["step"]
    assert not poll.whole
    again, _, summary = await _played_to_the_end(tmp_path)
    assert again.seen == []
    assert summary.missing == {}


async def _breaking_off(source: Asking, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
    del cursor, watched
    assert source.client is not None
    await source.client.get("/a")
    yield Page((), by=NOW)


async def _played_to_the_end(folder: Path) -> tuple[Asking, Far, Any]:
    from bridge.recording.playback import RecordingExhausted

    with pytest.raises(RecordingExhausted):
        await replayed(folder, ("/a",))
    from bridge.recording.playback import Summary

    return Asking(), Far({}), Summary()


async def test_token_kept_from_before_the_recording_is_not_missing(tmp_path, time):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)
    async with asking(("/a", "/b"), recorder.clock) as (source, _):
        recorded = recorder.record("lamp", "lamp", source)
        await drain(recorded)
        await recorded.complete([])
    recorder.close()
    again, _, summary = await replayed(tmp_path, ("/v2/token", "/b", "/a"))
    assert again.problems == []
    assert [item[-1] for item in again.seen[1:3]] == [{"n": 2}, {"n": 1}]
    assert summary.missing == {}
    again, _, summary = await replayed(tmp_path, ("/b", "/c", "/b"))
    assert again.problems == ["GET /c: the tape has no answer to it"]
    assert again.seen[0][-1] == again.seen[2][-1] == {"n": 2}
    assert summary.missing == {UnmatchedRequest("lamp", "GET", "/c"): 1}
    assert summary.unasked == 1


async def test_a_source_on_tape_can_do_what_it_could_before(tmp_path, time):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)
    async with asking((), recorder.clock) as (source, _):
        recorded = recorder.record("lamp", "lamp", source)
        assert isinstance(recorded, Reconcilable)
        assert recorded.backfill_step == 7.0
        assert recorded.retention == source.retention
        source.polls = [[Page((), by=NOW)]]
        assert [page.by async for page in recorded.backfill(NOW, NOW)] == [
            page.by async for page in source.backfill(NOW, NOW)
        ]
        assert recorded.resource("/x/1") == source.resource("/x/1")
        assert isinstance(await recorded.probe(), Probe)
        await recorded.close()
    plain = recorder.record("plain", "lamp", ScriptedSource([[Transient("away")]]))
    assert not isinstance(plain, Reconcilable)
    with pytest.raises(Transient, match="away"):
        await drain(plain)
    recorder.close()
    (poll,) = read(tmp_path)
    assert poll.cursor == {"place": "7"}
    assert poll.watched == ["/messages/sms/1"]
    assert poll.whole
    assert '"error":"away"' in everything_on(tmp_path)


async def test_cursor_is_recorded_only_if_answers_cannot_rebuild_it(tmp_path, time):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)
    turns = [[Page((), by=NOW, cursor={"a": "1", "b": "2"})], [Page((), by=NOW, cursor={"a": None})], []]
    recorded = recorder.record("lamp", "lamp", ScriptedSource(turns))
    for cursor in ({}, {"a": "1", "b": "2"}, {"b": "3"}):
        async for _ in recorded.pages(cursor, []):
            pass
    recorder.close()
    assert [poll.cursor for poll in read(tmp_path)] == [{}, None, {"b": "3"}]


async def test_source_defect_replays_with_the_same_report(tmp_path, time, monkeypatch):
    simulator, life = await recorded(tmp_path, time, rounds=1)
    del simulator

    async def broken(*_: object) -> None:
        raise KeyError("+16515551000")
        yield

    monkeypatch.setattr("bridge.sources.spacivox.source.Spacivox.pages", broken)
    events, replay = await play(tmp_path, life.config)
    assert {event["source"] for event in events} == {"/govdelivery/city", "/marketingcloud/journeys"}
    assert [reason.partition(" at ")[0] for reason in reasons(replay)] == ["drops: the source failed with KeyError"]


async def test_source_defect_is_reported_with_its_location_only(tmp_path, time):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)
    broken = KeyError("+16515551000")
    recorded = recorder.record("lamp", "lamp", ScriptedSource([[broken]]))
    with pytest.raises(KeyError):
        await drain(recorded)
    recorder.close()
    text = everything_on(tmp_path)
    assert f'"error":"{describe_unexpected(broken).partition(" at ")[0]}' in text
    assert "6515551000" not in text


async def test_defect_during_replay_is_raised_and_blocks_nobody(tmp_path, time, monkeypatch):
    _, life = await recorded(tmp_path, time, rounds=1)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bridge.recording.player.Playback._asks_for", broken)
    _, replay = await play(tmp_path, life.config)
    assert {reason.split(": ", 1)[1].partition(" at ")[0] for reason in reasons(replay)} == {
        "the source failed with ZeroDivisionError"
    }


async def test_a_poll_that_no_tape_has_is_refused():
    from bridge.recording.playback import Playback, ReplayTime, Summary

    with pytest.raises(TapeError, match="lamp: a poll that is not on the tape"):
        await drain(RecordedSource(ScriptedSource(), Playback("lamp", ReplayTime(), Summary())))
