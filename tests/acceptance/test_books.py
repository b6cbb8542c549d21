"""The books against a provider that knows the truth: they balance, or name exactly what was withheld."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from harness import bridge, consuming_tail, expected, until, write_config
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from inprocess import Polled, polling

from bridge.cli import main
from bridge.domain.event import event_id
from bridge.reconciliation.comparison import CompareOptions
from bridge.reconciliation.reconciler import Reconciler
from bridge.reconciliation.report import Report
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.ground_truth import status_word
from bridge.testing.fakes import Jumping

pytestmark = pytest.mark.acceptance

HOUR = 3600.0
LIVELY = SimulatorSettings(
    seed=5,
    speed=60.0,
    messages_per_minute=3.0,
    recipients_per_message=20.0,
    drops_per_minute=10.0,
    texts_per_minute=0.0,
    emails_per_minute=0.0,
    sends_per_minute=5.0,
    email_sends_per_minute=0.0,
    late_share=0.05,
    failed_share=0.2,
)
SOURCES = {"city": "govdelivery", "drops": "spacivox", "journeys": "marketingcloud"}


@dataclass
class Setting:
    """A simulated world and its three sources in this process, with a clock that a test moves."""

    simulator: Simulator
    time: Jumping
    sources: dict[str, Polled]
    reports: dict[str, Report] = field(default_factory=dict)

    @property
    def world(self) -> Any:
        return self.simulator.world

    async def poll(self, *names: str) -> None:
        for name in names or self.sources:
            await self.sources[name].poll()

    async def compare(self, name: str, **wanted: Any) -> Report:
        polled = self.sources[name]
        return await Reconciler(name, polled.source, polled.store, self.time.clock).compare(CompareOptions(**wanted))

    async def settle(self, rounds: int = 60) -> dict[str, Report]:
        """Poll hour by hour until nothing new is to be had, and return what a deep comparison finds."""
        quiet = 0
        for _ in range(rounds):
            self.time.ahead += HOUR
            before = [len(await source.events()) for source in self.sources.values()]
            await self.poll()
            moved = before != [len(await source.events()) for source in self.sources.values()]
            failed = any(source.error or source.source.behind for source in self.sources.values())
            quiet = 0 if moved or failed else quiet + 1
            if quiet >= 3:
                break
        return {name: await self.compare(name, deep=True) for name in self.sources}


@asynccontextmanager
async def world(folder: Path, simulated: SimulatorSettings | None = None, *names: str) -> AsyncIterator[Setting]:
    time = Jumping()
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(simulated or SimulatorSettings.still(), time.world))
        sources = {}
        for name in names or SOURCES:
            (folder / name).mkdir(exist_ok=True)
            sources[name] = await stack.enter_async_context(
                polling(name, simulator, folder / name, time.clock, interval="1m")
            )
        yield Setting(simulator, time, sources)


def resources(report: Report, *whats: str) -> set[str]:
    return {difference.resource for difference in report.differences if not whats or difference.what in whats}


# --- they balance -----------------------------------------------------------------------------------------------------


async def test_books_balance_after_many_changes(tmp_path) -> None:
    async with world(tmp_path, LIVELY) as here:
        for _ in range(5):
            here.time.ahead += 5
            await here.poll()
        here.simulator.time.freeze()
        reports = await here.settle()
        books = here.simulator.books()
        assert {name: report.differences for name, report in reports.items()} == {name: [] for name in SOURCES}
        counted = Counter()
        for row in reports["city"].totals().values():
            assert row["provider"] == row["ledger"] == row["events"]
            counted += row["provider"]
        assert counted == Counter(books["govdelivery"]["recipients"]) - Counter()
        (row,) = reports["drops"].totals().values()
        assert sum(row["provider"].values()) == sum(books["spacivox"]["voicemail_drop"].values())
        assert row["provider"] == row["ledger"] == row["events"]
        (row,) = reports["journeys"].totals().values()
        assert row["provider"] == {"not_sent": books["marketingcloud"]["sms"]}


# --- or they name what is withheld ------------------------------------------------------------------------------------


async def test_a_recipient_that_a_page_leaves_out_is_named(tmp_path) -> None:
    async with world(tmp_path, None, "city") as here:
        message = here.world.add_message("sms", 120, status="sending", recipient_status="sending")
        here.simulator.switch_on("skipping_pages", path=r"/recipients\?page=")
        await here.settle()
        # The first of each later page stands on none: nobody can know of it, but the counts do.
        (report,) = (await here.settle()).values()
        assert resources(report, "withheld") == {message.path}
        assert report.differences[0].provider == "120 counted, 119 listed"
        # Once it has a status that has a list of its own, that names it.
        left_out = message.recipient(50)
        here.world.move(left_out, "failed")
        report = await here.compare("city")
        assert resources(report) == {left_out}
        assert [(difference.what, difference.provider, difference.ledger) for difference in report.differences] == [
            ("missing", "failed", None)
        ]
        here.simulator.switch_off()
        (report,) = (await here.settle()).values()
        assert report.balanced


async def test_a_message_that_vanished_is_named_with_its_recipients(tmp_path) -> None:
    async with world(tmp_path, None, "city") as here:
        kept = here.world.add_message("sms", 3, status="completed", recipient_status="sent")
        lost = here.world.add_message("sms", 3, status="completed", recipient_status="sent")
        assert (await here.settle())["city"].balanced
        here.world.remove(lost.path)
        report = await here.compare("city")
        assert resources(report, "gone") == resources(report) == {lost.path, *lost.recipients}
        # Also when the bridge has given up looking for it.
        report = (await here.settle())["city"]
        assert resources(report) == {lost.path, *lost.recipients}
        assert (await here.compare("city", resource=kept.path)).balanced


async def test_inconsistent_provider_counts_are_the_providers_difference(tmp_path) -> None:
    async with world(tmp_path, None, "city") as here:
        message = here.world.add_message("voice", 4, status="completed", recipient_status="failed")
        for index, detail in enumerate(("busy", "no_answer", "could_not_connect")):
            here.world.move(message.recipient(index), "failed", detail=detail)
        here.world.move(message.recipient(3), "sent", detail="human")
        assert (await here.settle())["city"].contradictions == []
        here.simulator.switch_on("counts_do_not_add_up")
        report = await here.compare("city")
        assert report.balanced
        assert "recipients in total and" in report.contradictions[0]
        assert "counts 4 recipients" in report.contradictions[0]


async def test_message_missing_from_every_list_is_named(tmp_path) -> None:
    async with world(tmp_path, None, "city") as here:
        message = here.world.add_message("sms", 2, status="completed", recipient_status="sent")
        report = await here.compare("city")
        assert resources(report) == {message.path, *message.recipients}
        assert (await here.settle())["city"].balanced


async def test_a_record_that_is_shown_no_more_is_named(tmp_path) -> None:
    async with world(tmp_path, None, "drops") as here:
        drops = [here.world.add_drop(state=1) for _ in range(5)]
        assert (await here.settle())["drops"].balanced
        here.world.records["voicemail_drop"].remove(drops[2])
        here.world.move_drop(drops[3], 2)
        report = await here.compare("drops")
        assert resources(report, "gone") == {drops[2].path}
        assert resources(report, "status") == {drops[3].path}


async def test_event_beyond_watermark_and_lost_event_are_named(tmp_path) -> None:
    async with world(tmp_path, None, "journeys") as here:
        await here.poll()
        events = [here.world.add_send_event() for _ in range(3)]
        report = await here.compare("journeys")
        assert resources(report, "missing") == {event.path for event in events}
        await here.poll()
        late = here.world.add_send_event()
        # It comes with a number that the feed had passed already.
        late.number = events[0].number - 1
        here.world.sends["sms"].sort(key=lambda event: event.number)
        report = await here.compare("journeys")
        assert report.balanced
        assert "the provider keeps no counts" in report.remarks[0]
        assert resources(await here.compare("journeys", deep=True)) == {late.path}


# --- as operators and services meet them ------------------------------------------------------------------------------


_runs = itertools.count()


async def run(folder: Path, config: Path, command: str, *arguments: str) -> tuple[int, str]:
    """Run a command to its end; return its exit code and what it answered."""
    with bridge(folder, command, *arguments, "-c", str(config), name=f"{command}-{next(_runs)}") as process:
        return await asyncio.to_thread(process.wait), process.said


async def reconciled(folder: Path, config: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the report of `bridgectl reconcile --json`."""
    code, said = await run(folder, config, "reconcile", *arguments, "--json")
    return code, json.loads(said)


