"""What every ledger promises, as tests: subclass `LedgerSuite` and give it a `make` fixture."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bridge.domain.errors import Conflict, LeaseLost
from bridge.domain.event import JournalEntry, Position, WireEvent
from bridge.protocols.ledger import Commit, JournalState, Key, Lease, Ledger, StatusChange
from bridge.protocols.store import Store

MONTH_SECONDS = 30 * 86400.0


Make = Callable[[], Store]


class StoreFixtures:
    """Gives tests a store and a second one on the same data, as two processes have them.

    A subclass has a fixture `make`: it returns a function that makes one more store on the test's data, not yet open.
    """

    @pytest.fixture
    async def store(self, make: Make) -> AsyncIterator[Store]:
        """Give an open store with nothing in it."""
        made = make()
        await made.open()
        yield made
        await made.close()

    @pytest.fixture
    async def second(self, make: Make) -> AsyncIterator[Store]:
        """Give another store on the data of `store`."""
        made = make()
        await made.open()
        yield made
        await made.close()


def event(number: int, *, body: bytes | None = None) -> WireEvent:
    """Return an event whose parts all tell `number`."""
    return WireEvent(f"id-{number}", f"sms.message.t{number}", 1_700_000_000 + number, body or b'{"n": %d}' % number)


def events(*numbers: int) -> list[WireEvent]:
    """Return events as `event` makes them."""
    return [event(number) for number in numbers]


def change(name: str, expected: str | None, history: str, scope: str = "/messages/sms/1") -> StatusChange:
    """Return a change of one resource."""
    return StatusChange(Key(scope, name), expected, history)


async def eventually(holds: Callable[[], Awaitable[bool]], within: float = 60.0) -> None:
    """Return as soon as `holds` answers True."""
    deadline = time.monotonic() + within
    while not await holds():
        assert time.monotonic() < deadline, f"not within {within:g} s"
        await asyncio.sleep(0.01)


async def held(ledger: Ledger, name: str, owner: str = "one", ttl: float = 60.0) -> Lease:
    """Return a lease that was free."""
    lease = await ledger.acquire(name, owner, ttl)
    assert lease is not None
    return lease


async def histories(
    ledger: Ledger, *names: str, scope: str = "/messages/sms/1", retention: float = MONTH_SECONDS
) -> list[str | None]:
    """Return what the ledger of source `city` has of these."""
    return list(await ledger.last_seen("city", [Key(scope, name) for name in names], retention))


class LeaseSuite(StoreFixtures):
    """Leases: one holder at a time, and a token that shuts out the one before."""

    async def test_a_free_lease_is_given(self, store: Store) -> None:
        """A lease that nobody holds is given, with all that was asked for."""
        lease = await held(store, "source/city", "one", 30.0)
        assert (lease.name, lease.owner, lease.ttl) == ("source/city", "one", 30.0)
        assert await store.holder("source/city") == "one"

    async def test_a_held_lease_is_given_to_nobody_else(self, store: Store, second: Store) -> None:
        """Another owner gets None, in this process or another one."""
        await held(store, "source/city", "one")
        assert await store.acquire("source/city", "two", 60.0) is None
        assert await second.acquire("source/city", "two", 60.0) is None
        assert await second.holder("source/city") == "one"

    async def test_the_holder_may_take_its_lease_again(self, store: Store) -> None:
        """An owner that holds the lease gets it with the token that it has."""
        assert await held(store, "source/city") == await held(store, "source/city")

    async def test_each_new_holder_has_a_greater_token(self, store: Store, second: Store) -> None:
        """The token grows with every new holder, be it the same owner as before."""
        tokens = []
        for turn, owner in enumerate(("one", "two", "one", "one")):
            ledger = second if turn % 2 else store
            lease = await held(ledger, "relay/city", owner)
            tokens.append(lease.token)
            await ledger.release(lease)
        assert tokens == sorted(set(tokens))

    async def test_leases_of_different_names_know_nothing_of_each_other(self, store: Store) -> None:
        """Each name is a lease of its own."""
        for name in ("source/city", "relay/city", "source/drops", "deliver", "sink/crm"):
            await held(store, name, f"owner of {name}")
        for name in ("source/city", "relay/city", "source/drops", "deliver", "sink/crm"):
            assert await store.holder(name) == f"owner of {name}"

    async def test_a_lease_that_nobody_asked_for_has_no_holder(self, store: Store) -> None:
        """Before anybody takes it, a lease has no owner."""
        assert await store.holder("source/city") is None

    async def test_a_lease_ends_by_itself(self, store: Store, second: Store) -> None:
        """A holder that went silent is succeeded after the time to live."""
        first = await held(store, "source/city", "one", 0.1)

        async def acquired() -> bool:
            return await second.acquire("source/city", "two", 60.0) is not None

        await eventually(acquired)
        assert await store.holder("source/city") == "two"
        with pytest.raises(LeaseLost, match="source/city"):
            await store.renew(first)

    async def test_a_lease_that_has_ended_cannot_be_renewed(self, store: Store) -> None:
        """Even if no other process took it in between."""
        lease = await held(store, "source/city", "one", 0.05)

        async def free() -> bool:
            return await store.holder("source/city") is None

        await eventually(free)
        with pytest.raises(LeaseLost):
            await store.renew(lease)
        with pytest.raises(LeaseLost):
            await store.commit(lease, Commit("city", events=events(1)))

    async def test_renewed_lease_outlasts_its_time_to_live(self, store: Store, second: Store) -> None:
        """A renewed lease goes on for another time to live."""
        lease = await held(store, "source/city", "one", 0.4)
        until = time.monotonic() + 0.8
        while time.monotonic() < until:
            await store.renew(lease)
            assert await second.acquire("source/city", "two", 60.0) is None
            await asyncio.sleep(0.02)

    async def test_a_released_lease_is_free_at_once(self, store: Store, second: Store) -> None:
        """Nobody waits for the end of a lease that was given back."""
        await store.release(await held(store, "source/city"))
        assert await store.holder("source/city") is None
        await held(second, "source/city", "two")

    async def test_releasing_a_lost_lease_takes_nothing_from_the_next_holder(self, store: Store) -> None:
        """Giving back what somebody else has by now does nothing."""
        lost = await held(store, "source/city", "one")
        await store.release(lost)
        await held(store, "source/city", "two")
        await store.release(lost)
        assert await store.holder("source/city") == "two"

    async def test_of_many_who_ask_at_once_one_gets_it(self, store: Store, second: Store) -> None:
        """Two processes with many askers: one holder."""
        asked = await asyncio.gather(
            *((store, second)[number % 2].acquire("source/city", f"owner-{number}", 60.0) for number in range(16))
        )
        assert sum(lease is not None for lease in asked) == 1


class StatusSuite(StoreFixtures):
    """Statuses and cursors: written as one with the events, or not at all."""

    async def test_a_resource_never_seen_has_no_history(self, store: Store) -> None:
        """None stands for what was never seen, and asking for nothing gets nothing."""
        assert await histories(store, "1", "2") == [None, None]
        assert await histories(store) == []

    async def test_histories_come_back_in_the_order_of_the_keys(self, store: Store, second: Store) -> None:
        """Answers stand in the order of the questions, repeated ones too, in every process."""
        await store.commit(
            None, Commit("city", [change("7", None, "n"), change("1300", None, "ns"), change("b", None, "f")])
        )
        assert await histories(store, "b", "7", "nobody", "1300", "7") == ["f", "n", None, "ns", "n"]
        assert await histories(second, "1300", "8", "b") == ["ns", None, "f"]

    async def test_names_that_look_alike_are_different_resources(self, store: Store) -> None:
        """No two names share a history, whatever they are made of."""
        names = [
            "5", "05", "005", "x5", "-5", " 5", "5 ", "+5", "5.0", "5e0", "\u0665", "", "0", "00", "127", "128", "255",  # noqa: RUF001 - Arabic digits
            "999999999999999999", "9999999999999999999", "123456789012345678901234567890", "#abc", "abc", "ABC",
            "caf\u00e9", "a" * 300, "a" * 301, "a b\nc", "a:b",
            "2f9c9f6e-0c07-4f3e-9a3c-000000000001", "2f9c9f6e-0c07-4f3e-9a3c-000000000002",
        ]  # fmt: skip
        await store.commit(
            None, Commit("city", [change(name, None, f"t{number}") for number, name in enumerate(names)])
        )
        assert await histories(store, *names) == [f"t{number}" for number in range(len(names))]

    async def test_scopes_and_sources_are_kept_apart(self, store: Store) -> None:
        """One name in two scopes, and one key of two sources, are different resources."""
        await store.commit(None, Commit("city", [change("1", None, "a", "/a"), change("1", None, "b", "/b")]))
        await store.commit(None, Commit("town", [change("1", None, "c", "/a")]))
        keys = [Key("/a", "1"), Key("/b", "1"), Key("/c", "1")]
        assert await store.last_seen("city", keys, MONTH_SECONDS) == ["a", "b", None]
        assert await store.last_seen("town", keys, MONTH_SECONDS) == ["c", None, None]

    async def test_a_scope_is_read_whole(self, store: Store, second: Store) -> None:
        """All resources of one scope come by name, those of others and of other sources do not."""
        long = "1000000000-2000000000-3000000000"
        names = ["0", "127", "128", "129", "007", "key", "@", "x5", long]
        changes = [change(name, None, f"n{index + 2}") for index, name in enumerate(names)]
        await store.commit(None, Commit("city", statuses=[*changes, change("128", None, "s", scope="/messages/sms/2")]))
        await store.commit(None, Commit("town", statuses=[change("5", None, "s")]))
        histories = await second.scope("city", "/messages/sms/1")
        # A long name may come as a digest.
        assert {long if name.startswith("#") else name: history for name, history in histories.items()} == {
            change.key.name: change.history for change in changes
        }
        assert dict(await store.scope("city", "/messages/sms/3")) == {}
        assert dict(await store.scope("nowhere", "/messages/sms/1")) == {}

    async def test_a_scope_that_is_over_is_empty(self, store: Store) -> None:
        """What is forgotten is not told, and telling keeps nothing longer."""
        await store.commit(None, Commit("city", statuses=[change("5", None, "n")], retention=0.05))
        assert dict(await store.scope("city", "/messages/sms/1")) == {"5": "n"}

        async def over() -> bool:
            return not await store.scope("city", "/messages/sms/1")

        await eventually(over)

    async def test_one_page_may_be_large(self, store: Store) -> None:
        """Thousands of statuses and events of one commit arrive whole."""
        names = [str(number) for number in range(10_000, 12_500)] + [f"key-{number}" for number in range(2500)]
        number = await store.commit(
            None, Commit("city", [change(name, None, f"t{name}") for name in names], events(*range(1500)))
        )
        assert number == 1500
        assert await histories(store, *names) == [f"t{name}" for name in names]

    async def test_a_page_is_written_as_one(self, store: Store, second: Store) -> None:
        """Statuses, events and cursor of one commit are all there afterwards."""
        lease = await held(store, "source/city")
        page = Commit("city", [change("1", None, "n")], events(1, 2), {"page": "2"})
        assert await store.commit(lease, page) == 2
        assert await histories(second, "1") == ["n"]
        assert [entry.event for entry in await second.read("city", 0, 9)] == events(1, 2)
        assert await second.cursor("city") == {"page": "2"}

    @pytest.mark.parametrize(
        ("expected", "history"), [(None, "n"), ("n", None), ("s", "n")], ids=["new", "gone", "other"]
    )
    async def test_a_status_that_changed_in_between_stops_the_whole_page(
        self, store: Store, expected: str | None, history: str | None
    ) -> None:
        """A conflict writes nothing: no status, no event, no cursor."""
        if history is not None:
            await store.commit(None, Commit("city", [change("1", None, history)]))
        page = Commit("city", [change("2", None, "n"), change("1", expected, "nf")], events(1), {"page": "2"})
        with pytest.raises(Conflict, match="city"):
            await store.commit(None, page)
        assert await histories(store, "1", "2") == [history, None]
        assert await store.journal("city") == JournalState()
        assert await store.cursor("city") == {}

    async def test_a_holder_that_was_succeeded_writes_nothing(self, store: Store, second: Store) -> None:
        """The fencing token shuts out a replica that does not know yet that it was succeeded."""
        old = await held(store, "source/city", "one")
        await store.release(old)
        new = await held(second, "source/city", "two")
        with pytest.raises(LeaseLost, match="source/city"):
            await store.commit(old, Commit("city", [change("1", None, "n")], events(1), {"page": "2"}))
        assert await histories(store, "1") == [None]
        assert (await store.journal("city")).committed == 0
        assert await store.cursor("city") == {}
        assert await second.commit(new, Commit("city", [change("1", None, "n")], events(1))) == 1

    async def test_second_of_two_equal_commits_gets_a_conflict(self, store: Store, second: Store) -> None:
        """One transition is committed once, also when two processes saw it at the same moment."""
        page = Commit("city", [change("1", None, "n")], events(1))
        done = await asyncio.gather(
            *((store, second)[n % 2].commit(None, page) for n in range(8)), return_exceptions=True
        )
        assert [outcome for outcome in done if not isinstance(outcome, Conflict)] == [1]
        assert (await store.journal("city")).committed == 1

    async def test_statuses_are_forgotten_after_their_retention(self, store: Store) -> None:
        """What nobody looked at for so long is as if it had never been seen, and may be seen anew."""
        await store.commit(None, Commit("city", [change("1", None, "n"), change("k", None, "n")], retention=0.1))

        async def gone() -> bool:
            return await histories(store, "1", "k", retention=0.001) == [None, None]

        await eventually(gone)
        await store.commit(None, Commit("city", [change("1", None, "again")]))
        assert await histories(store, "1", "k") == ["again", None]

    async def test_reading_one_resource_keeps_its_whole_scope(self, store: Store, second: Store) -> None:
        """A scope is kept and expires as one, by whatever process it was read."""
        statuses = [change("1", None, "n"), change("99999", None, "n"), change("key", None, "n")]
        await store.commit(None, Commit("city", [*statuses, change("1", None, "n", "/other")], retention=0.3))
        until = time.monotonic() + 0.8
        while time.monotonic() < until:
            assert await histories(second, "1", retention=0.3) == ["n"]
            await asyncio.sleep(0.02)
        assert await histories(store, "1", "99999", "key") == ["n", "n", "n"]
        assert await histories(store, "1", scope="/other") == [None]

    async def test_a_cursor_is_set_and_removed_entry_by_entry(self, store: Store, second: Store) -> None:
        """Entries that a commit does not name stay as they are."""
        assert await store.cursor("city") == {}
        await store.commit(None, Commit("city", cursor={"a": "1", "b": "", "c:d": "caf\u00e9"}))
        await store.commit(None, Commit("city", cursor={"a": "2", "c:d": None, "never": None}))
        assert await second.cursor("city") == {"a": "2", "b": ""}
        assert await second.cursor("town") == {}


class JournalSuite(StoreFixtures):
    """The journal: numbers without gaps, kept until confirmed, carried on by one holder."""

    async def test_a_source_without_events_has_an_empty_journal(self, store: Store) -> None:
        """An empty journal starts at number 1 and has nothing to read."""
        assert await store.journal("city") == JournalState(first=1)
        assert list(await store.read("city", 0, 10)) == []
        assert list(await store.entries([Position("city", 1), Position("@crm", 1)])) == [None, None]

    async def test_a_commit_answers_the_number_of_the_last_event(self, store: Store) -> None:
        """The number is the journal's, also for a commit without events."""
        assert await store.commit(None, Commit("city", cursor={"a": "1"})) == 0
        assert await store.commit(None, Commit("city", events=events(1, 2))) == 2
        assert await store.commit(None, Commit("city", events=events(3))) == 3
        assert await store.commit(None, Commit("city", cursor={"a": "2"})) == 3

    async def test_events_are_read_as_they_were_written(self, store: Store, second: Store) -> None:
        """Identity, topic, time and every byte come back."""
        odd = WireEvent("caf\u00e9", "a.b.c.d", 0, b"\x00\xff\n\r\n{}")
        await store.commit(None, Commit("city", events=[odd, event(2)]))
        assert await second.read("city", 0, 5) == [
            JournalEntry(Position("city", 1), odd),
            JournalEntry(Position("city", 2), event(2)),
        ]

    async def test_reading_goes_on_after_a_number(self, store: Store) -> None:
        """Only entries beyond the number come, in order, and no more than were asked for."""
        await store.commit(None, Commit("city", events=events(*range(1, 8))))
        assert [entry.position.seq for entry in await store.read("city", 2, 3)] == [3, 4, 5]
        assert [entry.position.seq for entry in await store.read("city", 5, 99)] == [6, 7]
        assert list(await store.read("city", 7, 99)) == []
        assert list(await store.read("city", 0, 0)) == []

    async def test_entries_come_by_their_positions(self, store: Store) -> None:
        """Any positions of any sources, in the order of the questions, None for what is not kept."""
        await store.commit(None, Commit("city", events=events(*range(1, 40))))
        await store.commit(None, Commit("town", events=events(100)))
        numbers = [("city", 39), ("town", 1), ("city", 1), ("city", 40), ("x", 1), ("city", 39)]
        wanted = [Position(*number) for number in numbers]
        entries = await store.entries(wanted)
        assert [entry and entry.event for entry in entries] == [event(39), event(100), event(1), None, None, event(39)]
        assert [entry.position for entry in entries if entry] == [wanted[0], wanted[1], wanted[2], wanted[5]]
        assert list(await store.entries([])) == []

    async def test_numbers_have_no_gaps_however_many_write(self, store: Store, second: Store) -> None:
        """Commits of several sources from two processes number each journal from 1 without a gap."""
        names = ("city", "town")
        await asyncio.gather(
            *(
                (store, second)[n % 2].commit(None, Commit(names[n % 3 == 0], events=events(10 * n, 10 * n + 1)))
                for n in range(24)
            )
        )
        for name, size in zip(names, (32, 16), strict=True):
            read = await store.read(name, 0, 99)
            assert [entry.position.seq for entry in read] == list(range(1, size + 1))
            assert all(
                earlier.event.time + 1 == later.event.time for earlier, later in zip(read[::2], read[1::2], strict=True)
            )

    async def test_confirming_moves_the_mark(self, store: Store, second: Store) -> None:
        """The mark and the count of unwanted events are seen by everyone."""
        await store.commit(None, Commit("city", events=events(1, 2, 3)))
        lease = await held(store, "relay/city")
        await store.confirm(lease, "city", 1)
        await store.confirm(lease, "city", 3, 2)
        state = await second.journal("city")
        assert (state.committed, state.confirmed, state.unroutable) == (3, 3, 2)

    async def test_the_mark_never_moves_back_nor_beyond_the_journal(self, store: Store) -> None:
        """A confirmation that comes late or twice changes nothing, not even the count of unwanted ones."""
        await store.commit(None, Commit("city", events=events(1, 2, 3)))
        lease = await held(store, "relay/city")
        for upto, unroutable in ((2, 1), (2, 1), (1, 1), (0, 1)):
            await store.confirm(lease, "city", upto, unroutable)
        state = await store.journal("city")
        assert (state.confirmed, state.unroutable) == (2, 1)
        await store.confirm(lease, "city", 99)
        assert (await store.journal("city")).confirmed == 3

    async def test_a_relay_that_was_succeeded_confirms_nothing(self, store: Store, second: Store) -> None:
        """The fencing token protects the mark as it protects commits."""
        await store.commit(None, Commit("city", events=events(1)))
        old = await held(store, "relay/city", "one")
        await store.release(old)
        await held(second, "relay/city", "two")
        with pytest.raises(LeaseLost, match="relay/city"):
            await store.confirm(old, "city", 1)
        assert (await store.journal("city")).confirmed == 0

    async def test_what_is_not_confirmed_is_never_forgotten(self, store: Store) -> None:
        """Trimming stops at the mark, whatever it was asked for."""
        await store.commit(None, Commit("city", events=events(1, 2, 3, 4)))
        assert await store.trim("city", 5) == 0
        await store.confirm(await held(store, "relay/city"), "city", 2)
        assert await store.trim("city", 5) == 2
        assert [entry.position.seq for entry in await store.read("city", 0, 9)] == [3, 4]

    async def test_trimming_forgets_the_oldest(self, store: Store, second: Store) -> None:
        """Entries below the number go, and the journal says where it starts and what it takes."""
        await store.commit(None, Commit("city", events=events(*range(1, 11))))
        await store.confirm(await held(store, "relay/city"), "city", 10)
        size = (await store.journal("city")).bytes
        assert size > 10 * len(event(1).body)
        assert await store.trim("city", 1) == 0
        assert await store.trim("city", 4) == 3
        assert await store.trim("city", 4) == 0
        state = await second.journal("city")
        assert (state.first, state.committed) == (4, 10)
        assert 0.5 * size < state.bytes < 0.9 * size
        gone, kept = await second.entries([Position("city", 3), Position("city", 4)])
        assert gone is None
        assert kept == JournalEntry(Position("city", 4), event(4))

    async def test_a_journal_that_was_forgotten_whole_counts_on(self, store: Store) -> None:
        """Numbers are never used twice."""
        await store.commit(None, Commit("city", events=events(1, 2)))
        await store.confirm(await held(store, "relay/city"), "city", 2)
        assert await store.trim("city", 99) == 2
        assert await store.journal("city") == JournalState(committed=2, confirmed=2, first=3)
        assert await store.commit(None, Commit("city", events=events(3))) == 3
        assert [entry.position.seq for entry in await store.read("city", 0, 9)] == [3]
        assert await store.trim("nobody", 5) == 0

    async def test_a_long_journal_is_forgotten_whole(self, store: Store) -> None:
        """However many entries are to go, one call forgets them."""
        for start in range(0, 24_000, 6000):
            await store.commit(None, Commit("city", events=[event(start, body=b"{}")] * 6000))
        await store.confirm(await held(store, "relay/city"), "city", 24_000)
        assert await store.trim("city", 23_999) == 23_998
        assert (await store.journal("city")).first == 23_999


