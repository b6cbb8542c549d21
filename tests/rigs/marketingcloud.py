"""A Marketing Cloud account that answers what each test says, and the bridge's source before it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiohttp import web
from rigs.readable_ledger import ReadableLedger

from bridge.ingest.intake import Intake
from bridge.protocols.ledger import Lease
from bridge.sources.marketingcloud import (
    MarketingCloud,
)
from bridge.testing.fakes import ManualTime

EXAMPLE = """{"lastEventID": 35774, "count": 1, "messages": [{"statusCode": 24, "statusMessage": "…",
       "eventCategoryType": "TransactionalSendEvents.SMSNotSent", "timestamp": "2018-12-17T13:05:40.947",
       "definitionKey": "account-reset", "eventID": 35760, "info": {"messageKey": "…", "contactKey": "…"}}]}"""
SECRET = "cl13nt-s3cr3t"
NOW = datetime(2018, 12, 17, 20, 0, tzinfo=UTC)
PATH = "/messaging/v1/sms/messages/"


class Memory(ReadableLedger):
    """The ledger, and what the tests read of its events."""

    @property
    def numbers(self) -> list[int]:
        return [event.data.event_id for event in self.events]


def sent(number, category="SMSNotSent", when="2018-12-17T13:05:40.947", **more):
    info = {"messageKey": f"m-{number}", "contactKey": f"c-{number}", "to": "+16515551000"}
    return {
        "statusCode": 24,
        "statusMessage": "on a list",
        "eventCategoryType": f"TransactionalSendEvents.{category}",
        "timestamp": when,
        "definitionKey": "account-reset",
        "eventID": number,
        "info": info,
        **more,
    }


@dataclass
class Vendor:
    """Marketing Cloud as its pages have it, with what each test makes of it."""

    events: list = field(default_factory=list)
    inclusive: bool = False
    watermark: str = "beyond"
    """`beyond` the page's events, `echo` of the question, `absent`, `zero`, or `held` at `low`."""
    low: int = 0
    page: int | None = None
    """The most events on a page, whatever is asked."""
    empty: str = "list"
    feed: list[web.Response | bytes] = field(default_factory=list)
    """Answers to give before any other."""
    refused: set[str] = field(default_factory=set)
    token: dict | None = None
    token_answer: tuple[int, str] | None = None
    hold: asyncio.Event | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    tokens: list[dict] = field(default_factory=list)
    valid: set[str] = field(default_factory=set)
    requests: list[web.Request] = field(default_factory=list)
    url: str = ""

    async def give_token(self, request: web.Request) -> web.Response:
        self.tokens.append(await request.json())
        self.asked.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.token_answer is not None:
            return web.Response(status=self.token_answer[0], text=self.token_answer[1])
        text = f"token-{len(self.tokens)}"
        self.valid.add(f"Bearer {text}")
        granted = {"access_token": text, "token_type": "Bearer", "expires_in": 1079, "rest_instance_url": self.url}
        return web.json_response(granted | (self.token or {}))

    async def give_events(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        if request.headers.get("Authorization") not in self.valid:
            return web.Response(status=401, text='{"message": "Not Authorized", "errorcode": 0}')
        if request.path in self.refused:
            return web.Response(status=403)
        if self.feed:
            answer = self.feed.pop(0)
            return answer if isinstance(answer, web.Response) else web.Response(body=answer)
        return self.answer(request)

    def answer(self, request: web.Request) -> web.Response:
        after = int(request.query.get("lastEventId", 0))
        size = min(int(request.query["$pageSize"]), self.page or 10_000)
        rest = [event for event in self.events if event["eventID"] > after - self.inclusive]
        shown = rest[:size]
        if not shown and self.empty != "list":
            return {
                "null": lambda: web.json_response({"lastEventID": None, "count": 0, "messages": None}),
                "absent": lambda: web.json_response({"count": 0}),
                "none": lambda: web.Response(status=204),
                "zero": lambda: web.json_response({"lastEventID": 0, "count": 0, "messages": []}),
            }[self.empty]()
        highest = max((event["eventID"] for event in shown), default=after)
        state = {
            "beyond": {"lastEventID": highest if len(rest) > size else max(highest, after)},
            "echo": {"lastEventID": after},
            "absent": {},
            "zero": {"lastEventID": 0},
            "held": {"lastEventID": self.low},
        }[self.watermark]
        return web.json_response({"count": len(shown), "messages": shown, **state})

    def places(self) -> list[int | None]:
        return [
            int(request.query["lastEventId"]) if "lastEventId" in request.query else None for request in self.requests
        ]


@dataclass
class Bridge:
    """A source, the intake before it, and a memory behind it."""

    source: MarketingCloud
    memory: Memory
    time: ManualTime

    async def poll(self):
        clock = self.time.clock
        intake = Intake("journeys", "marketingcloud", self.source, self.memory, clock)
        return await intake.poll(Lease("journeys", "me", 1, 30))
