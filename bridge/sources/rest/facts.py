"""What an item says beyond its status: read only of items that became events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from bridge.http import parsing
from bridge.providers import times
from bridge.providers.events import data_model
from bridge.providers.models import Definition, FieldSpec, TimeSpec
from bridge.providers.paths import JsonPath, Read

ReadMoment = Callable[[Any], datetime | None]
WasRead = Callable[[Any, Mapping[str, Any]], bool]
"""Says of a value of an item, given the fields of its event, whether one of these holds it."""


def nothing(_: Any) -> None:
    """Read nothing."""
    return


def moment_reader(spec: TimeSpec | FieldSpec | None) -> ReadMoment:
    """Return the function that reads a time of an item."""
    if spec is None:
        return nothing
    formats = [spec.format] if isinstance(spec.format, str) else spec.format
    find, read = spec.path.reader(), times.reader(formats, spec.zone)
    return lambda item: read(find(item))


class FactsReader:
    """Reads the fields of an event from an item; a value that fits no field goes to `provider` as it is."""

    def __init__(self, definition: Definition, created: ReadMoment, changed: ReadMoment) -> None:
        self._definition = definition
        self.model = data_model(definition)
        self._fields = list(self._readers(created, changed))
        self._fields_of = self._fields_by_key()
        self._phone_keys = self._plain_keys(definition.facts.phone)
        self._read_keys = self._keys_read() - {*self._fields_of, *self._phone_keys}
        self.status_field = self.field_of(definition.status.path)
        """The field that holds the provider's own value of the status, if one does."""

    def fields(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of an item's event."""
        fields: dict[str, Any] = {name: read(item) for name, read in self._fields}
        fields["provider"] = {
            name: value
            for name, value in item.items()
            if name not in self._read_keys and not self._is_read(name, value, fields)
        }
        return fields

    def field_of(self, path: JsonPath | None) -> str | None:
        """Return the field that holds the value at a path; None if there is none."""
        facts, created = self._definition.facts, self._definition.times.created
        if path is None:
            return None
        if created is not None and created.path == path and "created_at" in self.model.model_fields:
            return "created_at"
        return next((name for name, field in facts.fields.items() if field.path == path), None)

    def _is_read(self, name: str, value: Any, fields: Mapping[str, Any]) -> bool:
        """Say whether fields hold a value; an absent one is held by the absence of the field."""
        is_phone = name in self._phone_keys
        if not is_phone and name not in self._fields_of:
            return False
        return (
            value is None
            or (is_phone and parsing.text(value) is not None and parsing.text(value) == fields["phone"])
            or any(fields[field] is not None for field in self._fields_of.get(name, ()))
        )

    def _readers(self, created: ReadMoment, changed: ReadMoment) -> Iterator[tuple[str, Read]]:
        facts, given = self._definition.facts, self._definition.times
        if facts.phone is not None:
            paths = [JsonPath((steps,), "").reader() for steps in facts.phone.options]
            yield "phone", lambda item: parsing.phone(*(read(item) for read in paths))
        for name, path in (("error", facts.error), ("error_code", facts.error_code)):
            if path is not None:
                yield name, _text_reader(path)
        for name, spec, read in (("created_at", given.created, created), ("changed_at", given.changed, changed)):
            if spec is not None and name in self.model.model_fields:
                yield name, read
        for name, field in facts.fields.items():
            yield name, _field_reader(field)

    def _fields_by_key(self) -> dict[str, list[str]]:
        """Return, by each key of an item that is read as a whole, the fields that it fills."""
        facts, given = self._definition.facts, self._definition.times
        paths: list[tuple[str, JsonPath | None]] = [
            ("error", facts.error),
            ("error_code", facts.error_code),
            ("created_at", None if given.created is None else given.created.path),
            ("changed_at", None if given.changed is None else given.changed.path),
            *((name, field.path) for name, field in facts.fields.items()),
        ]
        known = {name for name, _ in self._fields}
        fields: dict[str, list[str]] = {}
        for name, path in paths:
            for key in self._plain_keys(path) if name in known else ():
                fields.setdefault(key, []).append(name)
        return fields

    def _plain_keys(self, path: JsonPath | None) -> set[str]:
        """Return the keys that a path reads as a whole, and that no other part of the definition needs."""
        identity = self._definition.identity
        needed = {*self._definition.facts.leave_out}
        for other in (identity.key, identity.within, identity.mark):
            needed |= set() if other is None else other.top_keys
        options = () if path is None else path.options
        return {steps[0] for steps in options if len(steps) == 1 and isinstance(steps[0], str)} - needed

    def _keys_read(self) -> frozenset[str]:
        definition = self._definition
        facts, given = definition.facts, definition.times
        paths = [
            definition.identity.key, definition.identity.within, definition.identity.mark, definition.status.path,
            facts.phone, facts.error, facts.error_code, *(field.path for field in facts.fields.values()),
            *(spec.path for spec in (given.created, given.changed) if spec is not None),
        ]  # fmt: skip
        return frozenset(facts.leave_out).union(*(path.top_keys for path in paths if path is not None))


def _text_reader(path: JsonPath) -> Read:
    read = path.reader()
    return lambda item: parsing.text(read(item))


def _field_reader(spec: FieldSpec) -> Read:
    if spec.type == "time":
        return moment_reader(spec)
    if spec.type == "text":
        return _text_reader(spec.path)
    read = spec.path.reader()
    return (lambda item: code(read(item))) if spec.type == "code" else lambda item: _number(read(item))


def code(value: Any) -> int | str | None:
    """Return a number as a number and a text as a text; None for anything else."""
    text = parsing.text(value)
    number = None if text is None or isinstance(value, str) else parsing.integer(value)
    return text if number is None else number


def _number(value: Any) -> int | float | None:
    whole = parsing.integer(value)
    if whole is not None:
        return whole
    try:
        return float(parsing.text(value) or "")
    except ValueError:
        return None
