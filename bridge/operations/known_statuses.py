"""What the ledger knows of a resource that never became an event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bridge.domain.errors import BridgeError
from bridge.domain.lifecycle import StatusHistory
from bridge.protocols.source import Reconcilable

if TYPE_CHECKING:
    from bridge.protocols.store import Store
from bridge.runtime.assembly import Assembly


@dataclass(frozen=True, slots=True)
class Recorded:
    """A resource that the ledger has a status of, and the journal no event."""

    source: str
    subject: str
    status: str
    baseline: bool
    """Whether its source records what a first start finds, without publishing it."""

    def __str__(self) -> str:
        if self.baseline:
            return f"recorded at a first start (first_sight: baseline), status {self.status}, not published"
        return f"known, status {self.status}; the journal has no event of it (any more)"

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"subject": self.subject, "source": self.source, "status": self.status, "said": str(self)}


async def recorded(parts: Assembly, store: Store, resource: str) -> list[Recorded]:
    """Return what the ledger knows of a resource, named by path or id, as far as its source keeps books by groups."""
    statuses: list[Recorded] = []
    for name, source in parts.complete_sources().items():
        try:
            if isinstance(source, Reconcilable):
                known = await _known(store, name, source, resource)
                baseline = name in baselines(parts)
                statuses += [Recorded(name, subject, status, baseline) for subject, status in known.items()]
        finally:
            await source.close()
    return statuses


async def _known(store: Store, name: str, source: Reconcilable, resource: str) -> dict[str, str]:
    """Return the last status of each resource that is meant, by path."""
    cursor = await store.cursor(name)
    statuses: dict[str, str] = {}
    for group, subject in _meant(cursor, resource):
        counted = None
        with suppress(BridgeError):
            counted = await source.count(group, cursor, ask=False)
        if counted is None or counted.scope is None:
            continue
        own = {observation.key: observation.kind for observation in counted.shown}
        for key, history in (await store.scope(name, counted.scope)).items():
            last = StatusHistory.parse(history).last
            if counted.subject(key) == subject and last is not None:
                statuses[subject] = own.get(key, counted.kind).lifecycle.status(last)
    return statuses


def _meant(cursor: Iterable[str], resource: str) -> Iterator[tuple[str, str]]:
    """Yield the groups that a resource may be of, and its path."""
    for group in cursor:
        if "/" not in resource and group.rpartition("/")[2] == resource:
            yield group, group
        elif resource == group or resource.startswith(f"{group}/"):
            yield group, resource


def baselines(parts: Assembly) -> list[str]:
    """Return the sources whose first start was recorded and not published."""
    return [name for name, settings in parts.config.sources.items() if settings.first_sight == "baseline"]
