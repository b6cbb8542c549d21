"""Paths into a provider's answer, such as `$.a.b[*].c`: checked once, and turned into functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_STEP = re.compile(r"\.([A-Za-z_@][\w@-]*)|\['([^']+)'\]|\[(\d{1,4})\]|\[(\*)\]")
_EXAMPLE = "write one such as $.message.id, $.to[*].status or $['a.b']"

Read = Callable[[Any], Any]
Step = str | int | None
"""A key, the index of an item, or None for the first item that has the rest of the path."""


@dataclass(frozen=True, slots=True)
class JsonPath:
    """One path, or several of which the first that leads to a value counts."""

    options: tuple[tuple[Step, ...], ...]
    text: str

    @classmethod
    def parse(cls, value: Any) -> JsonPath:
        """Read a path or a list of them; raises `ValueError` that says what to write."""
        if isinstance(value, JsonPath):
            return value
        texts = value if isinstance(value, list) else [value]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"is not a path; {_EXAMPLE}")
        return cls(tuple(_steps(text) for text in texts), " or ".join(texts))

    def reader(self) -> Read:
        """Return the function that reads the value at the path; it gives None where there is none."""
        readers = [_reader(steps) for steps in self.options]
        return readers[0] if len(readers) == 1 else _first_of(readers)

    @property
    def top_keys(self) -> set[str]:
        """Return the keys of an item in which the paths begin."""
        return {steps[0] for steps in self.options if steps and isinstance(steps[0], str)}

    def write(self, document: Any, value: Any) -> Any:
        """Return `document` with a value at the path, the first one where there are several; makes what is missing."""
        return _written(document, self.options[0], value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(lambda path: path.text)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        del schema, handler
        return {"type": ["string", "array"], "items": {"type": "string"}, "examples": ["$.id"]}


def _steps(text: str) -> tuple[Step, ...]:
    if not text.startswith("$"):
        raise ValueError(f"{text!r} is not a path: it has to begin with $; {_EXAMPLE}")
    steps: list[Step] = []
    position = 1
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            raise ValueError(f"{text!r} is not a path: {text[position:]!r} cannot be read; {_EXAMPLE}")
        key = match[1] or match[2]
        steps.append(key if key is not None else None if match[4] else int(match[3]))
        position = match.end()
    return tuple(steps)


def _first_of(readers: Sequence[Read]) -> Read:
    def read(item: Any) -> Any:
        for reader in readers:
            value = reader(item)
            if value is not None and value != "":
                return value
        return None

    return read


def _reader(steps: tuple[Step, ...]) -> Read:
    if not steps:
        return lambda item: item
    step, rest = steps[0], steps[1:]
    if step is None:
        return _any_item(_reader(rest))
    own = _key_reader(step) if isinstance(step, str) else _index_reader(step)
    if not rest:
        return own
    inner = _reader(rest)

    def read(item: Any) -> Any:
        value = own(item)
        return None if value is None else inner(value)

    return read


def _key_reader(key: str) -> Read:
    def read(item: Any) -> Any:
        return item.get(key) if isinstance(item, dict) else None

    return read


def _index_reader(index: int) -> Read:
    def read(item: Any) -> Any:
        return item[index] if isinstance(item, list) and index < len(item) else None

    return read


def _any_item(inner: Read) -> Read:
    def read(item: Any) -> Any:
        values = map(inner, item) if isinstance(item, list) else ()
        return next((value for value in values if value is not None), None)

    return read


def _written(document: Any, steps: tuple[Step, ...], value: Any) -> Any:
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(step, str):
        keyed = document if isinstance(document, dict) else {}
        return {**keyed, step: _written(keyed.get(step), rest, value)}
    items = list(document) if isinstance(document, list) else []
    index = step or 0
    items += [None] * (index + 1 - len(items))
    items[index] = _written(items[index], rest, value)
    return items
