"""Filters and events made at random, so that each condition is sometimes met and sometimes not."""

from __future__ import annotations

from random import Random
from typing import Any

TEXTS = ("failed", "sent", "bridge.sms.recipient.failed", "/messages/voice/10507", "line busy", "Ünïcode ☎", "45", "")
NUMBERS = (0, 1, 45, -3, 2.5, 45.0, 10**12)
TIMES = (
    "2026-03-15T21:11:02Z", "2026-03-15T21:11:02.500Z", "2026-03-15T22:11:02+01:00", "2026-03-16T00:00:00Z",
    "1969-12-31T23:59:59.999Z",
)  # fmt: skip
FIELDS = (
    "type", "subject", "time", "data.status", "data.code", "data.error", "data.created_at", "data.counts.failed",
    "data.provider.deep.er", "data.flag", "data.absent", "absent.too",
)  # fmt: skip
EXPRESSIONS = ("fail", "^line", "busy$", "[0-9]+", "a|ü|ï", "^$", "s.n")


def value(rng: Random) -> Any:
    return rng.choice([*TEXTS, *NUMBERS, *TIMES, True, False, None, ["list"], {"a": 1}])


def event(rng: Random) -> dict[str, Any]:
    made: dict[str, Any] = {"id": "e", "specversion": "1.0"}
    for path in FIELDS[:-2]:
        if rng.random() < 0.1:
            continue
        *stem, name = path.split(".")
        inner = made
        for part in stem:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                break
        else:
            inner[name] = value(rng)
    return made


def filter_of(rng: Random, depth: int = 0) -> Any:
    if depth == 0 and rng.random() < 0.1:
        return [filter_of(rng, 1) for _ in range(rng.randint(1, 3))]
    kinds = ["exact", "prefix", "suffix", "in", "exists", "gt", "gte", "lt", "lte", "matches"]
    kinds += ["all", "any", "not", "not", "any"] if depth < 4 else []
    return {kind: _operand(rng, kind, depth) for kind in rng.sample(kinds, rng.choice([1, 1, 2]))}


def _operand(rng: Random, kind: str, depth: int) -> Any:
    if kind == "not":
        return filter_of(rng, depth + 1)
    if kind in ("all", "any"):
        return [filter_of(rng, depth + 1) for _ in range(rng.randint(1, 4))]
    return {path: _wanted(rng, kind) for path in rng.sample(FIELDS, rng.choice([1, 1, 2]))}


def _wanted(rng: Random, kind: str) -> Any:
    match kind:
        case "exact":
            return rng.choice([*TEXTS, *NUMBERS, *TIMES, True, False])
        case "in":
            return [rng.choice([*TEXTS, *NUMBERS, True, False]) for _ in range(rng.randint(1, 4))]
        case "exists":
            return rng.random() < 0.7
        case "matches":
            return rng.choice(EXPRESSIONS)
        case "prefix" | "suffix":
            text = rng.choice(TEXTS[:-1])
            cut = rng.randint(1, len(text))
            return text[:cut] if kind == "prefix" else text[-cut:]
        case _:
            return rng.choice([*NUMBERS, *TIMES])
