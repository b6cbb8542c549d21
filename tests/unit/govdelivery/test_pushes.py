"""A webhook of the account makes its message due now, and the message's own answer says what happened."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from rigs.govdelivery import S1, S2, made, person, put

from bridge.domain.pushes import PushRefused, PushRequest
from bridge.hooks.settings import PushSettings
from bridge.protocols.hints import TakesPushes
from bridge.sources.govdelivery.pushes import GovDeliveryPushes

AT = datetime(2014, 10, 7, 18, 1, tzinfo=UTC)
SECRET = "c0ffee"
LIST = "/messages/sms"


def reader(url: str = "https://tms.govdelivery.com") -> GovDeliveryPushes:
    return GovDeliveryPushes(PushSettings(secret=SECRET), url, ["sms"])


def read(secret: str = SECRET, /, **fields: str) -> list[str]:
    return list(reader().read(PushRequest("", secret, {}, urlencode(fields).encode()), 0.0).things)


def test_push_names_the_message_of_its_recipient() -> None:
    fields = {
        "sid": "x", "message_url": "https://tms.govdelivery.com/messages/sms/295117", "status": "sent",
        "recipient_url": "https://tms.govdelivery.com/messages/sms/295117/recipients/373810", "message_type": "sms",
        "completed_at": "2015-08-05 18:47:18 UTC",
    }  # fmt: skip
    assert read(**fields) == ["/messages/sms/295117"]
    assert read(recipient_url=fields["recipient_url"]) == ["/messages/sms/295117"]
    assert read(message_url="https://tms.govdelivery.com/messages/email/7") == []


@pytest.mark.parametrize(
    ("secret", "fields", "reason"),
    [
        ("wrong", {"message_url": "https://tms.govdelivery.com/messages/sms/1"}, "secret"),
        ("", {"message_url": "https://tms.govdelivery.com/messages/sms/1"}, "secret"),
        (SECRET, {"message_url": "https://tms.example.com/messages/sms/1"}, "content"),
        (SECRET, {"message_url": "http://tms.govdelivery.com/messages/sms/1"}, "content"),
        (SECRET, {"message_url": "/messages/sms/1"}, "content"),
        (SECRET, {"message_url": "https://tms.govdelivery.com/accounts/1"}, "content"),
        (SECRET, {"message_url": "https://[::1"}, "content"),
        (SECRET, {"status": "sent"}, "content"),
        (
            SECRET,
            {
                "message_url": "https://tms.govdelivery.com/messages/sms/1",
                "recipient_url": "https://tms.govdelivery.com/messages/sms/2/recipients/1",
            },
            "content",
        ),
    ],
)
def test_foreign_or_unreadable_push_is_refused(secret: str, fields: dict[str, str], reason: str) -> None:
    with pytest.raises(PushRefused, match=reason):
        read(secret, **fields)


async def test_source_without_push_takes_none(open_bridge) -> None:
    source = open_bridge().source
    assert isinstance(source, TakesPushes)
    assert source.pushes is None
    assert open_bridge(push={"secret": [SECRET, "next"]}).source.pushes is not None


async def test_pushed_message_is_looked_at_before_it_is_due(tms, open_bridge) -> None:
    tms.message(S1)
    tms.people(S1, person(S1, 1, "sending"))
    tms.message(S2)
    tms.people(S2, person(S2, 1))
    bridge = open_bridge(messages=[S1, S2], interval="10m", reread_every="1h")
    await bridge.poll()
    bridge.later(1)
    tms.people(S1, person(S1, 1, "sent"))
    assert await bridge.poll() == []  # nothing is due yet
    tms.asked.clear()
    bridge.source.expect_news({S1: AT}, early=True)
    assert await bridge.poll() == [("sms.recipient.sent", f"{S1}/recipients/1")]
    assert tms.asked == [S1, f"{S1}/recipients"]
    assert bridge.source.postponed == []
    tms.asked.clear()
    assert await bridge.poll() == []
    assert tms.asked == []


async def test_page_of_a_pushed_message_says_when_it_was_pushed(tms, open_bridge) -> None:
    put(tms, made(1, 60, "sending"), made(2, 60, "sending"))
    source = open_bridge(messages=[S1, S2]).source
    source.expect_news({S1: AT}, early=True)
    seen = {(page.observations[0].scope, page.pushed) async for page in source.pages({}, []) if page.observations}
    assert seen == {(S1, AT), (S2, None)}


async def test_push_that_changed_nothing_costs_one_request(tms, open_bridge) -> None:
    tms.message(S1)
    tms.people(S1, person(S1, 1))
    bridge = open_bridge(messages=[S1], interval="10m")
    await bridge.poll()
    tms.asked.clear()
    for _ in range(3):
        bridge.later(1)
        bridge.source.expect_news({S1: AT}, early=True)
        assert await bridge.poll() == []
    assert tms.asked == [S1] * 3


async def test_pushed_new_message_is_found_by_the_list(tms, open_bridge) -> None:
    tms.at[LIST] = [made(1, 60, "sending")]
    put(tms, made(1, 60, "sending"))
    bridge = open_bridge(discover=True, channels=["sms"], interval="10m")
    await bridge.poll()
    bridge.later(1)
    tms.at[LIST] = [made(2, 0, "sending"), made(1, 60, "sending")]
    put(tms, made(2, 0, "sending"))
    tms.asked.clear()
    bridge.source.expect_news({S2: AT}, early=True)
    assert await bridge.poll() == [("sms.message.sending", S2)]
    assert tms.count(S1) == 0
    assert tms.count(LIST) == 1


async def test_push_of_a_followed_message_needs_no_list(tms, open_bridge) -> None:
    tms.at[LIST] = [made(1, 60, "sending")]
    put(tms, made(1, 60, "sending"))
    bridge = open_bridge(discover=True, channels=["sms"], interval="10m")
    await bridge.poll()
    tms.asked.clear()
    bridge.source.expect_news({S1: AT}, early=True)
    await bridge.poll()
    assert tms.asked == [S1]
    bridge.source.expect_news({S1: AT}, early=False)
    await bridge.poll()
    assert tms.count(LIST) == 1


async def test_push_of_an_unknown_message_leaves_nothing_behind(tms, open_bridge) -> None:
    old = made(1, 400 * 3600.0)
    tms.at[LIST] = [old]
    put(tms, old)
    bridge = open_bridge(discover=True, channels=["sms"], interval="10m")
    await bridge.poll()
    before = dict(bridge.cursor)
    bridge.later(1)
    bridge.source.expect_news(dict.fromkeys((S1, S2, "*"), AT), early=True)
    assert await bridge.poll() == []
    assert {key for key in bridge.cursor if key.startswith("/")} == {key for key in before if key.startswith("/")}
    assert tms.count(S1) == tms.count(S2) == 0
    assert bridge.source.postponed == []


async def test_pushes_that_a_poll_has_no_time_for_are_left(tms, open_bridge) -> None:
    paths = [f"/messages/sms/{number}" for number in range(1, 9)]
    for path in paths:
        tms.message(path)
        tms.people(path, person(path, 1))
    bridge = open_bridge(messages=paths, interval="10m", concurrency=1)
    await bridge.poll()
    tms.takes = dict.fromkeys(paths, 700.0)
    bridge.source.expect_news(dict.fromkeys(reversed(paths), AT), early=True)
    await bridge.poll()
    assert list(bridge.source.postponed) == list(reversed(paths))[1:]
    assert bridge.source.behind
