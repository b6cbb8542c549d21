"""Topic patterns: exact words, `*` for one word, a final `#` for none or more, the same on every broker."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

_WORD = re.compile(r"[a-z0-9_]+")
_LONGEST = 255
"""Bytes of a routing key, which a pattern is when a queue is bound."""


def is_word(text: str) -> bool:
    """Say whether `text` may stand in a topic: lower snake case."""
    return _WORD.fullmatch(text) is not None


def check(pattern: str) -> str:
    """Return `pattern` unchanged, or raise `ValueError` that says which word is wrong."""
    if len(pattern) > _LONGEST:
        raise ValueError(f"topic {pattern[:20]!r}… has {len(pattern)} characters; no broker takes more than {_LONGEST}")
    words = pattern.split(".")
    for index, word in enumerate(words):
        if word == "#":
            if index != len(words) - 1:
                raise ValueError(f"topic {pattern!r}: '#' may only be the last word")
        elif word != "*" and not is_word(word):
            raise ValueError(
                f"topic {pattern!r}: {word!r} is not a word; words are lower-case letters, digits and '_', or one '*'"
            )
    return pattern


@lru_cache(maxsize=4096)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{_expression(pattern)})" for pattern in patterns) or r"(?!)")


def _expression(pattern: str) -> str:
    words = pattern.split(".")
    if words == ["#"]:
        return r".*"
    final = words[-1] == "#"
    stem = r"\.".join(r"[^.]+" if word == "*" else re.escape(word) for word in (words[:-1] if final else words))
    return stem + (r"(?:\..*)?" if final else "")


def matches(patterns: Iterable[str], topic: str) -> bool:
    """Say whether any of `patterns` selects `topic`."""
    return _compiled(tuple(patterns)).fullmatch(topic) is not None


def bindings(patterns: Sequence[str]) -> list[str]:
    """Return the binding keys that give `patterns` their meaning on transports where `a.#` misses `a`.

    kombu's virtual transports read `#` as "one or more words" behind a dot; binding the stem as well repairs that,
    and on AMQP it adds nothing but a binding.
    """
    keys = dict.fromkeys(patterns)
    for pattern in patterns:
        if pattern.endswith(".#"):
            keys.setdefault(pattern[:-2])
    return list(keys)
