"""When to try again is decided with values."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.errors import EndpointGone, Permanent, Transient
from bridge.domain.retry import RETRY_AFTER_CAP, GiveUp, RetryAfter, backoff, decide, idle_interval

SCHEDULE = (5.0, 300.0, 1800.0)


@pytest.mark.parametrize(("attempt", "least"), [(1, 5.0), (2, 300.0), (3, 1800.0)])
def test_waits_follow_the_schedule_with_a_tenth_of_jitter(attempt: int, least: float) -> None:
    decision = decide(Transient("down"), attempt, SCHEDULE, random.Random(1))
    assert isinstance(decision, RetryAfter)
    assert least <= decision.after <= least * 1.1


def test_attempts_end_after_the_last_wait() -> None:
    assert decide(Transient("down"), 4, SCHEDULE, random.Random(1)) == GiveUp("exhausted")


@pytest.mark.parametrize("error", [Permanent("no"), EndpointGone("gone")])
def test_a_permanent_error_is_given_up_at_once(error: Exception) -> None:
    assert decide(error, 1, SCHEDULE, random.Random(1)) == GiveUp("permanent")


def test_retry_after_is_a_minimum_wait() -> None:
    decision = decide(Transient("slow down", retry_after=120), 1, SCHEDULE, random.Random(1))
    assert decision == RetryAfter(120)


def test_retry_after_has_a_maximum() -> None:
    decision = decide(Transient("never", retry_after=1e9), 1, SCHEDULE, random.Random(1))
    assert decision == RetryAfter(RETRY_AFTER_CAP)


def test_an_error_of_no_known_kind_is_tried_again() -> None:
    assert isinstance(decide(RuntimeError("?"), 1, SCHEDULE, random.Random(1)), RetryAfter)


@given(st.integers(1, 10_000), st.integers())
def test_backoff_stays_between_its_bounds(failures: int, seed: int) -> None:
    wait = backoff(failures, random.Random(seed), base=1.0, cap=300.0)
    assert 0.5 <= wait <= 300.0


def test_quiet_source_is_polled_less_often_up_to_a_limit() -> None:
    waits = [idle_interval(60.0, quiet, 5.0) for quiet in range(60)]
    assert waits[:11] == [60.0] * 11
    assert waits == sorted(waits)
    assert waits[-1] == 300.0
    assert idle_interval(60.0, 1000, 1.0) == 60.0
