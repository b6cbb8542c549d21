"""Lenient reading: whatever a provider answers, it is read or passed over, and never an error."""

from __future__ import annotations

import json as standard_json
from datetime import UTC, datetime, timedelta, timezone
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.http import parsing
from bridge.http.headers import http_date, links, parse_retry_after

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['</messages/sms?page=2>; rel="next"'], {"next": "/messages/sms?page=2"}),
        (
            ['<https://tms.govdelivery.com/messages/sms/page/2>; rel="next"'],
            {"next": "https://tms.govdelivery.com/messages/sms/page/2"},
        ),
        (['<?page=2>; rel="next"'], {"next": "?page=2"}),
        (['< /messages/sms/page/2>; rel="next"'], {"next": "/messages/sms/page/2"}),
        (['</a >; rel="next"'], {"next": "/a"}),
        (['</a>; rel="first", </z>; rel="last"'], {"first": "/a", "last": "/z"}),
        (['</a>; rel="first",</z>; rel="last"'], {"first": "/a", "last": "/z"}),
        (['</a>; rel="first",</z>; rel="last",'], {"first": "/a", "last": "/z"}),
        (["</a>;rel=next, </b>;rel=last"], {"next": "/a", "last": "/b"}),
        (["</a>; rel='next'"], {"next": "/a"}),
        (['</a>; title="x"; rel="next"; type="y"'], {"next": "/a"}),
        (['</a>; REL="Next"'], {"next": "/a"}),
        (['</a>; rel = "next"'], {"next": "/a"}),
        (['</a>; rel="next last"'], {"next": "/a", "last": "/a"}),
        (['</a,b;c=d>; rel="next"'], {"next": "/a,b;c=d"}),
        (['</a>; rel="next"', '</b>; rel="last"'], {"next": "/a", "last": "/b"}),
        (['</a>; rel="next", </b>; rel="next"'], {"next": "/a"}),
        ([""], {}),
        ([","], {}),
        ([], {}),
        (["</a>"], {}),
        (['<>; rel="next"'], {}),
        (['/a; rel="next"'], {}),
        (['</a; rel="next"'], {}),
    ],
)
def test_a_link_header_is_read_in_every_form(headers, expected):
    assert links(headers) == expected


@pytest.mark.parametrize(
    "header", ["<" + " " * 50_000 + "x", "<" * 50_000, "<x>;" + " " * 50_000 + "x", "<x>" + ";" * 50_000]
)
def test_no_link_header_holds_up_the_others(header):
    started = monotonic()
    assert links([header]) == {}
    assert monotonic() - started < 1.0


@given(st.lists(st.text(alphabet="<>;,=\"' relnext/?&\\", max_size=80)))
def test_no_link_header_is_an_error(headers):
    assert all(isinstance(target, str) for target in links(headers).values())


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2013-03-15T21:11:02Z", datetime(2013, 3, 15, 21, 11, 2, tzinfo=UTC)),
        ("2013-03-15t21:11:02z", datetime(2013, 3, 15, 21, 11, 2, tzinfo=UTC)),
        (" 2013-03-15 21:11:02 UTC ", datetime(2013, 3, 15, 21, 11, 2, tzinfo=UTC)),
        ("2015-01-06T10:21:14.243Z", datetime(2015, 1, 6, 10, 21, 14, 243000, tzinfo=UTC)),
        ("2018-12-17T13:05:40.94", datetime(2018, 12, 17, 13, 5, 40, 940000, tzinfo=UTC)),
        ("2018-12-17T13:05:40,123456789Z", datetime(2018, 12, 17, 13, 5, 40, 123456, tzinfo=UTC)),
        ("2018-12-17T13:05:40+05:30", datetime(2018, 12, 17, 7, 35, 40, tzinfo=UTC)),
        ("2018-12-17T13:05:40-0600", datetime(2018, 12, 17, 19, 5, 40, tzinfo=UTC)),
        ("2018-12-17T13:05Z", datetime(2018, 12, 17, 13, 5, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2018-12-17T13:05:61Z", None),
        ("2018-13-17T13:05:40Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("2018-12-17T13:05:40+99:99", None),
        ("2018-12-17", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (1387312000, None),
    ],
)
def test_time_is_read_exactly_or_not_at_all(text, moment):
    assert parsing.time(text) == moment


def test_time_without_offset_uses_the_providers_zone():
    central = timezone(timedelta(hours=-6))
    assert parsing.time("2018-07-17T13:05:40.947", assume=central) == datetime(
        2018, 7, 17, 19, 5, 40, 947000, tzinfo=UTC
    )
    assert parsing.time("2018-07-17T13:05:40Z", assume=central) == datetime(2018, 7, 17, 13, 5, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "number"),
    [(2, 2), ("2", 2), (" -3 ", -3), (2.0, 2), (2.5, None), ("2.5", None), (True, None), (None, None), ([2], None),
     ("9223372036854775807", 2**63 - 1), ("9" * 40, 10**40 - 1), ("9" * 41, None), (10**40, None), (1e300, None),
     (float("nan"), None), (float("inf"), None), ("٣", 3)],
)  # fmt: skip
def test_a_count_may_be_written_as_text(value, number):
    assert parsing.integer(value) == number


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), (" a ", "a"), ("", None), ("  ", None), (4, "4"), (4.0, "4"), (4.5, "4.5"), (1e300, "1e+300"),
     (True, None), (None, None), ({}, None), (float("nan"), None), (1 << 300, None)],
)  # fmt: skip
def test_text_may_be_written_as_a_number(value, text):
    assert parsing.text(value) == text


