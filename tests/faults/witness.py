"""A webhook's far side that remembers what it took, and compares it with what the providers have shown."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from typing import Any, Self

from aiohttp import web
from harness import expected

from bridge.simulator import Simulator
from bridge.testing.fake_endpoint import FakeEndpoint

Transition = tuple[str, str | None, str | None]


class Witness:
    """Use it with `async with`; `receiver.url` is where events go. While `gate` is closed, it takes and never answers."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()
        """How often it took each id."""
        self.bodies: dict[str, bytes] = {}
        self.changed: list[str] = []
        """Ids that came with other bytes the second time."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.receiver = FakeEndpoint(default=self._answer)

    async def __aenter__(self) -> Self:
        await self.receiver.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        await self.receiver.stop()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        await self.gate.wait()
        event_id, body = request.headers["webhook-id"], await request.read()
        if self.bodies.setdefault(event_id, body) != body:
            self.changed.append(event_id)
        self.times[event_id] += 1
        return web.Response()

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the providers' resources did, each once; not what the bridge said of itself."""
        read = [json.loads(body) for body in self.bodies.values()]
        return [event for event in read if event["data"]["channel"] != "bridge"]

    @property
    def histories(self) -> dict[str, list[Transition]]:
        histories: dict[str, list[Transition]] = defaultdict(list)
        for event in self.events:
            data = event["data"]
            histories[event["subject"]].append((data["status"], data["previous"], data["detail"]))
        return dict(histories)

    @property
    def repeated(self) -> dict[str, int]:
        """What it took more than once, and how often."""
        return {event_id: count for event_id, count in self.times.items() if count > 1}

    def missing(self, simulator: Simulator) -> dict[str, Any]:
        """Return the resources of which it received something else than was shown, in whatever order."""
        shown, received = expected(simulator), self.histories
        return {
            subject: {"shown": shown.get(subject), "received": received.get(subject)}
            for subject in {*shown, *received}
            if Counter(shown.get(subject, ())) != Counter(received.get(subject, ()))
        }

    def broken(self, simulator: Simulator) -> dict[str, Any]:
        """Return the resources whose story is not the one that was shown; see `broken`."""
        return broken(self.events, simulator)

    def sink(self, **values: Any) -> dict[str, Any]:
        """Return the settings of a webhook sink that brings everything here."""
        return {
            "type": "webhook",
            "topics": ["#"],
            "url": self.receiver.url,
            "allow_private": True,
            "retry": ["200ms"] * 200,
            **values,
        }


def broken(events: list[dict[str, Any]], simulator: Simulator) -> dict[str, Any]:
    """Return the resources whose story is not the one that was shown, apart from what was passed over.

    What is shown to a process that cannot write it down any more, because it or its store is killed at that moment, is
    passed over if the next answer says something else, as what happens between two polls is. Then the next event says
    what it comes from, and every resource's last status is told.
    """
    published: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
    # As texts, which is how many a consumer will compare them.
    for event in sorted({event["id"]: event for event in events}.values(), key=lambda event: event["recordedtime"]):
        if event["data"]["channel"] != "bridge":
            published[event["subject"]].append((event["data"]["status"], event["data"]["previous"]))
    shown = expected(simulator)
    return {
        subject: {"shown": shown.get(subject), "published": published.get(subject)}
        for subject in {*shown, *published}
        if not _follows([event[0] for event in shown.get(subject, ())], published.get(subject, []))
    }


def _follows(shown: list[str], published: list[tuple[str, str | None]]) -> bool:
    """Say whether `published` is `shown` with some left out, ends as it does, and each one names the one before it."""
    rest = iter(shown)
    statuses = [status for status, _ in published]
    chained = [previous for _, previous in published] == [None, *statuses[:-1]]
    return bool(published) and chained and all(status in rest for status in statuses) and statuses[-1] == shown[-1]
