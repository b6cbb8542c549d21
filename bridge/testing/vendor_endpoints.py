"""Fake endpoints of the services that the shipped forms send to, written from each vendor's public reference.

Each checks what it gets: the schema, the limits, and that no text of an event is markup or a mention. It answers as the
vendor does, also when it is asked more often than the vendor allows.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from aiohttp import web

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, EndpointGone, Permanent, Transient, Unauthorized
from bridge.testing.fake_endpoint import FakeEndpoint, ReceivedRequest, reply

Problems = Iterator[str]


@dataclass(frozen=True, slots=True)
class DocumentedAnswer:
    """One answer of a vendor's reference, and the error that a sink has to make of it; None for an acceptance."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    becomes: type[BridgeError] | None = Transient
    retry_after: float | None = None
    """Seconds that the error has to pass on."""

    @property
    def text(self) -> bytes:
        """The body as it is sent."""
        return self.body.encode() if isinstance(self.body, str) else b"" if self.body is None else _json(self.body)


@dataclass(frozen=True, slots=True)
class Vendor:
    """A service: what it takes, how often, and what it answers."""

    preset: str
    settings: Mapping[str, str]
    """Settings that its form needs in addition to the URL."""
    accepted: DocumentedAnswer
    check: Callable[[ReceivedRequest], Problems]
    window: tuple[int, float]
    """How many requests it takes in how many seconds."""
    limited: DocumentedAnswer
    """How it answers beyond that."""
    refusals: Sequence[DocumentedAnswer]


class VendorEndpoint:
    """A vendor that listens; `problems` are what it found wrong, `excess` the requests beyond its limit."""

    def __init__(self, vendor: Vendor, clock: Clock) -> None:
        self.vendor = vendor
        self.server = FakeEndpoint(default=self._answer)
        self.problems: list[str] = []
        self.excess = 0
        self.accepted: list[Any] = []
        """The bodies that were accepted."""
        self._clock = clock
        self._recent: deque[float] = deque()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        received = self.server.requests.pop()
        if self._is_limited():
            self.excess += 1
            answer = self.vendor.limited
        else:
            self.problems += self.vendor.check(received)
            self.accepted.append(json.loads(received.body))
            answer = self.vendor.accepted
        return await reply(answer.status, answer.text, answer.headers)(request)

    def _is_limited(self) -> bool:
        most, seconds = self.vendor.window
        now = self._clock.monotonic()
        while self._recent and self._recent[0] <= now - seconds:
            self._recent.popleft()
        if len(self._recent) >= most:
            return True
        self._recent.append(now)
        return False


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


# --- what every vendor checks -------------------------------------------------------------------------------------


def _body(request: ReceivedRequest, most_bytes: int) -> tuple[dict[str, Any], list[str]]:
    problems = []
    if request.method != "POST":
        problems.append(f"the method is {request.method}")
    if not request.headers.get("content-type", "").startswith("application/json"):
        problems.append("the content type is not JSON")
    if len(request.body) > most_bytes:
        problems.append(f"the body has {len(request.body)} bytes")
    body = json.loads(request.body)
    return (body, problems) if isinstance(body, dict) else ({}, [*problems, "the body is no object"])


def _text(value: Any, name: str, most: int, *, least: int = 1) -> Problems:
    if not isinstance(value, str):
        yield f"{name} is no text"
    elif not least <= len(value) <= most:
        yield f"{name} has {len(value)} characters"


def _only(value: Mapping[str, Any], allowed: str, name: str) -> Problems:
    for key in value.keys() - set(allowed.split()):
        yield f"{name} has the unknown field {key}"


_UNESCAPED = re.compile(r"(?<!\\)(?:\\\\)*([`*_\[\]<>~|#])")
_MENTION = re.compile(r"@(all|here|channel|everyone|[a-z])")


def _no_markdown(value: str, name: str) -> Problems:
    if mark := _UNESCAPED.search(value):
        yield f"{name} has markup: {mark[1]}"
    if _MENTION.search(value) or "\n" in value:
        yield f"{name} has a mention or a line break"


# --- PagerDuty ----------------------------------------------------------------------------------------------------