@pytest.mark.parametrize(
    ("candidates", "phone"),
    [
        (("+16515551000", "6515551000"), "+16515551000"),
        ((None, "+16515551000"), "+16515551000"),
        (("6515551000", "+16515551000"), "+16515551000"),
        ((None, "651-555-1000"), "651-555-1000"),
        ((None, 6515551000), "6515551000"),
        ((None, None), None),
        (("", []), None),
    ],
)
def test_phone_is_read_in_international_form_if_possible(candidates, phone):
    assert parsing.phone(*candidates) == phone


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'\xef\xbb\xbf["a"]', ["a"]),
        (b'["caf\xe9"]', ["caf\ufffd"]),
        (rb'["\ud83d\ude00"]', ["\U0001f600"]),
        (rb'["\ud83d!"]', ["\ufffd!"]),
        (rb'["\ude00\ud83d"]', ["\ufffd\ufffd"]),
        (rb'["\ud83d\ud83d\ude00"]', ["\ufffd\U0001f600"]),
    ],
)
def test_one_bad_character_hides_no_page(body, value):
    assert parsing.json(body) == value


@pytest.mark.parametrize(
    ("odd", "value"),
    [
        (b"9" * 5000, "9" * 5000),
        (b"[" * 300 + b"]" * 300, None),
        (b'{"a": ' * 300 + b"1" + b"}" * 300, None),
    ],
    ids=["digits", "arrays", "objects"],
)
def test_one_absurd_value_hides_no_page(odd, value):
    read = parsing.json(b'[{"id": 7, "odd": %b}, {"id": 1234567890123456789012345}]' % odd)
    assert [entry["id"] for entry in read] == [7, 1234567890123456789012345]
    while isinstance(odd := read[0]["odd"], dict | list) and odd:
        read = [{"odd": odd[0] if isinstance(odd, list) else odd["a"]}]
    assert odd == value


def test_what_is_nested_without_end_is_a_value_error():
    with pytest.raises(ValueError, match="nested"):
        parsing.json(b"[" * 100_000 + b"]" * 100_000)


@given(ANYTHING)
def test_json_is_read_as_anybody_reads_it(value):
    body = standard_json.dumps(value).encode()
    try:
        read = parsing.json(body)
    except ValueError:
        return
    assert standard_json.dumps(read).encode("utf-8", "strict")
    assert parsing.sequence(read) == (read if isinstance(read, list) else [])


@given(ANYTHING)
def test_nothing_that_was_read_is_an_error(value):
    assert parsing.time(value) is None or isinstance(value, str)
    assert isinstance(parsing.integer(value), int | None)
    assert isinstance(parsing.text(value), str | None)
    assert isinstance(parsing.phone(value), str | None)
    assert isinstance(parsing.mapping(value), dict)


@given(st.binary(max_size=40))
def test_no_bytes_are_more_than_a_value_error(body):
    try:
        parsing.json(body)
    except ValueError:
        assert parsing.error_code(body) is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"errorcode": 50100, "message": "+16515551000"}', "50100"),
        (b'{"error": "invalid_client"}', "invalid_client"),
        (b'{"error": "Invalid authentication token"}', None),
        (b'{"error": "+16515551000"}', None),
        (b'{"error": 6515551000}', None),
        (b'{"errors": {"base": 1}}', None),
        (b"[]", None),
        (b"<html>", None),
        (b"", None),
        (b'{"error": "' + b"x" * 70000 + b'"}', None),
    ],
)
def test_error_code_is_a_number_or_word_never_a_sentence(body, code):
    assert parsing.error_code(body) == code


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Wed, 01 May 2024 12:00:00 GMT", NOON),
        ("Wed, 01 May 2024 12:00:00", NOON),
        ("Wed, 01 May 2024 14:00:00 +0200", NOON),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2024 00:00:00 +9999999999999999", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_header_date_is_a_time_or_nothing(text, moment):
    assert http_date(text) == moment
    assert text is None or moment == NOON or parse_retry_after(text, NOON) is None


@given(st.text("MonJan0123456789:,+- GMT", max_size=60))
def test_no_date_is_an_error(text):
    date = http_date(text)
    assert date is None or date.tzinfo is UTC


@given(st.text(max_size=40))
def test_no_retry_after_is_an_error(value):
    seconds = parse_retry_after(value, NOON)
    assert seconds is None or seconds >= 0
