"""What every keeper of books promises of deliveries that are not sent: subclass `UnsentSuite`, give it `make`."""

from __future__ import annotations

import time

from bridge.protocols.deliveries import DeliveryCounts
from bridge.protocols.roster import Mute
from bridge.protocols.store import Store
from bridge.protocols.unsent import ExpiryTotals, Unsent, UnsentDelivery
from bridge.testing.ledger_suite import StoreFixtures, event
from bridge.testing.settlement_suite import arrivals, at, counts, due, later

EXPIRED = Unsent("expired", 1_700_000_000.25)
MUTED = Unsent("muted", 1_700_000_000.5, "4f0c6d1b")
MUTE = Mute("4f0c6d1b", "crm", 1.0, 2.0, "ann@desk", "a test", {"exact": {"data.status": "failed"}})


def expiring(*seqs: int, topic: str = "sms.recipient.failed") -> list[UnsentDelivery]:
    """Return deliveries to end, recorded at the second of their number."""
    return [UnsentDelivery(position, topic, float(position.seq)) for position in at(*seqs)]


class UnsentSuite(StoreFixtures):
    """Deliveries that end without being sent, in counts of their own, and those that wait for a given time."""

    async def test_expired_deliveries_are_counted_apart(self, store: Store, second: Store) -> None:
        """They are over, with the reason and the time, and their queue may bring them again."""
        await store.accept("crm", arrivals(1, 2, 3), later())
        assert await store.end_unsent("crm", expiring(1, 2), EXPIRED) == 2
        assert await second.end_unsent("crm", expiring(1, 2, 9), EXPIRED) == 0
        assert await counts(second) == DeliveryCounts(waiting=1, expired=2)
        assert [await second.unsent("crm", position) for position in at(1, 3, 9)] == [EXPIRED, None, None]
        assert await store.settled("crm", at(1)[0])
        assert not await store.filtered("crm", at(1)[0])
        assert list(await second.accept("crm", arrivals(1, 2), later())) == []
        assert list(await store.unaccounted("crm", "city", [1, 2, 3, 4])) == [4]

    async def test_muted_deliveries_count_as_filtered(self, store: Store) -> None:
        """The record names the mute."""
        await store.accept("crm", arrivals(1, 2), later())
        assert await store.end_unsent("crm", expiring(1), MUTED) == 1
        assert await counts(store) == DeliveryCounts(waiting=1, filtered=1)
        assert await store.unsent("crm", at(1)[0]) == MUTED
        assert await store.filtered("crm", at(1)[0])
        assert await store.unsent("ops", at(1)[0]) is None

    async def test_only_what_waits_ends_unsent(self, store: Store) -> None:
        """What was delivered, is dead or was discarded stays so."""
        await store.accept("crm", arrivals(1, 2, 3), later())
        await store.settle("crm", at(1))
        await store.dead_letter("crm", at(2)[0], "permanent", None)
        await store.discard("crm", at(3))
        assert await store.end_unsent("crm", expiring(1, 2, 3), EXPIRED) == 0
        assert await counts(store) == DeliveryCounts(delivered=1, dead=1, discarded=1)

    async def test_what_ended_unsent_can_be_replayed(self, store: Store) -> None:
        """It leaves its count and its reason, and is delivered as any other."""
        await store.accept("crm", arrivals(1, 2), later())
        await store.end_unsent("crm", expiring(1), EXPIRED)
        await store.end_unsent("crm", expiring(2), MUTED)
        assert await store.replay("crm", arrivals(1, 2), 0.0) == 2
        assert await counts(store) == DeliveryCounts(waiting=2)
        assert [await store.unsent("crm", position) for position in at(1, 2)] == [None, None]
        await store.settle("crm", at(*await due(store)))
        assert await counts(store) == DeliveryCounts(delivered=2)

    async def test_an_expired_delivery_frees_its_partition(self, store: Store) -> None:
        """What is behind it is due at once."""
        await store.accept("crm", arrivals(1, 2, partition="a"), later())
        assert await due(store) == []
        await store.end_unsent("crm", expiring(1), EXPIRED)
        assert await due(store) == [2]

    async def test_reasons_are_forgotten_with_the_journal(self, store: Store) -> None:
        """The counts stay."""
        seqs = [1, 65_540, 65_541]
        await store.accept("crm", arrivals(*seqs), later())
        await store.end_unsent("crm", expiring(*seqs), EXPIRED)
        await store.forget("city", 65_541)
        assert [await store.unsent("crm", position) for position in at(*seqs)] == [None, None, EXPIRED]
        assert await counts(store) == DeliveryCounts(expired=3)

    async def test_claimed_deliveries_wait_each_for_its_time(self, store: Store) -> None:
        """They keep the order of their times, and no try is counted; what does not wait is left alone."""
        now = time.time()
        await store.accept("crm", arrivals(1, 2, 3), later())
        await store.settle("crm", at(3))
        dues = [(position, now + 100 - position.seq * 1e-6) for position in at(1, 2, 3, 9)]
        await store.wait_until("crm", dues)
        assert await due(store, now + 99) == []
        waiting = await store.deliveries("crm")
        assert [(item.position.seq, item.due, item.attempts) for item in waiting] == [
            (2, dues[1][1], ()), (1, dues[0][1], ())
        ]  # fmt: skip
        assert await store.next_due("crm") == dues[1][1]
        assert await due(store, now + 101) == [1, 2]

    async def test_totals_are_told_once(self, store: Store, second: Store) -> None:
        """Opened totals do not grow, and are the same for all until they are closed."""
        assert await store.open_totals("crm", "a") is None
        await store.accept("crm", arrivals(*range(1, 8)), later())
        await store.end_unsent("crm", expiring(2, 3), EXPIRED, is_totalled=True)
        await second.end_unsent("crm", expiring(1, topic="voice.message.new"), EXPIRED, is_totalled=True)
        await store.end_unsent("crm", expiring(1, 2), EXPIRED, is_totalled=True)  # told again: they are over
        await store.end_unsent("crm", expiring(4), EXPIRED)
        first = ExpiryTotals("b", 3, 1.0, 3.0, {"sms.recipient.failed": 2, "voice.message.new": 1})
        assert await store.open_totals("crm", "b") == first
        await store.end_unsent("crm", [UnsentDelivery(at(5)[0])], EXPIRED, is_totalled=True)
        assert await second.open_totals("crm", "c") == first
        await second.close_totals("crm", "c")
        assert await store.open_totals("crm", "d") == first
        await store.close_totals("crm", "b")
        await store.close_totals("crm", "b")
        assert await store.open_totals("crm", "e") == ExpiryTotals("e", 1, None, None, {"": 1})
        assert await store.open_totals("ops", "f") is None

    async def test_totals_name_only_some_topics(self, store: Store) -> None:
        """Events of further topics are counted without them."""
        await store.accept("crm", arrivals(*range(1, 301)), later())
        deliveries = [UnsentDelivery(position, f"x.y.{position.seq % 150}") for position in at(*range(1, 301))]
        await store.end_unsent("crm", deliveries, EXPIRED, is_totalled=True)
        totals = await store.open_totals("crm", "a")
        assert totals is not None
        assert totals.count == 300
        assert len(totals.topics) == 128
        assert set(totals.topics.values()) == {2}

    async def test_many_end_at_once(self, store: Store) -> None:
        """More than one call to the server has room for."""
        await store.accept("crm", arrivals(*range(1, 2002)), later())
        assert await store.end_unsent("crm", expiring(*range(1, 2001)), MUTED) == 2000
        await store.wait_until("crm", [(position, 5.0) for position in at(*range(1, 2002))])
        assert await counts(store) == DeliveryCounts(waiting=1, filtered=2000)
        await store.forget("city", 2001)
        assert await store.unsent("crm", at(1999)[0]) is None

    async def test_a_mute_is_kept_until_it_is_forgotten(self, store: Store, second: Store) -> None:
        """A later one with the same id replaces it; each process hears of it with its next announcement."""
        await store.keep_mute(MUTE)
        assert (await second.orders()).mutes == {MUTE.id: MUTE}
        ended = Mute(MUTE.id, "crm", 1.0, 1.5, "ann@desk")
        await second.keep_mute(ended)
        await second.keep_mute(Mute("other", "ops", 1.0, 3.0, "bob@desk"))
        assert (await store.orders()).mutes[MUTE.id] == ended
        await store.forget_mute(MUTE.id)
        await store.forget_mute("never there")
        assert list((await second.orders()).mutes) == ["other"]

    async def test_another_publishers_event_can_expire(self, store: Store) -> None:
        """It has a position of the sink's own, and books as any other."""
        position = await store.accept_foreign("crm", event(1))
        await store.enqueue("crm", [arrivals(position.seq, source=position.source)[0]], 0.0)
        assert await store.end_unsent("crm", [UnsentDelivery(position)], EXPIRED) == 1
        assert (await store.counts("crm"))["@crm"] == DeliveryCounts(expired=1)
        assert await store.unsent("crm", position) == EXPIRED
