"""Who gives an order, and why, as it is kept with the order."""

from __future__ import annotations

import getpass
import socket

_MAX_REASON_CHARACTERS = 200


def operator() -> str:
    """Return `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def short_reason(text: str) -> str:
    """Return an operator's words on one line, cut to a length that every table can show."""
    return " ".join(text.split())[:_MAX_REASON_CHARACTERS]
