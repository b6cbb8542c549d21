"""A Spacivox account that answers what each test says, and the bridge's source before it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from rigs.readable_ledger import ReadableLedger
from yarl import URL

from bridge.http.response import Response
from bridge.ingest.intake import Intake
from bridge.protocols.ledger import Lease
from bridge.protocols.source import Page
from bridge.providers.events import event_classes
from bridge.providers.models import Definition
from bridge.providers.paths import JsonPath
from bridge.sources.rest.records import ItemReader, UnreadableItem
from bridge.sources.spacivox import Spacivox, SpacivoxSettings
from bridge.sources.spacivox.settings import SORTS, definition_of
from bridge.testing.fakes import ManualTime

TOKEN = "0a1b2c3d4e5f"
NOW = datetime(2015, 1, 6, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
Unreadable = UnreadableItem


@dataclass
class RecordType:
    """A sort of records, as its definition has it, with what a test changes of it."""

    path: str
    events: tuple
    addresses: tuple[str, ...] = ("number",)
    state: str = "state"

    @property
    def channel(self) -> str:
        return self.events[0].channels[0]

    def definition(self, dated: str) -> Definition:
        settings = SpacivoxSettings(type="spacivox", url="https://x.example", token=TOKEN, timestamp_is=dated)
        own = next(sort for sort, record in RECORDS.items() if record.events == self.events)
        definition = definition_of(own, settings)
        phone = JsonPath.parse([f"$.{name}" for name in self.addresses])
        return definition.model_copy(
            update={
                "listing": definition.listing.model_copy(update={"path": self.path}),
                "facts": definition.facts.model_copy(update={"phone": phone}),
                "status": definition.status.model_copy(update={"path": JsonPath.parse(f"$.{self.state}")}),
            }
        )


def _record_type(sort: str) -> RecordType:
    definition = definition_of(sort)
    return RecordType(
        definition.listing.path,
        tuple(event_classes(definition).values()),
        ("number", "email") if sort == "email" else ("number",),
    )


RECORDS: dict[str, RecordType] = {sort: _record_type(sort) for sort in SORTS}
VOICEMAIL = RECORDS["voicemail_drop"]


def kind_of(record: RecordType, statuses: dict[str, str], dated: str) -> ItemReader:
    """Return what reads the records of a sort."""
    return ItemReader(record.definition(dated), {}, statuses, scopes="voicemail_drop/")


def observe(_sort: str, _record: RecordType, reader: ItemReader, item):
    return reader.observe(item)


def describe(record: RecordType, dated: str, observation):
    return kind_of(record, {}, dated).describe(observation)


class Memory(ReadableLedger):
    """The ledger, and what the tests read of its events."""

    @property
    def said(self):
        return [(event.subject.rpartition("/")[2], event.topic, str(event.data.transition)) for event in self.events]


@dataclass
class Vendor:
    """Spacivox as its page has it, with what each test makes of it."""

    records: list = field(default_factory=list)
    inclusive: bool = True
    widest: timedelta | None = None
    refusal: int = 504
    broken: set[str] = field(default_factory=set)
    """Days of which nothing can be had."""
    forbidden: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    """Days of which nothing is answered at all."""
    wait: str | None = None
    """The `Retry-After` of a refusal."""
    throttled_at: int = 0
    """The request, counted from 1, that is answered with a wish for fewer."""
    throttled: set[str] = field(default_factory=set)
    """Days of which each request is answered with a wish for fewer."""
    answer: web.Response | None = None
    raw: bytes | None = None
    requests: list[web.Request] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}" or request.path in self.forbidden:
            return web.json_response({"error": "forbidden"}, status=403)
        if self.answer is not None:
            return web.Response(body=self.answer.body, status=self.answer.status, headers=self.answer.headers)
        if not {"start", "end"} <= set(request.query):
            return web.Response(status=400)
        since, until = (datetime.fromisoformat(request.query[name]) for name in ("start", "end"))
        if self._within(self.silent, since, until):
            request.transport.close()
        if self._within(self.throttled, since, until) or len(self.requests) == self.throttled_at:
            return web.Response(status=429)
        return await self._refusal(since, until) or self._listing(request, since, until)

    async def _refusal(self, since, until) -> web.Response | None:
        if self.widest is not None and until - since > self.widest:
            if not self.refusal:
                await asyncio.sleep(30)
            headers = {} if self.wait is None else {"Retry-After": self.wait}
            return web.Response(status=self.refusal, text="<html>too much</html>", headers=headers)
        return web.Response(status=500) if self._within(self.broken, since, until) else None

    @staticmethod
    def _within(days, since, until) -> bool:
        return any(since < datetime.fromisoformat(f"{day}T12:00:00Z") < until for day in days)

    def _listing(self, request, since, until) -> web.Response:
        if self.raw is not None:
            return web.Response(body=self.raw, content_type="application/json")
        return web.json_response([poller for poller in self.records if self._fits(poller, since, until, request.query)])

    def _fits(self, record, since, until, query) -> bool:
        if "team" in query and str(record.get("team")) != query["team"]:
            return False
        when = datetime.fromisoformat(record["timestamp"])
        return since <= when <= until if self.inclusive else since < when < until

    def spans(self) -> list[timedelta]:
        return [
            datetime.fromisoformat(poller.query["end"]) - datetime.fromisoformat(poller.query["start"])
            for poller in self.requests
        ]


def stamp(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def record(number=1, state=0, when=NOW - timedelta(hours=1), /, **more):
    fields = {"campaign": 1, "id": number, "job": 1, "number": "+33612345678", "reference": "123456"}
    return {**fields, "state": state, "team": 1, "timestamp": stamp(when), **more}


@dataclass
class Bridge:
    """A source, the intake before it, and a memory behind it."""

    source: Spacivox
    memory: Memory
    time: ManualTime

    async def poll(self):
        clock = self.time.clock
        return await Intake("drops", "spacivox", self.source, self.memory, clock).poll(Lease("drops", "me", 1, 30))

    async def pages(self) -> list[Page]:
        own = {key: value for key, value in self.memory.entries.items() if not key.startswith("~")}
        return [page async for page in self.source.pages(own, [])]


def _source(respond, time: ManualTime | None = None, **options) -> Spacivox:
    """Return a source whose answers are made without a server: for thousands of polls."""
    time = time or ManualTime(NOW)
    values = {"type": "spacivox", "url": "http://x.example", "token": TOKEN, **options}

    source = Spacivox("drops", SpacivoxSettings.model_validate(values), time.clock)

    async def get(target, params):
        body = respond(datetime.fromisoformat(params["start"]), datetime.fromisoformat(params["end"]))
        if isinstance(body, Exception):
            raise body
        url = URL("http://x.example")
        return Response(f"GET {target}", 200, body, time.now, time.now, url, CIMultiDictProxy(CIMultiDict()))

    source.client.http.get = get
    return source
