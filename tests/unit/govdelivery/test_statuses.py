"""GovDelivery: statuses, details of calls, and the vendor's own examples."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rigs.govdelivery import (
    S1,
    START,
    TOKEN,
    V1,
    person,
    stamp,
)

from bridge.domain import errors
from bridge.protocols.source import Observation

SEEDS = Path(__file__).parents[2] / "seeds"


def example(name: str) -> str:
    """Cut the first JSON example out of a vendor's page, byte for byte."""
    text = (SEEDS / name).read_text()
    start = text.index("\n{") + 1
    return text[start : text.index("\n}", start) + 2]


SMS = example("govdelivery-sms-message.txt")
VOICE = example("govdelivery-voice-message.txt")


async def test_the_documented_sms_message_is_read_byte_for_byte(tms, open_bridge):
    path = "/messages/sms/165532"
    tms.at |= {path: SMS, f"{path}/recipients": [person(path, 1, "sent"), person(path, 2, "sent")]}
    bridge = open_bridge(messages=[path])
    assert await bridge.poll() == [
        ("sms.message.completed", path),
        ("sms.recipient.sent", f"{path}/recipients/1"),
        ("sms.recipient.sent", f"{path}/recipients/2"),
    ]
    _, _, facts, data = bridge.events[0]
    assert facts.time == datetime(2014, 10, 7, 17, 27, 15, tzinfo=UTC)
    assert data.created_at == datetime(2014, 10, 7, 17, 27, 12, tzinfo=UTC)
    assert data.recipient_counts == {
        "total": 2, "new": 0, "sending": 0, "inconclusive": 0, "blacklisted": 0, "canceled": 0, "sent": 2, "failed": 0,
    }  # fmt: skip
    assert data.recipient_detail_counts is None
    assert data.provider == {}
    assert bridge.source.problems == []
    assert set(tms.tokens) == {TOKEN}


async def test_documented_inconsistent_voice_message_is_read_byte_for_byte(tms, open_bridge):
    path = "/messages/voice/153"
    sent = stamp(START - timedelta(minutes=30))
    first, two = (person(path, number, "sent", completed_at=sent) for number in (1, 2))
    tms.at |= {
        path: VOICE,
        f"{path}/recipients": [first, two],
        f"{path}/recipients/machine": [first],
        f"{path}/recipients/human": [],
    }
    bridge = open_bridge(messages=[path])
    assert await bridge.poll() == [
        ("voice.message.completed", path),
        ("voice.recipient.sent.machine", f"{path}/recipients/1"),
        ("voice.recipient.sent", f"{path}/recipients/2"),
    ]
    _, _, _, data = bridge.events[0]
    assert data.recipient_detail_counts == {"busy": 0, "no_answer": 0, "human": 0, "machine": 1}
    assert data.provider == {"from_number": "+15551234567"}
    assert bridge.source.problems == []
    # The example's own links lead to message 15282, which is another one.
    assert not any("15282" in asked for asked in tms.asked)
    await bridge.poll()
    assert len(bridge.events) == 3


async def test_the_documented_recipient_keeps_every_field(tms, open_bridge):
    schema = (SEEDS / "govdelivery-voice-recipients.txt").read_text()
    schema = json.loads(schema[schema.index("{\n") : schema.index("}Body") + 1])
    item = {name: about.get("example") for name, about in schema["items"]["properties"].items()}
    item |= {"_links": json.loads(item["_links"]), "status": "failed", "error_message": "busy signal", "odd": [1]}
    path = "/messages/voice/10507"
    tms.message(path, recipient_counts={"total": 1, "failed": 1}, recipient_detail_counts={"busy": 0, "no_answer": 0})
    tms.at |= {f"{path}/recipients": [item], f"{path}/recipients/could_not_connect": [item]}
    bridge = open_bridge(messages=[path])
    await bridge.poll()
    topic, subject, facts, data = bridge.events[-1]
    assert (topic, subject) == ("voice.recipient.failed.could_not_connect", f"{path}/recipients/364898")
    assert facts.time == datetime(2013, 3, 15, 21, 11, 2, tzinfo=UTC)
    assert data.model_dump(exclude={"observed"}) == {
        "channel": "voice", "status": "failed", "previous": None, "detail": "could_not_connect", "transition": "first",
        "message": path, "phone": "+16515551000", "error": "busy signal", "provider": {"odd": [1]},
        "created_at": datetime(2013, 3, 15, 21, 10, 30, tzinfo=UTC),
        "completed_at": datetime(2013, 3, 15, 21, 11, 2, tzinfo=UTC),
    }  # fmt: skip
    assert "6515551000" not in json.dumps(data.provider)