def _pagerduty(request: ReceivedRequest) -> Problems:
    body, problems = _body(request, 512 * 1024)
    yield from problems
    yield from _only(body, "routing_key event_action dedup_key client client_url payload links images", "the event")
    if body.get("routing_key") != "R0" * 16:
        yield "the routing key is wrong"
    yield from _text(body.get("dedup_key"), "dedup_key", 255)
    if body.get("event_action") == "resolve":
        return
    if body.get("event_action") != "trigger":
        yield "the action is unknown"
    payload = body.get("payload") or {}
    yield from _only(payload, "summary source severity timestamp component group class custom_details", "the payload")
    yield from _text(payload.get("summary"), "summary", 1024)
    yield from _text(payload.get("source"), "source", 1024)
    if payload.get("severity") not in ("critical", "error", "warning", "info"):
        yield "the severity is unknown"


# --- Opsgenie -----------------------------------------------------------------------------------------------------

_OPSGENIE_LIMITS = {"message": 130, "alias": 512, "description": 15000, "entity": 512, "source": 100}


def _opsgenie(request: ReceivedRequest) -> Problems:
    body, problems = _body(request, 1024 * 1024)
    yield from problems
    if request.headers.get("authorization") != "GenieKey eb243592-faa2":
        yield "the key is wrong"
    parts = urlsplit(request.path)
    if parts.path.endswith("/close"):
        yield from _only(body, "user source note", "the closing")
        yield from _text(body.get("note"), "note", 25000)
        yield from _text(unquote(parts.path.split("/")[-2]), "alias", 512)
        if parse_qs(parts.query).get("identifierType") != ["alias"]:
            yield "the alert is not named by its alias"
        return
    yield from _only(body, "message alias description responders tags details entity source priority", "the alert")
    for name, most in _OPSGENIE_LIMITS.items():
        if name in body or name == "message":
            yield from _text(body.get(name), name, most, least=0 if name == "description" else 1)
    if body.get("priority") not in ("P1", "P2", "P3", "P4", "P5"):
        yield "the priority is unknown"
    tags, details = body.get("tags", []), body.get("details", {})
    if len(tags) > 20 or any(len(tag) > 50 for tag in tags):  # noqa: PLR2004 - the vendor's limits
        yield "there are too many tags, or one is too long"
    if sum(len(key) + len(str(value)) for key, value in details.items()) > 8000:  # noqa: PLR2004 - the vendor's limit
        yield "the details are too long"
    if not all(isinstance(value, str) for value in details.values()):
        yield "a detail is no text"


# --- Discord ------------------------------------------------------------------------------------------------------


def _discord(request: ReceivedRequest) -> Problems:
    body, problems = _body(request, 8 * 1024 * 1024)
    yield from problems
    if body.get("allowed_mentions") != {"parse": []}:
        yield "mentions are allowed"
    embeds = body.get("embeds", [])
    if not 1 <= len(embeds) <= 10:  # noqa: PLR2004 - the vendor's limit
        yield "there are too many embeds, or none"
    total = 0
    for embed in embeds:
        yield from _only(embed, "title description url timestamp color footer image author fields", "the embed")
        texts = [("title", embed["title"], 256), ("description", embed.get("description", ""), 4096)]
        for item in embed.get("fields", []):
            yield from _only(item, "name value inline", "a field")
            texts += [("a field's name", item["name"], 256), ("a field's value", item["value"], 1024)]
        for name, text, most in texts:
            yield from _text(text, name, most, least=0 if name == "description" else 1)
            yield from _no_markdown(text, name)
            total += len(text)
        if not 0 <= embed.get("color", 0) <= 0xFFFFFF:  # noqa: PLR2004 - the vendor's limit
            yield "the colour is none"
    if total > 6000:  # noqa: PLR2004 - the vendor's limit
        yield f"all embeds together have {total} characters"


# --- Mattermost ---------------------------------------------------------------------------------------------------


def _mattermost(request: ReceivedRequest) -> Problems:
    body, problems = _body(request, 1024 * 1024)
    yield from problems
    yield from _only(body, "text channel username icon_url icon_emoji attachments type props priority", "the post")
    if len(json.dumps(body.get("attachments", []), ensure_ascii=False)) > 7900:  # noqa: PLR2004 - the vendor's limit
        yield "the attachments have more than 7900 characters"
    for item in body.get("attachments", []):
        yield from _only(item, "fallback color pretext text title title_link fields footer", "the attachment")
        for name in ("title", "text"):
            yield from _no_markdown(item.get(name, ""), name)
        for row in item.get("fields", []):
            yield from _only(row, "title value short", "a field")
            yield from _no_markdown(row["value"], "a field")


# --- Telegram -----------------------------------------------------------------------------------------------------


