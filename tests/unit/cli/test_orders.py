"""`bridgectl poll` and `bridgectl takeover` without a running service: what they say, and what they leave behind."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from bridge.adapters.sqlite.roster import SqliteRoster
from bridge.config.loading import load
from bridge.domain.installation import Mark
from bridge.domain.namespace import Namespace
from bridge.protocols.roster import Member, StartedPoll
from bridge.runtime.assembly import Assembly


def test_poll_that_nobody_begins_is_withdrawn(bridge, file: Path) -> None:
    done = bridge("poll", "lamps", "--wait", "0.3", "-c", file)
    assert done.code == 1
    assert "lamps: not polled: no process polls it" in done.out

    async def left() -> dict[str, str]:
        async with Assembly(load(file)).opened_store() as store:
            return dict((await store.orders()).polls)

    assert asyncio.run(left()) == {}


def test_poll_that_its_holder_does_not_begin_names_the_holder(bridge, file: Path) -> None:
    async def hold(**note: str) -> None:
        async with Assembly(load(file)).opened_store() as store:
            await store.acquire("source/lamps", "host-1:7", 600.0)
            await store.set_status("source/lamps", note)

    asyncio.run(hold(state="ok"))
    assert "host-1:7 has not begun it" in bridge("poll", "lamps", "--wait", "0.3", "-c", file).out
    asyncio.run(hold(state="held", error="the account changed"))
    assert "host-1:7 holds it: the account changed" in bridge("poll", "lamps", "--wait", "0.3", "-c", file).out


def test_poll_tells_what_came_of_it(bridge, file: Path, monkeypatch) -> None:
    """A process begins the poll as soon as it is asked for, and notes its end."""
    ends = {"state": "ok", "observed": "3", "events": "2", "last_poll": "2099-01-01T00:00:00Z"}

    original = SqliteRoster.request_poll

    async def begin(self, source: str, request: str) -> None:
        await original(self, source, request)
        process = Member("host-1:7", "host-1", 7, ("poll",), "0", "g", 0.0)
        await self.announce(process, 5.0, [StartedPoll(source, request, "host-1:7", 1.0)])
        await self.set_status(f"source/{source}", ends)

    monkeypatch.setattr(SqliteRoster, "request_poll", begin)
    assert "lamps: polled by host-1:7: 3 looked at, 2 events" in bridge("poll", "lamps", "-c", file).out
    ends["state"], ends["error"] = "failing", "no answer"
    said = json.loads(bridge("poll", "lamps", "--json", "-c", file).out)
    assert (said["begun"], said["state"], said["error"]) == (True, "failing", "no answer")
    ends["last_poll"] = "1970-01-01T00:00:00Z"
    assert "host-1:7 polls it; the poll goes on" in bridge("poll", "lamps", "--wait", "0.5", "-c", file).out


def test_takeover_of_what_is_ours_changes_nothing(bridge, file: Path) -> None:
    done = bridge("takeover", "-c", file)
    assert (done.code, done.err) == (0, "")
    assert done.out.count("no mark") == 2
    assert "there is nothing to take over" in done.out


def test_takeover_of_a_foreign_broker_needs_an_answer(bridge, file: Path) -> None:
    foreign = Mark.new(Namespace())

    async def mark(*, store: bool) -> None:
        parts = Assembly(load(file))
        async with parts.opened_store() as own, parts.opened_broker() as broker:
            await (own.claim_for(Mark.new(Namespace())) if store else broker.claim_for(foreign))

    asyncio.run(mark(store=True))
    asyncio.run(mark(store=False))
    asked = bridge("takeover", "-c", file)
    assert asked.code == 2
    assert f"installation {foreign.id}" in asked.out
    assert "--yes" in asked.err
    accepted = bridge("takeover", "--yes", "-c", file)
    assert accepted.code == 0
    assert "taken over: installation " in accepted.out
    assert foreign.id not in accepted.out.splitlines()[-1]
    assert "there is nothing to take over" in bridge("takeover", "-c", file).out
