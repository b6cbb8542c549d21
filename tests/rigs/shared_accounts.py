"""Six accounts with two lists each, and an endpoint: a record moves on only when its status has arrived there.

So nothing may be passed over, whoever is killed: each status of each record has to arrive, under one id.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import yaml
from aiohttp import web

from bridge.testing.fake_endpoint import FakeEndpoint

STATUSES = ("queued", "sending", "sent", "delivered")
ACCOUNTS, LISTS = 6, 2
DEFINITION = {
    "definition": 1,
    "title": "Records of a test account",
    "docs": ["https://records.example/docs"],
    "settings": {
        "list": {"about": "Which list is read."},
        "token": {"about": "The account's token.", "type": "secret"},
    },
    "auth": {"bearer": "token"},
    "budget": {"rate": "4/s"},
    "listing": {"path": "/{list}/records", "items": "$.records"},
    "window": {
        "start": {"param": "after", "format": "iso"}, "end": {"param": "before", "format": "iso"},
        "lookback": "2h", "slice": "24h",
    },
    "identity": {"key": "$.id", "subject": "/records/{id}"},
    "times": {"created": {"path": "$.created_at"}},
    "status": {
        "path": "$.state",
        "map": {status: status for status in STATUSES},
        "follows": {status: [after] for status, after in itertools.pairwise(STATUSES)},
        "finals": [STATUSES[-1]],
    },
    "events": {"provider": "records", "channel": "sms", "entity": "message"},
}  # fmt: skip


@dataclass
class RecordList:
    """One list of one account, which one source reads."""

    account: str
    records: int
    """How many records move at once."""
    states: dict[str, int] = field(default_factory=dict)
    """How far each record has come, by its id."""
    polled_at: list[float] = field(default_factory=list)
    made: int = 0
    is_frozen: bool = False

    def answer(self, created: str) -> dict[str, Any]:
        while len(self.states) < self.records and not self.is_frozen:
            self.made += 1
            self.states[f"r{self.made}"] = 0
        shown = [
            {"id": name, "state": STATUSES[state], "created_at": created} for name, state in self.states.items()
        ]  # fmt: skip
        return {"records": shown}

    def arrived(self, record: str, status: str) -> None:
        """Let a record move on whose present status has arrived."""
        state = self.states.get(record)
        if state is None or STATUSES[state] != status or self.is_frozen:
            return
        if state + 1 < len(STATUSES):
            self.states[record] = state + 1
        else:
            del self.states[record]


@dataclass
class SharedAccounts:
    """The provider and the endpoint in one; use it with `async with`."""

    records: int = 4
    lists: dict[str, RecordList] = field(default_factory=dict)
    asked_at: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When requests of each account arrived, in monotonic seconds."""
    ids: dict[tuple[str, str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    """The ids under which each status of each record arrived."""
    times: Counter[str] = field(default_factory=Counter)
    """How often each id arrived."""

    async def __aenter__(self) -> Self:
        self.lists = {
            f"a{account}-{number}": RecordList(f"a{account}", self.records)
            for account in range(ACCOUNTS)
            for number in range(LISTS)
        }
        self._created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self.provider, self.endpoint = FakeEndpoint(default=self._list), FakeEndpoint(default=self._receive)
        await self.provider.start()
        await self.endpoint.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.provider.stop()
        await self.endpoint.stop()

    async def _list(self, request: web.BaseRequest) -> web.StreamResponse:
        asked, now = self.lists[request.path.split("/")[1]], time.monotonic()
        assert request.headers["Authorization"] == f"Bearer {asked.account}"
        asked.polled_at.append(now)
        self.asked_at[asked.account].append(now)
        return web.json_response(asked.answer(self._created))

    async def _receive(self, request: web.BaseRequest) -> web.StreamResponse:
        event = json.loads(await request.read())
        source, record = event["source"].rpartition("/")[2], event["subject"].rpartition("/")[2]
        self.times[event["id"]] += 1
        self.ids[source, record, event["data"]["status"]].add(event["id"])
        self.lists[source].arrived(record, event["data"]["status"])
        return web.Response()

    def configuration(self, folder: Path, store: str, broker: str, *, interval: str, rate: str, **values: Any) -> Path:
        """Write the configuration of twelve sources and one sink."""
        (folder / "records.yaml").write_text(yaml.safe_dump(DEFINITION))
        sources = {
            name: {
                "type": "rest", "provider": "./records.yaml", "url": self.provider.url, "list": name,
                "token": known.account, "interval": interval, "rate": rate,
            }
            for name, known in self.lists.items()
        }  # fmt: skip
        sink = {
            "type": "webhook", "topics": ["sms.#"], "url": f"{self.endpoint.url}/hook", "allow_private": True,
            "retry": ["200ms"] * 200,
        }  # fmt: skip
        path = folder / "bridge.yaml"
        config = {
            "state": str(folder / "state"), "http": {"listen": None}, "store": store, "broker": broker,
            "sources": sources, "sinks": {"crm": sink}, **values,
        }  # fmt: skip
        path.write_text(yaml.safe_dump(config))
        return path

    def freeze(self) -> None:
        """Let no record move any more."""
        for known in self.lists.values():
            known.is_frozen = True

    @property
    def lost(self) -> list[tuple[str, str, str]]:
        """The present statuses, and those before them, that have not arrived."""
        due = []
        for source, known in self.lists.items():
            for number in range(1, known.made + 1):
                reached = known.states.get(f"r{number}", len(STATUSES) - 1)
                due += [(source, f"r{number}", status) for status in STATUSES[: reached + 1]]
        return [transition for transition in due if not self.ids[transition]]

    @property
    def renamed(self) -> list[tuple[str, str, str]]:
        """Statuses that arrived under several ids."""
        return [transition for transition, ids in self.ids.items() if len(ids) > 1]

    @property
    def most_in_a_second(self) -> int:
        """The most requests of one account within any second."""
        return max(_most_in_a_second(times) for times in self.asked_at.values())

    def gaps(self, since: float = 0.0) -> dict[str, float]:
        """Return the longest time without a poll of each source, from `since` until now, in seconds."""
        now = time.monotonic()
        gaps = {}
        for source, known in self.lists.items():
            moments = [since, *(at for at in known.polled_at if at > since), now]
            gaps[source] = max(after - before for before, after in itertools.pairwise(moments))
        return gaps


def _most_in_a_second(times: list[float]) -> int:
    most = first = 0
    for count, at in enumerate(times, 1):
        while times[first] <= at - 1.0:
            first += 1
        most = max(most, count - first)
    return most
