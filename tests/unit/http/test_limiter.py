"""The budget of requests: never more in a second, and never less than is wanted."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rigs.http import NOW, TOKEN

from bridge.domain.clock import Clock
from bridge.http.limiter import Limiter, account_key, change_rate, shared_limiter
from bridge.testing.fakes import ManualTime


def most_in(starts: list[float], window: float) -> int:
    return max(sum(start <= other < start + window for other in starts) for start in starts)


@given(
    rate=st.one_of(st.integers(1, 300).map(float), st.floats(0.05, 60)),
    waits=st.lists(st.floats(0, 3), min_size=1, max_size=60),
    pauses=st.dictionaries(st.integers(0, 59), st.floats(0, 4), max_size=5),
)
def test_in_no_second_is_more_started_than_the_budget_allows(rate, waits, pauses):
    async def run() -> None:
        time = ManualTime(NOW)
        limiter = Limiter(rate, time.clock)
        starts: list[float] = []
        for number, wait in enumerate(waits):
            quiet_until = 0.0
            if number in pauses:
                limiter.pause(pauses[number])
                quiet_until = time.seconds + pauses[number]
            await limiter.start()
            assert time.seconds >= quiet_until
            starts.append(time.seconds)
            time.seconds += wait if wait > 1 else 0.0
        whole = float(rate).is_integer()
        assert most_in(starts, 1.0) <= (rate if whole else int(rate) + 1)
        if rate < 1:
            assert most_in(starts, 1 / rate - 1e-9) == 1

    asyncio.run(run())


@pytest.mark.parametrize("rate", [4.0, 500.0])
async def test_budget_is_fully_used_when_enough_is_waiting(time, rate):
    limiter = Limiter(rate, time.clock)
    count = int(rate * 5)
    for _ in range(count):
        await limiter.start()
    assert time.seconds == pytest.approx(5, rel=0.25)


async def test_who_asks_first_starts_first(time):
    limiter = Limiter(4.0, time.clock)
    order: list[int] = []

    async def one(number: int) -> None:
        await limiter.start()
        order.append(number)

    await asyncio.gather(*(one(number) for number in range(20)))
    assert order == list(range(20))


async def test_one_who_gave_up_waiting_costs_the_others_nothing(time):
    limiter = Limiter(1.0, Clock())
    await limiter.start()
    waiting = asyncio.create_task(limiter.start())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not limiter._queue.locked()


async def test_account_shares_the_lowest_budget_among_its_sources(time):
    key = account_key("https://tms.govdelivery.com/", TOKEN)
    limiter = shared_limiter(key, 4.0, time.clock)
    assert TOKEN not in key
    assert account_key("https://TMS.govdelivery.com:443", TOKEN) == key
    assert account_key("https://tms.govdelivery.com", "another") != key
    assert shared_limiter(key, 2.0, time.clock) is limiter
    assert shared_limiter(key, 8.0, time.clock) is limiter
    assert limiter.rate == 2.0
    assert shared_limiter("other", 2.0, time.clock) is not limiter


async def test_budget_rises_when_its_users_allow_more(time):
    limiter = shared_limiter("risen", 1.0, time.clock)
    change_rate("risen", 4.0, time.clock)
    assert limiter.rate == 4.0
    for _ in range(4):
        await limiter.start()
    assert time.seconds < 1.0
    change_rate("nobody", 4.0, time.clock)
    assert shared_limiter("nobody", 2.0, time.clock).rate == 2.0


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_of_nothing_is_refused(rate):
    with pytest.raises(ValueError, match="above 0"):
        Limiter(rate, Clock())
