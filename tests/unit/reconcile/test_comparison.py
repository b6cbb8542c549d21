"""Reconciliation: provider, ledger, journal, broker and sinks held against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from inprocess import polling
from rigs.reconcile import AT, GROUP, Accounts, named, subject

from bridge.cli.commands.reconcile import _print, plain
from bridge.domain.errors import NotReady, Permanent, Transient, Unauthorized, Unavailable
from bridge.ingest.intake import Intake
from bridge.protocols.deliveries import NewDelivery
from bridge.protocols.ledger import Commit, Key, StatusChange
from bridge.protocols.source import Observation, Page, Statistics
from bridge.reconciliation.comparison import CompareOptions
from bridge.reconciliation.reconciler import Reconciler
from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fakes import KIND, Jumping, ScriptedSource, observe


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
    assert ("bridgectl watch" in line) is (total != 1204)
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
