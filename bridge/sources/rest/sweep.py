"""What happens in one poll: items read, problems, and when to stop asking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

from bridge.domain.errors import BridgeError
from bridge.http.errors import ProviderError, Throttled
from bridge.protocols.source import Observation
from bridge.sources.rest.records import ItemReader, ReadMoment, UnreadableItem

_DOWN_AFTER_REQUESTS = 2
PAGE_OBSERVATIONS = 500
"""Observations of one page at most: a page is committed in one write."""


@dataclass(slots=True)
class PollSweep:
    """What happened so far in one poll."""

    reader: ItemReader
    problems: list[str] = field(default_factory=list)
    answered: bool = False
    """Whether any question was answered whole."""
    _unreadable: Counter[str] = field(default_factory=Counter)
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

    def observe(self, items: Sequence[Any]) -> list[Observation]:
        """Return what the items show; those that cannot be read are counted."""
        observe = self.reader.observe
        observations: list[Observation] = []
        for item in items:
            observation = observe(item)
            if isinstance(observation, UnreadableItem):
                self._unreadable[f"items {observation.reason}"] += 1
            else:
                observations.append(observation)
        return observations

    def end(self) -> None:
        """Report what could not be read; raises if nothing could."""
        self.problems += [f"{count} {what}: passed over" for what, count in self._unreadable.items()]
        if self._error is not None and not self.answered:
            raise self._error


def backlog_runs(
    observations: Sequence[Observation], created: ReadMoment, first_polled: datetime | None
) -> Iterator[tuple[bool, Sequence[Observation]]]:
    """Yield the observations in their order, in portions; those of before the first poll are marked as backlog."""

    def is_old(observation: Observation) -> bool:
        when = created(observation.item)
        return when is None or first_polled is None or when <= first_polled

    if not observations:
        yield False, []
    if first_polled is None:
        for start in range(0, len(observations), PAGE_OBSERVATIONS):
            yield False, observations[start : start + PAGE_OBSERVATIONS]
        return
    for old, run in groupby(observations, key=is_old):
        portion = list(run)
        for start in range(0, len(portion), PAGE_OBSERVATIONS):
            yield old, portion[start : start + PAGE_OBSERVATIONS]
