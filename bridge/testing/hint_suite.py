"""What every store of hints promises, as tests: subclass `HintSuite` and give it a `make` fixture."""

from __future__ import annotations

import asyncio

from bridge.protocols.hints import EVERYTHING
from bridge.protocols.store import Store
from bridge.testing.ledger_suite import StoreFixtures

LIMIT = 100
"""Hints of one source at most."""


async def things(store: Store, source: str = "city") -> list[str]:
    """Return the things that have a hint, the oldest first."""
    return [hint.thing for hint in await store.hints(source, LIMIT)]


class HintSuite(StoreFixtures):
    """Pushes leave hints, one for each thing, until somebody has looked."""

    async def test_hint_is_seen_by_every_process(self, store: Store, second: Store) -> None:
        """The process that polls need not be the one that was pushed to; each source has hints of its own."""
        assert await store.add_hints("city", ["/messages/sms/1", EVERYTHING], LIMIT)
        assert await second.add_hints("town", ["/messages/sms/2"], LIMIT)
        assert sorted(await things(second)) == sorted([EVERYTHING, "/messages/sms/1"])
        assert await things(store, "town") == ["/messages/sms/2"]
        assert (await second.count_hints("city"), await store.count_hints("town")) == (2, 1)
        assert (await store.count_hints("none"), await things(store, "none")) == (0, [])

    async def test_pushes_of_one_thing_are_one_hint(self, store: Store) -> None:
        """However many come, and however often one push names the thing; the first push's time stays."""
        await store.add_hints("city", ["a", "a"], LIMIT)
        (first,) = await store.hints("city", LIMIT)
        for _ in range(5):
            assert await store.add_hints("city", ["a"], LIMIT)
        (again,) = await store.hints("city", LIMIT)
        assert await store.count_hints("city") == 1
        assert again.since == first.since
        assert again.version > first.version

    async def test_oldest_hints_come_first(self, store: Store) -> None:
        """A thing that is pushed again and again keeps its turn."""
        for name in ("c", "a", "b"):
            await store.add_hints("city", [name], LIMIT)
        await store.add_hints("city", ["c"], LIMIT)
        assert await things(store) == ["c", "a", "b"]
        assert [hint.thing for hint in await store.hints("city", 2)] == ["c", "a"]

    async def test_dropped_hint_is_gone(self, store: Store, second: Store) -> None:
        """Dropping it once more changes nothing."""
        await store.add_hints("city", ["a", "b"], LIMIT)
        await store.add_hints("town", ["a"], LIMIT)
        hints = [hint for hint in await store.hints("city", LIMIT) if hint.thing == "a"]
        await store.drop_hints("city", [])
        for _ in range(2):
            await store.drop_hints("city", hints)
            assert (await things(second), await second.count_hints("city")) == (["b"], 1)
        assert await store.count_hints("town") == 1

    async def test_push_during_a_look_is_not_dropped(self, store: Store, second: Store) -> None:
        """What was pushed after the hint was read may be news that the look did not see."""
        await store.add_hints("city", ["a"], LIMIT)
        before = await store.hints("city", LIMIT)
        await second.add_hints("city", ["a"], LIMIT)
        await store.drop_hints("city", before)
        (left,) = await store.hints("city", LIMIT)
        assert left.since > before[0].since
        await store.drop_hints("city", [left])
        assert await store.count_hints("city") == 0

    async def test_hints_are_bounded(self, store: Store) -> None:
        """What is refused leaves nothing behind; what has a hint already is accepted all the same."""
        assert await store.add_hints("city", ["a", "b"], 3)
        assert not await store.add_hints("city", ["c", "d"], 3)
        assert await store.add_hints("city", ["a", "c"], 3)
        assert await store.add_hints("city", ["a", "b", "c"], 3)
        assert not await store.add_hints("city", ["d"], 3)
        assert sorted(await things(store)) == ["a", "b", "c"]
        await store.drop_hints("city", await store.hints("city", 1))
        assert await store.add_hints("city", ["d"], 3)

    async def test_concurrent_pushes_lose_no_hint(self, store: Store, second: Store) -> None:
        """Two processes are pushed to at once."""
        adds = [(store, second)[n % 2].add_hints("city", [f"m{n % 20:02}"], LIMIT) for n in range(60)]
        assert all(await asyncio.gather(*adds))
        assert sorted(await things(store)) == [f"m{n:02}" for n in range(20)]
        assert await store.count_hints("city") == 20

    async def test_reset_source_has_no_hints(self, store: Store) -> None:
        """They may be of another account."""
        await store.add_hints("city", ["a"], LIMIT)
        await store.add_hints("town", ["a"], LIMIT)
        lease = await store.acquire("source/city", "one", 60.0)
        assert lease is not None
        await store.reset_source(lease, "city")
        assert (await store.count_hints("city"), await store.count_hints("town")) == (0, 1)
