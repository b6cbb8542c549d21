"""For how much time one request asks: the largest span that the provider answers, found by trying."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from bridge.domain.errors import BridgeError, Permanent
from bridge.http.errors import ProviderError, RequestRejected, TooLarge

SMALLEST_SPAN = timedelta(minutes=1)
"""A request for no more than this is not made smaller."""
_STEP_FACTOR = 2
_TIMEOUT_STEP_FACTOR = 8
_FIRST_PROBE_REQUESTS = 4
_BAD_REQUEST_STATUS = 400
_TOO_LARGE_STATUSES = frozenset({_BAD_REQUEST_STATUS, 408, 413, 504, 524})


@dataclass(slots=True)
class AdaptiveSpan:
    """For how much time to ask at once: what the provider accepts, found by trying.

    A span that was too large is not tried again at once. But one bad moment of the provider must not leave us asking
    for minutes: after a few answers in a row, twice as much is tried. Each further refusal doubles the number of
    answers that this takes.
    """

    largest: timedelta
    span: timedelta = field(init=False)
    _refused: timedelta = field(init=False)
    """The smallest span that is not tried now."""
    _successes: int = 0
    """Answers in a row."""
    _probe_after: int = _FIRST_PROBE_REQUESTS
    """Answers in a row after which twice as much is tried."""

    def __post_init__(self) -> None:
        self.span, self._refused = self.largest, self.largest * _STEP_FACTOR

    def begin(self) -> None:
        """Allow a larger span at the beginning of a poll, unless the last outcome was a refusal."""
        if self._successes:
            self._refused = self._refused * _STEP_FACTOR
            self._successes, self._probe_after = 0, _FIRST_PROBE_REQUESTS

    def on_success(self) -> None:
        """Note that the provider has answered."""
        self._successes += 1
        if self._successes % self._probe_after == 0:
            self._refused *= _STEP_FACTOR
        self._refused = min(self._refused, self.largest * _STEP_FACTOR)
        if self.span * _STEP_FACTOR < self._refused:
            self.span = min(self.span * _STEP_FACTOR, self.largest)

    def on_too_large(self, tried: timedelta, smaller: timedelta) -> None:
        """Note that `tried` was too large, and ask for `smaller` instead."""
        self._on_failure()
        self._refused, self.span = tried, smaller

    def on_other_failure(self) -> None:
        """Note a failure that does not depend on the span."""
        self._on_failure()
        self.span = self.largest

    def _on_failure(self) -> None:
        self._successes, self._probe_after = 0, self._probe_after * _STEP_FACTOR


def smaller_span(error: BridgeError, span: timedelta) -> timedelta | None:
    """Return for how much time to ask instead of `span` after `error`; None if a smaller span does not help.

    A request without an answer costs its whole time-out, so the span becomes an eighth at once.
    """
    if isinstance(error, ProviderError) and error.timed_out:
        factor = _TIMEOUT_STEP_FACTOR
    elif isinstance(error, TooLarge) or (
        isinstance(error, ProviderError | RequestRejected) and error.status in _TOO_LARGE_STATUSES
    ):
        factor = _STEP_FACTOR
    else:
        return None
    return max(span / factor, SMALLEST_SPAN) if span > SMALLEST_SPAN else None


def final_error(error: BridgeError) -> BridgeError:
    """Return what to raise for a request that cannot be made smaller."""
    if isinstance(error, RequestRejected) and error.status == _BAD_REQUEST_STATUS:
        return Permanent(f"{error}, even for {SMALLEST_SPAN.seconds} s of records: check url and team")
    return error