def _telegram(request: ReceivedRequest) -> Problems:
    body, problems = _body(request, 1024 * 1024)
    yield from problems
    if not urlsplit(request.path).path.endswith("/bot123456:ABC-DEF1234/sendMessage"):
        yield "the path names no bot and method"
    yield from _only(body, "chat_id message_thread_id text link_preview_options", "the message")
    if body.get("chat_id") != "-1001234567890":
        yield "the chat is wrong"
    yield from _text(body.get("text"), "text", 4096)
    text = str(body.get("text"))
    if _MENTION.search(text) or text.count("\n") > 3:  # noqa: PLR2004 - the form's own lines
        yield "the text has a mention or a line break of its own"


# --- Google Chat --------------------------------------------------------------------------------------------------


def _googlechat(request: ReceivedRequest) -> Problems:
    body, problems = _body(request, 32_000)
    yield from problems
    if not parse_qs(urlsplit(request.path).query).get("requestId"):
        yield "there is no requestId"
    yield from _only(body, "text fallbackText cardsV2 thread", "the message")
    for card in body.get("cardsV2", []):
        for section in card["card"]["sections"]:
            for widget in section["widgets"]:
                yield from _only(widget, "decoratedText textParagraph", "a widget")
                text = widget["decoratedText"]["text"]
                yield from _text(text, "a text", 10_000)
                if re.search(r"[<>]|&(?!amp;|lt;|gt;|quot;|#x27;)|\n", text):
                    yield "a text has markup or a line break"


# --- Microsoft Teams ----------------------------------------------------------------------------------------------


def _teams(request: ReceivedRequest) -> Problems:
    body, problems = _body(request, 28 * 1024)
    yield from problems
    if body.get("type") != "message":
        yield "it is no message"
    for attachment in body.get("attachments", []):
        yield from _only(attachment, "contentType contentUrl content", "the attachment")
        if attachment.get("contentType") != "application/vnd.microsoft.card.adaptive":
            yield "the attachment is no Adaptive Card"
        card = attachment["content"]
        yield from _only(card, "$schema type version body actions msteams", "the card")
        for block in card["body"]:
            if block.get("type") != "RichTextBlock":
                yield "a block would read markup"
            for run in block.get("inlines", []):
                yield from _only(run, "type text size weight color", "a run")
                yield from _text(run.get("text"), "a run", 10_000)
                if "\n" in str(run.get("text")):
                    yield "a run has a line break"


_LIMITED = {"Retry-After": "7"}
_UNAVAILABLE = DocumentedAnswer(503)

