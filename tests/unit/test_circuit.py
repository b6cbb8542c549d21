"""A far side that fails in a row is left alone, then probed, one delivery at a time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.circuit_breaker import CircuitBreaker


def opened() -> CircuitBreaker:
    circuit = CircuitBreaker(random.Random(1), opens_after=3, lasts=0.0)
    assert [circuit.on_failure(0.0) for _ in range(3)] == [False, False, True]
    return circuit


def test_circuit_opens_after_consecutive_failures_and_reports_once() -> None:
    circuit = opened()
    assert not circuit.closed
    assert not circuit.on_failure(0.0)


def test_a_success_between_failures_starts_the_count_again() -> None:
    circuit = CircuitBreaker(random.Random(1), opens_after=3)
    for _ in range(5):
        circuit.on_failure(0.0)
        circuit.on_failure(0.0)
        assert not circuit.on_success()
    assert circuit.closed


def test_failures_that_come_together_do_not_open_it() -> None:
    circuit = CircuitBreaker(random.Random(1), opens_after=3, lasts=5.0)
    assert [circuit.on_failure(100.0) for _ in range(30)] == [False] * 30
    assert not circuit.on_failure(104.9)
    assert circuit.on_failure(105.0)


def test_few_failures_over_a_long_time_keep_circuit_closed() -> None:
    circuit = CircuitBreaker(random.Random(1), opens_after=3, lasts=5.0)
    assert [circuit.on_failure(at) for at in (0.0, 500.0, 501.0)] == [False, False, True]


def test_it_says_which_one_is_the_probe() -> None:
    circuit = CircuitBreaker(random.Random(1), opens_after=3, lasts=0.0)
    assert not circuit.on_attempt()
    for _ in range(3):
        circuit.on_failure(0.0)
    assert circuit.on_attempt()


def test_retry_after_is_honoured_up_to_a_minute() -> None:
    circuit = CircuitBreaker(random.Random(1))
    assert circuit.on_retry_after(100.0, 20.0)
    assert not circuit.on_retry_after(101.0, 10.0)
    assert [circuit.capacity(now, 50) for now in (119.9, 120.0)] == [0, 50]
    assert circuit.on_retry_after(130.0, 86_400.0)
    assert not circuit.on_success()
    assert [circuit.allows(now) for now in (189.9, 190.0)] == [False, True]


def test_probe_with_retry_after_is_not_followed_at_once() -> None:
    circuit = opened()
    probed = circuit.until
    assert circuit.on_attempt()
    assert circuit.on_retry_after(probed, 0.1)
    assert circuit.capacity(probed + 1.9, 50) == 0
    assert circuit.capacity(probed + 2.0, 50) == 1
    assert circuit.on_attempt()
    assert circuit.on_success()
    assert circuit.capacity(probed, 50) == 50


def test_open_circuit_allows_one_probe_at_a_time() -> None:
    circuit = opened()
    assert circuit.capacity(circuit.until - 0.01, 50) == 0
    assert circuit.capacity(circuit.until, 50) == 1
    circuit.on_attempt()
    assert circuit.capacity(circuit.until, 50) == 0
    circuit.on_cancelled()
    assert circuit.capacity(circuit.until, 50) == 1


def test_successful_probe_closes_and_failed_probe_prolongs() -> None:
    circuit = opened()
    waits = []
    now = 0.0
    for _ in range(10):
        waits.append(circuit.until - now)
        now = circuit.until
        circuit.on_attempt()
        assert not circuit.on_failure(now)
    assert waits[-1] >= 7.5 > waits[0]
    circuit.on_attempt()
    assert circuit.on_success()
    assert circuit.closed
    assert circuit.capacity(now, 50) == 50


def test_late_failures_of_earlier_sends_do_not_prolong() -> None:
    circuit = opened()
    until = circuit.until
    for _ in range(20):
        circuit.on_failure(0.5)
    assert circuit.until == until


@given(st.lists(st.sampled_from(["on_failure", "on_success", "on_attempt", "on_cancelled"]), max_size=60))
def test_it_never_stays_shut_for_ever(steps: list[str]) -> None:
    circuit, now = CircuitBreaker(random.Random(2), opens_after=3, lasts=0.0), 0.0
    for step in steps:
        now += 1.0
        if step == "on_failure":
            circuit.on_failure(now)
        else:
            getattr(circuit, step)()
    circuit.on_cancelled()
    assert circuit.capacity(now + 120.0, 5) >= 1


def test_waits_have_a_bound() -> None:
    circuit = opened()
    for _ in range(50):
        circuit.on_attempt()
        circuit.on_failure(0.0)
    assert circuit.until <= 15.0
    assert circuit.failures == pytest.approx(53)