async def test_lasting_difference_is_published_once_and_shown_by_command(tmp_path) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator:
        message = simulator.world.add_message("sms", 60, status="sending", recipient_status="sending")
        sinks = {"screen": {"type": "stdout", "topics": ["bridge.#"]}}
        config = write_config(tmp_path, simulator, reconcile={"every": "300ms"}, sinks=sinks)
        async with consuming_tail(tmp_path, config) as consumer:
            with bridge(tmp_path, "run", "-c", str(config)) as running:
                await until(lambda: len(consumer.events) == 61, "everything was published")
                code, report = await reconciled(tmp_path, config, "city")
                assert (code, report["balanced"], report["sinks"]["screen"]["unaccounted"]) == (0, True, 0)
                simulator.switch_on("skipping_pages", path=r"/recipients\?page=")
                left_out = message.recipient(50)
                simulator.world.move(left_out, "failed")
                await until(lambda: "bridge.books.mismatch" in consumer.topics, "the mismatch is published")
                code, report = await reconciled(tmp_path, config, "city", "--patience", "1s")
                assert code == 1
                assert report["differences"] == [
                    {
                        "resource": left_out, "what": "status", "provider": "failed", "ledger": "sending",
                        "event": "sending", "sink": None,
                    }
                ]  # fmt: skip
                assert "5550" not in json.dumps(report)
                simulator.switch_off()
                simulator.world.move(message.recipient(0), "sent")
                await until(lambda: len(consumer.histories[left_out]) == 2, "the poller has found it")
                assert await asyncio.to_thread(running.stop) == 0
            mismatches = [event for event in consumer.events if event["type"] == "bridge.bridge.books.mismatch"]
            assert [event["subject"] for event in mismatches] == [left_out]
            assert consumer.histories[left_out] == [("sending", None, None), ("failed", "sending", None)]
        code, said = await run(tmp_path, config, "reconcile", "city")
        assert code == 0
        assert "city: the books balance; 1 compared" in said
        assert "all: sms recipient  sending" in said


