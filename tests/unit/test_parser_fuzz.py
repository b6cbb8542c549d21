"""Whatever a provider answers, each source either says so in an announced error or makes sound events of it."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from bridge.config import registry
from bridge.domain.catalogue import INTERNAL_EVENTS, Catalogue
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError
from bridge.domain.event import Event
from bridge.http import parsing
from bridge.http.client import HttpRequest
from bridge.http.headers import links, parse_retry_after
from bridge.http.response import RequestFailure, Response
from bridge.ingest.intake import Intake
from bridge.protocols.ledger import Lease
from bridge.protocols.request_context import bind, reset
from bridge.protocols.source import Observation, Page
from bridge.sources.govdelivery.state import ListState, MessageState
from bridge.testing.fakes import ManualTime, MemoryLedger

SEEDS = Path(__file__).parent.parent / "seeds"
NOW = datetime(2026, 3, 15, 21, 11, tzinfo=UTC)
PRIVATE = ("+16515550199", "6515550199", "canary-contact", "canary@example.com", "canary-key")
"""They stand where providers write them, and must stand in no error text."""
MOST_REQUESTS = 400


# --- answers ----------------------------------------------------------------------------------------------------------

# Escapes and surrogates, controls, right-to-left marks, separators of ours, and what looks like something else.
ODD = [
    "",
    " ",
    "\x00",
    "\ud800",
    "\udfff\ud800",
    "\u202e",
    "\U0001f9ea",
    "a\nb",
    "|",
    "(x)",
    ",",
    "/",
    "..",
    "%2F",
    "~",
    "0",
]
TEXT = (
    st.sampled_from(ODD) | st.text(st.characters(codec=None), max_size=12) | st.text("0123456789-+:.TZ ", max_size=30)
)
NUMBER = (
    st.sampled_from([0, -1, 1, 9, 2**31, 2**53 + 1, 2**63, 10**400, 1e308, -0.0, 1.5]) | st.integers() | st.floats()
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def example(name: str) -> Any:
    """Return the first JSON example of a vendor's page."""
    text = (SEEDS / name).read_text()
    start = min(text.index(f"\n{mark}") for mark in "{[" if f"\n{mark}" in text) + 1
    return json.JSONDecoder().raw_decode(text[start:])[0]


def recipients(message: str) -> list[Any]:
    return [
        {
            "phone": "6515550199", "formatted_phone": "+16515550199", "status": status, "error_message": "no such number",
            "created_at": "2026-03-15T21:00:00Z", "completed_at": "2026-03-15T21:05:00Z",
            "_links": {"self": f"{message}/recipients/{number}"},
        }
        for number, status in enumerate(("new", "sending", "sent", "failed", "inconclusive"), 364898)
    ]  # fmt: skip


def listed(message: str) -> list[Any]:
    return [
        {
            "status": status,
            "created_at": "2026-03-15T21:00:00Z",
            "completed_at": None,
            "_links": {"self": f"{message}{n}"},
        }
        for n, status in enumerate(("", "new", "sending"))
    ]


SAMPLES: dict[str, list[tuple[str, Any]]] = {
    "city": [
        (r"^/messages/(sms|voice)$", lambda path: listed(f"{path}/1")),
        (r"/recipients/", lambda path: recipients(path.partition("/recipients")[0])[2:4]),
        (r"/recipients$", lambda path: recipients(path.partition("/recipients")[0])),
        (r"^/messages/sms/", lambda _: example("govdelivery-sms-message.txt")),
        (r"^/messages/voice/", lambda _: example("govdelivery-voice-message.txt")),
    ],
    "drops": [
        (
            r"^/j/",
            lambda _: [
                {
                    "campaign": 1,
                    "id": number,
                    "job": 2,
                    "number": "+16515550199",
                    "reference": "canary-key",
                    "state": number % 4,
                    "team": 1,
                    "timestamp": "2026-03-15T21:00:00.123Z",
                }
                for number in range(1, 6)
            ],
        ),
    ],
    "journeys": [
        (
            r"^/v2/token$",
            lambda _: {
                "access_token": "canary-key",
                "token_type": "Bearer",
                "expires_in": 1079,
                "rest_instance_url": "http://127.0.0.1:9/",
            },
        ),
        (
            r"^/messaging/",
            lambda _: {
                "lastEventID": 35774,
                "count": 3,
                "messages": [
                    {
                        "statusCode": 24,
                        "statusMessage": "why",
                        "eventCategoryType": "TransactionalSendEvents.SMSNotSent",
                        "timestamp": "2026-03-15T13:05:40.947",
                        "definitionKey": "account-reset",
                        "eventID": number,
                        "info": {"messageKey": f"m{number}", "contactKey": "canary-contact", "to": "6515550199"},
                    }
                    for number in (35760, 35761, 35774)
                ],
            },
        ),
    ],
}

