"""What every keeper of sinks' books promises, as tests: subclass `SettlementsSuite` and give it a `make` fixture."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from bridge.domain.event import Position, WireEvent
from bridge.protocols.deliveries import Attempt, Delivery, DeliveryCounts, DeliveryStore, KeptAnswer, NewDelivery
from bridge.protocols.store import Store
from bridge.testing.ledger_suite import Make, StoreFixtures, event

HOUR_SECONDS = 3600.0


def at(*seqs: int, source: str = "city") -> list[Position]:
    """Return positions in one journal."""
    return [Position(source, seq) for seq in seqs]


def arrivals(*seqs: int, partition: str | None = None, source: str = "city") -> list[NewDelivery]:
    """Return arrivals of one journal, all in one partition or in none."""
    return [NewDelivery(position, partition) for position in at(*seqs, source=source)]


def soon() -> float:
    """Return a time at which all that is due now is due."""
    return time.time() + 1


def later() -> float:
    """Return a time at which a claim of now has not expired."""
    return time.time() + HOUR_SECONDS


async def due(books: DeliveryStore, now: float | None = None, limit: int = 100) -> list[int]:
    """Claim what is due and return the numbers, in order."""
    claimed = await books.claim("crm", soon() if now is None else now, later(), limit)
    return sorted(delivery.position.seq for delivery in claimed)


async def counts(books: DeliveryStore) -> DeliveryCounts:
    """Return the books of `crm` and `city`."""
    return (await books.counts("crm")).get("city", DeliveryCounts())


def numbers(deliveries: Sequence[Delivery]) -> list[int]:
    """Return the numbers of deliveries as they stand."""
    return [delivery.position.seq for delivery in deliveries]


class TakingSuite(StoreFixtures):
    """From unknown to waiting: once for each position, claimed for a time."""

    async def test_an_arrival_is_accepted_and_claimed(self, store: Store) -> None:
        """Accepted deliveries belong to the worker until its claim expires."""
        until = later()
        assert list(await store.accept("crm", arrivals(1, 2, 3), until)) == at(1, 2, 3)
        assert await due(store) == []
        assert await counts(store) == DeliveryCounts(waiting=3)
        assert await store.next_due("crm") == pytest.approx(until)
        assert await store.delivery("crm", Position("city", 2)) == Delivery("crm", Position("city", 2), until)

    async def test_taking_twice_takes_once(self, store: Store, second: Store) -> None:
        """What is waiting, dead, settled or discarded is left alone, even if it arrives twice in one batch."""
        assert list(await store.accept("crm", arrivals(1, 2, 3, 4, 2), later())) == at(1, 2, 3, 4)
        await store.settle("crm", at(2))
        await store.dead_letter("crm", at(3)[0], "permanent", None)
        await store.discard("crm", at(4))
        before = await store.counts("crm")
        assert list(await second.accept("crm", arrivals(1, 2, 3, 4, 5), later())) == at(5)
        assert await second.enqueue("crm", arrivals(1, 2, 3, 4, 5), 0.0) == 0
        assert before == {"city": DeliveryCounts(delivered=1, waiting=1, dead=1, discarded=1)}
        assert await store.counts("crm") == {"city": DeliveryCounts(delivered=1, waiting=2, dead=1, discarded=1)}

    async def test_of_many_who_take_at_once_one_gets_each(self, store: Store, second: Store) -> None:
        """Several consumers of one queue never send one event twice at a time."""
        accepted = await asyncio.gather(
            *((store, second)[n % 2].accept("crm", arrivals(*range(1, 40)), later()) for n in range(8))
        )
        assert sorted(position.seq for part in accepted for position in part) == list(range(1, 40))

    async def test_an_offered_delivery_is_due_and_claimed_by_nobody(self, store: Store) -> None:
        """An offer makes deliveries wait for their due time."""
        soonest = time.time() + 100
        assert await store.enqueue("crm", arrivals(1, 2), soonest) == 2
        assert await due(store, soonest - 1) == []
        assert await store.next_due("crm") == pytest.approx(soonest)
        assert await due(store, soonest) == [1, 2]

    async def test_sinks_and_sources_have_books_of_their_own(self, store: Store) -> None:
        """What one sink took is unknown to another one, and one number in two journals is two events."""
        await store.accept("crm", [*arrivals(1), *arrivals(1, 2, source="a:b")], later())
        await store.accept("ops", arrivals(1), later())
        await store.settle("crm", at(1))
        assert await store.counts("crm") == {"city": DeliveryCounts(delivered=1), "a:b": DeliveryCounts(waiting=2)}
        assert await store.counts("ops") == {"city": DeliveryCounts(waiting=1)}
        assert not await store.settled("ops", at(1)[0])
        assert not await store.settled("crm", at(1, source="a:b")[0])

    async def test_an_unused_sink_has_empty_books(self, store: Store) -> None:
        """Nothing is known, nothing is due."""
        assert await store.counts("crm") == {}
        assert await store.next_due("crm") is None
        assert list(await store.deliveries("crm")) == []
        assert await store.delivery("crm", at(1)[0]) is None
        assert await store.low_watermark("crm", "city") == 0
        assert list(await store.accept("crm", [], later())) == []
        assert await store.settle("crm", []) == 0

    async def test_large_batches_are_accepted_whole(self, store: Store) -> None:
        """Thousands of positions in one call are no different from one."""
        seqs = [*range(60_000, 66_000), 2**31, 2**33]
        assert list(await store.accept("crm", arrivals(*seqs), later())) == at(*seqs)
        assert list(await store.unaccounted("crm", "city", [59_999, *seqs, 70_000])) == [59_999, 70_000]
        await store.settle("crm", at(*seqs))
        assert await counts(store) == DeliveryCounts(delivered=len(seqs))
        assert list(await store.unaccounted("crm", "city", [59_999, *seqs, 70_000])) == [59_999, 70_000]


class ClaimingSuite(StoreFixtures):
    """Claims: those due longest first, for a time, and then again."""

    async def test_those_due_longest_are_claimed_first(self, store: Store) -> None:
        """A limit leaves the rest for the next."""
        for seq, moment in ((1, 30.0), (2, 10.0), (3, 20.0), (4, time.time() + HOUR_SECONDS)):
            await store.enqueue("crm", arrivals(seq), moment)
        assert numbers(await store.claim("crm", soon(), later(), 2)) == [2, 3]
        assert numbers(await store.claim("crm", soon(), later(), 9)) == [1]
        assert numbers(await store.claim("crm", soon(), later(), 9)) == []
        assert numbers(await store.claim("crm", later(), later(), 0)) == []

    async def test_a_claim_that_expires_comes_again(self, store: Store, second: Store) -> None:
        """After a dead worker's claim has expired, the next worker that claims gets the delivery."""
        until = time.time() + 60
        await store.accept("crm", arrivals(1), until)
        assert numbers(await second.claim("crm", until - 0.5, until, 9)) == []
        (again,) = await second.claim("crm", until, until + 60, 9)
        assert again == Delivery("crm", at(1)[0], until + 60)
        assert numbers(await store.claim("crm", until + 59, until + 99, 9)) == []
        assert numbers(await store.claim("crm", until + 60, until + 99, 9)) == [1]

    async def test_a_claim_that_is_extended_holds_on(self, store: Store, second: Store) -> None:
        """A worker that lives keeps its deliveries in flight; a delivery that was settled in between stays settled."""
        until = time.time() + 60
        await store.accept("crm", arrivals(1, 2, 3), until)
        await store.settle("crm", at(2))
        await store.extend("crm", at(1, 2), until + 60)
        assert numbers(await second.claim("crm", until + 1, until + 99, 9)) == [3]
        assert numbers(await second.claim("crm", until + 61, until + 199, 9)) == [1]
        assert (await store.counts("crm"))["city"] == DeliveryCounts(delivered=1, waiting=2)

    async def test_claims_that_are_given_back_are_due_at_once(self, store: Store, second: Store) -> None:
        """All in one call, with the tries that they had; what waits for its turn in a partition goes on waiting."""
        await store.accept("crm", [*arrivals(1, 2), *arrivals(3, 4, partition="a")], later())
        await store.postpone("crm", at(1)[0], later(), Attempt(1.0, "why"))
        await store.extend("crm", at(1, 2, 3, 4, 9), time.time())
        assert await due(second) == [1, 2, 3]
        first = await store.delivery("crm", at(1)[0])
        assert first is not None
        assert first.attempts == (Attempt(1.0, "why"),)
        assert await counts(store) == DeliveryCounts(waiting=4)

    async def test_the_oldest_that_waits_is_known_for_each_source(self, store: Store) -> None:
        """Due, claimed or held in a partition: the journal is kept for it; dead and settled ones do not count."""
        assert await store.oldest("crm", "city") is None
        in_order = [NewDelivery(Position("city", seq), "partition") for seq in (4, 5)]
        await store.enqueue("crm", [*in_order, NewDelivery(Position("town", 2)), NewDelivery(Position("city", 9))], 0.0)
        assert await store.oldest("crm", "city") == 4
        await store.settle("crm", at(4))
        assert await store.oldest("crm", "city") == 5
        await store.dead_letter("crm", Position("city", 5), "permanent", None)
        assert await store.oldest("crm", "city") == 9
        assert await store.oldest("crm", "town") == 2
        assert await store.oldest("other", "city") is None

    async def test_of_many_who_claim_at_once_one_gets_each(self, store: Store, second: Store) -> None:
        """No delivery is claimed by two."""
        await store.enqueue("crm", arrivals(*range(1, 40)), 1.0)
        claimed = await asyncio.gather(*((store, second)[n % 2].claim("crm", soon(), later(), 7) for n in range(8)))
        assert sorted(seq for part in claimed for seq in numbers(part)) == list(range(1, 40))

    async def test_a_failed_try_waits_with_its_history(self, store: Store, second: Store) -> None:
        """Each attempt is kept in order; a claim handed back unused adds none."""
        await store.accept("crm", arrivals(1), later())
        tries = (Attempt(1.25, "timed out\nafter 30 s"), Attempt(2.0, "caf\u00e9", "permanent"))
        await store.postpone("crm", at(1)[0], 50.0, tries[0])
        await store.postpone("crm", at(1)[0], 60.0, None)
        await second.postpone("crm", at(1)[0], 70.0, tries[1])
        assert await store.delivery("crm", at(1)[0]) == Delivery("crm", at(1)[0], 70.0, tries)
        assert numbers(await store.claim("crm", 69.0, later(), 9)) == []
        until = later()
        assert list(await second.claim("crm", 70.0, until, 9)) == [Delivery("crm", at(1)[0], until, tries)]

    async def test_a_failed_try_that_is_told_twice_is_one_try(self, store: Store, second: Store) -> None:
        """An attempt that is written twice counts once; a later attempt counts separately."""
        await store.accept("crm", arrivals(1), later())
        for number, moment in ((1, 1.5), (2, 1.5), (3, 2.5), (4, 2.5)):
            await (store, second)[number % 2].postpone("crm", at(1)[0], 40.0 + number, Attempt(moment, "caf\u00e9"))
        tries = (Attempt(1.5, "caf\u00e9"), Attempt(2.5, "caf\u00e9"))
        assert await store.delivery("crm", at(1)[0]) == Delivery("crm", at(1)[0], 44.0, tries)

    async def test_only_what_waits_is_postponed(self, store: Store) -> None:
        """A worker that comes late changes nothing about what is unknown, settled or dead."""
        await store.accept("crm", arrivals(1, 2), later())
        await store.settle("crm", at(1))
        await store.dead_letter("crm", at(2)[0], "permanent", None)
        before = await store.deliveries("crm")
        for seq in (1, 2, 3):
            await store.postpone("crm", at(seq)[0], 5.0, Attempt(1.0, "late"))
        assert await store.deliveries("crm") == before
        assert await counts(store) == DeliveryCounts(delivered=1, dead=1)
        assert await due(store) == []


