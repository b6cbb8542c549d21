"""A backfill's steps, interruptions, and its command."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from harness import until, write_config
from hypothesis import given
from hypothesis import strategies as st
from rigs.backfill import AT, DAY, intake, journal, page

from bridge.adapters.sqlite.store import SqliteStore
from bridge.cli import main
from bridge.cli.commands.backfill import _Lines, _progress
from bridge.cli.commands.backfill import _room as _room_of
from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.domain.errors import Conflict, Transient, Unauthorized
from bridge.ingest.backfill import Backfill, BackfillProgress, grid_steps, merge_spans, uncovered
from bridge.protocols.ledger import JournalState
from bridge.protocols.source import Page
from bridge.runtime.assembly import Assembly
from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fakes import ScriptedSource, observe

HOUR = timedelta(hours=1)
moments = st.integers(0, 500).map(lambda hours: AT + hours * HOUR)
spans = st.tuples(moments, moments).filter(lambda span: span[0] < span[1])


@given(spans, st.lists(spans, max_size=6), st.sampled_from([None, 3600.0, 86400.0, 7 * 86400.0]))
def test_steps_cover_exactly_what_was_not_done(span, done, size) -> None:
    def hours(spans) -> set[datetime]:
        return {
            begin + step * HOUR
            for begin, other in spans
            for step in range(int((other - begin).total_seconds() // 3600))
        }

    parts = [step for part in uncovered(*span, done) for step in grid_steps(*part, size)]
    assert sum(int((other - begin) / HOUR) for begin, other in parts) == len(hours(parts))
    assert hours(parts) == hours([span]) - hours(done)
    assert parts == sorted(parts)
    assert hours(merge_spans([*done, *parts])) == hours([span, *done])
    assert all(before[1] < after[0] for before, after in zip(merge_spans(done), merge_spans(done)[1:], strict=False))
    if size is not None:
        assert all((other - begin).total_seconds() <= size for begin, other in parts)


def test_the_grid_stays_put_from_run_to_run() -> None:
    assert list(grid_steps(AT, AT + DAY, 86400.0)) == [
        (AT, AT + 12 * HOUR),
        (AT + 12 * HOUR, AT + DAY),
    ]


@dataclass
class Past(ScriptedSource):
    """A source with one resource for each hour, which notes what it was asked for."""

    backfill_step: float = 86400.0
    asked: list[datetime] = field(default_factory=list)
    fails: dict[datetime, list[Exception]] = field(default_factory=dict)
    odd: set[datetime] = field(default_factory=set)
    """Starts of steps in which single resources cannot be read."""

    async def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        self.asked.append(start)
        self.problems = ["/messages/sms/1: HTTP 500; run the backfill again for it"] if start in self.odd else []
        moment = start
        while moment < end:
            yield Page([observe(str(int((moment - AT) / HOUR) + 10_000), "sent")], AT)
            if moment == start and self.fails.get(start):
                raise self.fails[start].pop(0)
            moment += HOUR


@dataclass
class Run:
    """A backfill on a store, whose waits are noted and take no time."""

    store: SqliteStore
    source: Past
    waits: list[float] = field(default_factory=list)
    reported: list[BackfillProgress] = field(default_factory=list)
    full: list[str] = field(default_factory=list)
    now: datetime = AT

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    async def room(self) -> str | None:
        return self.full.pop(0) if self.full else None

    async def run(self, start: datetime = AT - 4 * DAY, end: datetime = AT, **options: bool) -> BackfillProgress:
        clock = Clock(now=lambda: self.now, sleep=self.sleep)
        work = Backfill(
            "city", intake(self.store, self.source), self.source, self.store, clock,
            room=self.room, on_progress=lambda state: self.reported.append(replace(state)),
        )  # fmt: skip
        return await work.run(start, end, **options)


@pytest.fixture
def backfill(store: SqliteStore) -> Run:
    return Run(store, Past())


async def test_range_is_read_in_steps_with_progress(backfill) -> None:
    filled = await backfill.run()
    assert (filled.observed, filled.events) == (96, 96)
    assert len(backfill.source.asked) == 5
    shares = [state.covered / (96 * 3600) for state in backfill.reported]
    assert shares[0] == 0
    assert shares[-1] == 1
    assert shares == sorted(shares)
    assert {state.events for state in backfill.reported} == set(range(97))


async def interrupted(backfill: Run, after: int) -> None:
    """Run until so many events were made, and press Ctrl-C."""
    running = asyncio.ensure_future(backfill.run())
    while not backfill.reported or backfill.reported[-1].events < after:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_interrupted_run_resumes_without_repeating_events(backfill) -> None:
    await interrupted(backfill, after=40)
    backfill.source.asked.clear()
    filled = await backfill.run()
    assert backfill.source.asked == [AT - 2.5 * DAY, AT - 1.5 * DAY, AT - 0.5 * DAY]
    assert filled.resumed == 1.5 * 86400
    assert len(await journal(backfill.store)) == 96


async def test_range_that_advanced_after_an_interruption_resumes(backfill) -> None:
    await interrupted(backfill, after=40)
    backfill.source.asked.clear()
    await backfill.run(AT - 4 * DAY + HOUR, AT + HOUR)
    assert backfill.source.asked == [AT - 2.5 * DAY, AT - 1.5 * DAY, AT - 0.5 * DAY]


@pytest.mark.parametrize("how", ["the same range once more", "a day later", "restart"])
async def test_what_was_read_is_read_again_when_that_is_meant(backfill, how) -> None:
    if how == "the same range once more":
        await backfill.run()
    else:
        await interrupted(backfill, after=40)
    if how == "a day later":
        backfill.now += DAY + HOUR
    backfill.source.asked.clear()
    filled = await backfill.run(restart=how == "restart")
    assert len(backfill.source.asked) == 5
    assert filled.resumed == 0


async def test_failed_step_is_retried_after_the_providers_wait(backfill) -> None:
    step = AT - 2.5 * DAY
    backfill.source.fails[step] = [Transient("HTTP 503", retry_after=90), Transient("HTTP 503"), Conflict("changed")]
    filled = await backfill.run()
    assert filled.events == 96
    assert backfill.source.asked.count(step) == 4
    assert backfill.waits[0] == 90
    assert all(0 < wait <= 4 for wait in backfill.waits[1:])
    assert any(state.waits == "HTTP 503; tried again in 90 s" for state in backfill.reported)
    assert backfill.reported[-1].waits is None


@pytest.mark.parametrize(("error", "tries"), [(Transient("HTTP 500"), 6), (Unauthorized("the token was refused"), 1)])
async def test_permanent_failure_is_raised_and_next_run_resumes(backfill, error, tries) -> None:
    step = AT - 2.5 * DAY
    backfill.source.fails[step] = [error] * 6
    with pytest.raises(type(error)):
        await backfill.run()
    assert backfill.source.asked.count(step) == tries
    backfill.source.fails.clear()
    backfill.source.asked.clear()
    await backfill.run()
    assert backfill.source.asked[0] == step


async def test_only_a_step_with_problems_is_read_again(backfill) -> None:
    step = AT - 2.5 * DAY
    backfill.source.odd.add(step)
    filled = await backfill.run()
    assert filled.problems == ["/messages/sms/1: HTTP 500; run the backfill again for it"]
    assert filled.covered == 96 * 3600
    backfill.source.odd.clear()
    backfill.source.asked.clear()
    assert (await backfill.run()).problems == []
    assert backfill.source.asked == [step]


async def test_a_full_journal_is_waited_for(backfill) -> None:
    backfill.full = ["50,001 events wait for the broker"] * 3
    await backfill.run()
    assert backfill.waits == [1.0] * 3
    assert [state.waits for state in backfill.reported].count("50,001 events wait for the broker") == 3


async def test_source_without_steps_is_read_in_one(store) -> None:
    source = ScriptedSource([[page(observe("1", "new"))]])
    work = Backfill("city", intake(store, source), source, store, Clock(now=lambda: AT), room=_room)
    filled = await work.run(AT - 4 * DAY, AT)
    assert (filled.observed, source.cursors) == (1, [{}])


async def _room() -> str | None:
    return None


@dataclass
class World:
    """Simulated records of two days, and a configuration to read them by."""

    simulator: Simulator
    folder: Path
    config: Path

    async def bridge(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command; return its exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bridge", *arguments, "-c", str(self.config), cwd=self.folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with Simulator(SimulatorSettings.still()) as simulator:
        now = simulator.world.now()
        for hours in range(48):
            simulator.world.add_drop(state=1, at=now - 3600 * (hours + 0.5))
        yield World(simulator, tmp_path, write_config(tmp_path, simulator))


async def test_the_command_publishes_a_past_range_once(world) -> None:
    code, out, err = await world.bridge("backfill", "drops", "--start", "24h", "--json")
    said = json.loads(out)
    assert code == 0
    assert (said["events"], said["left_to_the_poller"], said["problems"], said["resumed"]) == (24, 0, [], False)
    assert "    0%  0 looked at, 0 new events" in err
    assert "no service relays now; the events wait in the journal until" in err
    code, out, err = await world.bridge("backfill", "drops", "--start", "24h")
    assert (code, out.partition(" looked at, ")[2]) == (0, "0 new events\n")
    assert "no service relays" not in err


async def test_the_command_asks_at_the_rate_that_it_is_given(world) -> None:
    world.simulator.world.add_drop(state=1)
    code, _, _ = await world.bridge("backfill", "drops", "--start", "40h", "--rate", "2/s")
    times = world.simulator.traffic["spacivox"].times
    assert code == 0
    assert len(times) >= 2
    assert all(later - earlier > 0.4 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["backfill", "nobody", "--start", "2h"], "there is no source 'nobody'"),
        (["backfill", "drops", "--start", "2h", "--end", "3h"], "is not before --until"),
        (["backfill", "drops", "--start", "2099-01-01T00:00:00Z"], "is not before --until"),
        (["backfill", "drops", "--start", "0001-01-01T00:00:00Z"], "begin at 1970-01-01T00:00:00Z or later"),
        (["backfill", "drops", "--start", "2h", "--rate", "fast"], "--rate: 'fast' is not a rate"),
        (["backfill", "drops"], "--since"),
    ],
)
def test_backfill_refuses_a_wrong_call_with_the_reason(arguments, says, tmp_path, capsys) -> None:
    config = tmp_path / "bridge.yaml"
    config.write_text("sources: {drops: {type: spacivox, url: 'http://127.0.0.1:9', token: t}}\n")
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "-c", str(config)])
    structlog.reset_defaults()
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


async def test_unreadable_part_is_reported_and_fails_the_run(world) -> None:
    message = world.simulator.world.add_message("sms", 2)
    world.simulator.switch_on("not_found", path=f"{message.path}/recipients")
    code, out, err = await world.bridge("backfill", "city", "--start", "2h")
    assert (code, out) == (1, "city: 1 looked at, 1 new event\n")
    assert f"{message.path}/recipients: 404" in err
    assert "run the backfill again for it" in err
    world.simulator.switch_off()
    code, out, _ = await world.bridge("backfill", "city", "--start", "2h")
    assert (code, out) == (0, "city: 3 looked at, 2 new events\n")


async def test_ctrl_c_ends_it_and_the_same_command_goes_on(world) -> None:
    world.simulator.switch_on("never_answers", limit=1, path="start=" + _day(world.simulator.world.now()))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", "backfill", "drops", "--start", "40h", "-c", str(world.config),
        cwd=world.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    await until(lambda: world.simulator.board.applied["never_answers"], "it waits for today's records")
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130, err.decode()
    assert b"the same command goes on from there" in err
    code, out, _ = await world.bridge("backfill", "drops", "--start", "40h", "--json")
    assert code == 0
    assert json.loads(out)["resumed"]


def _day(now: float) -> str:
    # One record is read twice where neighbouring days overlap by a second.
    midnight = datetime.fromtimestamp(now // 86400 * 86400 - 1, UTC)
    return f"{midnight:%Y-%m-%dT%H}"


def test_a_terminal_shows_a_bar(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with _progress(Clock().monotonic) as report:
        report(
            BackfillProgress(AT - DAY, AT, (AT - DAY, AT), covered=43200.0, observed=1200, events=3, waits="HTTP 503")
        )
    assert "2026-02-28T12:00:00Z" in terminal.getvalue()
    assert "1,200 looked at, 3 new events; HTTP 503" in terminal.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_lines_tell_of_each_step_and_of_each_wait(monkeypatch, capsys) -> None:
    now = 0.0
    lines = _Lines(lambda: now)
    state = BackfillProgress(AT - DAY, AT, (AT - DAY, AT))
    lines.print_progress(state)
    state.observed = 10
    lines.print_progress(state)
    now = 11.0
    lines.print_progress(state)
    state.waits = "HTTP 503; tried again in 3 s"
    lines.print_progress(state)
    assert capsys.readouterr().err.splitlines() == [
        "2026-02-28T12:00:00Z    0%  0 looked at, 0 new events",
        "2026-02-28T12:00:00Z    0%  10 looked at, 0 new events",
        "2026-02-28T12:00:00Z    0%  10 looked at, 0 new events; HTTP 503; tried again in 3 s",
    ]


@pytest.mark.parametrize(("backlog", "size", "says"), [(50_001, 0, "wait for the broker"), (1, 10**9 + 1, "its bound")])
async def test_it_holds_back_as_polling_does(store, tmp_path, backlog, size, says) -> None:
    config = tmp_path / "bridge.yaml"
    config.write_text("sources: {city: {type: govdelivery, token: t}}\n")
    room = _room_of(Assembly(load(config)), store, "city")
    assert await room() is None
    full = replace(await store.journal("city"), committed=backlog, bytes=size)

    async def journal(_: str) -> JournalState:
        return full

    store.journal = journal
    assert says in await room()
