"""Pages, code and tests speak in standard terms: no word of the former private dialect comes back."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
from house.dialect import ALLOWED, TABLE, Allowance, Text, Word, findings, texts, uses

ROOT = Path(__file__).parents[2]


@cache
def repository() -> list[Text]:
    return list(texts(ROOT))


@cache
def places() -> dict[Word, list[str]]:
    by_word = defaultdict(list)
    for text in repository():
        for finding in findings(text):
            by_word[finding.word].append(f"{finding.path}:{finding.line}: {finding.used}")
    return by_word


def test_repository_is_read() -> None:
    paths = {text.path.partition("/")[0] for text in repository()}
    assert paths >= {"README.md", "bridge", "docs", "plugins", "tests"}
    assert len(repository()) > 10_000


def test_words_are_gone() -> None:
    used = [
        f"{word.word!r}, use instead: {word.instead}: {', '.join(places()[word])}" for word in TABLE if word in places()
    ]
    assert not used, "\n".join(used)


@pytest.mark.parametrize("allowance", ALLOWED, ids=lambda allowance: allowance.reason)
def test_allowance_is_needed(allowance: Allowance) -> None:
    needed = any(uses(allowance, text) for text in repository())
    assert needed, f"nothing needs this allowance any more, take it out: {allowance.pattern.pattern}"
