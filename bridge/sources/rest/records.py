"""How one item of an answer is read: compiled once from the definition into plain functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from bridge.http import parsing
from bridge.protocols.source import Facts, Observation, ResourceType
from bridge.providers import times
from bridge.providers.events import data_model, event_classes, lifecycle
from bridge.providers.models import Definition, FieldSpec, TimeSpec
from bridge.providers.paths import JsonPath, Read
from bridge.providers.requests import subject_parts

_MAX_STATE_CHARS = 100
_MAX_KEY_CHARS = 300
_SCOPES_KEPT = 65536
_SCALARS = (str, int, float)
_PLAIN_BELOW = 10**18
"""Numbers below it are written as they are; longer ones are looked at first."""


@dataclass(frozen=True, slots=True)
class UnreadableItem:
    """Why an item cannot be observed, in words that follow "items"."""

    reason: str


NO_OBJECT = UnreadableItem("that are no objects")
NO_KEY = UnreadableItem("without an id that can be read")
NO_STATUS = UnreadableItem("without a status that can be read")
NO_MARK = UnreadableItem("without an id of the occurrence")

Observe = Callable[[Any], Observation | UnreadableItem]
ReadMoment = Callable[[Any], datetime | None]


def _nothing(_: Any) -> None:
    return None


def moment_reader(spec: TimeSpec | FieldSpec | None) -> ReadMoment:
    """Return the function that reads a time of an item."""
    if spec is None:
        return _nothing
    formats = [spec.format] if isinstance(spec.format, str) else spec.format
    find, read = spec.path.reader(), times.reader(formats, spec.zone)
    return lambda item: read(find(item))


def _value_reader(path: JsonPath | None) -> Read:
    return _nothing if path is None else path.reader()


class ItemReader:
    """Reads the items of a definition for one source, whose settings are `values`."""

    def __init__(self, definition: Definition, values: Mapping[str, Any], statuses: Mapping[str, str]) -> None:
        self._definition = definition
        spec = definition.identity
        table = lifecycle(definition)
        self._lowered = definition.status.ignore_case
        known = {(value.lower() if self._lowered else value): word for value, word in statuses.items()}
        events = event_classes(definition)
        self.kind = ResourceType(
            definition.events.channel, definition.events.entity, table.with_names(known), events, self.describe
        )
        self.created = moment_reader(definition.times.created)
        self.changed = moment_reader(definition.times.changed)
        self._key, self._within = spec.key.reader(), _value_reader(spec.within)
        self._before, self._after = subject_parts(spec.subject, definition.listing.path, values)
        self.observe = self._observer()
        self._model = data_model(definition)
        self._fields = list(self._field_readers())
        self._read_keys = self._keys_read()

    @property
    def path(self) -> str:
        """Return what all subjects begin with."""
        return self._before

    def is_final(self, observation: Observation) -> bool:
        """Say whether nothing is expected after the status."""
        table = self.kind.lifecycle
        return table.status_by_value.get(observation.status) in table.finals

    def _observer(self) -> Observe:
        definition, kind = self._definition, self.kind
        key_of, status_of, scope_of = self._key_reader(), self._status_reader(), self._scope_reader()
        mark_of = _value_reader(definition.identity.mark)
        has_mark = definition.identity.mark is not None
        text = parsing.text

        def observe(item: Any) -> Observation | UnreadableItem:
            # Most of what a poll reads is no news, so there is no call here that a plain value does not need.
            if not isinstance(item, dict):
                return NO_OBJECT
            value = key_of(item)
            key = str(value) if type(value) is int and 0 <= value < _PLAIN_BELOW else text(value)
            if key is None:
                return NO_KEY
            state = status_of(item)
            status = state if type(state) is str else str(state) if type(state) is int else _state_text(state)
            status = status.strip()[:_MAX_STATE_CHARS]
            if not status:
                return NO_STATUS
            if not has_mark:
                return Observation(kind, scope_of(item, key), key[:_MAX_KEY_CHARS], status, item)
            mark = text(mark_of(item))
            if mark is None:
                return NO_MARK
            return Observation(kind, scope_of(item, key), key[:_MAX_KEY_CHARS], status, item, occurrence_id=mark)

        return observe

    def _key_reader(self) -> Read:
        read, within, text = self._key, self._within, parsing.text
        if self._definition.identity.within is None:
            return read

        def composite_key(item: Any) -> str | None:
            key = text(read(item))
            return None if key is None else f"{key}/{text(within(item)) or ''}"

        return composite_key

    def _status_reader(self) -> Read:
        spec = self._definition.status
        if spec.path is None:
            return lambda _: spec.always
        read = spec.path.reader()
        return (lambda item: _state_text(read(item)).lower()) if self._lowered else read

    def _scope_reader(self) -> Callable[[Any, str], str]:
        """Return what names the ledger's scope of an item: a block of ids, or the day of its creation.

        Neither changes while the resource lives, which no other part of an item promises.
        """
        block = self._definition.identity.block
        created = self._definition.times.created
        if block is not None:
            return lambda _, key: str(int(key) // block) if key.isascii() and key.isdecimal() else "unnumbered"
        if created is None:
            return lambda _, __: "undated"
        find, read = created.path.reader(), self.created
        scopes: dict[Any, str] = {}

        def scope(item: Any, _: str) -> str:
            value = find(item)
            known = scopes.get(value) if isinstance(value, _SCALARS) else "undated"
            if known is None:
                if len(scopes) >= _SCOPES_KEPT:
                    scopes.clear()
                moment = read(item)
                known = scopes[value] = "undated" if moment is None else moment.date().isoformat()
            return known

        return scope

    # --- facts --------------------------------------------------------------------------------------------------------

    def _field_readers(self) -> Any:
        facts, times_ = self._definition.facts, self._definition.times
        if facts.phone is not None:
            paths = [JsonPath((steps,), "").reader() for steps in facts.phone.options]
            yield "phone", lambda item: parsing.phone(*(read(item) for read in paths))
        for name, path in (("error", facts.error), ("error_code", facts.error_code)):
            if path is not None:
                yield name, _text_reader(path)
        for name, spec, read in (
            ("created_at", times_.created, self.created),
            ("changed_at", times_.changed, self.changed),
        ):
            if spec is not None:
                yield name, read
        for name, field in facts.fields.items():
            yield name, _field_reader(field)

    def _keys_read(self) -> frozenset[str]:
        definition = self._definition
        facts, times_ = definition.facts, definition.times
        paths = [
            definition.identity.key, definition.identity.within, definition.identity.mark, definition.status.path,
            facts.phone, facts.error, facts.error_code, *(field.path for field in facts.fields.values()),
            *(spec.path for spec in (times_.created, times_.changed) if spec is not None),
        ]  # fmt: skip
        return frozenset(facts.leave_out).union(*(path.top_keys for path in paths if path is not None))

    def subject(self, key: str) -> str:
        """Return the path of a resource in events."""
        parts = key.split("/", 1) if self._definition.identity.within is not None else [key]
        return f"{self._before}{'/'.join(quote(part, safe='') for part in parts)}{self._after}"

    def describe(self, observation: Observation) -> Facts:
        """Read the facts of an item."""
        item: Mapping[str, Any] = observation.item
        fields: dict[str, Any] = {name: read(item) for name, read in self._fields}
        fields["provider"] = {name: value for name, value in item.items() if name not in self._read_keys}
        return Facts(
            subject=self.subject(observation.key),
            time=self.changed(item),
            first_time=self.created(item),
            fields=fields,
            model=self._model,
        )


def _state_text(value: Any) -> str:
    """Return a status of any JSON type as text; empty if there is none."""
    if isinstance(value, str):
        return value
    return "" if value is None else parsing.text(value) or json.dumps(value)


def _text_reader(path: JsonPath) -> Read:
    read = path.reader()
    return lambda item: parsing.text(read(item))


def _field_reader(spec: FieldSpec) -> Read:
    if spec.type == "time":
        return moment_reader(spec)
    if spec.type == "text":
        return _text_reader(spec.path)
    read = spec.path.reader()
    return lambda item: _number(read(item))


def _number(value: Any) -> int | float | None:
    whole = parsing.integer(value)
    if whole is not None:
        return whole
    try:
        return float(parsing.text(value) or "")
    except ValueError:
        return None
