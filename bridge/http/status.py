"""What the number of an HTTP status says, for both clients."""

from __future__ import annotations

OK_STATUS = 200
NO_CONTENT_STATUS = 204
NOT_MODIFIED_STATUS = 304
GONE_STATUS = 410
TOO_MANY_REQUESTS_STATUS = 429
EVENT_IS_WRONG_STATUSES = (400, 413, 415, 422)
"""Refusals that concern this event and no other; every other refusal may pass, as during a rolling update."""
CREDENTIALS_REFUSED_STATUSES = frozenset({401, 403, 407})


def is_success(status: int) -> bool:
    """Say whether the status is 2xx."""
    return 200 <= status < 300  # noqa: PLR2004 - HTTP's own classes


def is_redirect(status: int) -> bool:
    """Say whether the status is 3xx."""
    return 300 <= status < 400  # noqa: PLR2004 - HTTP's own classes


def is_client_error(status: int) -> bool:
    """Say whether the status is 4xx."""
    return 400 <= status < 500  # noqa: PLR2004 - HTTP's own classes


def is_server_error(status: int) -> bool:
    """Say whether the status is 5xx, or a number beyond those that HTTP defines."""
    return status >= 500  # noqa: PLR2004 - HTTP's own classes