VENDORS: tuple[Vendor, ...] = (
    Vendor(
        "pagerduty",
        {"routing_key": "R0" * 16},
        DocumentedAnswer(202, {"status": "success", "message": "Event processed", "dedup_key": "k"}, becomes=None),
        _pagerduty,
        (120, 60.0),
        DocumentedAnswer(429, {"status": "throttle exceeded"}, _LIMITED, retry_after=7),
        (
            DocumentedAnswer(400, {"status": "invalid event", "errors": ["x"]}, becomes=Permanent),
            DocumentedAnswer(403),
            DocumentedAnswer(500),
            _UNAVAILABLE,
        ),
    ),
    Vendor(
        "opsgenie",
        {"api_key": "eb243592-faa2"},
        DocumentedAnswer(202, {"result": "Request will be processed", "requestId": "43a29c5c"}, becomes=None),
        _opsgenie,
        (600, 60.0),
        DocumentedAnswer(429, {"message": "You are making too many requests!"}, _LIMITED, retry_after=7),
        (
            DocumentedAnswer(400, {"message": "x"}, becomes=Permanent),
            DocumentedAnswer(401, {"message": "API Key is not valid"}, becomes=Unauthorized),
            DocumentedAnswer(402, {"message": "Account has expired"}),
            DocumentedAnswer(403, {"message": "x"}, becomes=Unauthorized),
            DocumentedAnswer(422, {"message": "Request body is not processable"}, becomes=Permanent),
            DocumentedAnswer(500),
            _UNAVAILABLE,
        ),
    ),
    Vendor(
        "discord",
        {},
        DocumentedAnswer(200, {"id": "1", "type": 0}, becomes=None),
        _discord,
        (30, 60.0),
        DocumentedAnswer(429, {"message": "You are being rate limited.", "retry_after": 6.25}, retry_after=6.25),
        (
            DocumentedAnswer(400, {"code": 50035, "message": "Invalid Form Body"}, becomes=Permanent),
            DocumentedAnswer(401, {"code": 50027, "message": "Invalid Webhook Token"}, becomes=EndpointGone),
            DocumentedAnswer(401, {"code": 0, "message": "401: Unauthorized"}, becomes=Unauthorized),
            DocumentedAnswer(404, {"code": 10015, "message": "Unknown Webhook"}, becomes=EndpointGone),
            DocumentedAnswer(404, {"code": 0}),
            DocumentedAnswer(502),
        ),
    ),
    Vendor(
        "mattermost",
        {},
        DocumentedAnswer(200, "ok", becomes=None),
        _mattermost,
        (600, 60.0),
        DocumentedAnswer(429, "limit exceeded", {"X-RateLimit-Reset": "7"}, retry_after=7),
        (
            DocumentedAnswer(400, {"id": "web.incoming_webhook.parse.app_error"}, becomes=Permanent),
            DocumentedAnswer(400, {"id": "web.incoming_webhook.invalid.app_error"}, becomes=EndpointGone),
            DocumentedAnswer(403, {"id": "web.incoming_webhook.channel_locked.app_error"}, becomes=EndpointGone),
            DocumentedAnswer(501, {"id": "web.incoming_webhook.disabled.app_error"}),
            DocumentedAnswer(200, "<html>sign in</html>"),
            DocumentedAnswer(500),
        ),
    ),
    Vendor(
        "telegram",
        {"token": "123456:ABC-DEF1234", "chat": "-1001234567890"},
        DocumentedAnswer(200, {"ok": True, "result": {"message_id": 1}}, becomes=None),
        _telegram,
        (20, 60.0),
        DocumentedAnswer(
            429, {"ok": False, "error_code": 429, "description": "x", "parameters": {"retry_after": 9}}, retry_after=9
        ),
        (
            DocumentedAnswer(400, {"ok": False, "description": "Bad Request: message is too long"}, becomes=Permanent),
            DocumentedAnswer(400, {"ok": False, "description": "Bad Request: chat not found"}, becomes=EndpointGone),
            DocumentedAnswer(
                400, {"ok": False, "description": "x", "parameters": {"migrate_to_chat_id": -5}}, becomes=EndpointGone
            ),
            DocumentedAnswer(401, {"ok": False, "description": "Unauthorized"}, becomes=Unauthorized),
            DocumentedAnswer(
                403, {"ok": False, "description": "Forbidden: bot was kicked from the group chat"}, becomes=EndpointGone
            ),
            DocumentedAnswer(403, {"ok": False, "description": "Forbidden: x"}, becomes=Unauthorized),
            DocumentedAnswer(200, {"ok": False}),
            DocumentedAnswer(502),
        ),
    ),
    Vendor(
        "googlechat",
        {},
        DocumentedAnswer(200, {"name": "spaces/AAA/messages/BBB"}, becomes=None),
        _googlechat,
        (60, 60.0),
        DocumentedAnswer(429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}),
        (
            DocumentedAnswer(400, {"error": {"code": 400, "status": "INVALID_ARGUMENT"}}, becomes=Permanent),
            DocumentedAnswer(401, {"error": {"code": 401, "status": "UNAUTHENTICATED"}}, becomes=Unauthorized),
            DocumentedAnswer(403, {"error": {"code": 403, "status": "PERMISSION_DENIED"}}, becomes=Unauthorized),
            DocumentedAnswer(404, {"error": {"code": 404, "status": "NOT_FOUND"}}, becomes=EndpointGone),
            DocumentedAnswer(500, {"error": {"code": 500, "status": "INTERNAL"}}),
            _UNAVAILABLE,
        ),
    ),
    Vendor(
        "teams",
        {},
        DocumentedAnswer(202, becomes=None),
        _teams,
        (4, 1.0),
        DocumentedAnswer(429, None, _LIMITED, retry_after=7),
        (
            DocumentedAnswer(400, {"error": {"code": "TriggerInputSchemaMismatch"}}, becomes=Permanent),
            DocumentedAnswer(400, {"error": {"code": "WorkflowTriggerIsNotEnabled"}}),
            DocumentedAnswer(401, {"error": {"code": "DirectApiAuthorizationRequired"}}, becomes=Unauthorized),
            DocumentedAnswer(404, {"error": {"code": "WorkflowNotFound"}}, becomes=EndpointGone),
            DocumentedAnswer(413, becomes=Permanent),
            DocumentedAnswer(502, {"error": {"code": "NoResponse"}}),
        ),
    ),
)
"""The vendors of the forms that ship."""