async def test_the_table_names_what_differs_and_what_was_not_delivered(tmp_path) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator:
        message = simulator.world.add_message("sms", 2, status="completed", recipient_status="sent")
        simulator.world.add_message("sms", 2, status="completed", recipient_status="sent")
        sinks = {"screen": {"type": "stdout", "topics": ["#"]}}
        config = write_config(tmp_path, simulator, sinks=sinks)
        await run(tmp_path, config, "backfill", "city", "--start", "1h")
        simulator.world.move(message.recipient(1), "failed")
        simulator.switch_on("http_500", path=r"^/messages/sms/\d*[02468]\?")
        code, said = await run(tmp_path, config, "reconcile", "city")
        assert code == 1
        lines = said.splitlines()
        row = next(line for line in lines if line.startswith(message.recipient(1)) and "another status" in line)
        assert row.split()[1:4] == ["failed", "sent", "sent"]
        assert sum("the broker has not confirmed its event" in line for line in lines) == 6
        assert any(line.startswith("failed: /messages/sms/") and "500" in line for line in lines)
        assert lines[-1] == "city: 6 resources differ, 1 could not be asked for; 1 compared"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["reconcile", "nobody"], "there is no source 'nobody'"),
        (["reconcile", "drops", "--patience", "long"], "--wait: 'long' is not a duration"),
    ],
)
def test_reconcile_refuses_a_wrong_call_with_the_reason(arguments, says, tmp_path, capsys) -> None:
    config = tmp_path / "bridge.yaml"
    config.write_text("sources: {drops: {type: spacivox, url: 'http://127.0.0.1:9', token: t}}\n")
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "-c", str(config)])
    structlog.reset_defaults()
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


