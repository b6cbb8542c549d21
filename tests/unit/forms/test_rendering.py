"""From an event to a request: no value of an event can break out of its place."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from bridge.domain.errors import Permanent
from bridge.domain.event import WireEvent
from bridge.forms.models import RequestTemplate
from bridge.forms.rendering import Renderer

EVIL = [
    'quote " and \\ back', "line\r\nX-Injected: 1", "../../admin", "a/b?c=d&e=f#g", "%2e%2e/%00", "null\x00byte",
    "ünï ☎ 你好", "{data.status} {{x}}", '", "admin": true, "x": "', "</script><b>", "tab\tnel\x85", "x" * 1_000_000,
]  # fmt: skip
REQUEST = {
    "method": "PUT", "path": ["v1", "{data.error}"], "query": {"q": "{data.error}", "n": "{data.n}", "no": "{data.no}"},
    "headers": {"X-Error": "{data.error}", "X-No": "{data.no}", "X-Fixed": "a b"}, "body": {"text": "{data.error}"},
}  # fmt: skip


def rendered(request: dict, error: object, *, url: str = "https://api.example.com/base/?key=k", **more):
    body = json.dumps({"id": "e", "data": {"error": error, "n": 4}}).encode()
    renderer = Renderer([RequestTemplate.model_validate(request)], sink="ops", url=url, settings={}, **more)
    return renderer.render(WireEvent("e", "sms.recipient.failed", 0, body))


@pytest.mark.parametrize("text", EVIL, ids=range(len(EVIL)))
def test_no_text_breaks_out_of_its_place(text) -> None:
    request = rendered(REQUEST, text)
    parts = urlsplit(request.url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "api.example.com", "")
    assert [unquote(part) for part in parts.path.split("/")] == ["", "base", "v1", text]
    assert parse_qs(parts.query, strict_parsing=True) == {"key": ["k"], "q": [text], "n": ["4"]}
    assert set(request.headers) == {"X-Error", "X-Fixed", "Content-Type"}
    assert all(value.isascii() and value.isprintable() for value in request.headers.values())
    assert "\n" not in request.headers["X-Error"]
    assert json.loads(request.body) == {"text": text}
    assert request.url.isascii()
    assert request.url.isprintable()


@pytest.mark.parametrize("text", ["", ".", "..", None])
def test_a_path_never_becomes_relative(text) -> None:
    with pytest.raises(Permanent):
        rendered(REQUEST, text)


def test_a_form_body_has_the_fields_of_a_web_page() -> None:
    request = rendered({"encoding": "form", "body": {"a": "{data.error}", "b": "{data.n}"}}, "x&y=z")
    assert parse_qs(request.body.decode()) == {"a": ["x&y=z"], "b": ["4"]}
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert rendered({"encoding": "form", "body": "{data.error}"}, "x").body == b""


def test_a_request_without_parts_keeps_the_url() -> None:
    request = rendered({"headers": {"content-type": "text/x"}, "body": ["{data.n}"]}, "")
    assert request.url == "https://api.example.com/base/?key=k"
    assert (dict(request.headers), request.body) == ({"content-type": "text/x"}, b"[4]")
    assert rendered({"method": "GET"}, "", url="https://a.example").body == b""


def test_a_body_over_the_limit_is_no_request() -> None:
    with pytest.raises(Permanent, match="takes 100"):
        rendered(REQUEST, "x" * 200, max_body=100)
    with pytest.raises(Permanent, match="not a CloudEvent"):
        Renderer([RequestTemplate()], sink="s", url="https://a.example", settings={}).render(
            WireEvent("e", "t", 0, b"[")
        )


def test_the_first_request_that_is_for_an_event_is_used() -> None:
    requests = [
        RequestTemplate.model_validate({"when": {"exact": {"data.n": 4}}, "method": "PUT"}),
        RequestTemplate.model_validate({"method": "DELETE"}),
    ]
    renderer = Renderer(requests, sink="s", url="https://a.example", settings={})
    events = [WireEvent("e", "t", 0, json.dumps({"data": {"n": n}}).encode()) for n in (4, 5)]
    assert [renderer.render(item).method for item in events] == ["PUT", "DELETE"]
