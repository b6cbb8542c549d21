"""What became of single calls, looked up in the collections of their message when it is news."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError
from bridge.http.errors import RequestRejected
from bridge.protocols.source import Observation, ResourceType
from bridge.sources.govdelivery.api import ENDS_SWEEP, Api
from bridge.sources.govdelivery.lifecycles import DETAILS
from bridge.sources.govdelivery.recipients import MAX_PAGES, observations

_REMEMBERED_CALLS = 50_000
_MAX_REMEMBERED_WALKS = 8
_REMEMBERED_FAILURES = 10_000
_TRIES = 3
_RECENT_SHARE = 3.0
_MIN_RECENT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _DetailWalk:
    """What a walk through the collections of a status found; that it found no more holds until `until`, monotonic."""

    until: float
    details: dict[str, str]


class Details:
    """Finds the details of calls; a huge message is walked through again only after a share of the last walk's time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._walks: OrderedDict[tuple[str, str], _DetailWalk] = OrderedDict()
        self._failures: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def complete(self, api: Api, news: Sequence[Observation], report: Callable[[str], None]) -> list[Observation]:
        """Return `news` in the same order, with the details that were found.

        Raises as `Client.get` does, a few times; then what cannot be looked up goes without, and `report` hears of it:
        nothing of what is committed after it may wait for a detail.
        """
        wanted: dict[tuple[str, str], tuple[ResourceType, set[str]]] = {}
        for item in news:
            status = item.kind.lifecycle.status_by_value.get(item.status, "")
            if item.detail is None and item.kind.channel == "voice" and status in DETAILS:
                wanted.setdefault((item.scope, status), (item.kind, set()))[1].add(item.key)
        details: dict[tuple[str, str], str] = {}
        failure: BridgeError | None = None
        for (message, status), (kind, keys) in wanted.items():
            try:
                by_key = await self._of(api, kind, message, status, keys)
            except ENDS_SWEEP:
                raise
            except BridgeError as error:
                if self._tries_again(message, status):
                    failure = error
                    continue
                report(f"{error}; calls stay without this detail")
            else:
                self._failures.pop((message, status), None)
                details |= {(message, key): detail for key, detail in by_key.items()}
        if failure is not None:
            raise failure
        return [
            replace(item, detail=details.get((item.scope, item.key), item.detail), awaits_detail=False) for item in news
        ]

    def _tries_again(self, message: str, status: str) -> bool:
        """Count a failure, and decide whether what was news is worth waiting for another try."""
        failures = self._failures.pop((message, status), 0) + 1
        self._failures[message, status] = failures
        if len(self._failures) > _REMEMBERED_FAILURES:
            self._failures.popitem(last=False)
        return failures < _TRIES

    async def _of(self, api: Api, kind: ResourceType, message: str, status: str, keys: set[str]) -> dict[str, str]:
        walk = self._walks.get((message, status))
        known = {key: walk.details[key] for key in keys & walk.details.keys()} if walk else {}
        missing = keys - known.keys()
        if not missing or (walk is not None and self._clock.monotonic() < walk.until):
            return known
        started = self._clock.monotonic()
        details: dict[str, str] = {}
        for detail in DETAILS[status]:
            await self._collection(api, kind, message, detail, missing - details.keys(), details)
        now = self._clock.monotonic()
        # A walk that found all it looked for has ended there, and says nothing of others.
        recent_seconds = max(_MIN_RECENT_SECONDS, _RECENT_SHARE * (now - started)) if missing - details.keys() else 0.0
        self._walks[message, status] = _DetailWalk(
            now + recent_seconds, details if len(details) <= _REMEMBERED_CALLS else {}
        )
        self._walks.move_to_end((message, status))
        if len(self._walks) > _MAX_REMEMBERED_WALKS:
            self._walks.popitem(last=False)
        return known | {key: details[key] for key in missing & details.keys()}

    async def _collection(
        self, api: Api, kind: ResourceType, message: str, detail: str, missing: set[str], details: dict[str, str]
    ) -> None:
        """Read a collection until all that is missing was found or it ends; one that is refused or not there is empty.

        A page that shows nobody new is its end too.
        """
        target: str | None = f"{message}/recipients/{detail}"
        visited: set[str] = set()
        before = -1
        while target is not None and target not in visited and len(visited) < MAX_PAGES and missing:
            if len(details) == before:
                return
            before = len(details)
            visited.add(target)
            try:
                listing = await api.listing(target)
            except RequestRejected:
                return
            for observation in observations(kind, message, listing.items, detail):
                if observation.detail is not None:
                    details[observation.key] = detail
                    missing.discard(observation.key)
            target = listing.next
