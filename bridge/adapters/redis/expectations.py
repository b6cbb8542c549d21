"""Which resources wait for a final status, in Redis: small hashes, and an index of when the next of each is due."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from bridge.adapters.lua import load
from bridge.adapters.redis.client import RedisClient
from bridge.adapters.redis.keys import Keys
from bridge.protocols.ledger import Commit, Expectation, Key

_DUE = load("bridge.adapters.redis", "expectations")
SHARDS = 512
"""Hashes of one source: with 100,000 resources, each is small enough to be cheap, and to be read at once."""
_MAX_AT_ONCE = 1000
"""Expectations that one call of the script returns."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE = 36
"""Of the numbers in the hashes: short ones cost less."""


def expectation_arguments(commit: Commit) -> list[str | int]:
    """Return what the script of commits is told of expectations, with their numbers at the front."""
    words: list[str | int] = [len(commit.met), len(commit.expected)]
    for key in commit.met:
        words += _place(key)
    for key, due, seq in commit.expected:
        words += (*_place(key), _base36(due), due, seq)
    return words


def _place(key: Key) -> tuple[int, str]:
    field = f"{key.scope}\0{key.name}"
    return zlib.crc32(field.encode()) % SHARDS, field


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, _BASE)
        text = _DIGITS[digit] + text
    return text or "0"


class RedisExpectations:
    """The part of a ledger that tells which resources wait for a final status."""

    def __init__(self, link: RedisClient, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def expectations(self, source: str, upto: float, limit: int) -> Sequence[Expectation]:
        """Return up to `limit` expectations that are due at `upto` or before."""
        base = self._keys.source(source)
        begin = int(await self._link.command("HGET", f"{base}:s", "z") or 0)
        due_by_field: dict[str, Expectation] = {}
        more = True
        while more and not due_by_field:
            answer = await self._link.run(_DUE, [base], int(upto), min(limit, _MAX_AT_ONCE))
            more = bool(answer[0])
            for field, value in zip(answer[1::2], answer[2::2], strict=True):
                scope, _, name = field.decode().rpartition("\0")
                due, _, seq = value.decode().partition(" ")
                due_by_field[field] = Expectation(Key(scope, name), int(due, _BASE), begin + int(seq, _BASE))
        return list(due_by_field.values())[:limit]

    async def next_expectation(self, source: str) -> float | None:
        """Return a time before which no expectation is due, None if there is none."""
        first = await self._link.command("ZRANGE", f"{self._keys.source(source)}:e", 0, 0, "WITHSCORES")
        return float(first[0][1] if isinstance(first[0], (list, tuple)) else first[1]) if first else None

    async def count_expectations(self, source: str) -> int:
        """Return how many resources wait for a final status."""
        return int(await self._link.command("HGET", f"{self._keys.source(source)}:e:", "n") or 0)
