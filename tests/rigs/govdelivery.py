"""A GovDelivery account that answers what each test says, and the bridge's source before it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from aiohttp import web

from bridge.domain.event import Observed
from bridge.domain.lifecycle import classify
from bridge.sources.govdelivery import GovDelivery
from bridge.testing.fakes import ManualTime

TOKEN = "s3cr3t"
START = datetime(2014, 10, 7, 18, 0, tzinfo=UTC)


@dataclass
class Tms:
    """The provider: what stands at each path, as JSON or as a response."""

    time: ManualTime
    at: dict[str, object] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    url: str = ""
    dated: bool = True
    takes: dict[str, float] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        self.tokens.append(request.headers.get("X-AUTH-TOKEN", ""))
        self.time.seconds += self.takes.get(request.path, 0.0)
        what = self.at.get(request.path_qs, self.at.get(request.path))
        if callable(what):
            what = what()
        match what:
            case None:
                response = web.json_response({"error": "Not Found"}, status=404)
            case int() as status:
                response = web.json_response({"error": "no"}, status=status)
            case tuple((body, link)):
                response = web.json_response(body, headers={"Link": link})
            case web.Response():
                response = what
            case str() as text:
                response = web.Response(text=text, content_type="application/json")
            case body:
                response = web.json_response(body)
        if self.dated:
            response.headers["Date"] = format_datetime(self.time.now, usegmt=True)
        return response

    def message(self, path: str, status: str = "sending", **fields) -> dict[str, object]:
        """Put a message at its path, with counts of nobody."""
        value = {"status": status, "created_at": stamp(START), "_links": {"self": path}} | fields
        self.at[path] = value
        return value

    def people(self, message: str, *people: dict[str, object]) -> None:
        """Put recipients below a message, and their counts into it."""
        self.at[f"{message}/recipients"] = list(people)
        counts: dict[str, int] = {"total": len(people)}
        for person in people:
            counts[person["status"]] = counts.get(person["status"], 0) + 1
        self.at[message]["recipient_counts"] = counts

    def count(self, path: str) -> int:
        return sum(asked.partition("?")[0] == path for asked in self.asked)


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def person(message: str, number: int, status: str = "new", **fields) -> dict[str, object]:
    return {
        "phone": f"651555{number:04}",
        "formatted_phone": f"+1651555{number:04}",
        "status": status,
        "created_at": stamp(START),
        "_links": {"self": f"{message}/recipients/{number}"},
    } | fields


@dataclass
class Bridge:
    """What the intake does with a source, as far as these tests need it."""

    tms: Tms
    source: GovDelivery
    cursor: dict[str, str] = field(default_factory=dict)
    histories: dict[tuple[str, str], str] = field(default_factory=dict)
    events: list[tuple] = field(default_factory=list)
    observed: int = 0
    pages: int = 0
    baseline: bool = False
    started: bool = False

    async def poll(self, *watched: str) -> list[tuple]:
        """Poll once; return the events that came of it as (topic, subject)."""
        before = len(self.events)
        async with aclosing(self.source.pages(dict(self.cursor), watched)) as pages:
            async for page in pages:
                self.pages += 1
                await self._commit(page)
        self.started = True
        return [event[:2] for event in self.events[before:]]

    async def _commit(self, page) -> None:
        news = []
        for observation in page.observations:
            self.observed += 1
            key = (observation.scope, observation.key)
            silent = self.baseline and (not self.started or (page.backlog and key not in self.histories))
            change = classify(observation.kind.lifecycle, self.histories.get(key), observation.status)
            if change is not None:
                news += [] if silent else [(observation, change)]
                self.histories[key] = change.history
        awaiting = [observation for observation, _ in news if observation.awaits_detail]
        completed = dict(zip(map(id, awaiting), await self.source.complete(awaiting), strict=True))
        for observation, change in news:
            self._publish(completed.get(id(observation), observation), change, page)
        for key, value in page.cursor.items():
            if value is None:
                self.cursor.pop(key)
            else:
                self.cursor[key] = value

    def _publish(self, observation, change, page) -> None:
        facts = observation.kind.describe(observation)
        words = [
            observation.kind.channel,
            observation.kind.entity,
            change.status,
            *([observation.detail] if observation.detail else []),
        ]
        data = facts.model(
            channel=observation.kind.channel,
            status=change.status,
            previous=change.previous,
            detail=observation.detail,
            transition=change.transition,
            observed=Observed(after=page.after, by=page.by),
            **facts.fields,
        )
        if change.status != "unknown":
            cls = observation.kind.events[change.status]
            event = cls.of(
                id="x", source="/govdelivery/x", subject=facts.subject, time=facts.time or page.by,
                recordedtime=page.by, data=data,
            )  # fmt: skip
            assert event.topic == ".".join(words)
            assert TOKEN not in event.model_dump_json()
        self.events.append((".".join(words), facts.subject, facts, data))

    def later(self, seconds: float) -> None:
        self.tms.time.seconds += seconds


S1, S2, V1 = "/messages/sms/1", "/messages/sms/2", "/messages/voice/1"


def listing(*messages: Mapping[str, object]) -> list[object]:
    return list(messages)


def made(number: int, ago: float, status: str = "completed", channel: str = "sms", **fields) -> dict[str, object]:
    created = START - timedelta(seconds=ago)
    return {
        "status": status,
        "created_at": stamp(created),
        "completed_at": stamp(created + timedelta(seconds=60)) if status == "completed" else None,
        "_links": {"self": f"/messages/{channel}/{number}"},
    } | fields


def put(tms: Tms, *messages: dict[str, object]) -> None:
    for message in messages:
        path = message["_links"]["self"]
        tms.at[path] = message | {"recipient_counts": {"total": 0}}
        tms.at[f"{path}/recipients"] = []


def topics(events: list[tuple]) -> list[str]:
    return sorted(subject for _, subject in events)


HOUR = 3600.0
