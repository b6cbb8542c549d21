"""The worker of an endpoint that answers 429: it finds the endpoint's rate instead of running into it again and again."""

from __future__ import annotations

import asyncio
import time

from rigs.delivery import World, event

from bridge.domain.clock import Clock
from bridge.domain.errors import EndpointAnswer, Transient

HURRY = 10
"""How many of the worker's seconds pass in a second."""


class Endpoint:
    """Allows 20 events a second and five at once; beyond, it answers 429 with `Retry-After: 1`."""

    def __init__(self) -> None:
        self.tokens, self.at = 5.0, now()
        self.refused = 0
        self.status = 429

    def answer(self, _: object) -> None:
        self.tokens, self.at = min(5.0, self.tokens + (now() - self.at) * 20), now()
        if self.tokens >= 1:
            self.tokens -= 1
            return
        self.refused += 1
        error = Transient("HTTP 429", retry_after=1.0)
        error.answer = EndpointAnswer(self.status, b"")
        raise error


def now() -> float:
    return time.monotonic() * HURRY


async def deliver_to(endpoint: Endpoint, world: World, count: int) -> None:
    world.clock = Clock(monotonic=now, sleep=lambda seconds: asyncio.sleep(seconds / HURRY))
    world.set(concurrency=4, retry=["1h"])
    world.sink.answer = endpoint.answer
    await world.publish(*(event(number, partition=f"/r/{number}") for number in range(count)))
    async with world.running():
        await world.until(lambda: len(world.sink.delivered) + endpoint.refused >= count)


async def test_rate_of_an_endpoint_is_found_with_few_refusals(world: World) -> None:
    endpoint = Endpoint()
    await deliver_to(endpoint, world, 100)
    assert len(world.sink.delivered) + endpoint.refused == 100
    assert endpoint.refused <= 15


async def test_event_that_waits_its_turn_delays_no_stop(world: World) -> None:
    endpoint = Endpoint()
    world.clock = Clock(monotonic=now, sleep=lambda seconds: asyncio.sleep(seconds / HURRY))
    world.set(concurrency=4)
    world.sink.answer = endpoint.answer
    await world.publish(*(event(number, partition=f"/r/{number}") for number in range(50)))
    async with asyncio.timeout(60), world.running(grace=60.0) as delivery:
        await world.until(lambda: endpoint.refused)
        delivery._endpoint.rate.rate = 0.001
        await world.until(delivery._sender._turn.locked)
    waiting = await world.store.deliveries("crm")
    assert len(waiting) + len(world.sink.delivered) == 50