NAMES = sorted({
    "id", "status", "state", "_links", "self", "recipient_counts", "total", "eventID", "eventId", "messageKey", "info",
    "messages", "lastEventID", "timestamp", "created_at", "completed_at", "eventCategoryType", "expires_in",
})  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """One change of an answer."""

    how: str
    where: int
    value: Any = None
    name: str = ""

    def to(self, payload: Any) -> Any:
        """Return the damaged payload; what it was stays as it is."""
        payload = {"": copy.deepcopy(payload)}
        places = list(places_in(payload))
        holder, key = places[self.where % len(places)]
        match self.how:
            case "drop" if holder is not payload:
                del holder[key]
            case "replace":
                holder[key] = self.value
            case "wrap":
                holder[key] = [holder[key]]
            case "nest":
                holder[key] = {self.name: holder[key]}
            case "twice" if isinstance(holder, list):
                holder.insert(int(self.where) % (len(holder) + 1), copy.deepcopy(holder[key]))
            case "text":
                holder[key] = json.dumps(holder[key])
            case "add" if isinstance(holder[key], dict):
                holder[key][self.name] = self.value
        return payload[""]


def places_in(holder: Any) -> Any:
    """Yield each place in a JSON value: what holds it, and its key."""
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from places_in(holder[key])


DAMAGE = st.builds(
    Damage,
    st.sampled_from(["drop", "replace", "replace", "wrap", "nest", "twice", "text", "add"]),
    st.integers(0, 200),
    JSON,
    st.sampled_from(NAMES),
)
# A cut, a flipped byte or some others in between, as a share of the body's length.
TEAR = st.none() | st.tuples(st.floats(0, 1), st.sampled_from(["cut", "flip", "put"]), st.binary(max_size=6))
TARGET = st.sampled_from(
    ["", "/messages/sms?page=2", "http://127.0.0.1:9/messages/sms?page=3", "//x/y", "?page=2", "http://["]
)
LINK = st.lists(st.tuples(TARGET, st.sampled_from(["next", "last", "prev", "NEXT first", ""])), max_size=3).map(
    lambda links: ", ".join(f'<{target}>; rel="{relation}"' for target, relation in links)
) | st.text("<>;,=\"' relnxtp/?&:[]\\%0", max_size=40)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Link": LINK,
        "Retry-After": TEXT | st.sampled_from(["5", "-1", "1e999", "nan", "Fri, 31 Dec 9999 23:59:59 GMT"]),
        "Date": TEXT | st.sampled_from(["Sun, 15 Mar 2026 21:11:00 GMT", "Fri, 31 Dec 9999 23:59:59 -1200", "0"]),
        "ETag": st.just('"1"'),
    },
)  # fmt: skip
STATUS = st.sampled_from([200] * 12 + [202, 204, 206, 304, 301, 400, 401, 404, 413, 429, 500, 504])


