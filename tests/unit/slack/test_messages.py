"""Slack: how events become messages."""

from __future__ import annotations

import json

import pytest
from blockkit import check_message
from catalogue import CATALOGUE
from hypothesis import given
from hypothesis import strategies as st
from rigs.slack import failed, made

from bridge.domain.catalogue import SourceData, SourceStalled
from bridge.domain.event import Data, Event
from bridge.domain.events.govdelivery import MessageCompleted, MessageData, RecipientData, RecipientFailed
from bridge.domain.events.marketingcloud import SendData, SMSNotSent
from bridge.domain.events.spacivox import DropData, VoicemailRejected
from bridge_slack.blocks import digest, escape, fit, group_of, single


def shown(message: dict) -> str:
    return json.dumps(message["blocks"], ensure_ascii=False)


def test_failed_call_is_a_readable_message():
    message = check_message(single(failed(error="line <b> & cut")))
    assert (
        message["text"]
        == "voice recipient failed: busy · /messages/voice/10507/recipients/1 · line &lt;b&gt; &amp; cut"
    )
    header, facts, error, context = message["blocks"]
    assert header["text"]["text"] == ":red_circle: Voice recipient failed: busy"
    assert [field["text"] for field in facts["fields"]] == [
        "*When*\n<!date^1363381863^{date_short_pretty} {time_secs}|2013-03-15 21:11:03 UTC>",
        "*Resource*\n/messages/voice/10507/recipients/1",
        "*Source*\n/govdelivery/city-voice",
        "*Phone*\n…1000",
    ]
    assert error["text"]["text"] == "*Error*\nline &lt;b&gt; &amp; cut"
    assert context["elements"][0]["text"] == "sending → failed (advance)".replace(">", "&gt;")


@pytest.mark.parametrize(
    ("event", "header", "words"),
    [
        (made(MessageCompleted, MessageData(channel="sms", status="completed", transition="advance",
              recipient_counts={"total": 2, "sent": 2, "failed": 0}), "/messages/sms/1"),
         ":large_green_circle: Sms message completed", ["total 2 · sent 2"]),
        (made(VoicemailRejected, DropData(channel="voicemail", status="rejected", transition="first", campaign=7, job=3,
              reference="…4711", state=3), "/j/voicemail_drop_records/1"),
         ":red_circle: Voicemail drop rejected", ["*Campaign*\\n7", "*Job*\\n3", "*Reference*\\n…4711"]),
        (made(SMSNotSent, SendData(channel="sms", status="not_sent", transition="first", code=24, definition="reset",
              reason="ListDetectiveExclusion", contact_key="tok_1")),
         ":red_circle: Sms message not sent", ["*Code*\\n24", "*Definition*\\nreset", "*Error*\\nListDetectiveExclusion"]),
        (made(SourceStalled, SourceData(channel="bridge", status="stalled", transition="first", failures=9,
              reason="503")), ":red_circle: Source stalled", ["*Failures in a row*\\n9", "*Error*\\n503"]),
        (made(Event, Data(channel="fax", status="jammed", transition="first", error="paper")),
         ":large_blue_circle: Fax resource", ["*Error*\\npaper"]),
    ],
)  # fmt: skip
def test_each_kind_of_event_shows_what_it_knows(event, header, words):
    message = check_message(single(event))
    assert message["blocks"][0]["text"]["text"].startswith(header)
    assert [word for word in words if word not in shown(message)] == []


@pytest.mark.parametrize("cls", CATALOGUE)
def test_every_catalogue_event_can_be_shown_alone_and_grouped(cls):
    at = "2026-03-01T12:00:00Z"
    said = {
        "message": "/messages/sms/1",
        "what": "missing",
        "sink": "crm",
        "count": 3,
    }  # what some classes cannot do without
    said |= {"stands_in": "sending", "since": at, "due": at}
    data = {"channel": cls.channels[0], "status": cls.status, "transition": "first", **said}
    event = made(cls, cls.model_fields["data"].annotation.model_validate(data))
    check_message(single(event))
    check_message(digest([event, event]))


