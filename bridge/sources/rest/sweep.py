"""What happens in one poll: items read, problems, and when to stop asking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

from bridge.protocols.source import Observation
from bridge.sources.rest.records import ItemReader, ReadMoment, UnreadableItem
from bridge.sources.shapes.sweep import Sweep

PAGE_OBSERVATIONS = 500
"""Observations of one page at most: a page is committed in one write."""


@dataclass(slots=True)
class PollSweep(Sweep):
    """What happened so far in one poll of a definition."""

    reader: ItemReader = field(kw_only=True)

    def observe(self, items: Sequence[Any]) -> list[Observation]:
        """Return what the items show; those that cannot be read are counted."""
        observe = self.reader.observe
        observations: list[Observation] = []
        for item in items:
            observation = observe(item)
            if isinstance(observation, UnreadableItem):
                self.unreadable[f"items {observation.reason}"] += 1
            else:
                observations.append(observation)
        return observations


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
