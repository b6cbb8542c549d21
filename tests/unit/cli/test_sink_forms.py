"""`bridgectl sinks preview` and `form`."""

from __future__ import annotations

import json

import pytest
from rigs.cli import ONE

from bridge.cli.support.options import Exit

CONFIG = """
state: {state}
sources: {{city: {{type: govdelivery, url: "https://tms.example.com", token: t}}}}
sinks:
  pager: {{type: http, topics: ["*.recipient.failed.#"], preset: pagerduty, routing_key: routing-canary}}
  chat:
    type: http
    topics: ["sms.#"]
    where: {{exact: {{data.status: new}}}}
    preset: telegram
    token: "1:token-canary"
    chat: "-100"
    url: https://proxy.example/secret-canary
  own:
    type: http
    topics: ["voice.recipient.sent.#"]
    url: https://x.example/path-canary?key=query-canary
    headers: {{Authorization: Bearer header-canary}}
    request: {{path: ["{{data.phone}}"], query: {{s: "{{data.status}}"}}, body: {{text: "{{data.absent}}"}}}}
  out: {{type: stdout, topics: ["#"]}}
"""


@pytest.fixture
def forms(tmp_path):
    path = tmp_path / "bridge.yaml"
    path.write_text(CONFIG.format(state=tmp_path / "state"))
    return path


def test_a_preview_shows_requests_without_secrets(bridge, forms) -> None:
    first, *rest = bridge("sinks", "preview", "pager", "-c", forms, "--json").json
    assert first["topic"] == "sms.recipient.failed"
    assert len(rest) == 1
    request = first["request"]
    assert (request["method"], request["url"]) == ("POST", "https://events.pagerduty.com/v2/enqueue")
    body = json.loads(request["body"])
    assert (body["routing_key"], body["event_action"]) == ("********", "trigger")
    assert body["payload"]["custom_details"]["phone"] == "…0143"
    assert request["bytes"] > 400


def test_a_preview_hides_what_the_url_may_hold(bridge, forms) -> None:
    out = bridge("sinks", "preview", "chat", "-c", forms).out
    assert "    POST https://proxy.example/********/bot********/sendMessage\n" in out
    assert '      "chat_id": "-100",\n' in out
    assert '"text": "sms new' in out
    out += bridge("sinks", "preview", "own", "-c", forms, "--limit", "1").out
    assert "    POST https://x.example/********/+17165550143?s=sent\n    Content-Type: application/json\n" in out
    assert "    Authorization: ********\n      {}\n" in out
    assert "canary" not in out


def test_a_preview_of_topics_is_of_those_alone(bridge, forms) -> None:
    shown = bridge("sinks", "preview", "chat", "--topic", "voice.message.completed", "-c", forms, "--json")
    assert [item["topic"] for item in shown.json] == ["voice.message.completed"]
    assert "the sink's filter selects none of the sample events" in shown.err
    none = bridge("sinks", "preview", "chat", "--topic", "no.such.thing", "-c", forms)
    assert (none.code, "name a real one with --event" in none.err) == (Exit.FAILED, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("preview", "oot"), Exit.USAGE, "did you mean 'out'?"),
        (("preview", "out"), Exit.FAILED, "the sink out has no preview"),
        (("preview", "pager", "--event", "city:1"), Exit.FAILED, "the journal has no event 'city:1'"),
    ],
)
def test_what_cannot_be_previewed_is_said(bridge, forms, words, code, said) -> None:
    done = bridge("sinks", *words, "-c", forms)
    assert (done.code, said in done.err) == (code, True)


def test_a_preview_of_a_real_event_reads_the_journal(bridge, seeded) -> None:
    text = seeded.read_text()
    own = (
        "{type: http, topics: ['#'], url: 'https://x.example', request: {path: [\"{subject}\"], body: '{data.detail}'}}"
    )
    seeded.write_text(text.replace("  ops:", f"  own: {own}\n  ops:"))
    event = bridge("trace", ONE, "-c", seeded, "--json").json[0]
    for name in (event["id"], event["position"], event["subject"]):
        (shown,) = bridge("sinks", "preview", "own", "--event", name, "-c", seeded, "--json").json
        assert shown["request"]["url"].startswith("https://x.example/%2Fmessages%2Fvoice%2F10507")


def test_the_forms_that_ship_can_be_listed_and_printed(bridge) -> None:
    assert "PagerDuty, Events API v2" in bridge("sinks", "form").out
    printed = bridge("sinks", "form", "teams").out
    assert printed.startswith("# An Adaptive Card")
    assert "requests:\n" in printed
    wrong = bridge("sinks", "form", "taems")
    assert (wrong.code, "did you mean 'teams'?" in wrong.err) == (Exit.USAGE, True)