class EndingSuite(StoreFixtures):
    """Settled, dead, discarded: each event once in the books."""

    async def test_a_settled_delivery_is_over(self, store: Store, second: Store) -> None:
        """It waits no more, keeps no history, and is known as settled."""
        await store.accept("crm", arrivals(1, 2), later())
        await store.postpone("crm", at(1)[0], 5.0, Attempt(1.0, "once"))
        assert await store.settle("crm", at(1)) == 0
        assert await second.settled("crm", at(1)[0])
        assert not await second.settled("crm", at(2)[0])
        assert await second.delivery("crm", at(1)[0]) is None
        assert await counts(store) == DeliveryCounts(delivered=1, waiting=1)

    async def test_settling_twice_counts_once(self, store: Store) -> None:
        """Two workers whose claims overlapped both say so, and the books count one."""
        await store.accept("crm", arrivals(1), later())
        await store.settle("crm", at(1, 1))
        await store.settle("crm", at(1))
        assert await counts(store) == DeliveryCounts(delivered=1)

    async def test_a_delivered_event_is_settled_in_any_state(self, store: Store) -> None:
        """A success that comes after another worker gave up, or that nobody knew of, is still a success."""
        await store.accept("crm", arrivals(1), later())
        await store.dead_letter("crm", at(1)[0], "exhausted", Attempt(1.0, "late"))
        await store.settle("crm", at(1, 9))
        assert await counts(store) == DeliveryCounts(delivered=2)
        assert list(await store.deliveries("crm")) == []

    async def test_a_dead_letter_keeps_reason_and_history(self, store: Store, second: Store) -> None:
        """What was given up on is kept with all that was tried, and is never due."""
        await store.accept("crm", arrivals(1, 2), later())
        await store.postpone("crm", at(1)[0], 5.0, Attempt(1.0, "first"))
        assert await store.dead_letter("crm", at(1)[0], "permanent", Attempt(2.0, "second", "permanent")) == 0
        assert await store.dead_letter("crm", at(2)[0], "malformed", None) == 0
        dead = await second.delivery("crm", at(1)[0])
        assert dead is not None
        assert (dead.state, dead.reason) == ("dead", "permanent")
        assert dead.attempts == (Attempt(1.0, "first"), Attempt(2.0, "second", "permanent"))
        assert dead.due == pytest.approx(time.time(), abs=60)
        assert await due(store, later() + HOUR_SECONDS) == []
        assert await store.next_due("crm") is None
        assert await counts(store) == DeliveryCounts(dead=2)

    async def test_only_waiting_deliveries_become_dead_letters(self, store: Store) -> None:
        """Giving up on what is unknown, settled or dead changes nothing."""
        await store.accept("crm", arrivals(1, 2), later())
        await store.settle("crm", at(1))
        await store.dead_letter("crm", at(2)[0], "permanent", Attempt(1.0, "why"))
        before = await store.deliveries("crm")
        for seq in (1, 2, 3):
            assert await store.dead_letter("crm", at(seq)[0], "exhausted", Attempt(2.0, "again")) == 0
        assert await store.deliveries("crm") == before
        assert await counts(store) == DeliveryCounts(delivered=1, dead=1)

    async def test_a_discarded_delivery_does_not_count_as_delivered(self, store: Store) -> None:
        """Waiting and dead ones can be discarded, others not; it counts apart."""
        await store.accept("crm", arrivals(1, 2, 3), later())
        await store.dead_letter("crm", at(2)[0], "permanent", Attempt(1.0, "why"))
        await store.settle("crm", at(3))
        assert await store.discard("crm", at(1, 2, 3, 4, 1)) == 2
        assert await counts(store) == DeliveryCounts(delivered=1, discarded=2)
        assert [await store.settled("crm", position) for position in at(1, 2, 3, 4)] == [True, True, True, False]
        assert list(await store.deliveries("crm")) == []
        assert await due(store, later() + HOUR_SECONDS) == []

    async def test_redriving_starts_the_count_of_tries_again(self, store: Store) -> None:
        """Dead and waiting ones become due with an empty history; others are left alone."""
        await store.accept("crm", arrivals(1, 2, 3), later())
        for seq in (1, 2):
            await store.postpone("crm", at(seq)[0], later(), Attempt(1.0, "why"))
        await store.dead_letter("crm", at(1)[0], "exhausted", None)
        await store.settle("crm", at(3))
        assert await store.redrive("crm", at(1, 2, 3, 4, 1), 40.0) == 2
        assert await counts(store) == DeliveryCounts(delivered=1, waiting=2)
        claimed = await store.claim("crm", 40.0, 90.0, 9)
        assert sorted(claimed, key=lambda delivery: delivery.position) == [
            Delivery("crm", at(seq)[0], 90.0) for seq in (1, 2)
        ]

    async def test_redrive_leaves_claimed_deliveries_alone(self, store: Store, second: Store) -> None:
        """A claimed delivery has one owner; a delivery that waits for hours, first in its partition or not, is due."""
        now = time.time()
        await store.accept("crm", arrivals(1), now + 15)
        await store.accept("crm", arrivals(2, 3, partition="a"), now + 15)
        await store.enqueue("crm", arrivals(4, 5), now - 5)
        await store.postpone("crm", at(4)[0], now + HOUR_SECONDS, Attempt(1.0, "why"))
        assert await second.redrive("crm", at(1, 2, 3, 4, 5), now, 30.0) == 5
        assert numbers(sorted(await second.claim("crm", now, now + 15, 9), key=lambda delivery: delivery.position)) == [
            4,
            5,
        ]
        assert await store.settle("crm", at(1, 2)) == 1
        assert await due(store) == [3]

    async def test_replaying_makes_settled_events_due_once_more(self, store: Store) -> None:
        """Delivered, discarded and unknown deliveries wait again and leave their old count; the others stay."""
        await store.accept("crm", arrivals(1, 2, 3, 4), later())
        await store.settle("crm", at(1))
        await store.discard("crm", at(2))
        await store.dead_letter("crm", at(3)[0], "permanent", None)
        assert await counts(store) == DeliveryCounts(delivered=1, waiting=1, dead=1, discarded=1)
        assert await store.replay("crm", arrivals(1, 2, 3, 4, 5, 5), 30.0) == 3
        assert await counts(store) == DeliveryCounts(waiting=4, dead=1)
        assert await due(store, 30.0) == [1, 2, 5]
        assert not await store.settled("crm", at(1)[0])
        await store.settle("crm", at(1, 2, 5))
        assert await counts(store) == DeliveryCounts(delivered=3, waiting=1, dead=1)


