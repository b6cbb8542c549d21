"""Filters decided the plain way, straight from their text: what the compiled ones are compared with."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any


def selects(raw: Any, event: dict[str, Any]) -> bool:
    """Say what a filter means, without compiling or checking anything."""
    if isinstance(raw, list):
        return all(selects(part, event) for part in raw)
    verdicts = []
    for dialect, value in raw.items():
        if dialect == "all":
            verdicts.append(all(selects(part, event) for part in value))
        elif dialect == "any":
            verdicts.append(any(selects(part, event) for part in value))
        elif dialect == "not":
            verdicts.append(not selects(value, event))
        else:
            verdicts += [_holds(dialect, _field(event, path), wanted) for path, wanted in value.items()]
    return False not in verdicts


def _field(event: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(event, dict) or name not in event:
            return None
        event = event[name]
    return event


def _holds(dialect: str, value: Any, wanted: Any) -> bool:
    if dialect == "exists":
        return wanted == (value is not None)
    if dialect == "exact":
        return _same(value, wanted)
    if dialect == "in":
        return any(_same(value, item) for item in wanted)
    if dialect in ("prefix", "suffix", "matches"):
        return isinstance(value, str) and _is_part(dialect, value, wanted)
    return _ordered(dialect, value, wanted)


def _is_part(dialect: str, value: str, wanted: str) -> bool:
    if dialect == "matches":
        return re.search(wanted, value) is not None
    return wanted in value and (value.find(wanted) == 0 if dialect == "prefix" else value[-len(wanted) :] == wanted)


def _same(value: Any, wanted: Any) -> bool:
    return isinstance(value, bool) == isinstance(wanted, bool) and not isinstance(value, dict) and value == wanted


def _ordered(dialect: str, value: Any, wanted: Any) -> bool:
    if isinstance(wanted, str):
        try:
            value, wanted = (datetime.fromisoformat(str(text)).timestamp() for text in (value, wanted))
        except ValueError:
            return False
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return False
    signs = {"gt": (1,), "gte": (1, 0), "lt": (-1,), "lte": (-1, 0)}[dialect]
    return (value > wanted) - (value < wanted) in signs
