"""What a recording keeps of an answer, and the stand-ins for what it may not keep."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs.recording import (
    answer,
    request,
)
from yarl import URL

from bridge.http import parsing
from bridge.http.errors import ProviderError
from bridge.recording.redaction import GRANTED, JSON, TORN, Redactor

redactor = Redactor(b"k" * 32)


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
