"""What every ledger promises of resources that wait for a final status, as tests: subclass `ExpectationSuite`."""

from __future__ import annotations

import pytest

from bridge.domain.errors import Conflict, LeaseLost
from bridge.protocols.ledger import Commit, Expectation, Key, Ledger
from bridge.protocols.store import Store
from bridge.testing.ledger_suite import StoreFixtures, change, events, held

SCOPE = "/messages/sms/1"
DUE = 1_800_000_000
"""Seconds since 1970 at which most expectations of these tests are due."""
MANY = 1000
"""More expectations than a test makes."""


def key(name: str, scope: str = SCOPE) -> Key:
    """Return a resource's key."""
    return Key(scope, name)


def waits(name: str, due: int = DUE, seq: int = -1) -> Expectation:
    """Return the expectation of a resource."""
    return Expectation(key(name), due, seq)


async def due_names(ledger: Ledger, upto: float = DUE, source: str = "city") -> list[str]:
    """Return the names of what is due, sorted."""
    return sorted(expectation.key.name for expectation in await ledger.expectations(source, upto, MANY))


async def begin(ledger: Ledger, *expected: Expectation, source: str = "city") -> int:
    """Commit resources that wait, each with an event; return the number of the last event."""
    statuses = [change(waiting.key.name, None, "n", waiting.key.scope) for waiting in expected]
    return await ledger.commit(
        None, Commit(source, statuses, events(*range(len(expected) or 1)), expected=list(expected))
    )


class ExpectationSuite(StoreFixtures):
    """Resources wait for a final status: found by their time, in the commit of their status, until they have one."""

    async def test_expectation_is_found_at_its_time(self, store: Store, second: Store) -> None:
        """What is due at a time is found then, and not a second before, by every process."""
        await begin(store, waits("1"), waits("2", DUE + 1))
        assert await due_names(second, DUE - 1) == []
        assert await due_names(second, DUE) == ["1"]
        assert await due_names(second, DUE + 1.5) == ["1", "2"]
        assert await store.next_expectation("city") == DUE
        assert await store.count_expectations("city") == 2  # noqa: PLR2004 - the two

    async def test_source_without_expectations_has_none(self, store: Store) -> None:
        """A source that nothing is expected of, or that is not known, has none."""
        await store.commit(None, Commit("city", [change("1", None, "n")], events(1)))
        for source in ("city", "town"):
            assert await store.next_expectation(source) is None
            assert await due_names(store, 2 * DUE, source) == []
            assert await store.count_expectations(source) == 0

    async def test_expectation_has_key_time_and_event(self, store: Store) -> None:
        """Names and scopes of any kind come back as they were, with the number of the event."""
        keys = [key("7"), key("-name/ä:with*signs" * 5), key("0", "2026-03-01/ö"), key("@"), key("0012"), key("#x")]
        statuses = [change(name, None, "n", scope) for scope, name in keys]
        wanted = [Expectation(resource, DUE, index - len(keys)) for index, resource in enumerate(keys)]
        last = await store.commit(None, Commit("city", statuses, events(*range(len(keys))), expected=wanted))
        first = last - len(keys) + 1
        due = await store.expectations("city", DUE, MANY)
        assert sorted(due) == sorted(Expectation(resource, DUE, first + index) for index, resource in enumerate(keys))

    async def test_repeated_expectation_keeps_time_and_takes_event(self, store: Store) -> None:
        """A resource that moves on stays due when it was, and its last event is the one that is found."""
        await begin(store, waits("1"))
        commit = Commit("city", [change("1", "n", "ns")], events(2), expected=[waits("1", DUE + 500)])
        last = await store.commit(None, commit)
        assert await store.expectations("city", DUE, 9) == [Expectation(key("1"), DUE, last)]
        earlier = Commit("city", [change("1", "ns", "ns")], expected=[waits("1", DUE - 500, last - 1)])
        await store.commit(None, earlier)
        assert await store.expectations("city", DUE, 9) == [Expectation(key("1"), DUE, last - 1)]
        assert await store.count_expectations("city") == 1

    async def test_met_expectation_is_gone(self, store: Store, second: Store) -> None:
        """What has its final status is found no more; to end it twice, or without it, does nothing."""
        await begin(store, waits("1"), waits("2"))
        await store.commit(None, Commit("city", [change("1", "n", "nf")], events(3), met=[key("1"), key("9")]))
        await store.commit(None, Commit("city", met=[key("1"), key("1", "/messages/sms/9")]))
        assert await due_names(second) == ["2"]
        assert await second.count_expectations("city") == 1
        await store.commit(None, Commit("city", met=[key("2")]))
        assert await due_names(second) == []
        assert await second.next_expectation("city") is None

    async def test_limit_bounds_what_is_found(self, store: Store) -> None:
        """No more than the limit come at once, and all of them come in the end."""
        await begin(store, *(waits(str(number), DUE - number % 7) for number in range(250)))
        seen: list[str] = []
        while batch := await store.expectations("city", DUE, 40):
            assert len(batch) <= 40  # noqa: PLR2004 - the limit
            seen += [waiting.key.name for waiting in batch]
            await store.commit(None, Commit("city", met=[waiting.key for waiting in batch]))
        assert sorted(seen, key=int) == [str(number) for number in range(250)]

    async def test_refused_commit_expects_nothing(self, store: Store) -> None:
        """A commit that is in conflict, or whose lease was lost, changes no expectation."""
        await begin(store, waits("1"))
        with pytest.raises(Conflict):
            await store.commit(
                None, Commit("city", [change("1", None, "n")], events(1), expected=[waits("2")], met=[key("1")])
            )
        lease = await held(store, "source/city")
        await store.release(lease)
        with pytest.raises(LeaseLost):
            await store.commit(lease, Commit("city", expected=[waits("3")], met=[key("1")]))
        assert await due_names(store) == ["1"]

    async def test_sources_expect_apart(self, store: Store) -> None:
        """What one source expects is nothing to another one."""
        await begin(store, waits("1"))
        await begin(store, waits("1", DUE + 5), waits("2"), source="town")
        await store.commit(None, Commit("city", met=[key("1")]))
        assert await due_names(store, DUE + 9, "town") == ["1", "2"]
        assert await due_names(store) == []
        assert await store.next_expectation("city") is None

    async def test_dropped_expectations_are_gone(self, store: Store) -> None:
        """All expectations of a source can be forgotten, under its lease alone; its statuses stay."""
        await begin(store, waits("1"), waits("2"))
        await begin(store, waits("1"), source="town")
        lease = await held(store, "source/city")
        await store.drop_expectations(lease, "city")
        assert await store.count_expectations("city") == 0
        assert (await due_names(store), await due_names(store, DUE, "town")) == ([], ["1"])
        assert list(await store.last_seen("city", [key("1")], 60.0)) == ["n"]
        await store.release(lease)
        with pytest.raises(LeaseLost):
            await store.drop_expectations(lease, "town")

    async def test_reset_source_expects_nothing(self, store: Store) -> None:
        """A source that was reset is as new, also where it is expected anew."""
        await begin(store, waits("1"))
        lease = await held(store, "source/city")
        await store.reset_source(lease, "city")
        assert (await due_names(store), await store.count_expectations("city")) == ([], 0)
        await begin(store, waits("1", DUE + 7))
        assert (await due_names(store), await due_names(store, DUE + 7)) == ([], ["1"])
