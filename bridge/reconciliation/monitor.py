"""Compares the books at intervals while the service runs, and publishes once a difference that stays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import structlog

from bridge.domain.catalogue import BooksData, BooksMismatch, internal_event
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Unavailable
from bridge.domain.event import Event, Transition
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.ingest.intake import INTERNAL_PREFIX
from bridge.protocols.ledger import Commit, Lease, Ledger
from bridge.reconciliation.comparison import CompareOptions
from bridge.reconciliation.reconciler import Reconciler
from bridge.reconciliation.report import Difference

log = structlog.get_logger()

_CHECKED = f"{INTERNAL_PREFIX}books.checked"
_PENDING = f"{INTERNAL_PREFIX}books:"
_MAX_DIFFERENCES = 100
"""Differences of one source that are remembered and published; more are only counted in the log."""


@dataclass(frozen=True, slots=True)
class PendingMismatch:
    """What the cursor remembers of one resource that differs."""

    what: str
    provider: str | None
    ledger: str | None
    since: str
    """When the difference was found first, RFC 3339."""
    said: bool = False
    """Whether it was published; stored in the cursor by this name."""

    @classmethod
    def load(cls, text: str) -> PendingMismatch:
        """Read what `dump` wrote."""
        return cls(**json.loads(text))

    def dump(self) -> str:
        """Return the cursor's entry."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def is_of(self, difference: Difference) -> bool:
        """Return whether it is still the same difference."""
        return (self.what, self.provider, self.ledger) == (difference.what, difference.provider, difference.ledger)


@dataclass(frozen=True, slots=True)
class MismatchDecision:
    """What follows from a check."""

    kept: Mapping[str, PendingMismatch | None]
    """Changes of what is remembered, by resource; None means: forget it."""
    news: Sequence[tuple[str, PendingMismatch]]
    """Differences to be published, by resource."""


def decide(known: Mapping[str, PendingMismatch], differences: Sequence[Difference], since: str) -> MismatchDecision:
    """Decide what follows from a check, given the pending mismatches of the check before; pure.

    A difference that is seen for the first time may be a change on its way. If it is the same at two checks in a row,
    it is published, once. A difference that is gone is forgotten, so that it is published again if it comes back. If
    there are more than `_MAX_DIFFERENCES`, the known ones come first.
    """
    differ = {difference.resource for difference in differences}
    kept: dict[str, PendingMismatch | None] = dict.fromkeys(known.keys() - differ)
    room = _MAX_DIFFERENCES - len(known.keys() & differ)
    news = []
    for difference in differences:
        before = known.get(difference.resource)
        if before is None:
            room -= 1
            if room < 0:
                continue
        if before is None or not before.is_of(difference):
            kept[difference.resource] = PendingMismatch(difference.what, difference.provider, difference.ledger, since)
        elif not before.said:
            published = PendingMismatch(
                difference.what, difference.provider, difference.ledger, before.since, said=True
            )
            kept[difference.resource] = published
            news.append((difference.resource, published))
    return MismatchDecision(kept, news)


class ReconciliationMonitor:
    """Compares one source's books with its provider at intervals, with few requests: the polls' counts come first."""

    def __init__(
        self,
        name: str,
        uri: str,
        reconciler: Reconciler,
        ledger: Ledger,
        clock: Clock,
        *,
        every: float,
        committed: Callable[[int], None] = lambda _: None,
        on_differences: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Prepare; `on_differences` hears how many resources differ at two checks in a row."""
        self._name = name
        self._uri = uri
        self._reconciler = reconciler
        self._ledger = ledger
        self._clock = clock
        self._every = every
        self._committed = committed
        self._on_differences = on_differences
        self._next = clock.monotonic()

    def change_interval(self, every: float) -> None:
        """Check every so many seconds from now on."""
        if every != self._every:
            self._every, self._next = every, self._clock.monotonic()

    async def check(self, lease: Lease) -> None:
        """Check the books if it is time; call this after a successful poll, with the source's lease.

        Raises `LeaseLost` and `Unavailable`; a provider that cannot be asked now is asked at the next check.
        """
        if self._clock.monotonic() < self._next:
            return
        cursor = await self._ledger.cursor(self._name)
        now = truncate_to_millis(self._clock.now())
        # The first call only notes the time: a first poll may have left much for the second.
        last = datetime.fromisoformat(cursor[_CHECKED]) if _CHECKED in cursor else None
        wait = self._every if last is None else self._every - (now - last).total_seconds()
        if last is None:
            await self._ledger.commit(lease, Commit(self._name, cursor={_CHECKED: rfc3339(now)}))
        if wait > 0:
            self._on_differences(_published(_pending(cursor)))
            self._next = self._clock.monotonic() + min(wait, self._every)
            return
        self._next = self._clock.monotonic() + self._every
        await self._check(lease, cursor, now)

    async def _check(self, lease: Lease, cursor: Mapping[str, str], now: datetime) -> None:
        known = _pending(cursor)
        try:
            report = await self._reconciler.compare(CompareOptions(use_cached_counts=True))
        except (LeaseLost, Unavailable):
            raise
        except BridgeError as error:
            log.info("books.cannot_be_compared", source=self._name, reason=str(error))
            return
        differences = report.differences
        if len(differences) > _MAX_DIFFERENCES:
            log.warning(
                "books.differ_widely",
                source=self._name,
                differences=len(differences),
                published_at_most=_MAX_DIFFERENCES,
            )
        # A group that could not be read is neither right nor wrong.
        asked = {name: mismatch for name, mismatch in known.items() if not _within(name, report.failures)}
        decision = decide(asked, differences, rfc3339(now))
        changes = {
            f"{_PENDING}{name}": None if mismatch is None else mismatch.dump()
            for name, mismatch in decision.kept.items()
        }
        events = [self._event(resource, mismatch, now).to_wire() for resource, mismatch in decision.news]
        commit = Commit(self._name, events=events, cursor={**changes, _CHECKED: rfc3339(now)})
        self._committed(await self._ledger.commit(lease, commit))
        self._on_differences(_published({**known, **decision.kept}))
        if events:
            log.error(
                "books.do_not_balance", source=self._name, resources=len(events),
                consequence="BooksMismatch is published for each; `bridgectl reconcile` names them",
            )  # fmt: skip

    def _event(self, resource: str, mismatch: PendingMismatch, now: datetime) -> Event:
        since = datetime.fromisoformat(mismatch.since)
        return internal_event(
            BooksMismatch,
            BooksData,
            source=self._uri,
            subject=resource,
            occurrence=mismatch.since,
            now=now,
            after=since,
            transition=Transition.FIRST,
            what=mismatch.what,
            provider_says=mismatch.provider,
            ledger_says=mismatch.ledger,
            since=since,
        )


def _pending(cursor: Mapping[str, str]) -> dict[str, PendingMismatch]:
    return {
        name.removeprefix(_PENDING): PendingMismatch.load(text)
        for name, text in cursor.items()
        if name.startswith(_PENDING)
    }


def _published(pending: Mapping[str, PendingMismatch | None]) -> int:
    return sum(mismatch is not None and mismatch.said for mismatch in pending.values())


def _within(resource: str, groups: Mapping[str, str]) -> bool:
    return any(resource == group or resource.startswith(f"{group}/") for group in groups)
