"""The books of one source: what differs is named, what is under way is not blamed, and each difference is said once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from catalogue import CATALOGUE
from hypothesis import given
from hypothesis import strategies as st
from inprocess import polling

from bridge.adapters.sqlite.store import SqliteStore
from bridge.cli.commands.reconcile import _print, _reporter, mask_path, plain
from bridge.domain.catalogue import BooksMismatch, Catalogue
from bridge.domain.clock import Clock
from bridge.domain.errors import LeaseLost, NotReady, Permanent, Transient, Unauthorized, Unavailable
from bridge.ingest.intake import Intake
from bridge.protocols.deliveries import NewDelivery
from bridge.protocols.ledger import Commit, Key, StatusChange
from bridge.protocols.source import GroupCounts, Observation, Page, Statistics
from bridge.reconciliation.comparison import CompareOptions
from bridge.reconciliation.monitor import PendingMismatch, ReconciliationMonitor, decide
from bridge.reconciliation.reconciler import Reconciler
from bridge.reconciliation.report import Difference, Report
from bridge.simulator import Simulator, SimulatorSettings
from bridge.sources.govdelivery import reconciliation
from bridge.sources.govdelivery.lifecycles import kinds
from bridge.sources.govdelivery.state import MessageState, SweepTimes
from bridge.testing.fakes import KIND, Jumping, ScriptedSource, observe

AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
GROUP = "/messages/sms/1"


def subject(name: str) -> str:
    return f"{GROUP}/recipients/{name}"


@dataclass
class Accounts(ScriptedSource):
    """A source whose provider counts one group and lists who is in it."""

    has: dict[str, str] = field(default_factory=dict)
    """What the provider shows: statuses by name."""
    counts: Mapping[str, int] | None = None
    """What it counts, where that is something else."""
    total: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """Further fields of the answer."""
    error: Exception | None = None
    remembers: bool = False
    """Whether the polls have learnt the counts."""
    named: tuple[str, ...] = (GROUP,)
    asked: list[str] = field(default_factory=list)

    async def groups(
        self, cursor: Mapping[str, str], watched: Sequence[str], *, everything: bool
    ) -> AsyncIterator[str]:
        assert not [name for name in cursor if name.startswith("~")]
        for name in (*self.named, *watched, *(["/messages/sms/old"] if everything else [])):
            yield name

    async def count(self, group: str, cursor: Mapping[str, str], *, ask: bool) -> GroupCounts | None:
        if ask or not self.remembers:
            self.asked.append(group)
            if self.error is not None:
                raise self.error
        counts: dict[str, int] = {}
        for status in self.has.values():
            counts[status] = counts.get(status, 0) + 1
        total = len(self.has) if self.total is None else self.total
        given = {"scope": GROUP, "counts": counts if self.counts is None else self.counts, "total": total}
        return GroupCounts(group, AT, KIND, subject, **(given | self.facts))

    async def members(self, group: str, cursor: Mapping[str, str]) -> AsyncGenerator[Page, None]:
        self.asked.append(f"{group}/recipients")
        for name, status in self.has.items():
            yield Page([observe(name, status)], AT)


class Waiting:
    """A clock whose waits take no time, and during which something may happen."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.happens: list[Any] = []
        self.clock = Clock(
            now=lambda: AT + timedelta(seconds=self.seconds), monotonic=lambda: self.seconds, sleep=self.sleep
        )

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        if self.happens:
            await self.happens.pop(0)()
        await asyncio.sleep(0)


