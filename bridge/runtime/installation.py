"""One installation, one store and one broker: a process that meets those of another is refused before it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from bridge.domain.errors import OtherInstallation
from bridge.domain.installation import Mark, check_broker, other_store
from bridge.domain.namespace import Namespace
from bridge.protocols.broker import Broker
from bridge.protocols.store import Store

log = structlog.get_logger()
_NOTE, _BROKER = "installation", "broker"


@dataclass(frozen=True, slots=True)
class KeptInstallation:
    """What a store knows of the installation that it belongs to."""

    mark: Mark | None = None
    """None for a store that is new, or of before there were marks."""
    broker: str | None = None
    """Where the broker was when it had the mark last."""

    @classmethod
    async def read(cls, store: Store) -> KeptInstallation:
        """Ask the store; raises `Unavailable`."""
        return cls(await store.mark(), _place(await store.statuses(_NOTE)))

    def check_store(self, place: str, names: Namespace) -> None:
        """Raise `OtherInstallation` if the store is of another namespace: a file can hold but one."""
        if self.mark is not None and self.mark.namespace != names.name:
            raise other_store(place, self.mark, names)

    def check_broker(self, place: str, present: Mark | None) -> None:
        """Raise `OtherInstallation` if a broker with this mark would be refused at the start."""
        check_broker(place, present, self.mark)

    def refusals(self, store: str, broker: str, present: Mark | None, names: Namespace) -> Sequence[str]:
        """Return why a service with this store and this broker would be refused, a text for each."""
        said = []
        for check in (partial(self.check_store, store, names), partial(self.check_broker, broker, present)):
            try:
                check()
            except OtherInstallation as error:
                said.append(str(error))
        return said


async def claim_store(store: Store, names: Namespace) -> Mark:
    """Return the mark of the store; one without any gets a new one, and processes that start at once agree on it.

    Raises `OtherInstallation` for the store of another namespace, and `Unavailable`.
    """
    mark = await store.claim_for(Mark.new(names))
    KeptInstallation(mark).check_store(store.place, names)
    return mark


async def claim_broker(store: Store, broker: Broker, mark: Mark) -> None:
    """Have the broker used for this installation only; raises `OtherInstallation` and `Unavailable`.

    A broker without a mark gets it, also at another place than the one that the store knows: brokers move, are called
    otherwise and are made anew. A kill after the store has its mark and before the broker has costs nothing: the next
    start gives it. Nor does one before the place is noted: the broker has the right mark by then.
    """
    known = _place(await store.statuses(_NOTE))
    await broker.claim_for(mark)
    if known == broker.place:
        return
    if known is not None:
        log.warning(
            "broker.moved",
            broker=broker.place,
            before=known,
            consequence="events go to the new place; a process that still uses the former one publishes there",
        )
    await _note_place(store, broker)


async def take_over(store: Store, broker: Broker, names: Namespace) -> Mark:
    """Give store and broker one mark; return it.

    The store's own mark stays if that tells enough, so that running replicas go on. A store of another namespace, or
    one whose broker was at another place, gets a new one: the installation that had it is refused from then on.
    """
    kept = await KeptInstallation.read(store)
    moved = kept.broker is not None and kept.broker != broker.place
    mark = kept.mark if kept.mark is not None and kept.mark.namespace == names.name and not moved else Mark.new(names)
    if mark != kept.mark:
        await store.take_over(mark)
    # A kill here leaves a broker that is refused as before: the command is given once more.
    await broker.take_over(mark)
    await _note_place(store, broker)
    return mark


async def _note_place(store: Store, broker: Broker) -> None:
    await store.set_status(_NOTE, {_BROKER: broker.place})


def _place(notes: Mapping[str, Mapping[str, str]]) -> str | None:
    return notes.get(_NOTE, {}).get(_BROKER)
