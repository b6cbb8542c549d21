"""What every roster promises, as tests: subclass `RosterSuite` and give it a `make` fixture."""

from __future__ import annotations

import asyncio
import time

from bridge.protocols.roster import Member, OpenCircuit, Orders, Pause, StartedPoll
from bridge.protocols.store import Store
from bridge.testing.ledger_suite import StoreFixtures, eventually

TTL_SECONDS = 60.0
PAUSE = Pause(1_700_000_000.5, "ann@desk", "the provider asked for it")


def member(owner: str, since: float = 1.0, **values: object) -> Member:
    """Return a process that polls and relays."""
    plain = Member(owner, "box-1", 4711, ("poll", "relay"), "1.2.3", "0badcafe", since)
    return Member(**{name: getattr(plain, name) for name in plain.__dataclass_fields__} | values)


class RosterSuite(StoreFixtures):
    """Processes come and go; orders stay until they are taken back."""

    async def test_an_announced_process_is_shown_to_all(self, store: Store, second: Store) -> None:
        """All that a process said of itself, with the age of its word; the oldest process comes first."""
        circuits = {"crm": OpenCircuit(5.5, "https://crm.example answered 503")}
        later = member("two", 2.0, problems={"broker": "cannot be reached"}, circuits=circuits, reload_problem="a")
        assert list(await store.presences()) == []
        assert (await store.announce(later, TTL_SECONDS)).orders == Orders()
        answer = await second.announce(member("one"), TTL_SECONDS)
        assert answer.orders == Orders()
        assert [presence.member for presence in answer.presences] == [member("one"), later]
        shown = await second.presences()
        assert [presence.member for presence in shown] == [member("one"), later]
        assert not any(presence.gone for presence in shown)
        assert all(0 <= presence.age < TTL_SECONDS for presence in shown)

    async def test_a_later_announcement_replaces_the_former(self, store: Store) -> None:
        """A process is shown once, with what it said last."""
        await store.announce(member("one", problems={"store": "slow"}), TTL_SECONDS)
        await store.announce(member("one"), TTL_SECONDS)
        assert [presence.member for presence in await store.presences()] == [member("one")]

    async def test_a_process_says_which_accounts_it_polls(self, store: Store, second: Store) -> None:
        """Its accounts and its share are read as they were said; an earlier version says nothing of them."""
        plain = member("one")
        assert plain.accounts is None
        sharing = member(
            "two", 2.0, steady=4.5, accounts=("source/city", "account/a"), share=("source/city",),
            share_reason="1 of 2 accounts", is_leaving=True,
        )  # fmt: skip
        await store.announce(plain, TTL_SECONDS)
        assert [item.member for item in (await second.announce(sharing, TTL_SECONDS)).presences] == [plain, sharing]
        assert [item.member for item in await store.presences()] == [plain, sharing]

    async def test_a_silent_process_is_shown_as_gone(self, store: Store, second: Store) -> None:
        """A process that did not leave is remembered; an announcement of others does not take it away."""
        await store.announce(member("one"), 0.2)
        await store.announce(member("two", 2.0), TTL_SECONDS)

        async def gone() -> bool:
            return [presence.gone for presence in await second.presences()] == [True, False]

        await eventually(gone)
        await store.announce(member("two", 2.0), TTL_SECONDS)
        assert await gone()
        await store.announce(member("one"), TTL_SECONDS)
        assert not await gone()

    async def test_a_process_that_leaves_is_forgotten(self, store: Store, second: Store) -> None:
        """An end in good order is no loss."""
        await store.announce(member("one"), TTL_SECONDS)
        await store.leave("one")
        await store.leave("never there")
        assert list(await second.presences()) == []

    async def test_a_pause_comes_with_the_next_announcement(self, store: Store, second: Store) -> None:
        """The first word counts; what was resumed is paused no more."""
        assert await second.pause("source/city", PAUSE)
        assert not await second.pause("source/city", Pause(9.0, "bob@desk"))
        assert await second.pause("sink/city", Pause(2.0, "bob@desk"))
        orders = (await store.announce(member("one"), TTL_SECONDS)).orders
        assert orders == await store.orders() == Orders({"source/city": PAUSE, "sink/city": Pause(2.0, "bob@desk")})
        assert await second.resume("source/city")
        assert not await second.resume("source/city")
        assert (await store.announce(member("one"), TTL_SECONDS)).orders.pauses == {"sink/city": Pause(2.0, "bob@desk")}

    async def test_a_requested_poll_is_begun_once(self, store: Store, second: Store) -> None:
        """The request stays until a process says that it has begun it; an older request's answer leaves it alone."""
        await second.request_poll("city", "a")
        await second.request_poll("city", "b")
        assert (await store.announce(member("one"), TTL_SECONDS)).orders.polls == {"city": "b"}
        stale, begun = StartedPoll("city", "a", "one", 3.0), StartedPoll("city", "b", "one", 4.0)
        assert (await store.announce(member("one"), TTL_SECONDS, [stale])).orders.polls == {"city": "b"}
        orders = (await store.announce(member("one"), TTL_SECONDS, [begun])).orders
        assert orders == await second.orders() == Orders(started={"city": begun})
        assert not await second.withdraw_poll("city", "b")

    async def test_a_withdrawn_request_is_gone(self, store: Store, second: Store) -> None:
        """Only the request that is meant is withdrawn."""
        await second.request_poll("city", "a")
        assert not await second.withdraw_poll("city", "b")
        assert await second.withdraw_poll("city", "a")
        assert await store.orders() == Orders()

    async def test_many_processes_announce_at_once(self, store: Store, second: Store) -> None:
        """None is lost."""
        await asyncio.gather(
            *((store, second)[n % 2].announce(member(f"p{n:02}", float(n)), TTL_SECONDS) for n in range(20))
        )
        assert [presence.member.owner for presence in await store.presences()] == [f"p{n:02}" for n in range(20)]

    async def test_reports_of_parts_are_not_disturbed(self, store: Store) -> None:
        """What parts say of themselves is kept apart from processes and orders."""
        await store.announce(member("one", time.time()), TTL_SECONDS)
        await store.pause("source/city", PAUSE)
        await store.set_status("source/city", {"state": "ok"})
        assert await store.statuses("source/") == {"source/city": {"state": "ok"}}
        assert await store.statuses("sink/") == {}
