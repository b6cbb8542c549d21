"""Whether a filter fits what events can say: unknown fields, impossible values, comparisons of the wrong type."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from bridge.domain.filters.expression import ORDERS, Condition, Expression, Place, conditions, suggestion
from bridge.domain.filters.fields import ANYTHING, FieldNode

_ARTICLES = {"text": "a text", "time": "a time", "number": "a number", "boolean": "true or false", "list": "a list"}
_MAX_NAMES_SHOWN = 8
"""Fields or values that a message lists."""


def problems(expression: Expression, fields: FieldNode) -> Iterator[tuple[Place, str]]:
    """Yield the place and the text of everything that is wrong with a filter; each text says what to write instead."""
    for condition in conditions(expression):
        node = fields.find(condition.field)
        if node is None or node.kinds <= {"fields"}:
            yield condition.place, _unknown(condition.field, node, fields)
        elif ANYTHING not in node.kinds and (wrong := _wrong(condition, node)) is not None:
            yield condition.place, wrong


def _unknown(path: tuple[str, ...], node: FieldNode | None, fields: FieldNode) -> str:
    name = ".".join(path)
    if node is not None:
        below = [f"{name}.{inner}" for inner in node.names()]
        choice = f"did you mean {below[0]!r}?" if below else f"name one of them, such as {name}.NAME"
        return f"is a group of fields; {choice}"
    known = list(fields.names())
    same = [field for field in known if field.rpartition(".")[2] == path[-1]]
    if same:
        return f"no event of this sink's topics has this field; did you mean {same[0]!r}?"
    return f"no event of this sink's topics has this field; {suggestion(name, _nearest_first(path, known))}"


def _nearest_first(path: tuple[str, ...], known: list[str]) -> list[str]:
    """Return the fields of the same group, or all of them if there is no such group."""
    stem = ".".join(path[:-1])
    siblings = [name for name in known if stem and name.rpartition(".")[0] == stem]
    return siblings or known


def _wrong(condition: Condition, node: FieldNode) -> str | None:
    dialect, operand = condition.dialect, condition.operand
    if dialect == "exists":
        return None
    if dialect in ORDERS:
        return _wrong_order(condition, node)
    if dialect == "matches":
        return None if "text" in node.kinds else _no_text(dialect, node)
    if dialect in ("prefix", "suffix"):
        return _wrong_part(condition, node)
    values = operand if dialect == "in" else (operand,)
    return next((wrong for value in values if (wrong := _wrong_value(value, node)) is not None), None)


def _wrong_order(condition: Condition, node: FieldNode) -> str | None:
    wanted = "time" if isinstance(condition.operand, datetime) else "number"
    if wanted in node.kinds:
        return None
    if node.kinds & {"time", "number"}:
        example = "a time such as 2026-03-15T21:00:00Z" if "time" in node.kinds else "a number such as 40"
        return f"is {_is(node)} and is compared with {_ARTICLES[wanted]}; write {example}"
    near = "exact, in, prefix or suffix" if "text" in node.kinds else "exact"
    return f"is {_is(node)}, and {condition.dialect} compares numbers and times; use {near}"


def _wrong_part(condition: Condition, node: FieldNode) -> str | None:
    if not node.kinds & {"text", "time"}:
        return _no_text(condition.dialect, node)
    if "text" not in node.kinds:
        return f"is a time, which {condition.dialect} does not compare; use gte and lt"
    choices = node.choices
    is_part = str.startswith if condition.dialect == "prefix" else str.endswith
    if not choices or any(is_part(choice, condition.operand) for choice in choices):
        return None
    verb = "begins" if condition.dialect == "prefix" else "ends"
    return f"no value of it {verb} with {condition.operand!r}; {_choose(condition.operand, choices)}"


def _wrong_value(value: Any, node: FieldNode) -> str | None:
    kind = "text" if isinstance(value, str) else "boolean" if isinstance(value, bool) else "number"
    if kind in node.kinds:
        choices = node.choices
        if kind != "text" or not choices or value in choices:
            return None
        return f"never has the value {value!r}; {_choose(value, choices)}"
    if node.kinds == {"time"}:
        return "is a time, which may be written in several ways; use gte and lt, or gte and lte"
    if kind == "text" and "number" in node.kinds and _is_number(value):
        return f"is {_is(node)} and is compared with a text; did you mean {value}, without quotes?"
    if "text" in node.kinds:
        return f"is {_is(node)} and is compared with {_ARTICLES[kind]}; did you mean '{_plain(value)}', in quotes?"
    example = {"number": "a number such as 40", "boolean": "true or false"}.get(next(iter(node.kinds)), "exists")
    return f"is {_is(node)} and is compared with {_ARTICLES[kind]}; write {example}"


def _no_text(dialect: str, node: FieldNode) -> str:
    use = "gte and lt" if node.kinds & {"time", "number"} else "exact" if "boolean" in node.kinds else "exists"
    return f"is {_is(node)}, and {dialect} compares texts; use {use}"


def _is(node: FieldNode) -> str:
    return " or ".join(_ARTICLES[kind] for kind in sorted(node.kinds) if kind in _ARTICLES)


def _choose(given: str, choices: list[str]) -> str:
    said = suggestion(given, choices)
    if said.startswith("did") or len(choices) <= _MAX_NAMES_SHOWN:
        return said
    return f"there is {', '.join(choices[:_MAX_NAMES_SHOWN])} and {len(choices) - _MAX_NAMES_SHOWN} more"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
