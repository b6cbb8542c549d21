"""One resource as the ledger has it, and how that is compared with what the provider shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.domain.lifecycle import StatusHistory
from bridge.protocols.ledger import Key
from bridge.protocols.source import GroupCounts, Observation, ResourceType


@dataclass(frozen=True, slots=True)
class LedgerResource:
    """One resource as the ledger has it."""

    resource: str
    key: Key
    kind: ResourceType
    history: str | None
    has_occurrence_ids: bool = False
    """Whether the provider gives its occurrences ids: then the last status says little."""

    @property
    def status(self) -> str | None:
        """The last status that the ledger has."""
        last = StatusHistory.parse(self.history).last
        return None if last is None else self.kind.lifecycle.status(last)


def agrees(observation: Observation, known: LedgerResource) -> bool:
    """Return whether the ledger has what the provider shows of a resource."""
    if observation.occurrence_id is not None:
        return observation.occurrence_id in StatusHistory.parse(known.history).occurrence_ids
    return known.history is not None and StatusHistory.parse(known.history).last == observation.kind.lifecycle.code(
        observation.status
    )


def differs(counted: GroupCounts, known: Sequence[LedgerResource]) -> bool:
    """Return whether a provider's counts differ from those of the ledger."""
    if counted.counts is None:
        return False
    ours = Counter(resource.status for resource in known)
    return dict(counted.counts) != dict(ours) or (counted.total is not None and counted.total != len(known))


def path_of(counted: GroupCounts, observation: Observation) -> str:
    """Return the path of the resource that was observed."""
    try:
        return observation.kind.describe(observation).subject
    except Exception:  # noqa: BLE001 - a defect of a plugin in one resource must not stop the comparison
        return counted.subject(observation.key)