async def test_backfill_during_service_repeats_nothing_and_reverts_nothing(tmp_path) -> None:
    async with Simulator(replace(LIVELY, seed=6, messages_per_minute=1.5, speed=30.0)) as simulator:
        config = write_config(tmp_path, simulator)
        async with consuming_tail(tmp_path, config) as consumer:
            with bridge(tmp_path, "run", "-c", str(config)) as running:
                await until(lambda: len(consumer.events) > 60, "60 events")
                for _ in range(2):
                    fills = await asyncio.gather(
                        *(run(tmp_path, config, "backfill", name, "--start", "1h") for name in SOURCES)
                    )
                    assert [code for code, _ in fills] == [0, 0, 0]
                simulator.time.freeze()
                await until(lambda: not simulator.unseen(), "everything was looked at")
                await until(lambda: len(consumer.ids) >= len(set(consumer.ids)) == committed(tmp_path), "all is heard")
                assert await asyncio.to_thread(running.stop) == 0
        assert len(consumer.ids) == len(set(consumer.ids))
        shown = {subject: [status for status, *_ in history] for subject, history in expected(simulator).items()}
        for subject, history in consumer.histories.items():
            assert is_part_of([status for status, *_ in history], shown[subject]), (history, shown[subject])
            assert [previous for _, previous, _ in history] == [None, *(status for status, *_ in history[:-1])]


def committed(folder: Path) -> int:
    with sqlite3.connect(f"file:{folder / 'state' / 'bridge.db'}?mode=ro", uri=True) as db:
        return int(db.execute("SELECT sum(committed - base) FROM source").fetchone()[0])


def is_part_of(part: list[str], all_: list[str]) -> bool:
    rest = iter(all_)
    return all(item in rest for item in part)


# --- whatever happens -------------------------------------------------------------------------------------------------

ANYWHERE = (
    "http_500", "http_503", "html_page", "empty_body", "truncated_json", "torn_body", "reset", "unauthorized",
    "too_many", "bom", "gzip", "error_in_200", "stale_answer", "duplicated_items", "reversed_items", "null_item",
    "status_null", "unknown_status", "unknown_fields",
)  # fmt: skip
FAULTS = {
    "city": (
        "skipping_pages", "shifted_pages", "born_during_walk", "cancelling_changes", "late_bounce", "regress", "reopen",
        "no_identity", "counts_do_not_add_up", "counts_absent", "counts_null", "not_found", "still_building",
        "page_in_path", "absolute_links", "link_trailing_comma", "cyclic_next", "items_with_id_alone",
        *ANYWHERE,
    ),
    "drops": ("exclusive_ends", "window_413", "window_400", "no_identity", *ANYWHERE),
    "journeys": (
        "inclusive_start", "feed_starts_over", "short_pages", "watermark_absent", "watermark_zero",
        "watermark_backwards", "watermark_null", "watermark_text", "token_refused", "token_expires_early",
        "messages_null", "no_content_204", *ANYWHERE,
    ),
}  # fmt: skip
STATUSES = ("new", "sending", "inconclusive", "blacklisted", "canceled", "sent", "failed")

happenings = st.one_of(
    st.tuples(st.just("poll")),
    st.tuples(st.just("pass"), st.sampled_from([1.0, 90.0, 900.0, HOUR])),
    st.tuples(st.just("born"), st.sampled_from(["sms", "voice"]), st.integers(1, 70)),
    st.tuples(st.just("move"), st.integers(0, 500), st.sampled_from(STATUSES)),
    st.tuples(st.just("message moves"), st.integers(0, 9), st.sampled_from(["queued", "sending", "completed"])),
    st.tuples(st.just("vanish"), st.integers(0, 9)),
    st.tuples(st.just("fault"), st.integers(0, 99), st.sampled_from([0.3, 1.0]), st.sampled_from([1, 3, None])),
    st.tuples(st.just("heal")),
)
BOUNDED = {} if os.environ.get("HYPOTHESIS_PROFILE") == "long" else {"max_examples": 25}