@dataclass(frozen=True)
class Reply:
    """How one answer differs from a good one; without `body` it is a damaged good one."""

    status: int
    headers: dict[str, str]
    damages: Sequence[Damage]
    tear: tuple[float, str, bytes] | None
    body: Any = None
    instead: bool = False

    def bytes(self, good: Any) -> bytes:
        """Return the body in place of `good`."""
        payload = self.body if self.instead else good
        for damage in self.damages:
            payload = damage.to(payload)
        body = json.dumps(payload).encode()
        if self.tear is None:
            return body
        share, how, put = self.tear
        at = int(share * len(body))
        match how:
            case "cut":
                return body[:at]
            case "flip":
                return body[:at] + bytes(byte ^ 0x20 for byte in body[at : at + 1]) + body[at + 1 :]
            case _:
                return body[:at] + put + body[at:]


REPLY = st.builds(
    Reply, STATUS, HEADERS, st.lists(DAMAGE, max_size=4), TEAR, JSON, st.sampled_from([False] * 5 + [True])
)
REPLIES = st.lists(REPLY, min_size=1, max_size=6)


# --- what stands around a source --------------------------------------------------------------------------------------


@dataclass
class Provider:
    """Answers in the provider's stead, each question with the next reply; the last one stands."""

    source: str
    replies: Sequence[Reply]
    clock: Clock
    asked: int = 0

    async def send(
        self, request: HttpRequest, ask: Callable[[], Awaitable[Response | RequestFailure]]
    ) -> Response | RequestFailure:
        del ask
        assert self.asked < MOST_REQUESTS, "the source asks without end"
        reply = self.replies[min(self.asked, len(self.replies) - 1)]
        self.asked += 1
        path = request.url.path.rstrip("/") if request.url.path != "/v2/token" else request.url.path
        good = next((make(path) for pattern, make in SAMPLES[self.source] if re.search(pattern, path)), None)
        if request.url.path == "/v2/token" and reply.status == 200 and not reply.instead:
            body = json.dumps(good).encode()  # or nothing but tokens would ever be asked for
        else:
            body = reply.bytes(good)
        now = self.clock.now()
        headers = CIMultiDictProxy(CIMultiDict(reply.headers))
        status = 200 if reply.status == 304 and request.known is None else reply.status
        return Response(request.what, status, body, now, now, request.url, headers)


class Strict(Intake):
    """The intake, which here lets the defects of a source through."""

    def _event(self, observation: Observation, change: Any, page: Page) -> Event | None:
        return self._build(observation, change, page)


CONFIG = {
    "city": {"type": "govdelivery", "url": "http://127.0.0.1:9", "token": "canary-key"},
    "drops": {"type": "spacivox", "url": "http://127.0.0.1:9", "token": "canary-key", "lookback": "24h"},
    "journeys": {
        "type": "marketingcloud", "auth_url": "http://127.0.0.1:9", "client_id": "me", "client_secret": "canary-key",
        "page_size": 3,
    },
}  # fmt: skip


async def poll_three_times(name: str, replies: Sequence[Reply]) -> tuple[list[Event], list[str]]:
    """Poll a source on one memory; return its events and everything it said of what went wrong."""
    time, memory, said = ManualTime(NOW), MemoryLedger(), []
    config = CONFIG[name] | {"rate": "1000/s"}
    plugin = registry.load_source(str(config["type"]))
    source = plugin.build(name, plugin.settings(**config), time.clock)
    intake = Strict(name, str(config["type"]), source, memory, time.clock)  # type: ignore[arg-type]  # as much of a ledger as the intake needs
    provider = Provider(name, replies, time.clock)
    before = bind(transport=provider)
    try:
        for _ in range(3):
            provider.asked = 0
            try:
                await intake.poll(Lease(name, "me", 1, 30))
            except BridgeError as error:
                said.append(str(error))
            said += source.problems
            time.passes(minutes=20)
    finally:
        reset(before)
        await source.close()
    catalogue = Catalogue((*plugin.events, *INTERNAL_EVENTS))
    for body in memory.bodies:
        json.loads(body.decode())
    return [catalogue.read(body) for body in memory.bodies], said


