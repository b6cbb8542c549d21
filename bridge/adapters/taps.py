"""What the taps of all brokers have in common: a tap is a queue of one process, which ends with that process."""

from __future__ import annotations

import uuid

from bridge.domain.namespace import Namespace

MAX_MESSAGES = 10_000
"""Messages that wait for a slow tap; beyond that the broker drops the oldest."""
PREFETCH_MESSAGES = 1000


def new_queue(namespace: Namespace) -> str:
    """Return a queue's name that no other tap has."""
    return f"{namespace.tap_prefix}{uuid.uuid4().hex}"