class LaneSuite(StoreFixtures):
    """Partitions: one at a time for each partition key, in the order of arrival."""

    async def test_only_the_first_of_a_partition_is_claimed(self, store: Store) -> None:
        """Those behind it are accepted, and wait for their turn."""
        mixed = [*arrivals(1, 2, partition="a"), *arrivals(3, partition="b"), *arrivals(4)]
        assert list(await store.accept("crm", mixed, later())) == at(1, 3, 4)
        assert await counts(store) == DeliveryCounts(waiting=4)
        assert await due(store) == []
        waiting = await store.delivery("crm", at(2)[0])
        assert waiting is not None
        assert waiting.state == "waiting"

    async def test_settling_lets_the_next_of_the_partition_go(self, store: Store, second: Store) -> None:
        """Partitions keep the order of arrival, over several batches and processes."""
        await store.accept("crm", arrivals(30, 10, partition="a"), later())
        assert list(await second.accept("crm", arrivals(20, partition="a"), later())) == []
        order: list[int] = []
        for turn in (store, second, store):
            seq = ([30] if not order else await due(turn))[0]
            assert await turn.settle("crm", at(seq)) == (1 if len(order) < 2 else 0)
            order.append(seq)
        assert order == [30, 10, 20]
        assert list(await store.accept("crm", arrivals(40, partition="a"), later())) == at(40)

    async def test_a_waiting_first_blocks_its_partition(self, store: Store) -> None:
        """Between two tries of the first, nothing behind it is sent."""
        await store.accept("crm", arrivals(1, 2, partition="a"), later())
        await store.postpone("crm", at(1)[0], later(), Attempt(1.0, "why"))
        assert await due(store) == []
        assert await due(store, later() + 1) == [1]

    async def test_settling_several_of_a_partition_frees_one(self, store: Store) -> None:
        """What became due and was settled in the same call is not counted."""
        await store.accept("crm", arrivals(1, 2, 3, 4, partition="a"), later())
        assert await store.settle("crm", at(1, 2)) == 1
        assert await due(store) == [3]

    async def test_settling_one_further_back_lets_nobody_go(self, store: Store) -> None:
        """The partition closes up, and its first is still its first."""
        await store.accept("crm", arrivals(1, 2, 3, partition="a"), later())
        assert await store.settle("crm", at(2)) == 0
        assert await due(store) == []
        assert await store.settle("crm", at(1)) == 1
        assert await due(store) == [3]

    async def test_a_dead_letter_frees_its_partition(self, store: Store) -> None:
        """Giving up on the first lets the next go; a later arrival does not wait for a dead one."""
        await store.accept("crm", arrivals(1, 2, partition="a"), later())
        assert await store.dead_letter("crm", at(1)[0], "permanent", None) == 1
        assert await due(store) == [2]
        assert await store.dead_letter("crm", at(2)[0], "permanent", None) == 0
        assert list(await store.accept("crm", arrivals(3, partition="a"), later())) == at(3)

    async def test_a_redriven_dead_letter_joins_the_end_of_its_partition(self, store: Store) -> None:
        """What was overtaken does not overtake in its turn."""
        await store.accept("crm", arrivals(1, 2, 3, partition="a"), later())
        await store.dead_letter("crm", at(1)[0], "permanent", None)
        assert await store.redrive("crm", at(1), 10.0) == 1
        assert await due(store) == [2]
        assert await store.settle("crm", at(2)) == 1
        assert await due(store) == [3]
        assert await store.settle("crm", at(3)) == 1
        assert await due(store) == [1]
        assert await store.settle("crm", at(1)) == 0
        assert await counts(store) == DeliveryCounts(delivered=3)

    async def test_redriving_one_that_waits_for_its_turn_keeps_the_order(self, store: Store) -> None:
        """It is due when it is its turn, and not before the time it was given."""
        await store.accept("crm", arrivals(1, 2, partition="a"), later())
        distant = later()
        assert await store.redrive("crm", at(2), distant) == 1
        assert await due(store) == []
        assert await store.settle("crm", at(1)) == 0
        assert await due(store) == []
        assert await due(store, distant) == [2]

    async def test_discarding_the_first_lets_the_next_go(self, store: Store) -> None:
        """Whatever ends the first of a partition, the partition goes on."""
        await store.accept("crm", arrivals(1, 2, 3, partition="a"), later())
        assert await store.discard("crm", at(2)) == 1
        assert await store.discard("crm", at(1)) == 1
        assert await due(store) == [3]

    async def test_offered_and_replayed_events_join_their_partition(self, store: Store) -> None:
        """However a delivery is made, its partition is kept."""
        await store.accept("crm", arrivals(1, partition="a"), later())
        assert await store.enqueue("crm", arrivals(2, partition="a"), 5.0) == 1
        assert await store.replay("crm", arrivals(3, partition="a"), 5.0) == 1
        assert await due(store) == []
        for seq, freed in ((1, 1), (2, 1), (3, 0)):
            assert await store.settle("crm", at(seq)) == freed
            assert await due(store) == ([seq + 1] if freed else [])

    async def test_partitions_of_different_sinks_do_not_wait_for_each_other(self, store: Store) -> None:
        """A partition belongs to its sink."""
        await store.accept("crm", arrivals(1, partition="a"), later())
        assert list(await store.accept("ops", arrivals(1, partition="a"), later())) == at(1)


