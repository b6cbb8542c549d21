"""What the number of an HTTP status says, for both clients."""

from __future__ import annotations

NO_CONTENT_STATUS = 204
NOT_MODIFIED_STATUS = 304
GONE_STATUS = 410
RETRIED_CLIENT_ERRORS = frozenset({408, 425, 429})
"""HTTP statuses of the 4xx class that a later try may overcome."""


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
