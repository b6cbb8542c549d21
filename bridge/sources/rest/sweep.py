"""What a poll sees: observations, what of them is new since the answer before, and portions to commit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from bridge.protocols.source import Observation
from bridge.sources.rest.facts import ReadMoment
from bridge.sources.rest.records import ItemReader, UnreadableItem
from bridge.sources.shapes.sweep import Sweep

PAGE_OBSERVATIONS = 500
"""Observations of one page at most: a page is committed in one write."""


@dataclass(slots=True)
class PollSweep(Sweep):
    """What happened so far in one poll of a definition."""

    def observe(self, reader: ItemReader, items: Sequence[Any], label: str = "records") -> list[Observation]:
        """Return what the items show; those that cannot be read are counted."""
        observe = reader.observe
        observations: list[Observation] = []
        for item in items:
            observation = observe(item)
            if isinstance(observation, UnreadableItem):
                self.unreadable[f"{label} {observation.reason}"] += 1
            else:
                observations.append(observation)
        return observations


class Overlap:
    """What neighbouring answers show twice: only the first one tells it. Within an answer, the last status counts."""

    def __init__(self) -> None:
        self._last: dict[str, Observation] = {}
        self.has_moved = False
        """Whether a record of the last answer had another status in the one before."""

    @property
    def last(self) -> Collection[Observation]:
        """Return what the last answer showed, each record once."""
        return self._last.values()

    def without_known(self, observations: Sequence[Observation]) -> list[Observation]:
        """Return what an answer shows that the answer before did not."""
        before = self._last
        shown = self._last = {observation.key: observation for observation in observations}
        self.has_moved = False
        if before.keys().isdisjoint(shown):
            return list(shown.values())
        news = [
            observation
            for key, observation in shown.items()
            if (known := before.get(key)) is None or known.status != observation.status
        ]
        self.has_moved = any(observation.key in before for observation in news)
        return news


def backlog_runs(
    observations: Sequence[Observation],
    created: ReadMoment,
    first_polled: datetime | None,
    *,
    undated_is_old: bool = True,
) -> Iterator[tuple[bool, Sequence[Observation]]]:
    """Yield the observations in their order, in portions; those of before the first poll are marked as backlog."""

    def is_old(observation: Observation) -> bool:
        when = created(observation.item)
        return undated_is_old if when is None else first_polled is None or when <= first_polled

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
