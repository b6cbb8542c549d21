"""Classification is a pure function of what was seen and what is seen now."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.event import Transition
from bridge.domain.lifecycle import UNKNOWN, Lifecycle, StatusHistory, classify

RECIPIENT = Lifecycle(
    status_by_value={
        "new": "new",
        "sending": "sending",
        "inconclusive": "inconclusive",
        "sent": "sent",
        "failed": "failed",
    },
    follows={"new": ("sending",), "sending": ("sent", "failed", "inconclusive"), "inconclusive": ("sent", "failed")},
    finals=frozenset({"sent", "failed"}),
)
STATUSES = st.sampled_from([*RECIPIENT.status_by_value, "paused", "(odd)", "née 2"])


def walk(statuses: Sequence[str]) -> tuple[list[tuple[str, str]], str | None]:
    """Classify one status after the other; return the changes as status and transition, and the last trail."""
    history: str | None = None
    changes = []
    for status in statuses:
        change = classify(RECIPIENT, history, status)
        if change is not None:
            changes.append((change.status, change.transition.value))
            history = change.history
    return changes, history


@pytest.mark.parametrize(
    ("before", "now", "transition"),
    [
        (None, "new", "first"),
        (None, "failed", "first"),
        ("new", "sending", "advance"),
        ("new", "sent", "skip"),
        ("sending", "failed", "advance"),
        ("sending", "new", "regress"),
        ("inconclusive", "sending", "regress"),
        ("inconclusive", "sent", "advance"),
        ("sent", "failed", "reopen"),
        ("failed", "sending", "reopen"),
        ("sending", "paused", "unknown"),
        (None, "paused", "unknown"),
        ("paused", "sent", "advance"),
    ],
)
def test_each_transition_is_named_as_an_operator_would_name_it(before: str | None, now: str, transition: str) -> None:
    changes, _ = walk([status for status in (before, now) if status is not None])
    assert changes[-1] == (RECIPIENT.status_by_value.get(now, UNKNOWN), transition)


def test_the_same_status_again_is_no_event() -> None:
    assert len(walk(["sending"] * 5)[0]) == 1


def test_a_status_entered_a_second_time_is_another_occurrence() -> None:
    history = None
    occurrences = []
    for status in ["sending", "failed", "sending", "failed", "sending"]:
        change = classify(RECIPIENT, history, status)
        assert change is not None
        occurrences.append((change.status, change.occurrence))
        history = change.history
    assert occurrences == [("sending", 0), ("failed", 0), ("sending", 1), ("failed", 1), ("sending", 2)]


def test_different_unknown_statuses_are_separate_events() -> None:
    assert [status for status, _ in walk(["paused", "paused", "halted", "paused"])[0]] == [UNKNOWN] * 3


def test_occurrence_ids_make_one_event_each_in_any_order() -> None:
    history = None
    made = []
    for mark in ["7", "9", "7", "8", "9", "8"]:
        change = classify(RECIPIENT, history, "failed", mark)
        if change is not None:
            made.append(change.occurrence)
            history = change.history
    assert made == ["7", "9", "8"]


@given(st.lists(STATUSES, max_size=30))
def test_status_history_is_read_back_as_written(statuses: list[str]) -> None:
    _, history = walk(statuses)
    assert str(StatusHistory.parse(history)) == (history or "")


@given(st.lists(st.sampled_from(["a,b", "1|2", "é", "%2C", "x"]), max_size=8))
def test_occurrence_ids_of_any_text_are_read_back(marks: list[str]) -> None:
    history = StatusHistory()
    for mark in marks:
        history = history.enter("f", mark)
    assert StatusHistory.parse(str(history)) == history


@given(st.lists(STATUSES, min_size=1, max_size=12), st.data())
def test_last_status_is_the_same_for_any_poll_times(history: list[str], data: st.DataObject) -> None:
    polls = data.draw(st.lists(st.integers(0, len(history) - 1), max_size=20).map(sorted))
    _, often_polled = walk(history)
    _, thinned = walk([history[index] for index in polls] + [history[-1]])
    assert StatusHistory.parse(often_polled).last == StatusHistory.parse(thinned).last


TRUE_HISTORIES = st.sampled_from(
    [
        ["new", "sending", "sent"],
        ["new", "sending", "failed"],
        ["new", "sending", "inconclusive", "sent"],
        ["new", "sending", "inconclusive", "failed"],
    ]
)


@given(TRUE_HISTORIES, st.data())
def test_only_unseen_states_are_missing_and_are_flagged(history: list[str], data: st.DataObject) -> None:
    polls = data.draw(st.lists(st.integers(0, len(history) - 1), min_size=1, max_size=10).map(sorted))
    seen = [history[index] for index in polls]
    changes, _ = walk(seen)
    assert [status for status, _ in changes] == list(dict.fromkeys(seen))
    for (before, _), (after, transition) in itertools.pairwise(changes):
        passed = history.index(after) - history.index(before) - 1
        skippable = after in RECIPIENT.follows.get(before, ())
        assert transition == (Transition.ADVANCE if not passed or skippable else Transition.SKIP)


@given(st.lists(STATUSES, min_size=1, max_size=10), st.integers(1, 4))
def test_duplicated_answers_change_nothing(history: list[str], times: int) -> None:
    assert walk([status for status in history for _ in range(times)]) == walk(history)


@given(st.permutations(["new", "sending", "failed"]), st.sampled_from(["sent", "failed"]))
def test_reordered_answers_end_where_the_provider_ends_and_drop_nothing(order: list[str], last: str) -> None:
    changes, history = walk([*order, last])
    assert RECIPIENT.status(str(StatusHistory.parse(history).last)) == last
    assert {status for status, _ in changes} == {*order, last}


def test_status_without_a_value_in_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="gone"):
        Lifecycle({"new": "new"}, {"new": ("gone",)}, frozenset())


def test_further_values_may_be_mapped_to_known_statuses_only() -> None:
    assert classify(RECIPIENT.with_names({"bounced": "failed"}), "nsf", "bounced") is None
    with pytest.raises(ValueError, match="nowhere"):
        RECIPIENT.with_names({"bounced": "nowhere"})


def test_letters_of_the_ledger_are_unique() -> None:
    letters = RECIPIENT.codes
    assert len(set(letters.values())) == len(RECIPIENT.statuses)
    assert RECIPIENT.with_names({"7": "sent"}).codes == letters
