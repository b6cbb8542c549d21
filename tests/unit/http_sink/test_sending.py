"""What an HTTP sink does in addition to rendering: methods, secrets in files, rules for answers, and its throttle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rigs.http_sink import MovedTime, event, settings_of

from bridge.domain.clock import Clock
from bridge.domain.errors import EndpointGone, Permanent, Transient
from bridge.forms.answers import error_of
from bridge.forms.models import AnswerRules
from bridge.http.guarded import EndpointResponse
from bridge.protocols.sink import HasPreview
from bridge.sinks.http import HttpSink, HttpSinkSettings
from bridge.sinks.http.throttle import SendThrottle
from bridge.testing.fake_endpoint import FakeEndpoint
from bridge.testing.sink_suite import outgoing


def sink_of(url: str, **values) -> HttpSink:
    given = {"type": "http", "topics": ["#"], "url": url, "allow_private": True, **values}
    return HttpSink("own", HttpSinkSettings.model_validate(given), Clock())


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "POST"])
async def test_each_method_arrives_with_its_body(method: str) -> None:
    body = None if method == "GET" else {"id": "{id}"}
    async with FakeEndpoint() as endpoint:
        sink = sink_of(endpoint.url, request={"method": method, "path": ["a b", "{data.status}"], "body": body})
        await sink.open()
        await sink.send(outgoing(event(1)))
        await sink.close()
    (request,) = endpoint.requests
    assert (request.method, request.path) == (method, "/a%20b/failed")
    assert request.body == (b"" if method == "GET" else json.dumps({"id": f"{1:032x}"}, separators=(",", ":")).encode())
    assert isinstance(sink, HasPreview)


RULES = AnswerRules.model_validate({
    "accepted": {"exact": {"body.ok": True}},
    "retry_after": "wait.seconds",
    "rules": [
        {"when": {"exact": {"text": "done"}}, "then": "accept", "about": "it is there"},
        {"when": {"exact": {"status": 418}}, "then": "disable", "about": "no coffee"},
        {"when": {"exact": {"body.code": 7}}, "then": "permanent", "about": "too odd"},
        {"when": {"prefix": {"body.why": "quota"}}, "then": "retry", "about": "the quota is used up"},
    ],
})  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "kind", "wait"),
    [
        (200, b'{"ok": true}', None, None),
        (200, b'{"ok": false}', Transient, None),
        (200, b"not JSON", Transient, None),
        (500, b"done", None, None),
        (418, b"", EndpointGone, None),
        (200, b'{"code": 7}', Permanent, None),
        (403, b'{"why": "quota", "wait": {"seconds": 4}}', Transient, 4.0),
        (503, b'{"wait": {"seconds": 2.5}}', Transient, 2.5),
        (503, b'{"wait": {"seconds": true}}', Transient, None),
        (503, b'{"wait": {"seconds": -1}}', Transient, None),
        (503, b'{"wait": 3}', Transient, None),
        (422, b"", Permanent, None),
    ],
)
def test_rules_decide_before_the_status(status, body, kind, wait) -> None:
    error = error_of(EndpointResponse("https://x.example", status, body, None), RULES, [422])
    assert (None if error is None else type(error)) is kind
    if kind is not None:
        assert error.answer.status == status
        assert body.decode() not in str(error) or not body
    if wait is not None:
        assert error.retry_after == wait
    header = error_of(EndpointResponse("https://x.example", status, body, 9.0), RULES, [422])
    assert not isinstance(header, Transient) or header.retry_after == 9


async def test_events_beyond_the_throttle_wait_in_the_store() -> None:
    time = MovedTime()
    throttle = SendThrottle(2.0, time.clock, "one key")
    for _ in range(3):
        await throttle.wait()
    assert time.now == 1001.0
    throttle.pause(60.0)
    other = SendThrottle(2.0, time.clock, "one key")
    waits = []
    for turns in (throttle, other):
        with pytest.raises(Transient) as raised:
            await turns.wait()
        assert not raised.value.counts_as_attempt
        waits.append(raised.value.retry_after)
    assert waits == [60.0, 60.5]
    time.now += 60.0
    await other.wait()
    assert time.now == 1061.0
    free = SendThrottle(None, time.clock, "another key")
    free.pause(60.0)
    await free.wait()
    assert time.now == 1061.0


async def test_a_secrets_file_is_read_again(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("first-key\n")
    sink = HttpSink("pager", settings_of("pagerduty", "https://x.example", routing_key_file=str(key)), Clock())
    assert json.loads(sink._render(outgoing(event(1))).body)["routing_key"] == "first-key"
    key.write_text("the-second-key\n")
    assert json.loads(sink._render(outgoing(event(1))).body)["routing_key"] == "the-second-key"
