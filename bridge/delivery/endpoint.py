"""Whether a sink's endpoint gets events now: its circuit breaker, its disabled flag, and an operator's pause."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial

import structlog

from bridge.coordination.gates import Gate
from bridge.delivery.claims import write_with_retry
from bridge.delivery.failure_alarm import FailureAlarm
from bridge.domain.adaptive_rate import AdaptiveRate
from bridge.domain.circuit_breaker import CircuitBreaker
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, Permanent, Transient
from bridge.protocols.roster import OpenCircuit

log = structlog.get_logger()

PublishChange = Callable[[str, str, datetime], Awaitable[None]]
"""Publishes that an endpoint's state changed: the new state, why, and when.

The states are `failing`, `disabled`, `gone`, `recovered`, and `answering`: recovered without having been disabled."""


_TOO_MANY_REQUESTS_STATUS = 429
_USUAL_REST_SECONDS = 1.0
"""The wait after a 429 that asks for none."""
_MAX_REST_SECONDS = 60.0


def _asks_for_less(error: Exception) -> bool:
    """Say whether an endpoint accepts events, and gets too many at a time."""
    answer = error.answer if isinstance(error, BridgeError) else None
    return answer is not None and answer.status == _TOO_MANY_REQUESTS_STATUS


class EndpointState:
    """Learns from the result of each attempt whether the endpoint of one sink may be sent to.

    `publish` is called until the store has the change, with the same time, so that repeats are the same event.
    """

    def __init__(
        self,
        sink: str,
        clock: Clock,
        *,
        publish: PublishChange,
        wake: Callable[[], None],
        gate: Gate,
        alarm_after: int = 0,
    ) -> None:
        self.disabled = False
        """An endpoint that said it is gone gets nothing until an operator re-enables it; its deliveries wait."""
        self.noted = False
        """Whether the disabled flag has been written. Until then its absence in the store is not a re-enable."""
        self.open_circuit: OpenCircuit | None = None
        """Since when its circuit is open, and why; None while it is closed."""
        self.rate = AdaptiveRate()
        """How fast it is sent to."""
        self._gate = gate
        self._sink = sink
        self._clock = clock
        self._publish = publish
        self._wake = wake
        self._circuit = CircuitBreaker(clock.random)
        self._alarm = FailureAlarm(alarm_after)

    @property
    def on_hold(self) -> bool:
        """Whether nothing is sent until an operator says so: it is disabled, or was paused by hand."""
        return self.disabled or self._gate.pause is not None

    @property
    def paused(self) -> bool:
        """Whether nothing is sent now, except for a probe."""
        return self.on_hold or not self._circuit.allows(self._clock.monotonic())

    def capacity(self, now: float, wanted: int) -> int:
        """Return how many of `wanted` deliveries may be sent now; while the circuit is open, one as a probe."""
        return 0 if self.on_hold else self._circuit.capacity(now, wanted)

    def seconds_to_probe(self) -> float:
        """Return how long nothing is sent."""
        return max(0.0, self._circuit.until - self._clock.monotonic())

    def on_attempt(self) -> bool:
        """Note that a delivery is being sent; return whether it is a probe."""
        return self._circuit.on_attempt()

    def on_cancelled(self) -> None:
        """Note that an attempt ended and says nothing of the endpoint."""
        self._circuit.on_cancelled()

    async def on_success(self) -> None:
        """Note that the endpoint answered; publish it if the circuit was open, or the alarm raised."""
        was_failing = self._alarm.on_success()
        if self._circuit.on_success():
            self.open_circuit = None
            log.info("sink.circuit_closed", sink=self._sink, consequence="what waited is sent now")
            await self._publish_change("recovered", "")
            self._wake()
        elif was_failing:
            await self._publish_change("answering", "")

    async def on_failure(self, error: Exception, text: str) -> bool:
        """Note a failed attempt; return whether it says that the endpoint is down."""
        if isinstance(error, Permanent):
            await self.on_success()  # the endpoint answers, and refuses this event
            return False
        if _asks_for_less(error):
            wait = (error.retry_after if isinstance(error, Transient) else None) or _USUAL_REST_SECONDS
            self.rate.on_throttled(self._clock.monotonic(), min(wait, _MAX_REST_SECONDS))
        if isinstance(error, Transient) and error.retry_after:
            self._on_retry_after(error.retry_after, text)
            return False  # the endpoint answers
        if self._alarm.on_failure():
            log.warning(
                "sink.failing", sink=self._sink, reason=text, failures=self._alarm.failures,
                consequence="SinkFailing is published; what it did not accept is tried again",
            )  # fmt: skip
            await self._publish_change("failing", text)
        if self._circuit.on_failure(self._clock.monotonic()):
            self.open_circuit = OpenCircuit(self._clock.epoch(), text)
            log.error(
                "sink.circuit_opened", sink=self._sink, reason=text, failures=self._circuit.failures,
                consequence="it is probed now and then; no event spends its tries on it until it answers",
            )  # fmt: skip
            await self._publish_change("disabled", text)
        return True

    def _on_retry_after(self, seconds: float, text: str) -> None:
        if self._circuit.on_retry_after(self._clock.monotonic(), seconds):
            log.info(
                "sink.retry_after", sink=self._sink, reason=text, seconds=round(seconds, 1),
                consequence="nothing is sent to it for so long, up to a minute",
            )  # fmt: skip

    async def on_gone(self, text: str) -> None:
        """Disable the sink: the endpoint said that it is gone for good."""
        if self.disabled:
            return  # of several events that were being sent, the first has disabled it
        self.disabled, self.noted = True, False
        log.error(
            "sink.disabled", sink=self._sink, reason=text,
            consequence=f"its events wait until `bridgectl deliveries redrive {self._sink} --all`",
        )  # fmt: skip
        await self._publish_change("gone", text)
        self.noted = True

    async def _publish_change(self, state: str, text: str) -> None:
        await write_with_retry(self._sink, self._clock, partial(self._publish, state, text, self._clock.now()))
