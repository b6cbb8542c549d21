"""Whether an endpoint has failed so many times in a row that somebody should know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FailureAlarm:
    """Counts failures in a row; it is raised once, and ends with the next success."""

    after: int
    """How many failures raise it; 0 is never."""
    failures: int = 0
    is_raised: bool = False

    def on_failure(self) -> bool:
        """Note a failure; say whether it raises the alarm."""
        self.failures += 1
        if not self.after or self.is_raised or self.failures < self.after:
            return False
        self.is_raised = True
        return True

    def on_success(self) -> bool:
        """Note an answer; say whether it ends the alarm."""
        ends, self.is_raised, self.failures = self.is_raised, False, 0
        return ends