def test_a_digest_says_how_many_of_what_why_and_when():
    events = [failed(n, detail="busy" if n % 3 else "no_answer", error=f"code {n % 7}") for n in range(1, 300)]
    message = check_message(digest(events))
    header, facts, details, errors, first, _ = message["blocks"]
    assert header["text"]["text"] == ":red_circle: 299 more: voice recipients failed"
    assert [field["text"].partition("\n")[0] for field in facts["fields"]] == [
        "*Message*",
        "*Source*",
        "*From*",
        "*To*",
    ]
    assert "1363381863" in facts["fields"][2]["text"]
    assert str(1363381862 + 299) in facts["fields"][3]["text"]
    assert details["text"]["text"] == "*Details*\nbusy: 200\nno answer: 99"
    assert errors["text"]["text"].splitlines()[0] == "*Errors*"
    assert len(errors["text"]["text"].splitlines()) == 7
    assert errors["text"]["text"].endswith("other: 84")
    assert "/messages/voice/10507/recipients/1 (…1000)" in first["text"]["text"]
    assert first["text"]["text"].endswith("and 294 more")


ANY = st.text(max_size=300) | st.text("<>&", max_size=4000) | st.text("\U0001f600a&", min_size=1400, max_size=3200)


@given(ANY, ANY, ANY, st.sampled_from([1, 2, 12]))
def test_no_provider_text_makes_an_invalid_slack_message(error, subject, detail, several):
    events = [
        made(RecipientFailed, RecipientData(channel="voice", status="failed", previous=detail, transition="first",
             message=subject, phone=error, error=f"{error}{n}", detail=detail or None), f"/{subject}")
        for n in range(several)
    ]  # fmt: skip
    check_message(single(events[0]))
    if several > 1:
        check_message(digest(events))


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20) | st.integers() | st.none(), max_size=15), ANY)
def test_unknown_event_type_is_shown_with_any_content(extra, kind):
    data = Data.model_validate({**extra, "channel": "x", "status": "y", "transition": "first", "detail": None})
    event = made(Event, data).model_copy(update={"type": kind})
    check_message(single(event))
    check_message(digest([event, event]))


@pytest.mark.parametrize(
    ("text", "limit", "fitted"),
    [("", 5, "-"), (" \n\t ", 5, "-"), ("a\x00b\nc", 9, "a b c"), ("<!channel>", 40, "&lt;!channel&gt;"),
     ("abcdef", 6, "abcdef"), ("abcdefg", 6, "abcde…"), ("abc&def", 7, "abc…"), ("a&b&c", 9, "a&amp;b…"),
     ("ab\U0001f600cd", 4, "ab…")],
)  # fmt: skip
def test_a_text_is_cut_to_its_place_without_halving_anything(text, limit, fitted):
    assert fit(text, limit) == fitted


def test_three_characters_are_escaped_and_no_other():
    assert escape("<a> & \"b\" 'c'") == "&lt;a&gt; &amp; \"b\" 'c'"


@pytest.mark.parametrize(
    ("event", "group"),
    [(failed(1), "/messages/voice/10507"),
     (made(MessageCompleted, MessageData(channel="sms", status="completed", transition="first"), "/messages/sms/1"),
      "/messages/sms/1"),
     (made(SMSNotSent, SendData(channel="sms", status="not_sent", transition="first", definition="reset")), "reset"),
     (made(VoicemailRejected, DropData(channel="voicemail", status="rejected", transition="first", campaign=7, job=3)),
      "campaign 7, job 3"),
     (made(SourceStalled, SourceData(channel="bridge", status="stalled", transition="first")), "/govdelivery/city-voice")],
)  # fmt: skip
def test_events_are_grouped_by_parent_and_status(event, group):
    assert group_of(event) == (event.source, group, event.type)
