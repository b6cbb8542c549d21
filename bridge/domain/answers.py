"""Classes of answers, of providers and of endpoints: a few words, fit for the label of a metric."""

from __future__ import annotations

from bridge.domain.errors import BridgeError, Transient, Unauthorized

ACCEPTED = "accepted"
NO_ANSWER = "no_answer"
PROVIDER_ANSWERS = ("2xx", "3xx", "4xx", "credentials", "throttled", "5xx", NO_ANSWER)
"""What a provider may answer to a request."""
SINK_ANSWERS = (ACCEPTED, *PROVIDER_ANSWERS)
"""What the endpoint of a sink may answer to an event."""
_CREDENTIALS_STATUSES = frozenset({401, 403, 407})
_THROTTLED_STATUS = 429


def answer_class(status: int) -> str:
    """Return the class of an HTTP status; refused credentials and too many requests have classes of their own."""
    if status in _CREDENTIALS_STATUSES:
        return "credentials"
    if status == _THROTTLED_STATUS:
        return "throttled"
    return f"{min(max(status // 100, 2), 5)}xx"


def failure_class(error: Exception) -> str:
    """Return the class of the answer that made an attempt fail; empty if the endpoint was not asked at all."""
    if isinstance(error, Transient) and not error.counts_as_attempt:
        return ""
    if isinstance(error, BridgeError) and error.answer is not None:
        return answer_class(error.answer.status)
    return "credentials" if isinstance(error, Unauthorized) else NO_ANSWER
