"""What a new JSON Schema breaks for those who rely on the old one: receivers of new events, readers of old ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_REFERENCE = "$ref"
_DEFINITIONS = "#/$defs/"


def breaking_changes(old: str | Mapping[str, Any], new: str | Mapping[str, Any]) -> list[str]:
    """Return a line for each change that breaks somebody; empty if every receiver and every reader goes on working.

    Breaking are a field that is gone, a type that was narrowed (old events do not fit) or widened (receivers do not
    expect it), a value that is no longer allowed, a field that became required or is no longer required. Not breaking
    are new optional fields, new values of an enumeration, and all words of description. Schemas are given as texts or
    as values; references into `$defs` are followed.
    """
    before, after = (_Schema(json.loads(schema) if isinstance(schema, str) else schema) for schema in (old, new))
    return list(_changes(before, after, ""))


class _Schema:
    """A part of a schema, with the whole that its references point into."""

    def __init__(self, part: Mapping[str, Any], whole: Mapping[str, Any] | None = None) -> None:
        self.whole = part if whole is None else whole
        reference = str(part.get(_REFERENCE, ""))
        self.part = self.whole["$defs"][reference.removeprefix(_DEFINITIONS)] if reference else part

    @property
    def properties(self) -> Mapping[str, Any]:
        properties: Mapping[str, Any] = self.part.get("properties", {})
        return properties

    def at(self, name: str) -> _Schema:
        return _Schema(self.properties[name], self.whole)

    def alternatives(self) -> list[_Schema]:
        choices = self.part.get("anyOf", self.part.get("oneOf"))
        return [_Schema(choice, self.whole) for choice in choices] if choices else [self]

    def types(self) -> set[str]:
        """Return the names of the JSON types that are allowed; `any` for a schema that does not say."""
        types: set[str] = set()
        for choice in self.alternatives():
            named = choice.part.get("type", [])
            types |= set([named] if isinstance(named, str) else named)
            values = choice.values()
            if not named:
                types |= {_TYPES.get(type(value), "any") for value in values} if values else {"any"}
        return types

    def values(self) -> list[Any]:
        """Return the values that are allowed, if they are listed."""
        return [self.part["const"]] if "const" in self.part else list(self.part.get("enum", []))

    def objects(self) -> list[_Schema]:
        return [choice for choice in self.alternatives() if choice.properties]


_TYPES: Mapping[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def _changes(old: _Schema, new: _Schema, path: str) -> Iterator[str]:
    name = path or "the schema"
    before, after = old.types(), new.types()
    if gone := before - after - ({"any"} if after else set()):
        yield f"{name}: type narrowed, no longer {' or '.join(sorted(gone))}"
    if more := after - before:
        yield f"{name}: type widened, now also {' or '.join(sorted(more))}"
    if lost := [value for value in old.values() if new.values() and value not in new.values()]:
        yield f"{name}: values no longer allowed: {', '.join(map(repr, lost))}"
    for inner_old, inner_new in zip(old.objects(), new.objects(), strict=False):
        yield from _object_changes(inner_old, inner_new, path)


def _object_changes(old: _Schema, new: _Schema, path: str) -> Iterator[str]:
    required_before, required_after = (set(schema.part.get("required", ())) for schema in (old, new))
    for name in old.properties:
        place = f"{path}.{name}".lstrip(".")
        if name not in new.properties:
            yield f"{place}: field removed"
            continue
        if name in required_before - required_after:
            yield f"{place}: no longer required"
        yield from _changes(old.at(name), new.at(name), place)
    for name in sorted(required_after - required_before):
        yield f"{path}.{name}: now required".lstrip(".")