class AccountSuite(StoreFixtures):
    """The books as operators and the reconciler read them."""

    async def test_what_no_book_knows_is_unaccounted(self, store: Store) -> None:
        """Waiting, held, dead, settled and discarded are known; all else is not."""
        await store.accept("crm", [*arrivals(1), *arrivals(2, 3, partition="a"), *arrivals(4, 5, 6)], later())
        await store.settle("crm", at(4))
        await store.dead_letter("crm", at(5)[0], "permanent", None)
        await store.discard("crm", at(6))
        assert list(await store.unaccounted("crm", "city", [9, 1, 2, 3, 4, 5, 6, 7, 8])) == [9, 7, 8]
        assert list(await store.unaccounted("crm", "town", [1, 2])) == [1, 2]
        assert list(await store.unaccounted("crm", "city", [])) == []

    async def test_deliveries_are_listed_page_by_page(self, store: Store, second: Store) -> None:
        """Behind the last one of a page comes the next, also among many that are due at one time."""
        await store.enqueue("crm", [*arrivals(*range(1, 25)), *arrivals(1, 2, source="town")], 50.0)
        await store.enqueue("crm", arrivals(30, 31, 32, partition="a"), 60.0)
        for seq in (3, 4, 31):
            await store.dead_letter("crm", at(seq)[0], "permanent", None)
        whole = list(await store.deliveries("crm", limit=99))
        assert len(whole) == 29
        pages: list[Delivery] = []
        while page := await second.deliveries("crm", limit=4, after=pages[-1].place if pages else None):
            pages += page
        assert pages == whole
        gone = whole[5].place
        await store.discard("crm", [whole[5].position])
        rest = list(await second.deliveries("crm", limit=99, after=gone))
        assert rest == whole[6:]
        assert list(await store.deliveries("crm", states=("dead",), after=(1e12, at(1)[0]))) == []

    async def test_a_dead_letter_keeps_the_answer_of_its_endpoint(self, store: Store, second: Store) -> None:
        """Until it is delivered, discarded or redriven; one without an answer has none."""
        await store.accept("crm", arrivals(1, 2, 3, 4), later())
        answer = KeptAnswer(422, '{"error": "caf\u00e9"}\n')
        for seq in (1, 2, 3):
            await store.dead_letter("crm", at(seq)[0], "permanent", Attempt(1.0, "why", "permanent"), answer)
        await store.dead_letter("crm", at(4)[0], "exhausted", None)
        listed = await second.deliveries("crm", states=("dead",))
        assert [delivery.answer for delivery in sorted(listed, key=lambda item: item.position)] == [*[answer] * 3, None]
        shown = await second.delivery("crm", at(1)[0])
        assert shown is not None
        assert shown.answer == answer
        await store.discard("crm", at(1))
        await store.settle("crm", at(2))
        await store.redrive("crm", at(3), 5.0)
        assert [delivery.answer for delivery in await second.deliveries("crm")] == [None, None]
        await store.dead_letter("crm", at(3)[0], "exhausted", None)
        again = await second.delivery("crm", at(3)[0])
        assert again is not None
        assert (again.state, again.answer) == ("dead", None)

    async def test_deliveries_are_listed_by_their_due_time(self, store: Store) -> None:
        """Waiting and dead together or apart, no more than asked for."""
        for seq, moment in ((1, 30.0), (2, 10.0), (3, 20.0), (4, later())):
            await store.enqueue("crm", arrivals(seq), moment)
        await store.dead_letter("crm", at(3)[0], "exhausted", Attempt(3.0, "why"))
        assert numbers(await store.deliveries("crm")) == [2, 1, 3, 4]
        assert numbers(await store.deliveries("crm", limit=2)) == [2, 1]
        assert numbers(await store.deliveries("crm", states=["waiting"])) == [2, 1, 4]
        (dead,) = await store.deliveries("crm", states={"dead"})
        assert (dead.position.seq, dead.state, dead.reason, dead.attempts) == (
            3,
            "dead",
            "exhausted",
            (Attempt(3.0, "why"),),
        )
        assert list(await store.deliveries("crm", states=[])) == []
        assert list(await store.deliveries("crm", limit=0)) == []

    async def test_those_that_wait_for_their_turn_are_listed_too(self, store: Store) -> None:
        """A delivery behind another one in its partition is waiting, and is not lost from sight."""
        await store.accept("crm", arrivals(1, 2, partition="a"), later())
        assert sorted(numbers(await store.deliveries("crm", states=["waiting"]))) == [1, 2]

    async def test_a_low_watermark_never_falls(self, store: Store, second: Store) -> None:
        """For each sink and source apart."""
        await store.raise_low_watermark("crm", "city", 10)
        await second.raise_low_watermark("crm", "city", 7)
        assert await store.low_watermark("crm", "city") == 10
        assert await store.low_watermark("crm", "town") == 0
        assert await store.low_watermark("ops", "city") == 0
        assert await store.counts("crm") == {}

    async def test_forgotten_marks_are_exactly_those_below_the_number(self, store: Store) -> None:
        """For all sinks; the sums of the books, what waits and what is above stay."""
        seqs = [1, 7, 8, 4095, 4096, 65_535, 65_536, 65_543, 65_544, 65_545, 131_072]
        for sink in ("crm", "ops"):
            await store.accept(sink, arrivals(*seqs), later())
            await store.settle(sink, at(*seqs[1:]))
        await store.forget("city", 65_544)
        await store.forget("town", 10**9)
        for sink in ("crm", "ops"):
            assert list(await store.unaccounted(sink, "city", seqs)) == seqs[1:8]
        assert await counts(store) == DeliveryCounts(delivered=10, waiting=1)
        await store.forget("city", 131_072)
        assert list(await store.unaccounted("crm", "city", seqs)) == seqs[1:-1]

    async def test_marks_of_a_sink_that_only_settled_are_forgotten_too(self, store: Store) -> None:
        """Whatever made a mark, forgetting finds it, in every process."""
        await store.settle("crm", at(1, 2))
        await store.forget("city", 2)
        assert [await store.settled("crm", position) for position in at(1, 2)] == [False, True]

    async def test_a_discarded_mark_that_was_forgotten_leaves_the_books_right(self, store: Store) -> None:
        """A number below the forgotten ones that comes again starts anew."""
        await store.accept("crm", arrivals(1, 9), later())
        await store.discard("crm", at(1, 9))
        await store.forget("city", 5)
        assert await store.replay("crm", arrivals(1, 9), 1.0) == 2
        assert await counts(store) == DeliveryCounts(waiting=2, discarded=1)

    async def test_a_restart_forgets_no_delivery(self, make: Make, store: Store) -> None:
        """Books, claims, partitions, dead letters and low watermarks are there for the next process."""
        await store.accept("crm", [*arrivals(1, 2, partition="a"), *arrivals(3, 4)], later())
        await store.dead_letter("crm", at(3)[0], "permanent", Attempt(1.0, "why"))
        await store.settle("crm", at(4))
        await store.raise_low_watermark("crm", "city", 1)
        accepted = await store.accept_foreign("crm", event(1))
        before = (await store.deliveries("crm"), await store.counts("crm"))
        await store.close()
        again = make()
        await again.open()
        try:
            assert (await again.deliveries("crm"), await again.counts("crm")) == before
            assert await again.low_watermark("crm", "city") == 1
            assert await again.accept_foreign("crm", event(1)) == accepted
            assert await again.settle("crm", at(1)) == 1
            assert await due(again) == [2]
        finally:
            await again.close()


