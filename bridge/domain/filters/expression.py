"""A filter as it is written, read into conditions and their combinations.

The dialects `exact`, `prefix`, `suffix`, `all`, `any` and `not` mean what the CloudEvents Subscriptions API says.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bridge.domain.errors import PlacedError
from bridge.domain.filters.regular_expressions import RegularExpression

FieldPath = tuple[str, ...]
Place = tuple[str | int, ...]
"""The way from the top of a filter to a part of it: keys, and indexes of lists."""

COMBINATIONS = ("all", "any", "not")
ORDERS = ("gt", "gte", "lt", "lte")
DIALECTS = ("exact", "prefix", "suffix", "in", "exists", *ORDERS, "matches", *COMBINATIONS)
_MAX_LEVELS = 32
"""Levels of combinations in one another; nobody reads a deeper filter, and closures call one another."""
_SUGGESTION_LIKENESS = 0.6
"""The share of characters that a suggestion has in common with what was written."""
_MEANT = {
    "eq": "exact", "equals": "exact", "is": "exact", "equal": "exact", "==": "exact", "startswith": "prefix",
    "starts_with": "prefix", "endswith": "suffix", "ends_with": "suffix", "one_of": "in", "oneof": "in",
    "has": "exists", "present": "exists", "ge": "gte", "min": "gte", "after": "gt", "greater": "gt", "le": "lte",
    "max": "lte", "before": "lt", "less": "lt", "regex": "matches", "regexp": "matches", "match": "matches",
    "like": "matches", "and": "all", "or": "any", "none": "not", "sql": "all",
}  # fmt: skip
"""Words of other filters, and the dialect that does the same."""


class FilterError(PlacedError):
    """A filter cannot be read."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One dialect about one field."""

    dialect: str
    field: FieldPath
    operand: Any
    """A text, number or boolean; for `in` a tuple of them, for a time a `datetime`, for `matches` an expression."""
    place: Place

    def __str__(self) -> str:
        return f"{self.dialect} {'.'.join(self.field)}: {_written(self.operand)}"


@dataclass(frozen=True, slots=True)
class Combination:
    """Several filters of which all have to hold, or any; or one that must not."""

    kind: str
    """One of `COMBINATIONS`."""
    parts: tuple[Expression, ...]
    place: Place

    def __str__(self) -> str:
        inner = ", ".join(map(str, self.parts))
        return inner if self.kind == "all" and len(self.parts) == 1 else f"{self.kind}({inner})"


Expression = Condition | Combination


def parse_filter(raw: Any) -> Combination:
    """Return what a filter says, a mapping of dialects or a list of such; raises `FilterError`."""
    if isinstance(raw, list):
        return Combination("all", tuple(_listed(raw, (), 1)), ())
    return _mapping(raw, (), 1)


def conditions(expression: Expression) -> Iterator[Condition]:
    """Yield every condition of a filter, in the order in which they are written."""
    if isinstance(expression, Condition):
        yield expression
    else:
        for part in expression.parts:
            yield from conditions(part)


def suggestion(given: str, known: list[str]) -> str:
    """Return `did you mean 'x'?`, or what there is to choose from."""
    by_form = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.lower(), by_form, n=1, cutoff=_SUGGESTION_LIKENESS)
    return f"did you mean {by_form[near[0]]!r}?" if near else f"there is {', '.join(known)}"


def read_time(value: Any) -> datetime | None:
    """Return an RFC 3339 time; None for what is none, or has no time zone."""
    if type(value) is not str:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


# --- combinations -------------------------------------------------------------------------------------------------


def _mapping(raw: Any, place: Place, level: int) -> Combination:
    if not isinstance(raw, Mapping) or not raw:
        what = "is empty" if raw in (None, {}) else "must be a mapping of a dialect to what it asks for"
        raise FilterError(place, f"{what}; write such as exact: {{data.status: failed}}")
    if level > _MAX_LEVELS:
        raise FilterError(place, f"is nested in more than {_MAX_LEVELS} levels; write it flatter")
    parts: list[Expression] = []
    for dialect, value in raw.items():
        at = (*place, str(dialect))
        if dialect not in DIALECTS:
            raise FilterError(at, f"is no dialect of filters; {_dialect_suggestion(str(dialect))}")
        parts.append(_part(dialect, value, at, level))
    return Combination("all", tuple(parts), place)


def _dialect_suggestion(given: str) -> str:
    meant = _MEANT.get(given.lower())
    return f"did you mean {meant!r}?" if meant else suggestion(given, list(DIALECTS))


