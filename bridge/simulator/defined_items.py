"""The items of a simulated provider's answers, written by the definition's own paths."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bridge.domain.lifecycle import UNKNOWN
from bridge.http import parsing
from bridge.providers import times
from bridge.providers.events import lifecycle
from bridge.providers.models import Definition, TimeSpec
from bridge.providers.paths import JsonPath
from bridge.providers.requests import expander
from bridge.simulator.defined_world import DefinedResource, DefinedStep, DefinedWorld


@dataclass(slots=True)
class DefinedItem:
    """One item, and what it shows."""

    body: dict[str, Any]
    key: str
    raw: str
    mark: str | None
    place: float
    """Seconds since 1970, or a position, by which a question asks for it."""
    born: float


class DefinedItems:
    """Writes items, and finds those that a question asks for."""

    def __init__(self, definition: Definition, world: DefinedWorld) -> None:
        self._definition = definition
        self._world = world
        self._table = lifecycle(definition)
        self._template = self._first_sample()
        identity, status = definition.identity, definition.status
        self._key, self._raw = identity.key.reader(), None if status.path is None else status.path.reader()
        self._mark = None if identity.mark is None else identity.mark.reader()
        self._within = None if identity.within is None else identity.within.reader()

    def _first_sample(self) -> dict[str, Any]:
        for sample in self._definition.samples:
            items = self._definition.listing.items.reader()(sample.answer)
            if isinstance(items, list) and self._definition.listing.expand is not None:
                items = expander(self._definition.listing.expand)(items)
            if isinstance(items, list) and items and isinstance(items[0], dict):
                return dict(items[0])
        return {}

    def word(self, raw: str) -> str:
        """Return the word that the topics have for a provider's value."""
        return self._table.status_by_value.get(raw.lower() if self._definition.status.ignore_case else raw, UNKNOWN)

    # --- questions ----------------------------------------------------------------------------------------------------

    def asked_for(self, query: Mapping[str, str]) -> list[DefinedItem]:
        """Return the items that a question asks for, in the provider's order; raises `ValueError` for a bad one."""
        window, feed = self._definition.window, self._definition.feed
        if feed is not None:
            items = self._fed(query.get(feed.param))
        elif window is not None and window.start.param in query:
            items = self._between(query)
        elif window is not None and window.undated is None:
            raise ValueError("start and end are required")
        else:
            items = self.all_present()
        if self._definition.listing.order != "oldest" and feed is None:
            items.reverse()
        return items

    def _between(self, query: Mapping[str, str]) -> list[DefinedItem]:
        window = self._definition.window
        assert window is not None  # noqa: S101 - the caller has looked
        bounds = []
        for param in (window.start, window.end):
            moment = times.reader([param.format], window.zone)(query.get(param.param))
            if moment is None:
                raise ValueError(f"{param.param} cannot be read")
            bounds.append(moment.timestamp())
        now = self._world.now()
        return [
            self._item(resource, resource.present(now))
            for resource in self._world.resources
            if self._world.is_dated(resource, now) and bounds[0] <= self._world.dated_at(resource) <= bounds[1]
        ]

    def _fed(self, position: str | None) -> list[DefinedItem]:
        feed = self._definition.feed
        assert feed is not None  # noqa: S101 - the caller has looked
        items = [self._item(resource, step) for resource, step in self._world.happened()]
        if position is None:
            return items
        if feed.format == "number":
            return [item for item in items if item.place > int(position)]
        moment = times.reader([feed.format], "UTC")(position)
        if moment is None:
            raise ValueError(f"{feed.param} cannot be read")
        return [item for item in items if item.place >= moment.timestamp()]

    def of(self, resource: DefinedResource) -> DefinedItem:
        """Return a resource as it is."""
        return self._item(resource, resource.present(self._world.now()))

    def present(self, key: str) -> DefinedItem | None:
        """Return a resource as it is; None if there is none."""
        resource = self._world.find(key)
        return None if resource is None else self.of(resource)

    def all_present(self) -> list[DefinedItem]:
        """Return all resources as they are, the oldest first."""
        now = self._world.now()
        return [self._item(resource, resource.present(now)) for resource in self._world.resources]

    # --- bodies -------------------------------------------------------------------------------------------------------

    def _item(self, resource: DefinedResource, step: DefinedStep) -> DefinedItem:
        definition = self._definition
        body: Any = copy.deepcopy(self._template)
        key: Any = int(resource.key) if definition.identity.block is not None else resource.key
        body = definition.identity.key.write(body, key)
        subject = resource.key
        if definition.identity.within is not None:
            body = definition.identity.within.write(body, resource.phone)
            subject = f"{resource.key}/{resource.phone}"
        if definition.status.path is not None:
            body = definition.status.path.write(body, step.raw)
        for path, value in self._facts(resource, step):
            if path is not None:
                body = path.write(body, value)
        mark = None
        if definition.identity.mark is not None:
            mark = str(step.number)
            body = definition.identity.mark.write(body, step.number)
        place = resource.born
        if definition.feed is not None:
            numbered = definition.feed.format == "number"
            place = step.number if numbered else step.at
            written = step.number if numbered else self._fine(step.at, definition.feed.format)
            body = definition.feed.position.write(body, written)
        return DefinedItem(body, subject, step.raw, mark, place, resource.born)

    def _facts(self, resource: DefinedResource, step: DefinedStep) -> list[tuple[JsonPath | None, Any]]:
        facts, given = self._definition.facts, self._definition.times
        failed = "fail" in self.word(step.raw)
        window = self._definition.window
        by = self._dated(resource) if window is not None else None
        return [
            (facts.phone, resource.phone),
            (facts.error, "The handset is unreachable." if failed else None),
            (facts.error_code, "30003" if failed else None),
            *self._time(given.changed, step.at),
            *self._time(given.created, resource.born),
            (None if window is None else window.by, by),
        ]

    def _dated(self, resource: DefinedResource) -> str | None:
        now = self._world.now()
        if not self._world.is_dated(resource, now):
            return None
        created = self._definition.times.created
        return None if created is None else self._written(created, self._world.dated_at(resource))

    def _time(self, spec: TimeSpec | None, at: float) -> list[tuple[JsonPath | None, Any]]:
        return [] if spec is None else [(spec.path, self._written(spec, at))]

    @staticmethod
    def _written(spec: TimeSpec, at: float) -> str:
        first = spec.format if isinstance(spec.format, str) else spec.format[0]
        return times.writer("iso_ms" if first == "iso" else first, spec.zone)(datetime.fromtimestamp(at, UTC))

    @staticmethod
    def _fine(at: float, written: str) -> Any:
        moment = datetime.fromtimestamp(at, UTC)
        return round(at, 6) if written == "epoch_s" else times.writer(written, "UTC")(moment)

    def listed(self, item: DefinedItem) -> Any:
        """Return an item's body as the list has it."""
        expand = self._definition.listing.expand
        return item.body if expand is None else expand.write(item.body, [expand.reader()(item.body)])

    def read(self, item: Any) -> tuple[str | None, str | None, str | None]:
        """Return key, status and mark of an item, also of one that was tampered with."""
        if not isinstance(item, dict):
            return None, None, None
        key = parsing.text(self._key(item))
        if key is not None and self._within is not None:
            key = f"{key}/{parsing.text(self._within(item)) or ''}"
        raw = self._definition.status.always if self._raw is None else parsing.text(self._raw(item))
        return key, raw, None if self._mark is None else parsing.text(self._mark(item))