class AdoptionSuite(StoreFixtures):
    """Events of other publishers: given a position once, and kept."""

    async def test_an_event_without_a_position_gets_one(self, store: Store, second: Store) -> None:
        """Its source is the sink's, the ledger finds it there with every byte, and the books know it."""
        odd = WireEvent("caf\u00e9", "a.b.c", 5, b"\x00\xff\nnot json")
        position = await store.accept_foreign("crm", odd)
        other = await second.accept_foreign("crm", event(2))
        assert position.source == other.source == "@crm"
        assert position != other
        entries = await second.entries([other, position, Position("@crm", 999)])
        assert [entry and entry.event for entry in entries] == [event(2), odd, None]
        assert list(await store.accept("crm", [NewDelivery(position)], later())) == [position]
        await store.settle("crm", [position])
        assert await store.counts("crm") == {"@crm": DeliveryCounts(delivered=1)}
        assert list(await store.sources()) == []

    async def test_a_foreign_event_is_accepted_once(self, store: Store, second: Store) -> None:
        """However often it comes, also at the same moment, it has one position at each sink."""
        positions = await asyncio.gather(*((store, second)[n % 2].accept_foreign("crm", event(1)) for n in range(8)))
        assert len(set(positions)) == 1
        assert (await store.accept_foreign("ops", event(1))).source == "@ops"


