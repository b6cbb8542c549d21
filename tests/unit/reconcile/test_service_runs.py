"""Reconciliation by the running service, and what providers count."""

from __future__ import annotations

from datetime import timedelta

import pytest
from catalogue import CATALOGUE
from hypothesis import given
from hypothesis import strategies as st
from inprocess import polling
from rigs.reconcile import AT, GROUP, Books, subject

from bridge.domain.catalogue import BooksMismatch, Catalogue
from bridge.domain.errors import LeaseLost, Permanent, Transient, Unauthorized
from bridge.reconciliation.comparison import CompareOptions
from bridge.reconciliation.monitor import PendingMismatch, ReconciliationMonitor, decide
from bridge.reconciliation.reconciler import Reconciler
from bridge.reconciliation.report import Difference
from bridge.simulator import Simulator, SimulatorSettings
from bridge.sources.govdelivery import reconciliation
from bridge.sources.govdelivery.lifecycles import kinds
from bridge.sources.govdelivery.state import MessageState, SweepTimes
from bridge.testing.fakes import Jumping

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
    entry = MessageState(
        due=1.0, discovered=1.0, status="sending", swept=AT.timestamp(), counts=counts, details=details
    )
    counted = reconciliation.cached_counts(kinds("voice", {}), "/messages/voice/1", entry)
    assert counted is not None
    assert (counted.counts, counted.total, list(counted.contradictions)) == (ours, total, contradictions)
    assert [shown.status for shown in counted.shown] == ["sending"]
    assert counted.by == AT


@pytest.mark.parametrize(
    "entry",
    [
        MessageState(due=1.0, discovered=1.0),
        MessageState(due=1.0, discovered=1.0, status="sending", swept=1.0),
        MessageState(
            due=1.0, discovered=1.0, status="sending", swept=1.0, counts={"total": 1}, sweep=SweepTimes((), 1.0)
        ),
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
