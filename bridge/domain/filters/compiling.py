"""Filters compiled to closures: one call decides about one event's plain values, and nothing raises."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from bridge.domain.filters.expression import Condition, Expression, FieldPath, read_time

Values = Mapping[str, Any]
Predicate = Callable[[Values], bool]
_Get = Callable[[Values], Any]

_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le,
}  # fmt: skip


def compile_filter(expression: Expression) -> Predicate:
    """Return what decides whether a filter holds for an event's plain values.

    A field that is missing or null, or has a value of another type than a condition asks for, does not meet it.
    """
    if isinstance(expression, Condition):
        return _CONDITIONS[expression.dialect](_getter(expression.field), expression.operand)
    parts = [compile_filter(part) for part in expression.parts]
    if expression.kind == "not":
        inner = parts[0]
        return lambda values: not inner(values)
    if len(parts) == 1:
        return parts[0]
    return _any_of(parts) if expression.kind == "any" else _all_of(parts)


def _all_of(parts: Sequence[Predicate]) -> Predicate:
    def holds(values: Values) -> bool:
        return all(part(values) for part in parts)

    return holds


def _any_of(parts: Sequence[Predicate]) -> Predicate:
    def holds(values: Values) -> bool:
        return any(part(values) for part in parts)

    return holds


# --- fields -------------------------------------------------------------------------------------------------------


def _getter(field: FieldPath) -> _Get:
    first, *rest = field
    if not rest:
        return lambda values: values.get(first)
    if len(rest) == 1:
        second = rest[0]

        def get(values: Values) -> Any:
            inner = values.get(first)
            return inner.get(second) if type(inner) is dict else None

        return get

    def get_deep(values: Values) -> Any:
        inner: Any = values
        for name in field:
            if type(inner) is not dict:
                return None
            inner = inner.get(name)
        return inner

    return get_deep


# --- conditions ---------------------------------------------------------------------------------------------------


def _exact(get: _Get, wanted: Any) -> Predicate:
    if type(wanted) is str:
        return lambda values: get(values) == wanted
    if type(wanted) is bool:
        return lambda values: get(values) is wanted

    def is_number(values: Values) -> bool:
        value = get(values)  # true is no 1
        return (type(value) is int or type(value) is float) and value == wanted

    return is_number


def _in(get: _Get, wanted: tuple[Any, ...]) -> Predicate:
    texts = frozenset(value for value in wanted if type(value) is str)
    others = frozenset((type(value) is bool, value) for value in wanted if type(value) is not str)

    def holds(values: Values) -> bool:
        value = get(values)
        kind = type(value)
        if kind is str:
            return value in texts
        return (kind is int or kind is float or kind is bool) and (kind is bool, value) in others

    return holds


def _prefix(get: _Get, wanted: str) -> Predicate:
    return lambda values: type(value := get(values)) is str and value.startswith(wanted)


def _suffix(get: _Get, wanted: str) -> Predicate:
    return lambda values: type(value := get(values)) is str and value.endswith(wanted)


def _matches(get: _Get, wanted: Any) -> Predicate:
    is_in = wanted.is_in
    return lambda values: type(value := get(values)) is str and is_in(value)


def _exists(get: _Get, wanted: bool) -> Predicate:  # noqa: FBT001 - all conditions are made alike
    return lambda values: (get(values) is not None) is wanted


def _ordered_by(compare: Callable[[Any, Any], bool]) -> Callable[[_Get, Any], Predicate]:
    def make(get: _Get, wanted: Any) -> Predicate:
        if isinstance(wanted, datetime):
            return lambda values: (moment := read_time(get(values))) is not None and compare(moment, wanted)

        def holds(values: Values) -> bool:
            value = get(values)
            return (type(value) is int or type(value) is float) and compare(value, wanted)

        return holds

    return make


_CONDITIONS: dict[str, Callable[[_Get, Any], Predicate]] = {
    "exact": _exact, "in": _in, "prefix": _prefix, "suffix": _suffix, "matches": _matches, "exists": _exists,
    **{name: _ordered_by(compare) for name, compare in _ORDERS.items()},
}  # fmt: skip
