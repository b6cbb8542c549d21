"""One account's budget in several processes, by a clock that the test moves and a provider that notes each arrival."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.coordination.leases import hold_lease
from bridge.coordination.quota import SharedQuota, accounts, command_lease, cooldown, polling_lease
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Unavailable
from bridge.http.limiter import Limiter
from bridge.protocols.ledger import Ledger
from bridge.protocols.request_context import current

START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Course:
    """What happens when, in order: waits end and things occur at their times, however many tasks wait."""

    seconds: float = 0.0
    _due: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)
    _numbers: Any = field(default_factory=itertools.count)

    def at(self, seconds: float, occurs: Callable[[], object]) -> None:
        heapq.heappush(self._due, (seconds, next(self._numbers), occurs))

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        self.at(self.seconds + max(0.0, seconds), lambda: woken.done() or woken.set_result(None))
        await woken

    @property
    def clock(self) -> Clock:
        return Clock(
            now=lambda: START + timedelta(seconds=self.seconds),
            monotonic=lambda: self.seconds,
            sleep=self.sleep,
            random=random.Random(7),
        )

    async def run(self, *work: Awaitable[None], until: float = 1e6) -> None:
        tasks = [asyncio.ensure_future(job) for job in work]
        while not all(task.done() for task in tasks) and self.seconds < until:
            for _ in range(8):
                await asyncio.sleep(0)
            if self._due:
                self.seconds, _, occurs = heapq.heappop(self._due)
                occurs()
        for task in tasks:
            task.cancel()
        for failed in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(failed, Exception):
                raise failed


class Memory:
    """Leases, and nothing else; no store answers while it is away."""

    def __init__(self) -> None:
        self.leases: dict[str, str] = {}
        self.away = False
        self.asked = 0

    async def holder(self, name: str) -> str | None:
        self.asked += 1
        if self.away:
            raise Unavailable("the store is away")
        return self.leases.get(name)


def most_in_a_second(times: Sequence[float]) -> int:
    ordered = sorted(times)
    return max((sum(start <= other < start + 1.0 for other in ordered) for start in ordered), default=0)


@dataclass
class Asking:
    """Asks one provider by one limiter, as its client does; what arrives when is decided by dice."""

    course: Course
    limiter: Limiter
    arrivals: list[float]
    rng: random.Random
    share: SharedQuota | None = None
    slow: float = 0.3
    """The longest that a request is on its way, and the longest that its connection takes."""

    async def one(self, answer_after: float = 0.0) -> None:
        turn = await self.limiter.acquire(self.share)
        await self.course.sleep(self.rng.random() * self.slow)
        turn.sent()
        await self.course.sleep(self.rng.random() * self.slow)
        self.arrivals.append(self.course.seconds)
        await self.course.sleep(answer_after)
        turn.answered()
        turn.release()

    async def many(self, count: int, answer_after: float = 0.0) -> None:
        await asyncio.gather(*(self.one(answer_after) for _ in range(count)))

    async def for_ever(self) -> None:
        await asyncio.gather(*(self._again() for _ in range(6)))

    async def _again(self) -> None:
        while True:
            await self.one()


# --- what arrives -----------------------------------------------------------------------------------------------------


@given(
    rate=st.one_of(st.integers(1, 12).map(float), st.floats(0.2, 12)),
    slow=st.sampled_from([0.0, 0.05, 0.3, 0.99]),
    answer_after=st.sampled_from([0.0, 0.1, 3.0]),
    seed=st.integers(0, 10_000),
)
def test_arrivals_keep_to_the_budget_at_any_latency(rate, slow, answer_after, seed):
    course = Course()
    asking = Asking(course, Limiter(rate, course.clock), [], random.Random(seed), slow=slow)
    asyncio.run(course.run(asking.many(30, answer_after)))
    assert len(asking.arrivals) == 30
    whole = float(rate).is_integer()
    assert most_in_a_second(asking.arrivals) <= (rate if whole else int(rate) + 1)


async def test_fast_provider_is_asked_as_often_as_allowed():
    course = Course()
    asking = Asking(course, Limiter(5.0, course.clock), [], random.Random(7), slow=0.0)
    await course.run(asking.many(100))
    assert course.seconds == pytest.approx(20, rel=0.03)


async def test_unanswered_request_holds_its_slot_one_extra_second():
    course = Course()
    asking = Asking(course, Limiter(5.0, course.clock), [], random.Random(7), slow=0.0)
    await course.run(asking.many(100, answer_after=30.0))
    assert course.seconds == pytest.approx(30 + 20 * 2, rel=0.05)


async def test_abandoned_request_counts_as_still_arriving():
    course = Course()
    limiter = Limiter(1.0, course.clock)

    async def scene() -> None:
        never_left = await limiter.acquire()
        never_left.release()
        begun = course.seconds
        left = await limiter.acquire()
        assert course.seconds - begun == pytest.approx(1.01)
        left.sent()
        left.release()
        begun = course.seconds
        (await limiter.acquire()).release()
        assert course.seconds - begun == pytest.approx(2.01)

    await course.run(scene())


# --- two sides --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [2.0, 3.0, 5.0, 8.0, 2.5])
@pytest.mark.parametrize("seed", range(4))
async def test_two_processes_together_never_exceed_the_budget(rate, seed):
    course, memory, arrivals, rng = Course(), Memory(), [], random.Random(seed)
    names = ("city",)

    async def stays(make: Callable[..., SharedQuota], lease: str, until: float) -> None:
        memory.leases[lease] = "somebody"
        share = make(memory, course.clock, names, rate)
        await course.sleep(await share.entry_delay())
        asking = Asking(course, Limiter(rate, course.clock), arrivals, rng, share, slow=0.0)
        work = asyncio.ensure_future(asking.for_ever())
        await course.sleep(until - course.seconds)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await course.sleep(cooldown(rate))  # as `hold_lease` lets a lease lapse, and as whoever takes one over waits
        del memory.leases[lease]

    async def service() -> None:
        while course.seconds < 100:
            await stays(SharedQuota.for_service, polling_lease(names), course.seconds + rng.uniform(5, 40))
            await course.sleep(rng.uniform(0, 3))

    async def command() -> None:
        while course.seconds < 100:
            await course.sleep(rng.uniform(0, 8))
            await stays(SharedQuota.for_command, command_lease(names), course.seconds + rng.uniform(4, 15))

    await course.run(service(), command())
    assert most_in_a_second(arrivals) <= -(-rate // 1)
    assert len(arrivals) > 60 * rate


@pytest.mark.parametrize(("rate", "service", "command"), [(5.0, 3.0, 2.0), (4.0, 2.0, 2.0), (1.0, 0.5, 0.5)])
async def test_quota_is_shared_while_another_process_runs(rate, service, command):
    course, memory = Course(), Memory()
    ours = SharedQuota.for_service(memory, course.clock, ["city"], rate)
    theirs = SharedQuota.for_command(memory, course.clock, ["city"], rate)
    assert await ours.entry_delay() == 0.0
    assert await ours.current_rate() == float("inf")

    memory.leases = {"beside/city": "a command", "source/city": "a service"}
    assert await theirs.entry_delay() == pytest.approx(1.0 + cooldown(rate))
    assert await ours.current_rate() == float("inf"), "what was seen holds for a second"
    course.seconds += 1.0
    assert await ours.current_rate() == service
    assert await theirs.current_rate() == command

    memory.leases.clear()
    course.seconds += 1.0
    assert await ours.current_rate() == service, "what they asked last may count still"
    course.seconds += 1.0 + cooldown(rate)
    assert await ours.current_rate() == float("inf")


async def test_unresponsive_store_counts_as_another_process():
    course, memory = Course(), Memory()
    share = SharedQuota.for_service(memory, course.clock, ["city"], 4.0)
    memory.away = True
    assert await share.current_rate() == 2.0
    assert await share.entry_delay() > 0


async def test_many_who_ask_at_once_look_once_a_second():
    course, memory = Course(), Memory()
    share = SharedQuota.for_service(memory, course.clock, ["city"], 4.0)
    for _ in range(3):
        await asyncio.gather(*(share.current_rate() for _ in range(50)))
        course.seconds += 1.0
    assert memory.asked == 3


# --- names ------------------------------------------------------------------------------------------------------------


def test_sources_share_an_account_and_accountless_ones_do_not():
    class Known:
        def __init__(self, account: str) -> None:
            self.account = account

    grouped = accounts({"b": Known("x"), "a": Known("x"), "c": Known("y"), "d": object()})
    assert list(grouped) == [("b", "a"), ("c",), ("d",)]
    assert [polling_lease(names) for names in grouped] == ["account/a", "source/c", "source/d"]
    assert [command_lease(names) for names in grouped] == ["beside/a", "beside/c", "beside/d"]


# --- a lease for one piece of work ------------------------------------------------------------------------------------


async def test_work_knows_its_lease_deadline_and_quota(store: Ledger):
    clock = Clock()
    assert current().lease is None
    async with hold_lease(store, clock, "account/a", "us", 30, max_wait=0):
        outer = current().lease
        async with hold_lease(store, clock, "source/a", "us", 60, max_wait=0):
            inner = current().lease
            assert inner is not None
            inner.check(clock.monotonic())
            with pytest.raises(LeaseLost, match="account/a was not renewed"):
                inner.check(clock.monotonic() + 40)
        assert current().lease is outer
    assert current().lease is None
    assert await store.holder("account/a") is None


async def test_foreign_lease_is_waited_for_and_reported_once(store: Ledger):
    clock = Clock()
    reported: list[str] = []
    theirs = await store.acquire("beside/a", "them", 0.8)
    assert theirs is not None
    async with hold_lease(store, clock, "beside/a", "us", 5, max_wait=5, waiting=lambda: reported.append("waits")):
        assert await store.holder("beside/a") == "us"
    assert reported == ["waits"]
    await store.acquire("beside/a", "them", 60)
    with pytest.raises(BridgeError, match="beside/a: another process holds the lease"):
        async with hold_lease(store, clock, "beside/a", "us", 5, max_wait=0):
            pytest.fail("it is theirs")


async def test_expired_lease_stays_blocked_for_the_cooldown(store: Ledger):
    clock = Clock()
    async with hold_lease(store, clock, "beside/a", "us", 60, max_wait=0, cooldown_seconds=0.7):
        pass
    ended = clock.monotonic()
    async with hold_lease(store, clock, "beside/a", "them", 60, max_wait=5):
        assert clock.monotonic() - ended > 0.4