TOPIC = re.compile(r"[a-z]+(\.[a-z_]+){2,3}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check(name: str, events: Sequence[Event], said: Sequence[str]) -> None:
    """Hold what came of damaged answers against what every consumer and every log may rely on."""
    for event in events:
        assert type(event) is not Event
        assert re.fullmatch(r"[0-9a-f]{32}", event.id)
        assert TOPIC.fullmatch(event.topic), event.topic
        assert event.subject.startswith("/")
        assert event.data.observed is not None
    # Ids that are no numbers have no scope that stands whatever their time is; no provider is known to have such.
    event_ids = [event.id for event in events if name == "city" or re.search(r"/\d+$|/m\d+$", event.subject)]
    assert len(set(event_ids)) == len(event_ids)
    for line in said:
        assert line
        assert not CONTROL.search(line), line
        assert not any(secret in line for secret in PRIVATE), line


@pytest.mark.parametrize("name", CONFIG)
def test_a_good_answer_is_read_whole(name):
    events, said = asyncio.run(poll_three_times(name, [Reply(200, {}, (), None)]))
    check(name, events, said)
    assert len(events) > 2


def read_answers_of(name: str) -> Callable[[Sequence[Reply]], None]:
    def read(replies: Sequence[Reply]) -> None:
        check(name, *asyncio.run(poll_three_times(name, replies)))

    return read


# --- what all of them read with ---------------------------------------------------------------------------------------


def read_links(headers: list[str]) -> None:
    parsed = links(headers)
    assert all(relation == relation.lower() and relation and target for relation, target in parsed.items())


def read_time(value: Any) -> None:
    parsed = parsing.time(value)
    assert parsed is None or parsed.tzinfo is UTC


def read_retry_after(value: str | None) -> None:
    retry_after = parse_retry_after(value, NOW)
    assert retry_after is None or 0 <= retry_after < float("inf")


def read_value(value: Any) -> None:
    text = parsing.text(value)
    assert text is None or (text and text == text.strip())
    whole = parsing.integer(value)
    assert whole is None or isinstance(whole, int)
    assert isinstance(parsing.mapping(value), dict)
    assert isinstance(parsing.sequence(value), list)
    assert parsing.phone(value, text) is None or text


def read_body(body: bytes) -> None:
    code = parsing.error_code(body)
    assert code is None or re.fullmatch(r"\d{1,6}|[a-z_]{1,40}", code)
    try:
        value = parsing.json(body)
    except ValueError:
        return
    json.dumps(value, ensure_ascii=False).encode()


def read_cursor(text: str) -> None:
    assert isinstance(MessageState.load(text), MessageState)
    assert isinstance(ListState.load(text), ListState)


Target = tuple[Callable[[Any], None], st.SearchStrategy[Any]]

TARGETS: dict[str, Target] = {
    "no answer of govdelivery breaks more than itself": (read_answers_of("city"), REPLIES),
    "no answer of spacivox breaks more than itself": (read_answers_of("drops"), REPLIES),
    "no answer of marketing cloud breaks more than itself": (read_answers_of("journeys"), REPLIES),
    "no link header breaks its reader": (read_links, st.lists(LINK | st.text(max_size=60), max_size=4)),
    "no timestamp breaks its reader": (read_time, TEXT | st.text(max_size=70) | st.datetimes().map(str) | JSON),
    "no retry-after breaks its reader": (read_retry_after, st.none() | TEXT | st.text(max_size=40) | NUMBER.map(str)),
    "no value breaks the lenient readers": (read_value, JSON),
    "no body breaks the reader of json": (
        read_body,
        st.binary(max_size=80) | JSON.map(lambda value: json.dumps({"code": value}).encode()),
    ),
    "no cursor breaks its reader": (read_cursor, JSON.map(json.dumps) | st.text(max_size=60)),
}
"""What is fuzzed, for a long run too (benchmarks/fuzz.py): each raises when the promise that names it is broken."""


@pytest.mark.parametrize("promise", TARGETS)
def test_whatever_a_provider_sends(promise):
    function, strategy = TARGETS[promise]
    fewer = settings(max_examples=settings.default.max_examples // 2)
    given(strategy)(fewer(lambda value: function(value)))()  # noqa: PLW0108 - hypothesis marks the function it is given
