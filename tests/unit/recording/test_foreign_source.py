"""Recordings of a source of somebody else, and of odd answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rigs.recording import (
    GIB,
    NOW,
    everything_on,
    play,
    read,
    reasons,
    recorded,
)

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Transient
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.errors import ProviderError
from bridge.http.limiter import Limiter
from bridge.ingest.poller import describe_unexpected
from bridge.protocols.source import Observation, Page, Probe, Reconcilable
from bridge.recording import Recorder, TapeError, UnmatchedRequest
from bridge.recording.files import polls
from bridge.recording.files import sources as tapes
from bridge.recording.frozen_clock import frozen_clock
from bridge.recording.recorded_source import RecordedSource
from bridge.testing.fakes import ScriptedSource, observe


@dataclass
class Asking(ScriptedSource):
    """A source that asks its provider for paths, one after the other, and shows what time it was meanwhile."""

    client: HttpClient | None = None
    clock: Clock = field(default_factory=Clock)
    paths: Sequence[str] = ()
    seen: list[tuple[Any, ...]] = field(default_factory=list)
    backfill_step: float = 7.0

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        self.problems = []
        self.behind = True
        assert self.client is not None
        for path in self.paths:
            before = self.clock.now(), self.clock.monotonic()
            rng = self.clock.random.random(), self.clock.random.randint(0, 10**9)
            try:
                got = await (self.client.post_json(path, {}) if path == "/v2/token" else self.client.get(path))
                self.seen.append((before, rng, got.asked, got.at, got.unchanged, got.json()))
            except BridgeError as error:
                self.problems.append(str(error))
                self.seen.append((before, rng, type(error), getattr(error, "retry_after", None), str(error)))
            assert self.clock.now() >= before[0]
            await self.clock.sleep(2.5)
            yield Page((observe(path, "new"),), by=self.clock.now())

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        assert self.client is not None
        try:
            self.seen.append(("complete", self.clock.now(), (await self.client.get("/detail")).at))
        except BridgeError as error:
            self.seen.append(("complete", self.clock.now(), str(error)))
        return observations

    def groups(self, cursor: Mapping[str, str], watched: Sequence[str], *, everything: bool) -> AsyncIterator[str]:
        raise NotImplementedError

    async def count(self, group: str, cursor: Mapping[str, str], *, ask: bool) -> None:
        return None

    def members(self, group: str, cursor: Mapping[str, str]) -> None:
        return None


@dataclass
class Far:
    """A provider that answers by path, and counts."""

    answers: dict[str, Callable[[web.Request], web.StreamResponse]]
    asked: Counter[str] = field(default_factory=Counter)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        return self.answers.get(request.path, lambda _: web.json_response({"n": self.asked.total()}))(request)


def tagged(request: web.Request) -> web.Response:
    if request.headers.get("If-None-Match") == '"v1"':
        return web.Response(status=304)
    return web.json_response({"status": "sent"}, headers={"ETag": '"v1"'})


def cut_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


ODD: dict[str, Callable[[web.Request], web.StreamResponse]] = {
    "/tagged": tagged,
    "/large": lambda _: web.Response(body=b"x" * 3_000_000),
    "/cut": cut_off,
    "/later": lambda _: web.Response(status=429, headers={"Retry-After": "3"}),
    "/date": lambda _: web.Response(status=503, headers={"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}),
    "/moved": lambda _: web.Response(status=301),
    "/code": lambda _: web.json_response({"errorcode": 10006, "message": "Ann"}, status=400),
    "/html": lambda _: web.Response(text="<p>Ann</p>"),
    "/nothing": lambda _: web.Response(),
    "/v2/token": lambda _: web.json_response({"access_token": "s3cr3t", "expires_in": 9}),
}
ROUND = ("/tagged", "/tagged", "/cut", "/large", "/moved", "/code", "/html", "/nothing", "/v2/token", "/later", "/date")


@asynccontextmanager
async def asking(paths: Sequence[str], clock: Clock, prefix: str = "") -> AsyncIterator[tuple[Asking, Far]]:
    far = Far({f"{prefix}{path}": answer for path, answer in ODD.items()})
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", far.handle)
    async with TestServer(app) as server:
        limits = HttpLimits(body=2 << 20, retries=1)
        url = f"{server.make_url('/')}{prefix.lstrip('/')}"
        client = HttpClient(url, limiter=Limiter(1000.0, clock), clock=clock, limits=limits)
        try:
            yield Asking(client=client, clock=clock, paths=paths), far
        finally:
            await client.close()


async def drain(source: Any) -> list[Page]:
    return [page async for page in source.pages({"place": "7"}, ["/messages/sms/1"])]


async def replayed(folder: Path, paths: Sequence[str], prefix: str = "") -> tuple[Asking, Far, Any]:
    """Play the tape of `folder` to a new source, poll after poll."""
    from bridge.recording.playback import Playback, ReplayTime, Summary

    (tape,) = tapes(folder).values()
    now, summary = ReplayTime(), Summary()
    clock = frozen_clock(now.clock())
    hooks = Playback("lamp", now, summary)
    async with asking(paths, clock, prefix) as (source, far):
        recorded = RecordedSource(source, hooks)

        async def poll() -> None:
            await drain(recorded)
            await recorded.complete([])

        for step in polls(tape[0]):
            await hooks.play(step, poll())
    return source, far, summary


async def test_every_odd_answer_replays_with_the_same_outcome(tmp_path, time):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)
    async with asking(ROUND, recorder.clock, "/proxy") as (source, _):
        recorded = recorder.record("lamp", "lamp", source)
        for _ in range(2):
            await drain(recorded)
            await recorded.complete([])
            time.ahead += 4000
        assert recorded.behind
        assert recorded.problems == source.problems
    recorder.close()
    again, far, summary = await replayed(tmp_path, ROUND, "/proxy")
    live = [tuple("on tape" if isinstance(part, dict) else part for part in item) for item in source.seen]
    replay = [tuple("on tape" if isinstance(part, dict) else part for part in item) for item in again.seen]
    assert replay == live
    assert [item[-1] for item in again.seen if item[-1] == {"status": "sent"}] == [{"status": "sent"}] * 4
    assert {"access_token": "on-tape", "expires_in": 9, "rest_instance_url": str(again.client.origin)} in [
        item[-1] for item in again.seen
    ]
    assert {item[2] for item in source.seen if isinstance(item[2], type)} >= {ProviderError}
    assert any(item[4] is True for item in source.seen if len(item) == 6)
    assert sum("account was asked for quiet" in str(item[-1]) for item in again.seen) == 2
    assert far.asked == {}
    assert summary.missing == {}
    assert summary.unasked == 0
    assert "Ann" not in everything_on(tmp_path)
    assert "s3cr3t" not in everything_on(tmp_path)


async def test_time_is_frozen_for_the_recorded_source_alone(tmp_path, time):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)
    async with asking(("/a", "/b"), recorder.clock) as (source, _):
        pages = recorder.record("lamp", "lamp", source).pages({}, [])
        page = await anext(pages)
        time.ahead += 100
        assert recorder.clock.now() > page.by + timedelta(seconds=90)
        assert recorder.clock.monotonic() > time.clock.monotonic() - 1
        await pages.aclose()
    first = source.seen[0]
    assert len(source.seen) == 1
    assert page.by == first[3] + timedelta(seconds=2.5)
    recorder.close()


async def test_request_forbidden_by_lost_lease_ends_the_poll(tmp_path, time, monkeypatch):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)

    async def lost(*_: object) -> None:
        raise LeaseLost("the lease has ended")

    async with asking(("/a",), recorder.clock) as (source, _):
        recorded = recorder.record("lamp", "lamp", source)
        monkeypatch.setattr(Asking, "pages", _breaking_off)
        monkeypatch.setattr(HttpClient, "_ask", lost)
        with pytest.raises(LeaseLost):
            await drain(recorded)
    recorder.close()
    (poll,) = read(tmp_path)
    assert [line["line"] for line in poll.course] == ["step"]
    assert not poll.whole
    again, _, summary = await _played_to_the_end(tmp_path)
    assert again.seen == []
    assert summary.missing == {}


async def _breaking_off(source: Asking, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
    del cursor, watched
    assert source.client is not None
    await source.client.get("/a")
    yield Page((), by=NOW)


async def _played_to_the_end(folder: Path) -> tuple[Asking, Far, Any]:
    from bridge.recording.playback import RecordingExhausted

    with pytest.raises(RecordingExhausted):
        await replayed(folder, ("/a",))
    from bridge.recording.playback import Summary

    return Asking(), Far({}), Summary()


async def test_token_kept_from_before_the_recording_is_not_missing(tmp_path, time):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)
    async with asking(("/a", "/b"), recorder.clock) as (source, _):
        recorded = recorder.record("lamp", "lamp", source)
        await drain(recorded)
        await recorded.complete([])
    recorder.close()
    again, _, summary = await replayed(tmp_path, ("/v2/token", "/b", "/a"))
    assert again.problems == []
    assert [item[-1] for item in again.seen[1:3]] == [{"n": 2}, {"n": 1}]
    assert summary.missing == {}
    again, _, summary = await replayed(tmp_path, ("/b", "/c", "/b"))
    assert again.problems == ["GET /c: the tape has no answer to it"]
    assert again.seen[0][-1] == again.seen[2][-1] == {"n": 2}
    assert summary.missing == {UnmatchedRequest("lamp", "GET", "/c"): 1}
    assert summary.unasked == 1


async def test_a_source_on_tape_can_do_what_it_could_before(tmp_path, time):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)
    async with asking((), recorder.clock) as (source, _):
        recorded = recorder.record("lamp", "lamp", source)
        assert isinstance(recorded, Reconcilable)
        assert recorded.backfill_step == 7.0
        assert recorded.retention == source.retention
        source.polls = [[Page((), by=NOW)]]
        assert [page.by async for page in recorded.backfill(NOW, NOW)] == [
            page.by async for page in source.backfill(NOW, NOW)
        ]
        assert recorded.resource("/x/1") == source.resource("/x/1")
        assert isinstance(await recorded.probe(), Probe)
        await recorded.close()
    plain = recorder.record("plain", "lamp", ScriptedSource([[Transient("away")]]))
    assert not isinstance(plain, Reconcilable)
    with pytest.raises(Transient, match="away"):
        await drain(plain)
    recorder.close()
    (poll,) = read(tmp_path)
    assert poll.cursor == {"place": "7"}
    assert poll.watched == ["/messages/sms/1"]
    assert poll.whole
    assert '"error":"away"' in everything_on(tmp_path)


async def test_source_that_replaces_another_begins_a_run(tmp_path, time):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)
    for status in ("away", "busy"):
        plain = recorder.record("plain", "lamp", ScriptedSource([[Transient(status)]]))
        with pytest.raises(Transient, match=status):
            await drain(plain)
    recorder.close()
    assert len(tapes(tmp_path)["plain"]) == 2
    assert len(read(tmp_path)) == 2


async def test_cursor_is_recorded_only_if_answers_cannot_rebuild_it(tmp_path, time):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)
    turns = [[Page((), by=NOW, cursor={"a": "1", "b": "2"})], [Page((), by=NOW, cursor={"a": None})], []]
    recorded = recorder.record("lamp", "lamp", ScriptedSource(turns))
    for cursor in ({}, {"a": "1", "b": "2"}, {"b": "3"}):
        async for _ in recorded.pages(cursor, []):
            pass
    recorder.close()
    assert [poll.cursor for poll in read(tmp_path)] == [{}, None, {"b": "3"}]


async def test_source_defect_replays_with_the_same_report(tmp_path, time, monkeypatch):
    simulator, life = await recorded(tmp_path, time, rounds=1)
    del simulator

    async def broken(*_: object) -> None:
        raise KeyError("+16515551000")
        yield

    monkeypatch.setattr("bridge.sources.spacivox.source.Spacivox.pages", broken)
    events, replay = await play(tmp_path, life.config)
    assert {event["source"] for event in events} == {"/govdelivery/city", "/marketingcloud/journeys"}
    assert [reason.partition(" at ")[0] for reason in reasons(replay)] == ["drops: the source failed with KeyError"]


async def test_source_defect_is_reported_with_its_location_only(tmp_path, time):
    recorder = Recorder(tmp_path, time.clock, limit=GIB)
    broken = KeyError("+16515551000")
    recorded = recorder.record("lamp", "lamp", ScriptedSource([[broken]]))
    with pytest.raises(KeyError):
        await drain(recorded)
    recorder.close()
    text = everything_on(tmp_path)
    assert f'"error":"{describe_unexpected(broken).partition(" at ")[0]}' in text
    assert "6515551000" not in text


async def test_defect_during_replay_is_raised_and_blocks_nobody(tmp_path, time, monkeypatch):
    _, life = await recorded(tmp_path, time, rounds=1)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bridge.recording.player.Playback._asks_for", broken)
    _, replay = await play(tmp_path, life.config)
    assert {reason.split(": ", 1)[1].partition(" at ")[0] for reason in reasons(replay)} == {
        "the source failed with ZeroDivisionError"
    }


async def test_a_poll_that_no_tape_has_is_refused():
    from bridge.recording.playback import Playback, ReplayTime, Summary

    with pytest.raises(TapeError, match="lamp: a poll that is not on the tape"):
        await drain(RecordedSource(ScriptedSource(), Playback("lamp", ReplayTime(), Summary())))
