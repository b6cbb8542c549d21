"""What events can say: every field of some event classes, with its types and, where there are few, its values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from bridge.domain.event import Event

_TYPES = {"integer": "number", "number": "number", "boolean": "boolean", "array": "list", "object": "fields"}
_MAX_DEPTH_LEVELS = 8
"""Levels of fields in fields that are looked at."""
ANYTHING = "anything"
"""The type of a field that no model describes: every comparison with it, and every field below it, is possible."""


@dataclass(slots=True)
class FieldNode:
    """One field of the events, and the fields below it."""

    kinds: set[str] = field(default_factory=set)
    """`text`, `time`, `number`, `boolean`, `list`, `fields` or `anything`."""
    values: set[str] = field(default_factory=set)
    """The only values that the field has, where `is_open` is false."""
    is_open: bool = False
    """Whether the field may have other values than those listed."""
    children: dict[str, FieldNode] = field(default_factory=dict)
    others: FieldNode | None = None
    """What is below any other name; None if there is no other."""

    @property
    def choices(self) -> list[str]:
        """The values of which it always has one; empty if it may have any."""
        return [] if self.is_open else sorted(self.values)

    def find(self, path: tuple[str, ...]) -> FieldNode | None:
        """Return the field at a path below this one; None if no event has it."""
        node = self
        for name in path:
            if ANYTHING in node.kinds:
                return node
            inner = node.children.get(name, node.others)
            if inner is None:
                return None
            node = inner
        return node

    def names(self, stem: str = "") -> Iterator[str]:
        """Yield the paths of all fields below this one that have values."""
        for name, node in self.children.items():
            path = f"{stem}{name}"
            if node.kinds - {"fields"}:
                yield path
            yield from node.names(f"{path}.")

    def limit(self, values: Iterable[str]) -> None:
        """Note that the field has one of these values, or of those that it was limited to before."""
        self.kinds.add("text")
        self.values.update(values)


def fields_of(events: Iterable[tuple[type[Event], str, str]], sources: Iterable[str]) -> FieldNode:
    """Return the fields of events: each class with a channel and an entity of which it tells.

    `sources` are the values that the attribute `source` can have. Of an enumeration that only a provider could
    complete, such as a topic's detail, no values are known.
    """
    top = FieldNode()
    _add(top, _envelope(), _envelope(), 0)
    data = top.children["data"] = FieldNode({"fields"})
    top.children["type"].is_open = top.children["source"].is_open = top.children["dataschema"].is_open = False
    top.children["source"].limit(sources)
    for event, channel, entity in events:
        model = event.model_fields["data"].annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            schema = _schema_of(model)
            _add(data, schema, schema, 0)
        top.children["dataschema"].limit([event.schema_uri()])
        top.children["type"].limit([f"bridge.{channel}.{entity}.{event.status}"])
        for name, known in (("status", event.status), ("channel", channel)):
            node = data.children.setdefault(name, FieldNode())
            node.is_open = False
            node.limit([known])
    return top


@lru_cache(maxsize=1)
def _envelope() -> Mapping[str, Any]:
    schema = Event.model_json_schema(mode="serialization")
    return {**schema, "properties": {key: of for key, of in schema["properties"].items() if key != "data"}}


@lru_cache(maxsize=256)
def _schema_of(model: type[BaseModel]) -> Mapping[str, Any]:
    return model.model_json_schema()


def _add(node: FieldNode, schema: Mapping[str, Any], whole: Mapping[str, Any], depth: int) -> None:
    """Add to a field what a JSON Schema says of it."""
    reference = str(schema.get("$ref", ""))
    if reference:
        schema = whole["$defs"][reference.rpartition("/")[2]]
    for choice in schema.get("anyOf", schema.get("oneOf", ())):
        _add(node, choice, whole, depth)
    if "anyOf" in schema or "oneOf" in schema or schema.get("type") == "null":
        return
    values = [schema["const"]] if "const" in schema else schema.get("enum", [])
    kind = _kind(schema, values)
    node.kinds.add(kind)
    node.values.update(str(value) for value in values if isinstance(value, str))
    node.is_open = node.is_open or not values
    if kind == "fields" and depth < _MAX_DEPTH_LEVELS:
        _add_children(node, schema, whole, depth)


def _kind(schema: Mapping[str, Any], values: list[Any]) -> str:
    kind = schema.get("type")
    if kind == "string" or (kind is None and values and isinstance(values[0], str)):
        return "time" if schema.get("format") == "date-time" else "text"
    return _TYPES.get(str(kind), ANYTHING)


def _add_children(node: FieldNode, schema: Mapping[str, Any], whole: Mapping[str, Any], depth: int) -> None:
    properties = schema.get("properties", {})
    for name, inner in properties.items():
        _add(node.children.setdefault(name, FieldNode()), inner, whole, depth + 1)
    others = schema.get("additionalProperties")
    if not properties and others is not False:
        node.others = node.others or FieldNode()
        _add(node.others, others if isinstance(others, Mapping) else {}, whole, depth + 1)
