"""What happens in one poll that asks many times: problems, what could not be read, and when to stop asking."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from bridge.domain.errors import BridgeError
from bridge.http.errors import ProviderError, Throttled

_DOWN_AFTER_REQUESTS = 2


@dataclass(slots=True)
class Sweep:
    """What happened so far in one poll; a source adds how it reads an answer."""

    problems: list[str] = field(default_factory=list)
    answered: bool = False
    """Whether any question was answered whole."""
    unreadable: Counter[str] = field(default_factory=Counter)
    """What could not be read, in words, and how often."""
    _error: BridgeError | None = None
    _unanswered: int = 0
    """Requests that got no answer."""

    @property
    def looks_down(self) -> bool:
        """Whether the server may be down: several requests got no answer, and none was answered."""
        return self._unanswered >= _DOWN_AFTER_REQUESTS and not self.answered

    def on_failure(self, what: str, error: BridgeError) -> None:
        """Note a failure; raises it if further requests would only wait for a server that is down."""
        looked_down = self.looks_down
        self.problems.append(f"{what}: {error}; read again at the next poll")
        self._error = error
        no_answer = isinstance(error, ProviderError) and error.status is None
        self._unanswered += no_answer
        if isinstance(error, Throttled) or (looked_down and no_answer):
            raise error

    def end(self) -> None:
        """Report what could not be read; raises if nothing could."""
        self.problems += [f"{count} {what}: passed over" for what, count in self.unreadable.items()]
        if self._error is not None and not self.answered:
            raise self._error
