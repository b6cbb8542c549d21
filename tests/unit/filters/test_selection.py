"""A compiled filter chooses as its text says."""

from __future__ import annotations

import json
import os
from random import Random

import pytest
from rigs.filter_reference import selects
from rigs.filters import event, filter_of

from bridge.domain.filters.event_filter import EventFilter

FILTERS = 200
EVENTS = 5000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 150


def test_generated_filters_choose_as_the_reference_does() -> None:
    rng = Random(15)
    events = [event(rng) for _ in range(EVENTS)]
    selected = 0
    for _ in range(FILTERS):
        raw = filter_of(rng)
        compiled = EventFilter(json.loads(json.dumps(raw)))
        expected = [selects(raw, item) for item in events]
        assert [compiled.matches(item) for item in events] == expected, raw
        selected += sum(expected)
        for item, wanted in zip(events[:5], expected[:5], strict=True):
            assert (compiled.unmet(item) is None) is wanted
    assert FILTERS * EVENTS * 0.1 < selected < FILTERS * EVENTS * 0.8


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"exact": {"data.status": "failed"}}, 'exact data.status: "failed"'),
        ([{"exists": {"id": True}}, {"gte": {"data.code": 40}}], "gte data.code: 40"),
        ({"any": [{"in": {"data.code": [1, 2]}}, {"matches": {"id": "x+"}}]},
         'any(in data.code: [1, 2], matches id: "x+")'),
        ({"not": {"prefix": {"id": "e"}}}, 'not(prefix id: "e")'),
        ({"lt": {"time": "2026-01-01T00:00:00Z"}}, "lt time: 2026-01-01T00:00:00+00:00"),
    ],
)  # fmt: skip
def test_a_filter_names_the_condition_that_is_not_met(raw, said) -> None:
    values = {"id": "e", "time": "2026-03-15T21:11:02Z", "data": {"status": "sent", "code": 3}}
    assert EventFilter(raw).unmet(values) == said


def test_filters_of_one_meaning_are_equal() -> None:
    raw = {"matches": {"id": "e"}, "gt": {"data.code": 4}}
    assert EventFilter(raw) == EventFilter(dict(raw))
    assert hash(EventFilter(raw)) == hash(EventFilter(raw))
    assert EventFilter(raw) != EventFilter({"matches": {"id": "f"}})
    assert str(EventFilter(raw)) == 'all(matches id: "e", gt data.code: 4)'
    assert "data.code" in repr(EventFilter(raw))


def test_a_regular_expression_takes_linear_time() -> None:
    evil = EventFilter({"matches": {"id": "(a*)*b"}})
    assert not evil.matches({"id": "a" * 100_000})