async def happen(here: Setting, name: str, what: tuple[Any, ...], removed: set[str]) -> None:
    """Let one thing happen to the provider of a source, or to the source itself."""
    match what:
        case ["poll"]:
            await here.poll()
        case ["pass", seconds]:
            here.time.ahead += seconds
        case ["heal"]:
            here.simulator.switch_off()
        case ["fault", which, share, limit]:
            names = FAULTS[name]
            here.simulator.switch_on(names[which % len(names)], share=share, limit=limit)
        case ["vanish", which] if name == "city" and (paths := messages(here)):
            path = paths[which % len(paths)]
            removed.update([path, *here.world.find(path)[0].recipients])
            here.world.remove(path)
        case _:
            live(here, name, what)


def live(here: Setting, name: str, what: tuple[Any, ...]) -> None:
    """Let something be born, or move."""
    world = here.world
    match what:
        case ["born", channel, count] if name == "city":
            world.add_message(channel, count)
        case ["born", _, count] if name == "drops":
            for _ in range(count % 10 + 1):
                world.add_drop()
        case ["born", _, count]:
            for _ in range(count):
                world.add_send_event()
        case ["move", which, status] if name == "city" and (everybody := recipients(here)):
            world.move(everybody[which % len(everybody)], status)
        case ["move", which, status] if name == "drops" and (records := world.records["voicemail_drop"]):
            world.move_drop(records[which % len(records)], STATUSES.index(status) % 4)
        case ["message moves", which, status] if name == "city" and (paths := messages(here)):
            world.move(paths[which % len(paths)], status)


def messages(here: Setting) -> list[str]:
    return [message.path for channel in ("sms", "voice") for message in here.world.messages[channel]]


def recipients(here: Setting) -> list[str]:
    return [path for paths in messages(here) for path in here.world.find(paths)[0].recipients]


def present(here: Setting, name: str) -> dict[str, str]:
    """Return the status of each resource as it is in the world now, by the words of the topics."""
    world, now = here.world, here.world.now()
    statuses = {}
    if name == "city":
        for path in (*messages(here), *recipients(here)):
            message, index = world.find(path)
            statuses[path] = (message.state if index is None else message.states[index]).status
    for record in world.records["voicemail_drop"]:
        statuses[record.path] = record.state(now).status
    return {path: status_word(SOURCES[name], path, status) for path, status in statuses.items()}


async def check_ids(polled: Polled) -> dict[str, str]:
    """Hold every event's id, previous status and recorded time against those before it: none is repeated or missing.

    Returns the last published status of each resource.
    """
    before: dict[str, str] = {}
    entered: defaultdict[str, Counter[str]] = defaultdict(Counter)
    ids = set()
    recorded: dict[str, datetime] = {}
    for event in await polled.events():
        data = event.data
        if data.channel == "bridge":
            continue
        assert event.id not in ids
        ids.add(event.id)
        if polled.name != "journeys":
            assert data.previous == before.get(event.subject)
            status = data.status
            if status == "unknown":
                status = f"unknown:{data.provider_status}"
            assert event.id == event_id(event.source, event.subject, status, entered[event.subject][status])
            entered[event.subject][status] += 1
            assert event.subject not in recorded or recorded[event.subject] < event.recordedtime
            recorded[event.subject] = event.recordedtime
        before[event.subject] = data.status
    return before


@given(
    name=st.sampled_from(list(SOURCES)),
    story=st.lists(happenings, min_size=3, max_size=25),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], **BOUNDED)
def test_books_balance_after_any_faults_once_provider_recovers(name, story) -> None:
    async def check(folder: Path) -> None:
        async with world(folder, None, name) as here:
            removed: set[str] = set()
            await happen(here, name, ("born", "sms", 3), removed)
            for what in story:
                await happen(here, name, what, removed)
            here.simulator.switch_off()
            report = (await here.settle())[name]
            note(f"{report.differences} {report.failures} {here.sources[name].problems}")
            assert report.failures == {}
            assert resources(report) <= removed
            assert resources(report, "gone") == resources(report)
            known = await here.sources[name].store.cursor(name)
            assert {path for path in removed if path in known} <= resources(report)
            assert here.simulator.unseen() == []
            statuses = await check_ids(here.sources[name])
            assert {path: statuses.get(path) for path in present(here, name)} == present(here, name)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder)))
