"""The vendors' own pages, from a server's answer to the event in the journal; and the table of all statuses."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from catalogue import CATALOGUE

from bridge.adapters.sqlite.store import SqliteStore
from bridge.config.registry import load_source
from bridge.domain.catalogue import Catalogue
from bridge.domain.clock import Clock
from bridge.ingest.intake import Intake

SEEDS = Path(__file__).parents[1] / "seeds"
SMS = (SEEDS / "govdelivery-sms-message.txt").read_text(encoding="utf-8")
VOICE = (SEEDS / "govdelivery-voice-message.txt").read_text(encoding="utf-8")
RECIPIENTS = (SEEDS / "govdelivery-voice-recipients.txt").read_text(encoding="utf-8")
NOT_SENT = (SEEDS / "marketingcloud-sms-not-sent.txt").read_text(encoding="utf-8")
DROPS = (SEEDS / "spacivox-voicemail-drop-records.txt").read_text(encoding="utf-8")


def cut(page: str, opening: str, closing: str, *, nth: int = 0) -> str:
    """Return a JSON text that stands on a page, byte for byte: from a line `opening` to a line that begins `closing`."""
    begin = [match.start() for match in re.finditer(rf"^{re.escape(opening)}$", page, re.MULTILINE)][nth]
    return page[begin : page.index(f"\n{closing}", begin) + 1 + len(closing)]


SMS_EXAMPLE = cut(SMS, "{", "}")
VOICE_EXAMPLE = cut(VOICE, "{", "}")
DROPS_EXAMPLE = cut(DROPS, "[", "]")
SMS_SCHEMA = json.loads(cut(SMS, "{", "}", nth=2))
VOICE_SCHEMA = json.loads(cut(VOICE, "{", "}", nth=3))
RECIPIENT_SCHEMA = json.loads(cut(RECIPIENTS, "{", "}"))["items"]


def exemplary(schema: dict[str, Any]) -> dict[str, Any]:
    """Return an item whose fields have the examples that their descriptions give."""
    examples = {name: about["example"] for name, about in schema["properties"].items() if "example" in about}
    return examples | {"_links": json.loads(examples["_links"])}


# --- a provider, a source, an intake, a journal -----------------------------------------------------------------------

TOKEN = {"access_token": "t0ken", "token_type": "Bearer", "expires_in": 1079}
FEED = "/messaging/v1/sms/messages/"
RECORDS = "/j/voicemail_drop_records"


def serve(answers: dict[str, Any]) -> web.Application:
    """Give each path its answer: a text byte for byte, anything else as JSON; no other path exists."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/v2/token":
            return web.json_response(TOKEN | {"rest_instance_url": f"http://{request.host}/"})
        if request.path == RECORDS:
            start, end = (datetime.fromisoformat(request.query[name]) for name in ("start", "end"))
            if not start <= datetime(2015, 1, 6, 10, 21, 14, 243000, tzinfo=UTC) <= end:
                return web.json_response([])
        answered = answers.get(request.path)
        if answered is None:
            return web.json_response({"error": "Not Found"}, status=404)
        if request.path == FEED and "lastEventId" in request.query:
            answered = {"lastEventID": int(request.query["lastEventId"]), "count": 0, "messages": []}
        body = answered if isinstance(answered, str) else json.dumps(answered)
        return web.Response(text=body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    return app


SETTINGS: dict[str, Any] = {
    "govdelivery": {"token": "s3cr3t", "discover": False},
    "spacivox": {"token": "s3cr3t", "lookback": "24h"},
    "marketingcloud": {"client_id": "me", "client_secret": "s3cr3t"},
}
NAMES = {"govdelivery": "city-voice", "spacivox": "drops", "marketingcloud": "journeys"}


async def journal(
    folder: Path, provider: str, answers: dict[str, Any], now: datetime, **settings: Any
) -> tuple[list[dict[str, Any]], list[tuple[str, str]], list[str]]:
    """Poll once; return the journal's CloudEvents, the class and topic of each, and the problems of the poll."""
    plugin = load_source(provider)
    clock = Clock(now=lambda: now)
    store = SqliteStore(folder / "bridge.db", clock=clock)
    async with TestServer(serve(answers)) as server:
        url = {"auth_url" if provider == "marketingcloud" else "url": str(server.make_url("/")).rstrip("/")}
        values = {"type": provider, "rate": "1000/s", **url, **SETTINGS[provider], **settings}
        name = NAMES[provider]
        source = plugin.build(name, plugin.settings.model_validate(values), clock)
        await store.open()
        try:
            lease = await store.acquire(f"source/{name}", "test", 60)
            assert lease is not None
            outcome = await Intake(name, provider, source, store, clock).poll(lease)
            entries = await store.read(name, 0, 100)
        finally:
            await source.close()
            await store.close()
    read = Catalogue((*CATALOGUE, *plugin.events)).read
    kinds = [(type(read(entry.event.body)).__name__, entry.event.topic) for entry in entries]
    return [json.loads(entry.event.body) for entry in entries], kinds, outcome.problems


# --- what a reader of the pages expects -------------------------------------------------------------------------------


async def test_documented_sms_message_is_completed_with_its_counts(tmp_path):
    path = "/messages/sms/165532"
    answers = {path: SMS_EXAMPLE, f"{path}/recipients": []}
    now = datetime(2014, 10, 7, 17, 28, tzinfo=UTC)
    events, kinds, problems = await journal(tmp_path, "govdelivery", answers, now, messages=[path])
    assert kinds == [("MessageCompleted", "sms.message.completed")]
    assert events == [
        {
            "specversion": "1.0",
            "id": events[0]["id"],
            "source": "/govdelivery/city-voice",
            "type": "bridge.sms.message.completed",
            "subject": "/messages/sms/165532",
            "time": "2014-10-07T17:27:15Z",
            "recordedtime": "2014-10-07T17:28:00.000Z",
            "partitionkey": "/messages/sms/165532",
            "datacontenttype": "application/json",
            "dataschema": "urn:bridge:schemas/message-completed/1",
            "data": {
                "channel": "sms",
                "status": "completed",
                "previous": None,
                "detail": None,
                "transition": "first",
                "observed": {"after": None, "by": "2014-10-07T17:28:00Z"},
                "recipient_counts": {
                    "total": 2, "new": 0, "sending": 0, "inconclusive": 0, "blacklisted": 0, "canceled": 0,
                    "sent": 2, "failed": 0,
                },
                "recipient_detail_counts": None,
                "created_at": "2014-10-07T17:27:12Z",
                "completed_at": "2014-10-07T17:27:15Z",
            },
        }
    ]  # fmt: skip
    assert problems == ["/messages/sms/165532: 0 recipients are listed, 2 are counted"]


async def test_documented_inconsistent_voice_message_keeps_its_call_results(tmp_path):
    path = "/messages/voice/153"
    answers = {path: VOICE_EXAMPLE, f"{path}/recipients": []}
    now = datetime(2014, 10, 7, 17, 33, tzinfo=UTC)
    events, kinds, _ = await journal(tmp_path, "govdelivery", answers, now, messages=[path])
    assert kinds == [("MessageCompleted", "voice.message.completed")]
    assert events[0]["type"] == "bridge.voice.message.completed"
    assert events[0]["subject"] == "/messages/voice/153"
    assert events[0]["time"] == "2014-10-07T17:32:51Z"
    assert events[0]["data"] == {
        "channel": "voice",
        "status": "completed",
        "previous": None,
        "detail": None,
        "transition": "first",
        "observed": {"after": None, "by": "2014-10-07T17:33:00Z"},
        "recipient_counts": {
            "total": 2, "new": 0, "sending": 0, "inconclusive": 0, "blacklisted": 0, "canceled": 0,
            "sent": 2, "failed": 0,
        },
        "recipient_detail_counts": {"busy": 0, "no_answer": 0, "human": 0, "machine": 1},
        "created_at": "2014-10-07T17:27:12Z",
        "completed_at": "2014-10-07T17:32:51Z",
        "provider": {"from_number": "+15551234567"},
    }  # fmt: skip


async def test_documented_unreachable_recipient_failed_with_a_reason(tmp_path):
    path = "/messages/voice/10507"
    recipient = exemplary(RECIPIENT_SCHEMA) | {"status": "failed", "error_message": "SIP 503"}
    message = {"status": "sending", "_links": {"self": path}, "recipient_counts": {"total": 1, "failed": 1}}
    collections = {detail: [] for detail in ("human", "machine", "busy", "no_answer")} | {
        "could_not_connect": [recipient]
    }
    answers = {path: message, f"{path}/recipients": [recipient]}
    answers |= {f"{path}/recipients/{name}": collection for name, collection in collections.items()}
    now = datetime(2013, 3, 15, 21, 11, 20, 114000, tzinfo=UTC)
    events, kinds, problems = await journal(tmp_path, "govdelivery", answers, now, messages=[path])
    assert kinds == [
        ("MessageSending", "voice.message.sending"),
        ("RecipientFailed", "voice.recipient.failed.could_not_connect"),
    ]
    assert events[1] == {
        "specversion": "1.0",
        "id": events[1]["id"],
        "source": "/govdelivery/city-voice",
        "type": "bridge.voice.recipient.failed",
        "subject": "/messages/voice/10507/recipients/364898",
        "time": "2013-03-15T21:11:02Z",
        "recordedtime": "2013-03-15T21:11:20.115Z",  # its message was recorded a millisecond before
        "partitionkey": "/messages/voice/10507/recipients/364898",
        "datacontenttype": "application/json",
        "dataschema": "urn:bridge:schemas/recipient-failed/1",
        "data": {
            "channel": "voice",
            "status": "failed",
            "previous": None,
            "detail": "could_not_connect",
            "transition": "first",
            "observed": {"after": None, "by": "2013-03-15T21:11:20.114Z"},
            "message": "/messages/voice/10507",
            "phone": "+16515551000",
            "error": "SIP 503",
            "created_at": "2013-03-15T21:10:30Z",
            "completed_at": "2013-03-15T21:11:02Z",
        },
    }
    assert problems == []


async def test_documented_voicemail_drop_was_sent(tmp_path):
    now = datetime(2015, 1, 6, 10, 30, tzinfo=UTC)
    events, kinds, problems = await journal(tmp_path, "spacivox", {RECORDS: DROPS_EXAMPLE}, now)
    assert kinds == [("VoicemailSent", "voicemail.drop.sent")]
    assert events == [
        {
            "specversion": "1.0",
            "id": events[0]["id"],
            "source": "/spacivox/drops",
            "type": "bridge.voicemail.drop.sent",
            "subject": "/j/voicemail_drop_records/1",
            "time": "2015-01-06T10:21:14.243Z",
            "recordedtime": "2015-01-06T10:30:00.000Z",
            "partitionkey": "/j/voicemail_drop_records/1",
            "datacontenttype": "application/json",
            "dataschema": "urn:bridge:schemas/voicemail-sent/1",
            "data": {
                "channel": "voicemail",
                "status": "sent",
                "previous": None,
                "detail": None,
                "transition": "first",
                "observed": {"after": None, "by": "2015-01-06T10:30:00Z"},
                "phone": "+33612345678",
                "campaign": 1,
                "job": 1,
                "team": 1,
                "reference": "123456",
                "state": 0,
                "timestamp": "2015-01-06T10:21:14.243Z",
            },
        }
    ]
    assert problems == []


FIELDS = re.findall(r"^\s?([a-zA-Z]+?)(integer|string)[A-Z]", NOT_SENT.partition("StatusNameType")[2], re.MULTILINE)
SENT_EVENT = {
    "statusCode": 24,
    "statusMessage": "List Detective exclusion",
    "eventCategoryType": "TransactionalSendEvents.SMSNotSent",
    "timestamp": "2018-12-17T13:05:40.947",
    "definitionKey": "account-reset",
    "eventID": 35760,
    "messageKey": "m-1",
    "contactKey": "c-1",
    "to": "16515551000",
}


def test_documented_send_event_has_its_typed_fields():
    types = {"integer": int, "string": str}
    assert dict(FIELDS).keys() == {"lastEventID", *SENT_EVENT}
    assert all(isinstance(SENT_EVENT[name], types[kind]) for name, kind in FIELDS if name in SENT_EVENT)


@pytest.mark.parametrize("under_info", [False, True], ids=["keys as the page's table has them", "keys under info"])
async def test_documented_unsent_sms_has_its_reason(tmp_path, under_info):
    event = dict(SENT_EVENT)
    if under_info:
        event["info"] = {name: event.pop(name) for name in ("messageKey", "contactKey", "to")}
    answer = {"lastEventID": 35774, "count": 1, "messages": [event]}
    now = datetime(2018, 12, 17, 20, 0, tzinfo=UTC)
    events, kinds, problems = await journal(tmp_path, "marketingcloud", {FEED: answer}, now)
    assert kinds == [("SMSNotSent", "sms.message.not_sent")]
    assert events == [
        {
            "specversion": "1.0",
            "id": events[0]["id"],
            "source": "/marketingcloud/journeys",
            "type": "bridge.sms.message.not_sent",
            "subject": "/messaging/v1/sms/messages/m-1",
            "time": "2018-12-17T19:05:40.947Z",
            "recordedtime": "2018-12-17T20:00:00.000Z",
            "partitionkey": "/messaging/v1/sms/messages/m-1",
            "datacontenttype": "application/json",
            "dataschema": "urn:bridge:schemas/sms-not-sent/1",
            "data": {
                "channel": "sms",
                "status": "not_sent",
                "previous": None,
                "detail": None,
                "transition": "first",
                "observed": {"after": None, "by": "2018-12-17T20:00:00Z"},
                "event_id": 35760,
                "code": 24,
                "reason": "List Detective exclusion",
                "definition": "account-reset",
                "message_key": "m-1",
                "contact_key": "c-1",
                "phone": "16515551000",
                "provider_time": "2018-12-17T13:05:40.947",
            },
        }
    ]
    assert problems == []


async def test_a_bridge_that_lost_its_store_computes_the_same_id(tmp_path):
    now = datetime(2015, 1, 6, 10, 30, tzinfo=UTC)
    events = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        events.append((await journal(tmp_path / name, "spacivox", {RECORDS: DROPS_EXAMPLE}, now))[0])
    assert events[0] == events[1]
    assert re.fullmatch(r"[0-9a-f]{32}", events[0][0]["id"])


# --- the table of statuses --------------------------------------------------------------------------------------------

# provider, channel, entity, the provider's status, the sub-collection it stands in, class, topic, CloudEvents type
ROWS = [
    ("govdelivery", "sms", "message", "new", None, "MessageNew", "sms.message.new", "bridge.sms.message.new"),
    ("govdelivery", "sms", "message", "queued", None, "MessageQueued", "sms.message.queued", "bridge.sms.message.queued"),
    ("govdelivery", "sms", "message", "sending", None, "MessageSending", "sms.message.sending", "bridge.sms.message.sending"),
    ("govdelivery", "sms", "message", "completed", None, "MessageCompleted", "sms.message.completed", "bridge.sms.message.completed"),
    ("govdelivery", "sms", "message", "canceled", None, "MessageCanceled", "sms.message.canceled", "bridge.sms.message.canceled"),
    ("govdelivery", "sms", "message", "paused", None, "UnknownStatus", "sms.message.unknown", "bridge.sms.message.unknown"),
    ("govdelivery", "voice", "message", "new", None, "MessageNew", "voice.message.new", "bridge.voice.message.new"),
    ("govdelivery", "voice", "message", "queued", None, "MessageQueued", "voice.message.queued", "bridge.voice.message.queued"),
    ("govdelivery", "voice", "message", "sending", None, "MessageSending", "voice.message.sending", "bridge.voice.message.sending"),
    ("govdelivery", "voice", "message", "completed", None, "MessageCompleted", "voice.message.completed", "bridge.voice.message.completed"),
    ("govdelivery", "voice", "message", "canceled", None, "MessageCanceled", "voice.message.canceled", "bridge.voice.message.canceled"),
    ("govdelivery", "voice", "message", "paused", None, "UnknownStatus", "voice.message.unknown", "bridge.voice.message.unknown"),
    ("govdelivery", "sms", "recipient", "new", None, "RecipientNew", "sms.recipient.new", "bridge.sms.recipient.new"),
    ("govdelivery", "sms", "recipient", "sending", None, "RecipientSending", "sms.recipient.sending", "bridge.sms.recipient.sending"),
    ("govdelivery", "sms", "recipient", "sent", None, "RecipientSent", "sms.recipient.sent", "bridge.sms.recipient.sent"),
    ("govdelivery", "sms", "recipient", "failed", None, "RecipientFailed", "sms.recipient.failed", "bridge.sms.recipient.failed"),
    ("govdelivery", "sms", "recipient", "inconclusive", None, "RecipientInconclusive", "sms.recipient.inconclusive", "bridge.sms.recipient.inconclusive"),
    ("govdelivery", "sms", "recipient", "blacklisted", None, "RecipientBlacklisted", "sms.recipient.blacklisted", "bridge.sms.recipient.blacklisted"),
    ("govdelivery", "sms", "recipient", "canceled", None, "RecipientCanceled", "sms.recipient.canceled", "bridge.sms.recipient.canceled"),
    ("govdelivery", "sms", "recipient", "throttled", None, "UnknownStatus", "sms.recipient.unknown", "bridge.sms.recipient.unknown"),
    ("govdelivery", "voice", "recipient", "new", None, "RecipientNew", "voice.recipient.new", "bridge.voice.recipient.new"),
    ("govdelivery", "voice", "recipient", "sending", None, "RecipientSending", "voice.recipient.sending", "bridge.voice.recipient.sending"),
    ("govdelivery", "voice", "recipient", "sent", None, "RecipientSent", "voice.recipient.sent", "bridge.voice.recipient.sent"),
    ("govdelivery", "voice", "recipient", "sent", "human", "RecipientSent", "voice.recipient.sent.human", "bridge.voice.recipient.sent"),
    ("govdelivery", "voice", "recipient", "sent", "machine", "RecipientSent", "voice.recipient.sent.machine", "bridge.voice.recipient.sent"),
    ("govdelivery", "voice", "recipient", "failed", None, "RecipientFailed", "voice.recipient.failed", "bridge.voice.recipient.failed"),
    ("govdelivery", "voice", "recipient", "failed", "busy", "RecipientFailed", "voice.recipient.failed.busy", "bridge.voice.recipient.failed"),
    ("govdelivery", "voice", "recipient", "failed", "no_answer", "RecipientFailed", "voice.recipient.failed.no_answer", "bridge.voice.recipient.failed"),
    ("govdelivery", "voice", "recipient", "failed", "could_not_connect", "RecipientFailed", "voice.recipient.failed.could_not_connect", "bridge.voice.recipient.failed"),
    ("govdelivery", "voice", "recipient", "inconclusive", None, "RecipientInconclusive", "voice.recipient.inconclusive", "bridge.voice.recipient.inconclusive"),
    ("govdelivery", "voice", "recipient", "blacklisted", None, "RecipientBlacklisted", "voice.recipient.blacklisted", "bridge.voice.recipient.blacklisted"),
    ("govdelivery", "voice", "recipient", "canceled", None, "RecipientCanceled", "voice.recipient.canceled", "bridge.voice.recipient.canceled"),
    ("govdelivery", "voice", "recipient", "throttled", None, "UnknownStatus", "voice.recipient.unknown", "bridge.voice.recipient.unknown"),
    ("spacivox", "voicemail", "drop", 0, None, "VoicemailSent", "voicemail.drop.sent", "bridge.voicemail.drop.sent"),
    ("spacivox", "voicemail", "drop", 1, None, "VoicemailDelivered", "voicemail.drop.delivered", "bridge.voicemail.drop.delivered"),
    ("spacivox", "voicemail", "drop", 2, None, "VoicemailFailed", "voicemail.drop.failed", "bridge.voicemail.drop.failed"),
    ("spacivox", "voicemail", "drop", 3, None, "VoicemailRejected", "voicemail.drop.rejected", "bridge.voicemail.drop.rejected"),
    ("spacivox", "voicemail", "drop", 9, None, "UnknownStatus", "voicemail.drop.unknown", "bridge.voicemail.drop.unknown"),
    ("marketingcloud", "sms", "message", "SMSNotSent", None, "SMSNotSent", "sms.message.not_sent", "bridge.sms.message.not_sent"),
    ("marketingcloud", "sms", "message", "SMSSent", None, "SMSSent", "sms.message.sent", "bridge.sms.message.sent"),
    ("marketingcloud", "sms", "message", "SMSQueued", None, "SMSQueued", "sms.message.queued", "bridge.sms.message.queued"),
    ("marketingcloud", "sms", "message", "SMSBounced", None, "UnknownStatus", "sms.message.unknown", "bridge.sms.message.unknown"),
]  # fmt: skip
SUBJECTS = {
    "message": "/messages/{channel}/10507",
    "recipient": "/messages/{channel}/10507/recipients/364898",
    "drop": "/j/voicemail_drop_records/1",
}
NOW = datetime(2015, 1, 6, 10, 30, tzinfo=UTC)


def govdelivery(channel: str, entity: str, status: str, collection: str | None) -> dict[str, Any]:
    """Answer as the account does in which one message, or the one recipient of a message, has the status."""
    path = f"/messages/{channel}/10507"
    if entity == "message":
        counts = {"total": 0}
        return {
            path: {"status": status, "_links": {"self": path}, "recipient_counts": counts},
            f"{path}/recipients": [],
        }
    links = {"self": f"{path}/recipients/364898", f"{channel}_message": path}
    recipient = exemplary(RECIPIENT_SCHEMA) | {"status": status, "_links": links}
    answers = {
        path: {"status": "sending", "_links": {"self": path}, "recipient_counts": {"total": 1, status: 1}},
        f"{path}/recipients": [recipient],
    }
    details = ("human", "machine", "busy", "no_answer", "could_not_connect") if channel == "voice" else ()
    return answers | {f"{path}/recipients/{detail}": [recipient] if detail == collection else [] for detail in details}


def answers_of(provider: str, channel: str, entity: str, status: Any, collection: str | None) -> dict[str, Any]:
    if provider == "govdelivery":
        return govdelivery(channel, entity, status, collection)
    if provider == "spacivox":
        return {RECORDS: [json.loads(DROPS_EXAMPLE)[0] | {"state": status}]}
    event = SENT_EVENT | {"eventCategoryType": f"TransactionalSendEvents.{status}"}
    return {FEED: {"lastEventID": 35774, "count": 1, "messages": [event]}}


@pytest.mark.parametrize("row", ROWS, ids=[" ".join(str(word) for word in row[:5] if word is not None) for row in ROWS])
async def test_a_status_has_its_class_its_topic_and_its_type(tmp_path, row):
    provider, channel, entity, status, collection, name, topic, kind = row
    named = {"messages": [f"/messages/{channel}/10507"]} if provider == "govdelivery" else {}
    answers = answers_of(provider, channel, entity, status, collection)
    events, kinds, _ = await journal(tmp_path, provider, answers, NOW, **named)
    template = "/messaging/v1/sms/messages/m-1" if provider == "marketingcloud" else SUBJECTS[entity]
    shown = [
        (event["type"], *kind)
        for event, kind in zip(events, kinds, strict=True)
        if event["subject"] == template.format(channel=channel)
    ]
    assert shown == [(kind, name, topic)]
    data = next(event["data"] for event in events if event["type"] == kind)
    assert (data["channel"], data["status"], data["detail"]) == (channel, kind.rpartition(".")[2], collection)
    if name == "UnknownStatus":
        prefix = "TransactionalSendEvents." if provider == "marketingcloud" else ""
        assert data["provider_status"] == (f"{prefix}{status}" if prefix else status)
        assert data["transition"] == "unknown"


def statuses(provider: str, channel: str, entity: str) -> set[Any]:
    """Return the provider's values that the table has a meaning for."""
    return {row[3] for row in ROWS if row[:3] == (provider, channel, entity) and row[5] != "UnknownStatus"}


def test_the_table_has_every_status_that_the_pages_name():
    for schema, channel in ((SMS_SCHEMA, "sms"), (VOICE_SCHEMA, "voice")):
        documented = schema["properties"]["status"]["enum"]
        assert documented == ["new", "queued", "sending", "completed"]
        assert statuses("govdelivery", channel, "message") == {*documented, "canceled"}
    for example, channel in ((SMS_EXAMPLE, "sms"), (VOICE_EXAMPLE, "voice")):
        counted = json.loads(example)["recipient_counts"].keys() - {"total"}
        assert len(counted) == 7
        assert {*RECIPIENT_SCHEMA["properties"]["status"]["enum"]} <= counted
        assert statuses("govdelivery", channel, "recipient") == counted
    collections = json.loads(VOICE_EXAMPLE)["_links"].keys() - {"self", "recipients", "failed", "sent"}
    assert {row[4] for row in ROWS if row[4]} == collections
    states = {int(number): word for number, word in re.findall(r"• (\d) = (\w+)", DROPS)}
    assert len(states) == 4
    listed = {row[3]: row[6].rpartition(".")[2] for row in ROWS if row[0] == "spacivox" and row[5] != "UnknownStatus"}
    assert listed == states
    assert statuses("marketingcloud", "sms", "message") == {*re.findall(r"\bSMS[A-Z]\w+", NOT_SENT)}


def test_table_lists_every_provider_event_of_the_catalogue():
    without_a_page = ("TextRecord", "Email")  # the vendors' pages show the records of voicemail drops and SMS alone
    made = {event.__name__ for event in CATALOGUE if event.provider != "bridge"}
    made = {name for name in made if not name.startswith(without_a_page) and not name.endswith("Overdue")}
    assert {row[5] for row in ROWS} == made
