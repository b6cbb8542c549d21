"""The threads of this process that belong to the bridge."""

from __future__ import annotations

import threading


def bridge_threads() -> list[str]:
    """Return the names of the threads that a broker or a worker began and has not ended."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bridge-")]