def _part(dialect: str, value: Any, place: Place, level: int) -> Expression:
    if dialect == "not":
        if isinstance(value, list):
            raise FilterError(place, "takes one filter and no list; did you mean not: {any: […]}?")
        return Combination("not", (_mapping(value, place, level + 1),), place)
    if dialect in COMBINATIONS:
        if not isinstance(value, list):
            raise FilterError(place, f"takes a list of filters; did you mean {dialect}: [{{exact: …}}, …]?")
        return Combination(dialect, tuple(_listed(value, place, level + 1)), place)
    if not isinstance(value, Mapping) or not value:
        raise FilterError(place, f"takes fields and what they are compared with; {_example(dialect)}")
    return Combination("all", tuple(_condition(dialect, key, of, place) for key, of in value.items()), place)


def _listed(raw: list[Any], place: Place, level: int) -> Iterator[Combination]:
    if not raw:
        raise FilterError(place, "is an empty list; give it filters, such as [{exact: {data.status: failed}}]")
    return (_mapping(part, (*place, index), level) for index, part in enumerate(raw))


_EXAMPLES = {
    "in": "{data.status: [failed, rejected]}", "exists": "{data.error: true}", "matches": "{data.error: 'time.?out'}",
    "prefix": "{subject: /messages/}", "suffix": "{data.phone: '00'}", "exact": "{data.status: failed}",
}  # fmt: skip


def _example(dialect: str) -> str:
    return f"did you mean {dialect}: {_EXAMPLES.get(dialect, '{data.code: 40}')}?"


# --- conditions ---------------------------------------------------------------------------------------------------


def _condition(dialect: str, name: Any, value: Any, place: Place) -> Condition:
    at = (*place, name)
    field = tuple(str(name).split("."))
    if not all(field):
        stem = ".".join(filter(None, field))
        raise FilterError(at, f"is no field; did you mean {stem or 'data.status'!r}?")
    if value is None:
        raise FilterError(at, f"is empty; did you mean exists: {{{name}: false}}?")
    return Condition(dialect, field, _OPERANDS[dialect](dialect, name, value, at), at)


def _scalar(dialect: str, name: Any, value: Any, place: Place) -> Any:
    if isinstance(value, list) and dialect == "exact":
        raise FilterError(place, f"takes one value and no list; did you mean in: {{{name}: […]}}?")
    if not isinstance(value, str | int | float):
        raise FilterError(place, f"takes a text, a number, true or false; {_example(dialect)}")
    return value


def _text(dialect: str, name: Any, value: Any, place: Place) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise FilterError(place, f"takes a text; {_example(dialect)}")
    if not isinstance(value, str):
        raise FilterError(place, f"takes a text; did you mean {dialect}: {{{name}: '{value}'}}, in quotes?")
    if not value:
        raise FilterError(place, f"is an empty text, which every text has; did you mean exists: {{{name}: true}}?")
    return value


def _values(dialect: str, name: Any, value: Any, place: Place) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise FilterError(place, f"takes a list of values; did you mean exact: {{{name}: {value}}}?")
    if not value:
        raise FilterError(place, f"is an empty list, which no value is in; {_example(dialect)}")
    return tuple(_scalar(dialect, name, item, (*place, index)) for index, item in enumerate(value))


def _boolean(dialect: str, name: Any, value: Any, place: Place) -> bool:
    if not isinstance(value, bool):
        raise FilterError(place, f"takes true or false; did you mean {dialect}: {{{name}: true}}?")
    return value


def _ordered(dialect: str, name: Any, value: Any, place: Place) -> float | datetime:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if (moment := read_time(value)) is not None:
        return moment
    raise FilterError(place, f"compares numbers and times; {_order_suggestion(dialect, name, str(value))}")


def _order_suggestion(dialect: str, name: Any, text: str) -> str:
    for meant, read in ((text, float), (f"{text}Z", _moment), (f"{text}T00:00:00Z", _moment)):
        try:
            read(meant)
        except ValueError:
            continue
        return f"did you mean {dialect}: {{{name}: {meant}}}?"
    return "write a number, or a time such as 2026-03-15T21:00:00Z"


def _moment(text: str) -> datetime:
    moment = read_time(text)
    if moment is None:
        raise ValueError
    return moment


def _expression(dialect: str, name: Any, value: Any, place: Place) -> RegularExpression:
    try:
        return RegularExpression(_text(dialect, name, value, place))
    except FilterError:
        raise
    except ValueError as error:
        raise FilterError(place, str(error)) from None


_OPERANDS: dict[str, Callable[[str, Any, Any, Place], Any]] = {
    "exact": _scalar, "prefix": _text, "suffix": _text, "in": _values, "exists": _boolean, "matches": _expression,
    **dict.fromkeys(ORDERS, _ordered),
}  # fmt: skip


def _written(operand: Any) -> str:
    if isinstance(operand, datetime):
        return operand.isoformat()
    if isinstance(operand, RegularExpression):
        return json.dumps(operand.text, ensure_ascii=False)
    return json.dumps(operand, ensure_ascii=False)