class NotesSuite(StoreFixtures):
    """What operators ask for, what parts tell, and what is left after a restart."""

    async def test_sources_with_a_journal_or_a_cursor_are_listed(self, store: Store, second: Store) -> None:
        """In alphabetical order; a commit that was refused makes none."""
        assert list(await store.sources()) == []
        await store.commit(None, Commit("town", events=events(1)))
        await store.commit(None, Commit("city", cursor={"a": "1"}))
        with pytest.raises(Conflict):
            await store.commit(None, Commit("nowhere", [change("1", "n", "s")], events(1)))
        assert list(await second.sources()) == ["city", "town"]

    async def test_operators_name_resources_to_follow(self, store: Store, second: Store) -> None:
        """Adding and removing say whether anything changed, and the list is sorted."""
        assert await store.watch("city", "/messages/voice/2")
        assert await store.watch("city", "/messages/sms/1")
        assert not await second.watch("city", "/messages/sms/1")
        assert list(await second.watched("city")) == ["/messages/sms/1", "/messages/voice/2"]
        assert list(await store.watched("town")) == []
        assert await store.unwatch("city", "/messages/sms/1")
        assert not await second.unwatch("city", "/messages/sms/1")
        assert list(await second.watched("city")) == ["/messages/voice/2"]

    async def test_what_parts_tell_is_read_by_others(self, store: Store, second: Store) -> None:
        """A value stands until its part tells another one; notes are found by the beginning of their names."""
        await store.set_status("source/city", {"error": "refused", "polled": "1"})
        await second.set_status("source/city", {"polled": "2", "error": ""})
        await second.set_status("source/city", {"next": "3"})
        await store.set_status("source/town", {"a:b": "c"})
        await store.set_status("source/none", {})
        await store.set_status("sink/crm", {"polled": "caf\u00e9"})
        statuses = {"source/city": {"error": "", "next": "3", "polled": "2"}, "source/town": {"a:b": "c"}}
        assert await second.statuses("source/") == statuses
        assert set(await second.statuses("")) == {"source/city", "source/town", "sink/crm"}
        assert await second.statuses("source/city/") == {}

    async def test_a_store_that_can_be_written_to_answers(self, store: Store) -> None:
        """A ping writes, and comes back."""
        await store.ping()
        await store.ping()

    async def test_a_restart_forgets_nothing(self, make: Make, store: Store) -> None:
        """All that a call returned for is there for the next process."""
        await store.commit(
            await held(store, "source/city"), Commit("city", [change("1", None, "n")], events(1, 2), {"p": "1"})
        )
        await store.confirm(await held(store, "relay/city"), "city", 1, 1)
        await store.watch("city", "/messages/sms/1")
        await store.set_status("source/city", {"a": "b"})
        before = await store.journal("city")
        await store.close()
        again = make()
        await again.open()
        try:
            assert await again.journal("city") == before
            assert await again.holder("source/city") == "one"
            assert await histories(again, "1") == ["n"]
            assert await again.cursor("city") == {"p": "1"}
            assert [entry.event for entry in await again.read("city", 0, 9)] == events(1, 2)
            assert list(await again.watched("city")) == ["/messages/sms/1"]
            assert await again.statuses("") == {"source/city": {"a": "b"}}
            assert await again.commit(None, Commit("city", [change("1", "n", "ns")], events(3))) == 3
        finally:
            await again.close()

    async def test_closing_twice_is_no_error(self, make: Make) -> None:
        """Also for a store that was never used."""
        unused, used = make(), make()
        await used.open()
        for _ in range(2):
            await unused.close()
            await used.close()


class LedgerSuite(LeaseSuite, StatusSuite, JournalSuite, NotesSuite):
    """All promises of `bridge.ledger.Ledger`."""
