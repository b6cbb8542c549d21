"""The shape `follow`: resources that are known and not final are asked at, by path or by ids, until they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import structlog

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Unauthorized
from bridge.http import parsing
from bridge.http.errors import NotFound, Throttled
from bridge.protocols.source import Observation, Page
from bridge.providers.models import FollowSpec
from bridge.providers.requests import filled
from bridge.sources.rest.errors import NothingThere
from bridge.sources.rest.records import ItemReader
from bridge.sources.rest.requests import ApiClient, items_of
from bridge.sources.rest.sweep import PollSweep
from bridge.sources.shapes.window import period, vendor_time

log = structlog.get_logger()

_PREFIX = "look."
_MAX_LOOKUPS_PER_POLL = 200
"""Requests of one poll at most; what is left is due at the next one, which follows at once."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A resource that is followed."""

    key: str
    since: datetime
    """When it was seen first."""
    asked: datetime
    """When it was asked about last."""

    def __str__(self) -> str:
        return f"{vendor_time(self.since)} {vendor_time(self.asked)}"


class Follower:
    """Keeps the resources without a final status in the cursor, and looks at those that are due."""

    def __init__(self, spec: FollowSpec, client: ApiClient, reader: ItemReader, clock: Clock, settings: Any) -> None:
        lookup = spec.lookup
        self._client = client
        self._reader = reader
        self._clock = clock
        self._interval = float(settings.interval)
        self._every = float(settings.lookup_every)
        self._give_up = timedelta(seconds=float(settings.give_up))
        self._ids = lookup.ids
        self._path = filled(lookup.path, client.values)
        self._params = client.params_of(lookup.params)
        self._read = lookup.items.reader()
        self._items_at = lookup.items.text
        self._concurrency = client.concurrency
        self.behind = False
        """Whether more was due than one poll looks at."""

    def with_discovered(self, page: Page, cursor: Mapping[str, str]) -> Page:
        """Return a page of a list whose cursor also keeps what has to be followed, and forgets what need not."""
        changes = self._changes(page.observations, page.by, cursor)
        return replace(page, cursor={**page.cursor, **changes}) if changes else page

    def _changes(
        self, observations: Iterable[Observation], at: datetime, cursor: Mapping[str, str]
    ) -> dict[str, str | None]:
        changes: dict[str, str | None] = {}
        for observation in observations:
            name = f"{_PREFIX}{observation.key}"
            if self._reader.is_final(observation):
                if name in cursor:
                    changes[name] = None
            elif name not in cursor and self._is_young(observation, at):
                changes[name] = str(_Known(observation.key, self._reader.created(observation.item) or at, at))
        return changes

    def _is_young(self, observation: Observation, at: datetime) -> bool:
        created = self._reader.created(observation.item)
        return created is None or at - created < self._give_up

    async def pages(self, cursor: Mapping[str, str], sweep: PollSweep) -> AsyncIterator[Page]:
        """Look at what is due, and yield what was seen."""
        now = self._clock.now()
        known = [entry for entry in map(_known, cursor.items()) if entry is not None]
        late = [entry for entry in known if now - entry.since >= self._give_up]
        if late:
            log.info(
                "source.gave_up_following", resources=len(late),
                consequence="they had no final status until `give_up`; a later one is not seen",
            )  # fmt: skip
            yield Page((), now, cursor={f"{_PREFIX}{entry.key}": None for entry in late})
        due = [entry for entry in known if now - entry.since < self._give_up and self._is_due(entry, now)]
        groups = list(self._groups(due))
        self.behind = len(groups) > _MAX_LOOKUPS_PER_POLL
        for start in range(0, min(len(groups), _MAX_LOOKUPS_PER_POLL), self._concurrency):
            wave = groups[start : min(start + self._concurrency, _MAX_LOOKUPS_PER_POLL)]
            for page in await asyncio.gather(*(self._ask_group(group, sweep) for group in wave)):
                yield page

    def _is_due(self, entry: _Known, now: datetime) -> bool:
        wait = period((now - entry.since).total_seconds(), self._interval, self._every)
        return (now - entry.asked).total_seconds() >= wait - self._interval / 2

    def _groups(self, due: Sequence[_Known]) -> Iterable[Sequence[_Known]]:
        size = 1 if self._ids is None else self._ids.batch
        ordered = sorted(due, key=lambda entry: entry.asked)
        return (ordered[start : start + size] for start in range(0, len(ordered), size))

    async def _ask_group(self, group: Sequence[_Known], sweep: PollSweep) -> Page:
        """Ask for some resources; a failure is noted, and changes nothing."""
        at = self._clock.now()
        try:
            items, at = await self._ask(group)
        except (LeaseLost, Unauthorized, Throttled):
            raise
        except (NotFound, NothingThere):
            items = []
        except BridgeError as error:
            sweep.on_failure(f"looking at {len(group)} resources", error)
            return Page((), at)
        sweep.answered = True
        observations = sweep.observe(self._reader, items)
        final = {observation.key for observation in observations if self._reader.is_final(observation)}
        changes = {
            f"{_PREFIX}{entry.key}": None if entry.key in final else str(replace(entry, asked=at)) for entry in group
        }
        return Page(observations, at, min(entry.asked for entry in group), changes)

    async def _ask(self, group: Sequence[_Known]) -> tuple[list[Any], datetime]:
        if self._ids is None:
            path = self._path.replace("{id}", quote(group[0].key, safe=""))
            answer, value = await self._client.ask(path, self._params)
            item = self._read(value)
            if not isinstance(item, dict):
                raise answer.refused(f"the answer has no resource at {self._items_at}")
            return [item], answer.at
        ids = self._ids.separator.join(entry.key for entry in group)
        answer, value = await self._client.ask(self._path, {**self._params, self._ids.param: ids})
        return items_of(answer, value, self._read, self._items_at), answer.at


def _known(entry: tuple[str, str]) -> _Known | None:
    name, value = entry
    if not name.startswith(_PREFIX):
        return None
    since, _, asked = value.partition(" ")
    first, last = parsing.time(since), parsing.time(asked)
    return None if first is None or last is None else _Known(name.removeprefix(_PREFIX), first, last)
