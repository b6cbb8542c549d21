"""Each preset against its vendor: what it sends fits, what it is answered is understood, and its throttle is kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from rigs.http_sink import deliver, event, vendor_and_sink

from bridge.forms import loading
from bridge.testing.fake_endpoint import reply
from bridge.testing.sink_suite import outgoing
from bridge.testing.vendor_endpoints import VENDORS, Vendor

FLOOD = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 60
INJECTED = (
    '", "admin": true, "x": "', "*bold* _it_ ~s~ `code` [a](http://x) # h\n> q\n- l", "@all @everyone @here <@123>",
    "<users/all> <b>x</b> &amp; {{DATE(2020-01-01)}} {setting.token}", "\r\nX-Injected: 1\x00\u2028", "😀\u202e\\" * 50,
    "\\" * 3, "*&@\n" * 250_000,
)  # fmt: skip

EVERY_VENDOR = pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.preset)


def test_every_form_that_ships_has_a_vendor_that_checks_it() -> None:
    assert sorted(vendor.preset for vendor in VENDORS) == loading.shipped()


@EVERY_VENDOR
async def test_injected_texts_stay_texts(vendor: Vendor) -> None:
    async with vendor_and_sink(vendor) as (endpoint, sink, time):
        hostile = [event(n, error=text) for n, text in enumerate(INJECTED)]
        hostile += [event(99 + n, subject=f"/r/{text}") for n, text in enumerate(INJECTED)]
        hostile += [event(200, sent=True), event(201, sent=True, subject="/r/" + "x" * 5000)]
        assert await deliver(sink, time, hostile) == 0
    assert endpoint.problems == []
    assert len(endpoint.accepted) == len(hostile)
    keys = {"/".join(sorted(_keys(body))) for body in endpoint.accepted}
    assert len(keys) <= 2  # the problem's request, and perhaps another one for its end


def _keys(value: object, stem: str = "") -> set[str]:
    if isinstance(value, dict):
        return {key for name, inner in value.items() for key in {f"{stem}.{name}", *_keys(inner, f"{stem}.{name}")}}
    return {key for inner in value for key in _keys(inner, stem)} if isinstance(value, list) else set()


@EVERY_VENDOR
async def test_a_flood_keeps_to_the_vendors_limit(vendor: Vendor) -> None:
    async with vendor_and_sink(vendor) as (endpoint, sink, time):
        assert await deliver(sink, time, map(event, range(FLOOD))) == 0
    assert (endpoint.problems, endpoint.excess) == ([], 0)
    bodies = {json.dumps(body, sort_keys=True) for body in endpoint.accepted}
    assert (len(endpoint.accepted), len(bodies)) == (FLOOD, FLOOD)


@EVERY_VENDOR
async def test_each_documented_answer_is_understood(vendor: Vendor) -> None:
    async with vendor_and_sink(vendor) as (endpoint, sink, time):
        for number, answer in enumerate((*vendor.refusals, vendor.limited)):
            endpoint.server.answer(reply(answer.status, answer.text, answer.headers))
            with pytest.raises(answer.becomes or Exception) as raised:
                await sink.send(outgoing(event(number)))
            assert type(raised.value) is answer.becomes, answer
            if answer.retry_after is not None:
                assert raised.value.retry_after == answer.retry_after
            time.now += 3600
        await sink.send(outgoing(event(1)))
    assert endpoint.problems == []


@pytest.mark.parametrize("preset", ["pagerduty", "opsgenie"])
async def test_a_problem_and_its_end_have_one_key(preset: str) -> None:
    vendor = next(vendor for vendor in VENDORS if vendor.preset == preset)
    async with vendor_and_sink(vendor) as (endpoint, sink, time):
        await deliver(sink, time, [event(7), event(7, sent=True)])
    problem, end = endpoint.accepted
    if preset == "pagerduty":
        assert (problem["event_action"], end["event_action"]) == ("trigger", "resolve")
        assert problem["dedup_key"] == end["dedup_key"]
    else:
        assert "alias" in problem
        assert end["note"] == "voice sent at 2026-03-15T21:11:02Z"


@pytest.mark.parametrize("preset", ["discord", "googlechat", "mattermost", "teams", "telegram"])
async def test_a_form_that_escapes_nothing_is_caught(preset: str, monkeypatch) -> None:
    vendor = next(vendor for vendor in VENDORS if vendor.preset == preset)
    careless = loading.load(loading.find(preset, Path())).model_copy(update={"escape": "none"})
    monkeypatch.setattr(loading, "load", lambda _: careless)
    async with vendor_and_sink(vendor) as (endpoint, sink, time):
        await deliver(sink, time, [event(n, error=text) for n, text in enumerate(INJECTED)])
    assert endpoint.problems != []
