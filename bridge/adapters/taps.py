"""What the taps of all brokers have in common: a tap is a queue of one process, which ends with that process."""

from __future__ import annotations

import uuid

PREFIX = "bridge.tap."
MAX_MESSAGES = 10_000
"""Messages that wait for a slow tap; beyond that the broker drops the oldest."""
PREFETCH_MESSAGES = 1000


def new_queue() -> str:
    """Return a queue's name that no other tap has."""
    return f"{PREFIX}{uuid.uuid4().hex}"
