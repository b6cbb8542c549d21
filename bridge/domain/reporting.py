"""How a loop that waits for the store or the broker tells the process, whose `/readyz` says it."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, str | None], object]
"""Takes an activity, and why it cannot go on; None says that it goes on."""


def unreported(activity: str, reason: str | None) -> None:
    """Tell nobody: for a command, which ends with its error."""
    del activity, reason