class Books:
    """One source's books on a store."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.source = Accounts()
        self.time = Waiting()
        self.published = True

    async def saw(self, **statuses: str) -> None:
        """Let the service see some recipients, by name with a leading `r`."""
        page = Page([observe(name[1:], status) for name, status in statuses.items()], AT, None, {"k": "v"})
        lease = await self.store.acquire("source/city", "service", 1e6)
        intake = Intake("city", "govdelivery", ScriptedSource([[page]]), self.store, self.time.clock)
        await intake.poll(lease)

    def reconciler(self) -> Reconciler:
        return Reconciler("city", self.source, self.store, self.time.clock, published=self.published)

    async def compare(self, **wanted: Any) -> Report:
        return await self.reconciler().compare(CompareOptions(**wanted))

    async def settle(self, *, max_wait: float = 0.0, **sinks: Sequence[str]) -> Report:
        wanted = CompareOptions(max_wait=max_wait)
        report = await self.compare()
        await self.reconciler().settle(report, wanted, self.store, sinks)
        return report

    async def confirm(self, count: int) -> None:
        lease = await self.store.acquire("relay/city", "service", 1e6)
        await self.store.confirm(lease, "city", (await self.store.journal("city")).base + count)


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    store = SqliteStore(tmp_path / "bridge.db", clock=Clock(now=lambda: AT))
    await store.open()
    yield Books(store)
    await store.close()


def named(report: Report) -> list[tuple[str, str, str | None, str | None, str | None]]:
    return [
        (
            difference.resource.removeprefix(f"{GROUP}/recipients/"),
            difference.what,
            difference.provider,
            difference.ledger,
            difference.event,
        )
        for difference in report.differences
    ]


# --- provider, ledger, events -----------------------------------------------------------------------------------------


async def test_books_that_agree_balance_at_one_request(books) -> None:
    await books.saw(r1="new", r2="sent")
    books.source.has = {"1": "new", "2": "sent"}
    report = await books.compare()
    assert report.balanced
    assert books.source.asked == [GROUP]
    (row,) = report.totals().values()
    assert row["provider"] == row["ledger"] == row["events"] == {"new": 1, "sent": 1}


async def test_differing_resource_is_named_with_both_sides(books) -> None:
    await books.saw(r1="new", r2="sent", r4="sending")
    books.source.has = {"1": "new", "2": "failed", "3": "sent"}
    report = await books.compare()
    assert sorted(named(report)) == [
        ("2", "status", "failed", "sent", "sent"),
        ("3", "missing", "sent", None, None),
        ("4", "gone", None, "sending", "sending"),
    ]
    assert not report.balanced


async def test_errors_that_cancel_out_are_found_by_looking_deep(books) -> None:
    await books.saw(r1="sent", r2="failed")
    books.source.has = {"1": "failed", "2": "sent"}
    assert (await books.compare()).balanced
    assert len((await books.compare(deep=True)).differences) == 2


async def test_counts_that_contradict_each_other_are_the_providers_own_difference(books) -> None:
    await books.saw(r1="sent", r2="failed")
    books.source.has = {"1": "sent", "2": "failed"}
    books.source.counts, books.source.total = {"sent": 3, "failed": 1}, 2
    books.source.facts = {"contradictions": ["counts 2 recipients in total and 4 by status"]}
    report = await books.compare()
    assert report.balanced
    assert report.contradictions == [f"{GROUP}: counts 2 recipients in total and 4 by status"]
    assert books.source.asked == [GROUP, f"{GROUP}/recipients"]


async def test_what_is_counted_and_stands_on_no_list_is_withheld(books) -> None:
    await books.saw(r1="sent", r2="sending")
    books.source.has = {"1": "sent"}
    books.source.counts, books.source.total = {"sent": 3}, 3
    report = await books.compare()
    assert named(report) == [
        ("2", "withheld", None, "sending", "sending"),
        (GROUP, "withheld", "3 counted, 1 listed", "1 known", None),
    ]
    assert books.source.asked.count(f"{GROUP}/recipients") == 4


async def test_missing_group_is_named_with_its_known_resources(books) -> None:
    await books.saw(r1="sent", r2="failed")
    books.source.facts = {"not_found": True, "counts": None}
    assert [(resource, what, ledger) for resource, what, _, ledger, _ in named(await books.compare())] == [
        (GROUP, "gone", None), ("1", "gone", "sent"), ("2", "gone", "failed"),
    ]  # fmt: skip


async def test_the_group_itself_is_compared_too(books) -> None:
    await books.saw(r1="sent")
    books.source.has = {"1": "sent"}
    books.source.facts = {"shown": [observe("2", "sent")]}
    assert named(await books.compare()) == [("2", "missing", "sent", None, None)]


async def test_unknown_status_is_compared_by_its_raw_value(books) -> None:
    await books.saw(r1="throttled", r2="throttled")
    books.source.has = {"1": "throttled", "2": "paused"}
    books.source.counts = {"unknown": 1}
    assert named(await books.compare()) == [("2", "status", "unknown", "unknown", "unknown")]


async def test_occurrences_that_are_marked_are_compared_by_their_marks(books) -> None:
    def marked(mark: str) -> Observation:
        return replace(observe("1", "failed"), occurrence_id=mark)

    lease = await books.store.acquire("source/city", "service", 1e6)
    page = Page([marked("a")], AT)
    await Intake("city", "mc", ScriptedSource([[page]]), books.store, books.time.clock).poll(lease)
    books.source.facts = {"scope": None, "counts": None, "total": None, "shown": [marked("a")]}
    assert (await books.compare()).balanced
    books.source.facts["shown"] = [marked("b")]
    assert named(await books.compare()) == [("1", "missing", "failed", "failed", "failed")]


async def test_without_scope_nothing_unlisted_is_reported_missing(books) -> None:
    await books.saw(r3="sent", r5="sent", r6="sent", r9="sent", rkey="sent")
    books.source.has = {"3": "sent", "6": "failed"}
    books.source.facts = {"scope": None, "counts": None, "total": None, "needs_full_read": True}
    report = await books.compare()
    assert named(report) == [("6", "status", "failed", "sent", "sent")]
    assert report.groups[0].provider == {"sent": 1, "failed": 1}


async def test_the_events_are_held_against_the_ledger(books) -> None:
    await books.saw(r1="sent", r2="sent")
    keys = [Key(GROUP, "1"), Key(GROUP, "3")]
    before = await books.store.last_seen("city", keys, 60)
    changes = [StatusChange(key, was, "f") for key, was in zip(keys, before, strict=True)]
    await books.store.commit(None, Commit("city", changes))
    books.source.has = {"1": "failed", "2": "sent", "3": "failed"}
    assert named(await books.compare()) == [
        ("1", "event", None, "failed", "sent"),
        ("3", "event", None, "failed", None),
    ]


@pytest.mark.parametrize(
    ("why", "says"),
    [
        ("trimmed", "the journal keeps events for a limited time"),
        ("baseline", "a first start recorded them as its baseline"),
    ],
)
async def test_what_the_journal_cannot_tell_is_said_and_no_difference(books, why, says) -> None:
    books.source.has = {"1": "sent"}
    if why == "baseline":
        books.published = False
        await books.store.commit(None, Commit("city", [StatusChange(Key(GROUP, "1"), None, "e")]))
    else:
        await books.saw(r1="sent")
        await books.confirm(1)
        await books.store.trim("city", (await books.store.journal("city")).committed + 1)
    report = await books.compare()
    assert report.balanced
    assert report.remarks == [f"1 resources have no event in the journal: {says}"]


async def test_one_resource_or_group_can_be_compared_alone(books) -> None:
    books.source.has = {"1": "sent", "10": "sent"}
    books.source.named = (GROUP, "/messages/sms/2")
    assert len((await books.compare()).differences) == 4
    books.source.asked.clear()
    assert [resource for resource, *_ in named(await books.compare(resource=subject("1")))] == ["1"]
    assert "/messages/sms/2" not in books.source.asked
    books.source.asked.clear()
    await books.compare(resource="/messages/sms/77")
    assert books.source.asked[0] == "/messages/sms/77"


async def test_what_is_followed_no_longer_is_compared_when_asked_for(books) -> None:
    await books.store.watch("city", "/messages/sms/9")
    await books.compare(everything=True)
    assert books.source.asked == [GROUP, "/messages/sms/9", "/messages/sms/old"]


async def test_a_group_that_fails_stops_none_of_the_others(books) -> None:
    books.source.error = Transient("HTTP 500")
    report = await books.compare()
    assert (report.failures, report.balanced) == ({GROUP: "HTTP 500"}, False)
    books.source.error = NotReady("still being built")
    report = await books.compare()
    assert report.balanced
    assert report.remarks == [f"{GROUP}: not compared: still being built"]


class WithStatistics(Accounts):
    """A source whose provider counts over all groups as well."""

    shown_statistics: Statistics | Exception

    async def statistics(self, cursor: Mapping[str, str]) -> Sequence[Statistics]:
        if isinstance(self.shown_statistics, Exception):
            raise self.shown_statistics
        return [self.shown_statistics]


STATISTICS = Statistics("sms recipient", AT - timedelta(hours=71), AT, total=1204, known=1204, groups=31)


@pytest.mark.parametrize("total", [1204, 1207])
async def test_provider_totals_are_shown_with_known_totals(books, capsys, total) -> None:
    books.source = WithStatistics()
    books.source.shown_statistics = replace(STATISTICS, total=total)
    report = await books.settle()
    assert report.balanced, "nobody can be named, and what the hours mean is not documented"
    assert plain(report)["surveys"] == [{
        "of": "sms recipient", "start": "2026-02-26T13:00:00Z", "end": "2026-03-01T12:00:00Z", "provider": total,
        "known": 1204, "groups": 31,
    }]  # fmt: skip
    _print(report)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "statistics" in line]
    assert f"{total:,} sms recipients, 1,204 in 31 known messages" in line
    assert ("bridge watch" in line) is (total != 1204)
    assert (await books.compare(resource=GROUP)).statistics == []
    assert (await books.compare(use_cached_counts=True)).statistics == []


async def test_unavailable_statistics_are_reported_and_stop_nothing(books) -> None:
    books.source = WithStatistics()
    for error in (Transient("HTTP 500"), Unauthorized("HTTP 403")):
        books.source.shown_statistics = error
        report = await books.compare()
        assert report.remarks == [f"the provider's statistics: {error}"]
        assert (report.balanced, len(report.groups)) == (True, 1)
    books.source.shown_statistics = Unavailable("the store is away")
    with pytest.raises(Unavailable):
        await books.compare()


async def test_account_statistics_are_compared_with_the_same_hours(tmp_path) -> None:
    time = Jumping()
    async with (
        Simulator(SimulatorSettings.still(), time.world) as simulator,
        polling("city", simulator, tmp_path, time.clock, interval="1m") as city,
    ):
        hour = simulator.time.now() // 3600 * 3600
        for hours, recipients in ((2, 3), (5, 4), (-1, 9), (100, 7)):
            # One of this hour, which is not over, and one that is older than what is followed, are in no statistics.
            at = hour - hours * 3600 + 5 if hours > 0 else simulator.time.now()
            simulator.world.add_message("sms", recipients, status="completed", recipient_status="sent", at=at)
        await city.poll()
        cursor = await city.store.cursor("city")
        (statistics,) = await city.source.statistics(cursor)
        assert (statistics.label, statistics.total, statistics.known, statistics.groups) == ("sms recipient", 7, 7, 2)
        assert statistics.end.timestamp() == hour
        assert statistics.end - statistics.start == timedelta(hours=71)

        simulator.world.add_message("sms", 2, status="completed", recipient_status="failed", at=hour - 3600)
        (statistics,) = await city.source.statistics(cursor)
        assert (statistics.total, statistics.known) == (9, 7)

        assert not await city.source.statistics({}), "nothing is known of these hours"
        simulator.switch_on("http_410", path="/statistics")
        assert not await city.source.statistics(cursor), "this account has none"
        assert simulator.board.applied["http_410"] == 1


@pytest.mark.parametrize("error", [Unauthorized("the token was refused"), Unavailable("the store is away")])
async def test_what_concerns_everything_is_raised(books, error) -> None:
    books.source.error = error
    with pytest.raises(type(error)):
        await books.compare()


async def test_a_source_that_keeps_no_account_says_so(books) -> None:
    reconciler = Reconciler("city", ScriptedSource(), books.store, books.time.clock)
    with pytest.raises(Permanent, match="there is nothing to compare"):
        await reconciler.compare(CompareOptions())


async def test_indescribable_resource_is_named_by_its_group(books) -> None:
    def describe(_: Observation) -> Any:
        raise KeyError("phone")

    broken = replace(KIND, describe=describe)
    books.source.facts = {"shown": [observe("5", "sent", kind=broken)]}
    assert named(await books.compare()) == [("5", "missing", "sent", None, None)]


# --- what is under way ------------------------------------------------------------------------------------------------


async def test_what_the_next_poll_brings_is_no_difference(books) -> None:
    await books.saw(r1="sending", r2="sending")
    books.source.has = {"1": "sent", "2": "failed", "3": "new"}

    async def poll() -> None:
        await books.saw(r1="sent", r2="sent", r3="new")

    books.time.happens = [poll]
    assert (await books.compare(max_wait=5.0)).balanced
    assert books.time.seconds == 0.5


async def test_waiting_for_convergence_ends(books) -> None:
    books.source.has = {"1": "sent"}
    assert named(await books.compare(max_wait=2.0)) == [("1", "missing", "sent", None, None)]
    assert books.time.seconds == 2.0


async def test_status_changing_during_comparison_is_left_to_the_poller(books) -> None:
    await books.saw(r1="sending")
    books.source.has = {"1": "failed"}
    read, calls = books.store.last_seen, []

    async def last_seen(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            books.store.last_seen = read
            await books.saw(r1="sent")
        return await read(*arguments)

    books.store.last_seen = last_seen
    assert (await books.compare()).balanced


# --- broker and sinks -------------------------------------------------------------------------------------------------


async def test_what_the_broker_has_not_confirmed_is_named(books) -> None:
    await books.saw(r1="new", r2="new")
    books.source.has = {"1": "new", "2": "new"}
    await books.confirm(1)
    assert named(await books.settle()) == [("2", "unconfirmed", None, None, "new")]


async def test_unknown_events_are_named_but_waiting_and_dead_are_not(books) -> None:
    await books.saw(r1="new", r2="new", r3="new", r4="new")
    books.source.has = dict.fromkeys("1234", "new")
    await books.confirm(4)
    positions = [entry.position for entry in await books.store.read("city", 0, 9)]
    await books.store.enqueue("crm", [NewDelivery(position) for position in positions[:3]], 0.0)
    await books.store.settle("crm", positions[:1])
    await books.store.dead_letter("crm", positions[1], "permanent", None)
    report = await books.settle(crm=["#"], calls=["voice.#"])
    assert named(report) == [("4", "undelivered", None, None, "new")]
    assert report.differences[0].sink == "crm"
    counts = report.sinks["crm"].counts
    assert (counts.delivered, counts.waiting, counts.dead, report.sinks["crm"].unaccounted) == (1, 1, 1, 1)
    assert report.sinks["calls"].unaccounted == 0


async def test_events_on_their_way_get_time_to_arrive(books) -> None:
    await books.saw(r1="new")
    books.source.has = {"1": "new"}

    async def relay() -> None:
        await books.confirm(1)

    async def deliver() -> None:
        positions = [entry.position for entry in await books.store.read("city", 0, 9)]
        await books.store.accept("crm", [NewDelivery(position) for position in positions], AT.timestamp() + 60)

    books.time.happens = [relay, deliver]
    report = await books.settle(max_wait=5.0, crm=["#"])
    assert report.balanced
    assert (books.time.seconds, report.journal.backlog) == (1.0, 0)


async def test_an_empty_journal_has_nothing_to_settle(books) -> None:
    report = await books.settle(crm=["#"])
    assert report.balanced
    assert report.sinks["crm"].unaccounted == 0


# --- the service's own look -------------------------------------------------------------------------------------------


names = st.sampled_from("abc")
differences = st.builds(
    Difference, names, st.just(GROUP), st.sampled_from(["status", "missing"]), st.sampled_from(["sent", "failed"])
)


@given(st.lists(st.lists(differences, max_size=4, unique_by=lambda difference: difference.resource), max_size=8))
def test_difference_in_two_consecutive_runs_is_published_once(runs) -> None:
    known: dict[str, PendingMismatch] = {}
    said = []
    for number, differing in enumerate(runs):
        decision = decide(known, differing, str(number))
        said += [(number, resource, difference.provider, difference.what) for resource, difference in decision.news]
        for resource, difference in decision.kept.items():
            if difference is None:
                del known[resource]
            else:
                known[resource] = PendingMismatch.load(difference.dump())
    expected = []
    for resource in "abc":
        run = 0
        before = None
        for number, differing in enumerate(runs):
            now = next(
                ((difference.provider, difference.what) for difference in differing if difference.resource == resource),
                None,
            )
            run = run + 1 if now is not None and now == before else 1
            before = now
            if now is not None and run == 2:
                expected.append((number, resource, *now))
    assert sorted(said) == sorted(expected)


class Keeping:
    """A bookkeeper, called after each poll as the service does."""

    def __init__(self, books: Books, *, every: float = 3600.0) -> None:
        self.books = books
        self.woken: list[int] = []
        self.keeper = ReconciliationMonitor(
            "city", "/govdelivery/city", books.reconciler(), books.store, books.time.clock,
            every=every, committed=self.woken.append,
        )  # fmt: skip

    async def check(self, *, after: float = 3600.0) -> list[str]:
        """Let time pass, run, and return the resources for which a mismatch was published so far."""
        self.books.time.seconds += after
        lease = await self.books.store.acquire("source/city", "service", 1e6)
        await self.keeper.check(lease)
        entries = await self.books.store.read("city", 0, 999)
        events = [Catalogue(CATALOGUE).read(entry.event.body) for entry in entries]
        self.published = [event for event in events if isinstance(event, BooksMismatch)]
        return [event.subject for event in self.published]


async def test_the_service_says_once_what_two_looks_find(books) -> None:
    await books.saw(r1="sent")
    books.source.has = {"1": "failed"}
    keeping = Keeping(books)
    assert [await keeping.check() for _ in range(5)] == [[], [], [subject("1")], [subject("1")], [subject("1")]]
    (event,) = keeping.published
    assert (event.topic, event.source) == ("bridge.books.mismatch", "/govdelivery/city")
    assert (event.data.what, event.data.provider_says, event.data.ledger_says) == ("status", "failed", "sent")
    assert event.data.since == AT + timedelta(hours=2)
    assert keeping.woken


async def test_a_difference_that_healed_is_news_when_it_comes_again(books) -> None:
    await books.saw(r1="sent")
    keeping = Keeping(books)
    for status in ("sent", "failed", "failed", "sent", "failed", "failed"):
        books.source.has = {"1": status}
        await keeping.check()
    assert await keeping.check() == [subject("1")] * 2
    assert len({event.id for event in keeping.published}) == 2


async def test_run_reads_only_where_cached_counts_differ(books) -> None:
    await books.saw(r1="sent")
    books.source.remembers, books.source.has = True, {"1": "sent"}
    keeping = Keeping(books)
    for _ in range(3):
        await keeping.check()
    assert books.source.asked == []
    books.source.has = {"1": "failed"}
    assert await keeping.check() == []
    assert books.source.asked == [GROUP, f"{GROUP}/recipients"]


async def test_runs_keep_their_interval_over_restarts(books) -> None:
    keeping = Keeping(books)
    await keeping.check()
    for _ in range(3):
        await keeping.check(after=900)
        await Keeping(books).check(after=0)
    assert books.source.asked == []
    await Keeping(books).check(after=900)
    await keeping.check(after=0)
    assert books.source.asked == [GROUP]


async def test_unavailable_provider_is_neither_right_nor_wrong(books) -> None:
    await books.saw(r1="sent")
    books.source.has = {"1": "failed"}
    keeping = Keeping(books)
    for _ in range(3):
        await keeping.check()
    for error in (Transient("HTTP 500"), Unauthorized("the token was refused")):
        books.source.error = error
        await keeping.check()
    books.source.error = None
    assert await keeping.check() == [subject("1")]


async def test_differences_beyond_number_are_not_all_published(books) -> None:
    books.source.has = {str(number): "sent" for number in range(150)}
    keeping = Keeping(books)
    for _ in range(3):
        await keeping.check()
    assert len(keeping.published) == 100


async def test_lasting_difference_among_many_is_published_once(books) -> None:
    old = {str(number): "sent" for number in range(100)}
    keeping = Keeping(books)
    for crowd in ({}, {}, {}, {str(number): "sent" for number in range(100, 160)}, {}, {}):
        books.source.has = crowd | old
        await keeping.check()
    assert sorted(event.subject for event in keeping.published) == sorted(subject(name) for name in old)


async def test_a_look_without_the_lease_writes_nothing(books) -> None:
    keeping = Keeping(books)
    lease = await books.store.acquire("source/city", "service", 1e6)
    await books.store.release(lease)
    with pytest.raises(LeaseLost):
        await keeping.keeper.check(lease)


# --- the providers' own accounts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "details", "ours", "total", "contradictions"),
    [
        ({"total": 3, "sent": 2, "failed": 1, "new": 0}, {}, {"sent": 2, "failed": 1}, 3, []),
        (
            # the vendor's own example
            {"total": 2, "sent": 2},
            {"human": 1, "machine": 0},
            {"sent": 2},
            2,
            ["counts 2 sent and 1 in their details"],
        ),
        ({"total": 3, "failed": 3}, {"busy": 1, "no_answer": 1}, {"failed": 3}, 3, []),
        (
            {"total": 1, "failed": 1},
            {"busy": 1, "no_answer": 1},
            {"failed": 1},
            1,
            ["counts 1 failed and 2 in their details"],
        ),
        (
            {"total": 2, "sent": 7},
            {},
            {"sent": 7},
            2,
            ["counts 2 recipients in total and 7 by status"],
        ),
        ({"total": 3, "sent": 2, "throttled": 1}, {}, {"sent": 2, "unknown": 1}, 3, []),
        ({"total": 2, "sent": 2, "opens": 5}, {}, {"sent": 2}, 2, []),
        ({"sent": 2}, {}, {"sent": 2}, None, []),
    ],
)
def test_message_counts_are_compared_and_contradictions_reported(counts, details, ours, total, contradictions) -> None:
    entry = MessageState(due=1.0, found=1.0, status="sending", swept=AT.timestamp(), counts=counts, details=details)
    counted = reconciliation.cached_counts(kinds("voice", {}), "/messages/voice/1", entry)
    assert counted is not None
    assert (counted.counts, counted.total, list(counted.contradictions)) == (ours, total, contradictions)
    assert [shown.status for shown in counted.shown] == ["sending"]
    assert counted.by == AT


@pytest.mark.parametrize(
    "entry",
    [
        MessageState(due=1.0, found=1.0),
        MessageState(due=1.0, found=1.0, status="sending", swept=1.0),
        MessageState(due=1.0, found=1.0, status="sending", swept=1.0, counts={"total": 1}, sweep=SweepTimes((), 1.0)),
    ],
)
def test_what_was_not_read_whole_is_not_remembered(entry) -> None:
    assert reconciliation.cached_counts(kinds("sms", {}), "/messages/sms/1", entry) is None


async def test_service_run_on_a_matching_message_costs_no_request(tmp_path) -> None:
    time = Jumping()
    async with (
        Simulator(SimulatorSettings.still(), time.world) as simulator,
        polling("city", simulator, tmp_path, time.clock, interval="1m") as city,
    ):
        message = simulator.world.add_message("sms", 3, status="sending", recipient_status="sending")
        for _ in range(3):
            await city.poll()
            time.ahead += 60
        reconciler = Reconciler("city", city.source, city.store, time.clock)
        requests = simulator.traffic["govdelivery"]
        requests.clear()
        assert (await reconciler.compare(CompareOptions(use_cached_counts=True))).balanced
        assert set(requests.report()["views"]) == {"messages"}
        # What vanished, and what was listed and never followed, is asked for.
        simulator.world.remove(message.path)
        unknown = simulator.world.add_message("voice", 1, status="completed", recipient_status="sent")
        for _ in range(3):
            time.ahead += 3700
            await city.poll()
        simulator.world.add_message("voice", 1, status="completed", recipient_status="sent")
        report = await reconciler.compare(CompareOptions(use_cached_counts=True))
        assert {difference.resource for difference in report.differences} >= {message.path, *message.recipients}
        assert unknown.path not in {difference.resource for difference in report.differences}


async def test_lists_that_lead_in_a_circle_end(tmp_path) -> None:
    time = Jumping()
    async with (
        Simulator(SimulatorSettings.still(), time.world) as simulator,
        polling("city", simulator, tmp_path, time.clock, interval="1m") as city,
    ):
        message = simulator.world.add_message("sms", 60, status="sending", recipient_status="sending")
        simulator.switch_on("endless_pages")
        pages = [page async for page in city.source.members(message.path, {})]
        assert len({observation.key for page in pages for observation in page.observations}) == 60
        assert len(pages) < 12
        with pytest.raises(Permanent, match="not a message"):
            await city.source.count("/elsewhere/1", {}, ask=True)


# --- what is printed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/messages/voice/16096001/recipients/3219200011", "/messages/voice/16096001/recipients/3219200011"),
        ("/j/voicemail_drop_records/1234567890", "/j/voicemail_drop_records/1234567890"),
        ("/messaging/v1/sms/messages/15551234567", "/messaging/v1/sms/messages/…4567"),
        ("/messaging/v1/sms/messages/%2B15551234567", "/messaging/v1/sms/messages/…4567"),
        ("/messaging/v1/email/messages/ann%40example.com", "/messaging/v1/email/messages/….com"),
        ("/messaging/v1/sms/messages/ef0b62d8-47cc", "/messaging/v1/sms/messages/ef0b62d8-47cc"),
    ],
)
def test_a_path_is_printed_without_phones_and_addresses(path, shown) -> None:
    assert mask_path(path) == shown


async def test_the_report_as_json_has_everything_and_no_phone(books) -> None:
    await books.saw(r1="sent")
    books.source.has = {"1": "failed"}
    books.source.facts = {"shown": [observe("2", "sent", phone="+15551234567")]}
    report = await books.settle(crm=["#"])
    text = json.dumps(plain(report))
    assert "5551234567" not in text
    assert json.loads(text)["differences"][0]["resource"] == subject("2")


async def test_table_shows_totals_differences_sinks_and_skipped_parts(books, capsys) -> None:
    await books.saw(r1="sent", r2="sent")
    books.source.has = {"1": "failed"} | {str(number): "new" for number in range(10, 80)}
    books.source.facts = {"contradictions": ["counts 2 and 3"], "remarks": ["it keeps no times"]}
    report = await books.settle(crm=["#"])
    report.failures["/messages/sms/2"] = "HTTP 500"
    _print(report)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["OF", "STATUS", "PROVIDER", "LEDGER", "EVENTS"]
    assert any(line.split() == ["all:", "sms", "recipient", "new", "70", "0", "0"] for line in lines)
    assert any(line.split()[:4] == [subject("1"), "failed", "sent", "sent"] for line in lines)
    assert "… and 24 more; --json names them all" in lines
    assert "2 events made, 0 confirmed by the broker" in lines
    assert f"the provider contradicts itself: {GROUP}: counts 2 and 3" in lines
    assert f"not compared: {GROUP}: it keeps no times" in lines
    assert lines[-1] == "city: 72 resources differ, 1 could not be asked for; 1 compared"


async def test_books_that_balance_are_said_to(books, capsys) -> None:
    _print(await books.compare())
    assert capsys.readouterr().out.splitlines()[-1] == "city: the books balance; 1 compared"


def test_a_terminal_hears_which_group_is_read(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    _reporter()("/messages/sms/1")
    assert "/messages/sms/1 …" in capsys.readouterr().err
