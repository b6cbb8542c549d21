"""How long an answer asks for quiet: `Retry-After` and rate limits, by the clock of whoever answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from multidict import CIMultiDict

from bridge.domain.clock import Clock
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.errors import ProviderError
from bridge.http.guarded import Endpoint, GuardedClient
from bridge.http.headers import parse_retry_after, requested_wait
from bridge.http.limiter import Limiter
from bridge.testing.fake_endpoint import FakeEndpoint, reply

NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


def http_time(moment):
    return format_datetime(moment, usegmt=True)


@pytest.mark.parametrize("hours", [-26, -2, 0, 2, 26])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_date_is_counted_by_the_senders_clock(status, hours):
    ahead = datetime.now(UTC) + timedelta(hours=hours)
    headers = {"Date": http_time(ahead), "Retry-After": http_time(ahead + timedelta(seconds=5))}
    clock = Clock()
    async with FakeEndpoint(default=reply(status, b"", headers)) as far:
        outbound = GuardedClient(allow_private=True, clock=clock)
        await outbound.open()
        error = (await outbound.post(Endpoint.of(far.url), b"", {})).error()
        await outbound.close()
        assert error.retry_after == 5.0
        client = HttpClient(far.url, limiter=Limiter(1000, clock), clock=clock, limits=HttpLimits(retries=0))
        with pytest.raises(ProviderError) as caught:
            await client.get("/")
        await client.close()
        assert caught.value.retry_after == 5.0


@pytest.mark.parametrize("date", [None, "soon", ""])
def test_without_a_usable_date_our_own_clock_counts(date):
    headers = CIMultiDict({"Retry-After": http_time(NOW + timedelta(seconds=90))})
    if date is not None:
        headers["Date"] = date
    assert requested_wait(headers, 503, NOW) == 90.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("1714564830", 30.0), ("1714564830000", 30.0), ("1714564800.5", 0.5), ("1714564000", 0.0), ("31536000", 31536000.0),
     ("2024-05-01T12:00:30Z", 30.0), ("2024-05-01T14:00:30+02:00", 30.0), ("1e400", None)],
)  # fmt: skip
def test_a_wait_may_be_a_time_of_day(value, seconds):
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"RateLimit-Reset": "30"}, 30.0),
        ({"X-RateLimit-Reset": "1714564830"}, 30.0),
        ({"X-RateLimit-Reset": "1714564830000"}, 30.0),
        ({"x-ratelimit-reset": "30"}, 30.0),
        ({"X-Rate-Limit-Reset": "1714564830"}, 30.0),
        ({"X-RateLimit-Reset-After": "1.5", "X-RateLimit-Reset": "1714564999"}, 1.5),
        ({"RateLimit": "limit=100, remaining=0, reset=30"}, 30.0),
        ({"RateLimit": '"default";r=0;t=30'}, 30.0),
        ({"Retry-After": "7", "X-RateLimit-Reset": "1714564830"}, 7.0),
        ({"X-RateLimit-Reset": "soon"}, None),
        ({}, None),
    ],
)
def test_a_used_up_rate_limit_says_when_it_ends(headers, seconds):
    answer = CIMultiDict({"Date": http_time(NOW), **headers})
    assert requested_wait(answer, 429, NOW + timedelta(hours=5)) == seconds


def test_a_rate_limit_that_remains_asks_for_nothing():
    plenty = CIMultiDict({"X-RateLimit-Reset": "1714564830", "X-RateLimit-Remaining": "17", "Date": http_time(NOW)})
    none_left = CIMultiDict({**plenty, "X-RateLimit-Remaining": "0"})
    assert [requested_wait(plenty, status, NOW) for status in (200, 202, 403, 500)] == [None] * 4
    assert [requested_wait(none_left, status, NOW) for status in (200, 403, 503)] == [None, 30.0, 30.0]