@pytest.mark.parametrize("status", ["new", "sending", "inconclusive", "blacklisted", "canceled", "sent", "failed"])
@pytest.mark.parametrize("channel", ["sms", "voice"])
async def test_every_recipient_status_is_an_event(tms, open_bridge, channel, status):
    path = f"/messages/{channel}/1"
    tms.message(path)
    tms.people(path, person(path, 7, status, completed_at=stamp(START - timedelta(minutes=1))))
    bridge = open_bridge(messages=[path])
    assert (f"{channel}.recipient.{status}", f"{path}/recipients/7") in await bridge.poll()
    final = status in {"sent", "failed", "blacklisted", "canceled"}
    expected = START - timedelta(minutes=1) if final else START if status == "new" else None
    assert bridge.events[-1][2].time == expected


@pytest.mark.parametrize("status", ["new", "queued", "sending", "completed", "canceled"])
@pytest.mark.parametrize("channel", ["sms", "voice"])
async def test_every_message_status_is_an_event(tms, open_bridge, channel, status):
    path = f"/messages/{channel}/1"
    tms.message(path, status, completed_at=None)
    tms.people(path)
    assert await open_bridge(messages=[path]).poll() == [(f"{channel}.message.{status}", path)]


@pytest.mark.parametrize(
    ("detail", "status"),
    [
        ("human", "sent"),
        ("machine", "sent"),
        ("busy", "failed"),
        ("no_answer", "failed"),
        ("could_not_connect", "failed"),
    ],
)
async def test_call_details_are_in_topic_without_a_second_event(tms, open_bridge, detail, status):
    tms.message(V1)
    recipient = person(V1, 7, status, completed_at=stamp(START - timedelta(minutes=1)))
    tms.people(V1, recipient)
    tms.at[f"{V1}/recipients/{detail}"] = [recipient]
    bridge = open_bridge(messages=[V1], interval="10s")
    assert (f"voice.recipient.{status}.{detail}", f"{V1}/recipients/7") in await bridge.poll()
    assert len(bridge.events) == 2


async def test_call_in_two_collections_gets_detail_of_its_status(tms, open_bridge):
    tms.message(V1, recipient_detail_counts={"human": 1, "machine": 0, "busy": 1, "no_answer": 0})
    recipient = person(V1, 7, "failed", completed_at=stamp(START - timedelta(minutes=1)))
    tms.people(V1, recipient)
    tms.at |= {f"{V1}/recipients/human": [recipient], f"{V1}/recipients/busy": [recipient]}
    bridge = open_bridge(messages=[V1])
    assert ("voice.recipient.failed.busy", f"{V1}/recipients/7") in await bridge.poll()
    assert len(bridge.events) == 2


async def test_a_status_is_read_without_the_blanks_around_it(tms, open_bridge):
    tms.message(S1, " sending ")
    tms.people(S1, person(S1, 7, "sent "), person(S1, 8, " "))
    bridge = open_bridge(messages=[S1])
    assert await bridge.poll() == [("sms.message.sending", S1), ("sms.recipient.sent", f"{S1}/recipients/7")]
    assert bridge.source.problems == [f"{S1}: 1 recipients of a page have no status or no identity: passed over"]


@pytest.mark.parametrize(
    ("given", "error", "provider"),
    [
        (" busy ", "busy", {}),
        (17, "17", {}),
        (None, None, {}),
        (" ", None, {}),
        ({"code": 5}, None, {"error_message": {"code": 5}}),
        (["busy"], None, {"error_message": ["busy"]}),
    ],
)
async def test_an_error_message_is_never_lost(tms, open_bridge, given, error, provider):
    tms.message(S1)
    tms.people(S1, person(S1, 7, "failed", error_message=given))
    bridge = open_bridge(messages=[S1])
    await bridge.poll()
    data = bridge.events[-1][3]
    assert (data.error, data.provider) == (error, provider)


async def test_recipient_may_share_its_messages_ledger_name(tms, open_bridge):
    tms.message(S1)
    tms.people(S1, person(S1, 7, "sent") | {"_links": {"self": f"{S1}/recipients/@"}})
    bridge = open_bridge(messages=[S1])
    assert await bridge.poll() == [("sms.message.sending", S1), ("sms.recipient.sent", f"{S1}/recipients/@")]
    bridge.later(900)
    assert await bridge.poll() == []


