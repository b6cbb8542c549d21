"""The filter of one sink, as a setting: read, compiled, and able to say what an event lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from bridge.domain.filters.compiling import compile_filter
from bridge.domain.filters.expression import COMBINATIONS, DIALECTS, Condition, Expression, parse_filter


class EventFilter:
    """Decides about an event by its attributes and data. Raises `FilterError` if it cannot be read."""

    __slots__ = ("expression", "matches", "raw")

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        """As the configuration has it."""
        self.expression = parse_filter(raw)
        self.matches = compile_filter(self.expression)
        """Says whether an event's plain values (the CloudEvent as JSON has it) are selected; never raises."""

    def __str__(self) -> str:
        return str(self.expression)

    def __repr__(self) -> str:
        return f"EventFilter({self.raw!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EventFilter) and self.expression == other.expression

    def __hash__(self) -> int:
        return hash(self.expression)

    def unmet(self, values: Mapping[str, Any]) -> str | None:
        """Return the first condition that an event does not meet; None if it meets all."""
        return _unmet(self.expression, values)

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
        fields = {"type": "object", "minProperties": 1}
        properties: dict[str, Any] = dict.fromkeys(DIALECTS, fields)
        properties |= {name: {"type": "array", "items": fields, "minItems": 1} for name in COMBINATIONS}
        mapping = {**fields, "properties": {**properties, "not": fields}, "additionalProperties": False}
        return {"anyOf": [mapping, {"type": "array", "items": mapping, "minItems": 1}]}


def _unmet(expression: Expression, values: Mapping[str, Any]) -> str | None:
    if compile_filter(expression)(values):
        return None
    if isinstance(expression, Condition) or expression.kind != "all":
        return str(expression)
    return next(said for part in expression.parts if (said := _unmet(part, values)) is not None)