class FilteringSuite(StoreFixtures):
    """What a sink's filter did not select: settled without a delivery, and counted apart."""

    async def test_a_filtered_event_costs_no_delivery(self, store: Store, second: Store) -> None:
        """It is accounted for, and no worker gets it, also when its queue brings it again."""
        assert await store.filter_out("crm", [*at(1, 2, 1), *at(3, source="town")]) == 3
        assert await counts(store) == DeliveryCounts(filtered=2)
        assert list(await second.accept("crm", arrivals(1, 2), later())) == []
        assert await second.enqueue("crm", arrivals(1, 2), 0.0) == 0
        assert await due(store) == []
        assert list(await store.deliveries("crm")) == []
        assert list(await store.unaccounted("crm", "city", [1, 2, 3])) == [3]
        assert [await second.filtered("crm", position) for position in at(1, 2, 3)] == [True, True, False]
        assert await store.settled("crm", at(1)[0])
        assert not await store.filtered("ops", at(1)[0])

    async def test_only_what_is_unknown_is_filtered(self, store: Store) -> None:
        """What is waiting, dead, settled, discarded or filtered keeps its state."""
        await store.accept("crm", arrivals(1, 2, 3, 4), later())
        await store.settle("crm", at(2))
        await store.dead_letter("crm", at(3)[0], "permanent", None)
        await store.discard("crm", at(4))
        assert await store.filter_out("crm", at(5)) == 1
        assert await store.filter_out("crm", at(1, 2, 3, 4, 5)) == 0
        assert await counts(store) == DeliveryCounts(delivered=1, waiting=1, dead=1, discarded=1, filtered=1)
        assert not await store.filtered("crm", at(2)[0])

    async def test_a_filtered_event_can_be_replayed(self, store: Store) -> None:
        """It leaves the count of the filtered ones, and is delivered as any other."""
        await store.filter_out("crm", at(1, 2))
        assert await store.replay("crm", arrivals(1), 0.0) == 1
        assert await counts(store) == DeliveryCounts(waiting=1, filtered=1)
        assert not await store.filtered("crm", at(1)[0])
        assert await due(store) == [1]
        await store.settle("crm", at(1))
        assert await counts(store) == DeliveryCounts(delivered=1, filtered=1)

    async def test_filtered_marks_are_forgotten_with_the_journal(self, store: Store) -> None:
        """The count stays; a number that comes again starts anew."""
        seqs = [1, 4096, 65_536, 65_540, 65_541]
        await store.filter_out("crm", at(*seqs))
        await store.forget("city", 65_541)
        assert [await store.filtered("crm", position) for position in at(*seqs)] == [False] * 4 + [True]
        assert await store.filter_out("crm", at(1)) == 1
        assert await counts(store) == DeliveryCounts(filtered=6)


class SettlementsSuite(TakingSuite, ClaimingSuite, EndingSuite, LaneSuite, AccountSuite, AdoptionSuite, FilteringSuite):
    """All promises of `bridge.settlement.Settlements`."""
