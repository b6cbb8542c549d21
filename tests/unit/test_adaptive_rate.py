"""The rate of a sink, against simulated endpoints that allow 50 requests a second and answer 429 beyond."""

from __future__ import annotations

import heapq
import math
from collections import deque
from itertools import count

import pytest

from bridge.domain.adaptive_rate import AdaptiveRate

LIMIT = 50
LATENCY_SECONDS = 0.02
CONCURRENCY = 16


class FixedWindow:
    def __init__(self) -> None:
        self.window, self.count = -1, 0

    def accepts(self, now: float) -> bool:
        if int(now) != self.window:
            self.window, self.count = int(now), 0
        self.count += 1
        return self.count <= LIMIT


class SlidingWindow:
    def __init__(self) -> None:
        self.accepted: deque[float] = deque()

    def accepts(self, now: float) -> bool:
        while self.accepted and self.accepted[0] <= now - 1:
            self.accepted.popleft()
        if len(self.accepted) >= LIMIT:
            return False
        self.accepted.append(now)
        return True


class TokenBucket:
    """A bucket of five."""

    def __init__(self, limit: float = LIMIT) -> None:
        self.limit, self.tokens, self.at = limit, 5.0, 0.0

    def accepts(self, now: float) -> bool:
        self.tokens, self.at = min(5.0, self.tokens + (now - self.at) * self.limit), now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def run(endpoint, rates: list[AdaptiveRate], seconds: float) -> tuple[list[float], list[float]]:
    """Send for so long, each rate in a process of its own that never runs dry; return when what was answered how.

    Every 429 stops its process for a second, as `Retry-After: 1` asks.
    """
    accepted, refused, order = [], [], count()
    events = [(0.0, next(order), adaptive, False) for adaptive in rates for _ in range(CONCURRENCY)]
    rests = dict.fromkeys(map(id, rates), 0.0)
    heapq.heapify(events)
    while events and events[0][0] < seconds:
        now, _, adaptive, answered = heapq.heappop(events)
        if not answered:
            wait = max(adaptive.delay(now), rests[id(adaptive)] - now)
            if wait > 0:
                heapq.heappush(events, (now + max(wait, 0.001), next(order), adaptive, False))
                continue
            adaptive.take(now)
            heapq.heappush(events, (now + LATENCY_SECONDS, next(order), adaptive, True))
            continue
        if endpoint.accepts(now):
            accepted.append(now)
            adaptive.on_accepted(now)
        else:
            refused.append(now)
            adaptive.on_throttled(now, 1.0)
            rests[id(adaptive)] = max(rests[id(adaptive)], now + 1.0)
        heapq.heappush(events, (now, next(order), adaptive, False))
    return accepted, refused


def rate(moments: list[float], start: float, end: float) -> float:
    return sum(start <= moment < end for moment in moments) / (end - start)


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("endpoint", [FixedWindow, SlidingWindow, TokenBucket])
def test_limit_of_an_endpoint_is_found_and_held(endpoint, replicas):
    accepted, refused = run(endpoint(), [AdaptiveRate() for _ in range(replicas)], 120.0)
    assert rate(accepted, 15, 120) >= 0.85 * LIMIT
    assert all(rate(accepted, start, start + 20) >= 0.8 * LIMIT for start in range(20, 120, 20))
    assert rate(refused, 20, 120) < 1


def test_higher_limit_is_found_later():
    endpoint, adaptive = TokenBucket(), AdaptiveRate()
    run(endpoint, [adaptive], 20.0)
    endpoint.limit = 4 * LIMIT
    accepted, _ = run(endpoint, [adaptive], 150.0)
    assert rate(accepted, 130, 150) > 2 * LIMIT


def test_endpoint_without_limit_is_not_slowed_down():
    adaptive = AdaptiveRate()
    assert all(adaptive.delay(1.0) == 0 for _ in range(1000) if adaptive.take(1.0) is None)
    assert adaptive.rate == math.inf


def test_further_refusals_of_the_same_excess_change_nothing():
    adaptive = AdaptiveRate()
    for number in range(50):
        adaptive.on_accepted(number / 50)
    assert adaptive.on_throttled(1.0, 2.0)
    rate_before = adaptive.rate
    assert rate_before == pytest.approx(45.0, rel=0.05)
    assert not adaptive.on_throttled(1.1, 2.0)
    assert adaptive.rate == rate_before


def test_refusal_without_any_acceptance_keeps_a_trickle():
    adaptive = AdaptiveRate()
    adaptive.on_throttled(0.0, 1.0)
    assert adaptive.rate == pytest.approx(1.0)