async def test_a_status_that_nobody_knows_passes_through(tms, open_bridge):
    tms.message(S1, "paused")
    tms.people(S1, person(S1, 7, "teleported"), person(S1, 8, 4), person(S1, 9, "delivered"))
    bridge = open_bridge(messages=[S1], statuses={"delivered": "sent", "paused": "queued"})
    assert [topic for topic, _ in await bridge.poll()] == [
        "sms.message.queued", "sms.recipient.unknown", "sms.recipient.unknown", "sms.recipient.sent",
    ]  # fmt: skip
    assert [facts.raw_status for _, _, facts, _ in bridge.events[1:3]] == ["teleported", "4"]


async def test_call_ending_during_sweep_gets_detail_at_the_next(tms, time, open_bridge):
    tms.message(V1)
    tms.people(V1, person(V1, 7, "sending"), person(V1, 8, "sending"))
    bridge = open_bridge(messages=[V1], interval="10s")
    await bridge.poll()
    bridge.later(10)
    ended = person(V1, 7, "sent", completed_at=stamp(time.now))
    tms.at[f"{V1}/recipients"] = [ended, person(V1, 8, "sending")]
    tms.at[V1]["recipient_counts"] = {"total": 2, "sending": 2, "sent": 0}
    tms.at[V1]["status"] = "completed"  # moves, so that the recipients are read
    assert await bridge.poll() == [("voice.message.completed", V1)]
    bridge.later(10)
    tms.at[V1]["recipient_counts"] = {"total": 2, "sending": 1, "sent": 1}
    tms.at[V1]["recipient_detail_counts"] = {"human": 1, "machine": 0}
    tms.at[f"{V1}/recipients/human"] = [ended]
    assert await bridge.poll() == [("voice.recipient.sent.human", f"{V1}/recipients/7")]


async def test_detail_without_times_is_looked_up_when_new(tms, open_bridge):
    tms.message(V1, recipient_detail_counts={"human": 0, "machine": 0, "busy": 0, "no_answer": 0})
    people = [person(V1, number, "sent") for number in range(3)]
    tms.people(V1, *people)
    tms.at[f"{V1}/recipients/human"] = (people[:1], f'<{V1}/recipients/human?page=2>; rel="next"')
    tms.at[f"{V1}/recipients/human?page=2"] = people[1:2]
    bridge = open_bridge(messages=[V1], interval="10s")
    assert sorted(topic for topic, _ in await bridge.poll()) == [
        "voice.message.sending", "voice.recipient.sent", "voice.recipient.sent.human", "voice.recipient.sent.human",
    ]  # fmt: skip
    assert tms.count(f"{V1}/recipients/human") == 2


async def test_looking_up_details_again_and_again_is_spared(tms, time, open_bridge):
    bridge = open_bridge(messages=[V1])
    kind = bridge.source._kinds["voice"][1]

    def news(*numbers: int) -> list[Observation]:
        return [Observation(kind, V1, str(n), "failed", person(V1, n, "failed"), awaits_detail=True) for n in numbers]

    tms.at[f"{V1}/recipients/busy"] = [person(V1, 1, "failed"), person(V1, 2, "failed"), person(V1, 9, "sent")]
    done = await bridge.source.complete(news(3, 1, 9))
    assert [observation.detail for observation in done] == [None, "busy", None]
    assert not any(observation.awaits_detail for observation in done)
    asked = len(tms.asked)
    assert [observation.detail for observation in await bridge.source.complete(news(2, 4))] == ["busy", None]
    assert len(tms.asked) == asked
    time.seconds += 60
    tms.at[f"{V1}/recipients/no_answer"] = [person(V1, 4, "failed")]
    assert [observation.detail for observation in await bridge.source.complete(news(4))] == ["no_answer"]
    assert [observation.detail for observation in await bridge.source.complete([])] == []
    tms.at[f"{V1}/recipients/busy"] = 500
    time.seconds += 60
    with pytest.raises(errors.Transient):
        await bridge.source.complete(news(5))
    for number in range(2, 14):
        await bridge.source.complete(
            [Observation(kind, f"/messages/voice/{number}", "1", "sent", {}, awaits_detail=True)]
        )
    assert len(bridge.source._details._walks) == 8


async def test_calls_after_already_read_ones_keep_their_details(tms, open_bridge):
    bridge = open_bridge(messages=[V1])
    kind = bridge.source._kinds["voice"][1]
    tms.at[f"{V1}/recipients/busy"] = ([person(V1, 1, "failed")], '<?page=2>; rel="next"')
    tms.at[f"{V1}/recipients/busy?page=2"] = [person(V1, 2, "failed")]
    for key in ("1", "2"):
        (observation,) = await bridge.source.complete([Observation(kind, V1, key, "failed", {}, awaits_detail=True)])
        assert observation.detail == "busy"
