"""A receiver that is down for three days, with quiet nights, on a clock that jumps: each event is sent, or expired."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

from rigs.delivery import World

from bridge.domain.errors import Transient
from bridge.domain.event import WireEvent
from bridge.domain.quiet_times import QuietTimes
from bridge.domain.times import rfc3339
from bridge.protocols.deliveries import DeliveryCounts

BEGIN = datetime(2026, 3, 27, 12, tzinfo=UTC)
"""The second night is the one in which the clocks of Paris go forward."""
STEP_SECONDS = 1800.0
DOWN = range(8, 8 + 3 * 48)
"""The steps of the outage: three days of half hours."""
STEPS = DOWN.stop + 48
MAX_AGE = timedelta(hours=6)
QUIET = "22:00-07:00 Europe/Paris"
PEOPLE = 5


def recorded(number: int, now: datetime) -> WireEvent:
    moment = rfc3339(now)
    body = {"id": f"e{number}", "partitionkey": f"/r/{number % PEOPLE}", "n": number, "recordedtime": moment}
    return WireEvent(f"e{number}", f"sms.recipient.{'failed' if number % 3 else 'sent'}", 0, json.dumps(body).encode())


async def books(world: World) -> DeliveryCounts:
    return (await world.store.counts("crm")).get("city", DeliveryCounts())


async def test_three_days_of_outage_with_quiet_nights_add_up(world: World) -> None:
    world.offset = BEGIN.timestamp() - datetime.now(UTC).timestamp()
    world.store._clock = world.clock
    world.set(
        max_age="6h", expired="summary", quiet=QUIET, quiet_except={"in": {"n": list(range(0, 1000, 7))}}, ordered=True,
        retry=["5m"] * 3 + ["1h"] * 9,
    )  # fmt: skip
    quiet, is_down = QuietTimes(QUIET), False
    sent: list[tuple[int, datetime]] = []
    ages: list[timedelta] = []

    def answer(outgoing) -> None:
        body, now = json.loads(outgoing.wire.body), world.clock.now()
        ages.append(now - datetime.fromisoformat(body["recordedtime"]))
        assert body["n"] % 7 == 0 or quiet.at(now) is None, "nothing else is tried in a quiet time"
        if is_down:
            raise Transient("HTTP 503")
        sent.append((body["n"], now))

    world.sink.answer = answer
    summed: Counter[str] = Counter()
    made = published = 0

    async def is_counted() -> bool:
        counts = await books(world)
        return counts.delivered + counts.waiting + counts.expired + counts.dead == made

    async with world.running() as worker:
        for step in range(STEPS):
            is_down = step in DOWN
            world.offset += STEP_SECONDS
            world.slept += STEP_SECONDS
            await world.publish(*(recorded(made + extra, world.clock.now()) for extra in range(2)))
            made += 2
            worker.wake()
            await world.until(is_counted)
            await world.until(lambda: worker.in_flight == 0)
            if (totals := await world.store.open_totals("crm", f"s{step}")) is not None:
                published += totals.count
                summed.update(totals.topics)
                await world.store.close_totals("crm", totals.id)

        async def is_over() -> bool:
            world.offset += 60
            world.slept += 60
            worker.wake()
            return (await books(world)).waiting == 0

        await world.until(is_over)
    if (totals := await world.store.open_totals("crm", "last")) is not None:
        published += totals.count
        summed.update(totals.topics)
    counts = await books(world)
    assert counts == DeliveryCounts(delivered=len(sent), expired=published, dead=counts.dead)
    assert len(sent) + published + counts.dead == made
    assert sum(summed.values()) == published > 200
    assert world.unsent == {"expired": published}
    assert max(ages) <= MAX_AGE + timedelta(seconds=60), "what is older is not tried"
    assert len({number for number, _ in sent}) == len(sent)
    for person in range(PEOPLE):
        numbers = [number for number, _ in sent if number % PEOPLE == person]
        assert numbers == sorted(numbers), "a resource's events arrive in order"
    last = max(number for number, _ in sent)
    assert last > made - 40, "after the outage all goes on"
