"""A structure of mappings, lists and texts with expressions, from which a JSON value is built for each event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from bridge.domain.errors import PlacedError
from bridge.domain.filters.event_filter import EventFilter
from bridge.forms.expressions import Scope, as_text, compile_text

_MAX_LEVELS = 32
"""Levels of mappings and lists in one another."""
_MAP, _WHEN = "$map", "$when"
_MISSING = object()
"""The value of a leaf that the event does not have: its key or item is left out."""

Build = Callable[[Scope], Any]


class JsonTemplate:
    """Builds a value; raises `PlacedError` if it cannot be read.

    A leaf that is one expression has the type of its value. A key or an item whose value is missing is left out. Two
    mappings are no values: `{$map: "{data.status}", failed: error, else: info}` chooses by a text, and
    `{$when: FILTER, then: …, else: …}` by a filter; without `else`, it is left out where the filter does not hold.
    """

    __slots__ = ("_build", "raw")

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        """As the file has it."""
        self._build = _compile(raw, (), 1)

    def __repr__(self) -> str:
        return f"JsonTemplate({self.raw!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonTemplate) and self.raw == other.raw

    __hash__ = None  # type: ignore[assignment]  # what it was made from may change

    def build(self, scope: Scope) -> Any:
        """Return the value for one event; None where all of it is missing."""
        value = self._build(scope)
        return None if value is _MISSING else value

    def texts(self) -> Iterator[str]:
        """Yield all texts in it."""
        yield from _texts(self.raw)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls(value),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.raw),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        del schema, handler
        return {"description": "A structure with expressions such as {data.status} at its leaves."}


def _texts(raw: Any) -> Iterator[str]:
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, Mapping):
        for value in raw.values():
            yield from _texts(value)
    elif isinstance(raw, list):
        for value in raw:
            yield from _texts(value)


def _compile(raw: Any, place: tuple[str | int, ...], level: int) -> Build:
    if level > _MAX_LEVELS:
        raise PlacedError(place, f"is nested in more than {_MAX_LEVELS} levels; write it flatter")
    if isinstance(raw, str):
        return _leaf(raw, place)
    if isinstance(raw, list):
        return _list(raw, place, level)
    if not isinstance(raw, Mapping):
        return lambda _: raw
    if _WHEN in raw:
        return _when(raw, place, level)
    if _MAP in raw:
        return _map(raw, place, level)
    return _mapping(raw, place, level)


def _leaf(raw: str, place: tuple[str | int, ...]) -> Build:
    try:
        compute = compile_text(raw)
    except PlacedError as error:
        raise PlacedError(place, str(error)) from None
    return lambda scope: _MISSING if (value := compute(scope)) is None else value


def _list(raw: list[Any], place: tuple[str | int, ...], level: int) -> Build:
    items = [_compile(item, (*place, index), level + 1) for index, item in enumerate(raw)]
    return lambda scope: [value for item in items if (value := item(scope)) is not _MISSING]


def _mapping(raw: Mapping[Any, Any], place: tuple[str | int, ...], level: int) -> Build:
    fields = []
    for key, inner in raw.items():
        name = str(key)
        if name.startswith("$") and name in ("$if", "$case", "$switch"):
            raise PlacedError((*place, name), f"is no choice that is known; did you mean {_MAP!r} or {_WHEN!r}?")
        fields.append((name, _compile(inner, (*place, name), level + 1)))
    return lambda scope: {name: value for name, build in fields if (value := build(scope)) is not _MISSING}


def _when(raw: Mapping[Any, Any], place: tuple[str | int, ...], level: int) -> Build:
    if unknown := [key for key in raw if key not in (_WHEN, "then", "else")]:
        raise PlacedError((*place, str(unknown[0])), f"stands next to {_WHEN!r}, which takes then and else; remove it")
    if "then" not in raw:
        raise PlacedError(place, f"has {_WHEN!r} without then; add `then:` and its value")
    try:
        chosen = EventFilter(raw[_WHEN])
    except PlacedError as error:
        raise PlacedError((*place, _WHEN, *error.place), str(error)) from None
    then = _compile(raw["then"], (*place, "then"), level + 1)
    otherwise = _compile(raw["else"], (*place, "else"), level + 1) if "else" in raw else lambda _: _MISSING
    return lambda scope: (then if chosen.matches(scope.event) else otherwise)(scope)


def _map(raw: Mapping[Any, Any], place: tuple[str | int, ...], level: int) -> Build:
    by = raw[_MAP]
    if not isinstance(by, str):
        raise PlacedError((*place, _MAP), "takes a text to choose by, such as '{data.status|plain}'")
    chosen = _leaf(by, (*place, _MAP))
    choices = {str(key): _compile(inner, (*place, str(key)), level + 1) for key, inner in raw.items() if key != _MAP}
    otherwise = choices.pop("else", lambda _: _MISSING)

    def build(scope: Scope) -> Any:
        value = chosen(scope)
        return choices.get("" if value is _MISSING else as_text(value), otherwise)(scope)

    return build
