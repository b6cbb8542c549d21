"""A push of a definition's provider leads to one look at its resource, or to a poll."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest

from bridge.domain.errors import Transient
from bridge.domain.pushes import PushRefused, PushRequest
from bridge.hooks.settings import PushSettings
from bridge.protocols.hints import EVERYTHING, TakesPushes
from bridge.providers import loading
from bridge.providers.models import PushSpec
from bridge.sources.rest.pushed import MAX_RESOURCES, RestPushes
from bridge.testing.definition_suite import suite_of
from bridge.testing.fake_endpoint import reply
from bridge.testing.source_suite import NAME

FORM = "application/x-www-form-urlencoded"
KEY = "the key"
URL = "https://hooks.example.com/texts"


def shipped(name: str):
    return loading.load(loading.find(name, Path()))


def read(spec: PushSpec, body: bytes, **headers: str) -> list[str]:
    reader = RestPushes(spec, PushSettings(secret=KEY))
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return list(reader.read(PushRequest(URL, KEY, headers, body), 0.0).things)


def by_path(**values: object) -> PushSpec:
    return PushSpec.model_validate({"verify": "path", "id": "$.id", **values})


def at_work(tmp_path: Path, name: str, **push: object):
    """Return the work of a shipped definition whose source is pushed to."""
    suite = suite_of("acme", shipped(name))
    values = suite.values
    pushed = type(
        "Pushed", (suite,), {"values": lambda self, url: values(self, url) | {"push": {"secret": KEY, **push}}}
    )
    return pushed().at_work(tmp_path)


def key_of(subject: str) -> str:
    return subject.rpartition("/")[2]


async def test_shipped_twilio_definition_reads_its_callback() -> None:
    form = {"MessageSid": "SM1", "MessageStatus": "delivered", "AccountSid": "AC1"}
    text = URL + "".join(name + value for name, value in sorted(form.items()))
    signature = base64.b64encode(hmac.new(KEY.encode(), text.encode(), hashlib.sha1).digest()).decode()
    push = shipped("twilio-messages").push
    assert read(push, urlencode(form).encode(), content_type=FORM, x_twilio_signature=signature) == ["SM1"]
    with pytest.raises(PushRefused, match="signature"):
        read(push, urlencode(form).encode(), content_type=FORM)


@pytest.mark.parametrize("name", ["twilio-calls", "plivo-messages", "telnyx-messages"])
def test_unsigned_push_of_a_shipped_definition_is_refused(name: str) -> None:
    with pytest.raises(PushRefused, match="signature"):
        read(shipped(name).push, b"MessageUUID=1", content_type=FORM)


def test_resources_of_a_push_are_read() -> None:
    assert read(by_path(), b'{"id": 7}') == ["7"]
    assert read(by_path(), b'[{"id": "a"}, {"id": "b"}, {"id": "a"}]', content_type="application/json") == ["a", "b"]
    assert read(by_path(id=["$.x", "$.data.id"]), b'{"data": {"id": "a/../b"}}') == ["a/../b"]
    assert read(by_path(), b"id=1&id=2", content_type=f"{FORM}; charset=utf-8") == ["2"]
    assert read(by_path(then="poll"), b"\xff anything") == [EVERYTHING]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"id=1", b"[]", b"{}", b"null", b'{"id": null}', b'{"id": "*"}', b'{"id": "a\\u0000"}', b'{"id": {}}', b"[" * 100_000,
        json.dumps({"id": "x" * 301}).encode(), json.dumps([{"id": n} for n in range(MAX_RESOURCES + 1)]).encode(),
    ],
)  # fmt: skip
def test_unreadable_push_is_refused(body: bytes) -> None:
    with pytest.raises(PushRefused, match="content"):
        read(by_path(), body)


async def test_source_is_pushed_to_if_its_settings_say_so(tmp_path: Path) -> None:
    async with at_work(tmp_path, "twilio-messages") as work:
        assert isinstance(work.source, TakesPushes)
        assert work.source.pushes is not None
        assert not work.source.pushes.secret_in_path
    async with suite_of("acme", shipped("twilio-messages"))().at_work(tmp_path) as work:
        assert work.source.pushes is None


@pytest.mark.parametrize("name", ["twilio-messages", "vonage-sms", "plivo-messages"])
async def test_pushed_resource_is_looked_at_alone(tmp_path: Path, name: str) -> None:
    """One request for it, and the same event that the poll would have made; the next poll makes none."""
    async with at_work(tmp_path, name) as work:
        first, second = work.add(2)
        await work.publish_all()
        work.move(first)
        before = len(work.provider.requests)
        work.source.expect_news({key_of(first): work.time.clock.now()}, early=True)
        assert await work.poll() is None
        assert len(work.provider.requests) == before + 1
        events = await _events(work)
        assert events[-1]["subject"] == first
        assert "pushed" in events[-1]["data"]["observed"]
        assert all("pushed" not in event["data"]["observed"] for event in events[:-1])
        work.move(second)
        await work.publish_all()


async def test_push_costs_one_look_whatever_it_says(tmp_path: Path) -> None:
    """Forged, late, repeated: an unknown id, one that leads elsewhere, one that did not change."""
    async with at_work(tmp_path, "twilio-messages") as work:
        (first,) = work.add()
        await work.publish_all()
        for key in ("SM404", "../../Accounts", "%2e%2e/x?y=z#", key_of(first)):
            before = len(work.provider.requests)
            work.source.expect_news({key: work.time.clock.now()}, early=True)
            assert await work.poll() is None
            assert work.source.problems == []
            assert len(work.provider.requests) == before + 1
            assert work.provider.requests[-1].path.count("/Messages/") == 1
        assert len(await _events(work)) == 1


async def test_push_of_a_forgotten_resource_makes_no_event(tmp_path: Path) -> None:
    async with at_work(tmp_path, "twilio-messages") as work:
        await work.poll()
        subject = work.account.add()
        work.time.ahead += timedelta(hours=80).total_seconds()
        work.source.expect_news({key_of(subject): work.time.clock.now()}, early=True)
        assert await work.poll() is None
        assert await _events(work) == []


async def test_regular_poll_also_looks_at_what_was_pushed(tmp_path: Path) -> None:
    async with at_work(tmp_path, "plivo-messages") as work:
        (first,) = work.add()
        await work.publish_all()
        work.move(first)
        work.add()
        work.source.expect_news({key_of(first): work.time.clock.now()}, early=False)
        await work.publish_all()


async def test_push_about_news_alone_makes_the_poll_come_sooner(tmp_path: Path) -> None:
    async with at_work(tmp_path, "telnyx-messages") as work:
        (first,) = work.add()
        await work.publish_all()
        work.move(first)
        work.source.expect_news({EVERYTHING: work.time.clock.now()}, early=True)
        assert await work.poll() is None
        assert len(await _events(work)) == 2


async def test_look_that_fails_is_a_problem_and_no_loss(tmp_path: Path) -> None:
    async with at_work(tmp_path, "plivo-messages") as work:
        (first,) = work.add()
        await work.publish_all()
        work.move(first)
        for answer in (reply(500), reply(200, "[]"), reply(200, '{"message_uuid": null}')):
            work.provider.default = answer
            work.source.expect_news({key_of(first): work.time.clock.now()}, early=True)
            error = await work.poll()
            assert isinstance(error, Transient) or work.source.problems
        work.provider.default = work.account.answer
        await work.publish_all()


async def _events(work) -> list[Mapping]:
    return [json.loads(entry.event.body) for entry in await work.store.read(NAME, 0, 100)]
