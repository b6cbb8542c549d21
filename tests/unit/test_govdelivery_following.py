"""When a message is looked at next, what the cursor remembers, and items of every shape."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.event import Observed, Transition
from bridge.domain.lifecycle import classify
from bridge.protocols.source import Observation
from bridge.sources.govdelivery.api import canonical, message_path, recipient_key
from bridge.sources.govdelivery.lifecycles import (
    DETAILS,
    MESSAGE,
    MESSAGE_KEY,
    RECIPIENT,
    counts,
    kinds,
    recipient_path,
)
from bridge.sources.govdelivery.recipients import observations
from bridge.sources.govdelivery.state import ListState, MessageState, SweepTimes, epoch, to_millis

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("2013-03-15T21:11:02Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


NUMBERS = st.none() | st.floats(0, 4e9).map(to_millis)
COUNTS = st.none() | st.dictionaries(st.text(max_size=5), st.integers(0, 10**6), min_size=1, max_size=3)
SWEEPS = st.builds(
    SweepTimes,
    todo=st.lists(st.tuples(st.sampled_from(["", "busy"]), st.text(max_size=20)), max_size=3).map(tuple),
    started=st.floats(0, 4e9).map(to_millis),
    since=NUMBERS,
    counts=COUNTS,
    settled=st.lists(st.sampled_from(["busy", "human"]), max_size=2).map(tuple),
)
ENTRIES = st.builds(
    MessageState, due=st.floats(0, 4e9), discovered=st.just(5.0), status=st.none() | st.text(max_size=9), created=NUMBERS, swept=NUMBERS,
    counts=COUNTS, seen=COUNTS, pages=st.integers(0, 9), details=COUNTS, hint=st.text(max_size=9), hinted=st.booleans(), failures=st.integers(0, 9), over=NUMBERS,
    sweep=st.none() | SWEEPS,
)  # fmt: skip


@given(ENTRIES)
def test_the_cursor_remembers_all_of_a_message(entry):
    assert MessageState.load(entry.dump()) == entry


def test_the_cursor_says_little_of_a_quiet_message():
    assert MessageState(due=1.0, discovered=1.0).dump() == '{"due":1.0,"found":1.0}'


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", "null", "{}", '{"due":1}', '{"x":1}', '{"due":1,"found":1,"sweep":[1]}']
)
def test_unreadable_entry_is_due_and_knows_nothing(text):
    assert MessageState.load(text) == MessageState(due=0.0, discovered=0.0)
    assert ListState.load(text) == ListState()


def test_the_list_is_remembered():
    assert ListState.load(ListState(5.0, 6.0).dump()) == ListState(5.0, 6.0)
    assert ListState.load(None) == ListState()
    assert replace(ListState(), until=1.0).dump() == '{"until":1.0,"deep":0.0}'


@given(st.floats(0, 4e9))
def test_a_stamp_is_never_later_than_its_time(seconds):
    assert seconds - 0.0011 <= to_millis(seconds) <= seconds


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "key"),
    [
        ("/messages/sms/1/recipients/2", "/messages/sms/1", "2"),
        ("https://tms.govdelivery.com/messages/sms/1/recipients/2", "/messages/sms/1", "2"),
        ("http://proxy/tms/messages/sms/1/recipients/2/?x=1", "/messages/sms/1", "2"),
        ("/messages/sms/15282/recipients/2", "/messages/sms/15282", "/messages/sms/15282/recipients/2"),
        ("/messages/sms/1", "/messages/sms/1", None),
        ("/messages/sms", None, None),
        ("/messages/sms/1/recipients", None, None),
        ("messages/sms/1", None, None),
        ("", None, None),
        (None, None, None),
        (["/messages/sms/1"], None, None),
    ],
)
def test_an_identity_is_the_path_of_its_link(text, message, key):
    assert message_path(text) == message
    assert recipient_key(text, "/messages/sms/1") == key
    if key is not None:
        assert canonical(text) == recipient_path("/messages/sms/1", key)


# --- items of every shape ---------------------------------------------------------------------------------------------

FIELDS = ("phone", "formatted_phone", "status", "error_message", "created_at", "completed_at", "_links", "id", "body",
          "recipient_counts", "recipient_detail_counts", "sent_at", "novelty")  # fmt: skip
ITEMS = st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=8) | st.builds(
    lambda status, rest: {"_links": {"self": "/messages/voice/1/recipients/2"}, **rest, "status": status},
    st.sampled_from([*RECIPIENT.status_by_value, *MESSAGE.status_by_value, "novel"]),
    st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=5),
)


@given(st.lists(ITEMS | ANYTHING, max_size=6), st.sampled_from([None, *RECIPIENT.status_by_value, "busy", "human"]))
def test_no_item_is_more_than_passed_over(items, detail):
    for channel in ("sms", "voice"):
        message, recipient = kinds(channel, {})
        seen = list(observations(recipient, f"/messages/{channel}/1", items, detail))
        seen += [
            Observation(message, f"/messages/{channel}/1", MESSAGE_KEY, observation.status, observation.item)
            for observation in seen
        ]
        for observation in seen:
            assert observation.key
            assert observation.status
            facts = observation.kind.describe(observation)
            data = facts.model(
                channel=channel,
                status="x",
                transition=Transition.FIRST,
                observed=Observed(after=None, by=NOW),
                **facts.fields,
            )
            json.loads(data.model_dump_json())
            content = {"body"} if observation.kind is message else {"phone", "formatted_phone"}
            assert not {"_links", *content} & set(facts.fields["provider"])
            assert facts.subject.startswith("/messages/")


@given(ANYTHING)
def test_no_value_is_more_than_no_count(value):
    parsed = counts(value)
    assert parsed is None or (parsed and all(isinstance(count, int) for count in parsed.values()))
    assert epoch(value) is None or isinstance(value, str)


# --- lifecycles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lifecycle", "seen", "status", "transition"),
    [
        (MESSAGE, "n", "queued", "advance"),
        (MESSAGE, "n", "completed", "skip"),
        (MESSAGE, "nq", "canceled", "advance"),
        (MESSAGE, "sc", "sending", "reopen"),
        (RECIPIENT, "n", "sending", "advance"),
        (RECIPIENT, "n", "blacklisted", "advance"),
        (RECIPIENT, "n", "failed", "skip"),
        (RECIPIENT, "nsi", "sent", "advance"),
        (RECIPIENT, "nsi", "sending", "regress"),
        (RECIPIENT, "nsd", "failed", "reopen"),
        (RECIPIENT, "ns", "novel", "unknown"),
    ],
)
def test_the_order_of_statuses_is_the_providers(lifecycle, seen, status, transition):
    assert classify(lifecycle, seen, status).transition == transition


def test_inconclusive_is_not_final_and_details_are_final():
    assert RECIPIENT.finals == {"sent", "failed", "blacklisted", "canceled"}
    assert MESSAGE.finals == {"completed", "canceled"}
    assert set(DETAILS) <= RECIPIENT.finals


def test_the_letters_in_the_ledger_stay_what_they_are():
    assert "".join(MESSAGE.codes.values()) == "nqscx"
    assert "".join(RECIPIENT.codes.values()) == "nsibxdf"
    for channel in ("sms", "voice"):
        for kind in kinds(channel, {"delivered": "sent", "halted": "completed"}):
            assert set(kind.events) == set(kind.lifecycle.statuses)


def test_cursor_fields_keep_their_stored_names() -> None:
    """A field that is called otherwise would make an upgrade forget each message, and read all of them anew."""
    sweep = SweepTimes(
        todo=(("human", "/x"),), started=1.0, since=2.0, counts={}, details={}, settled=("busy",), listed=1, pages=1,
        held=1,
    )  # fmt: skip
    state = MessageState(
        due=1.0, discovered=1.0, status="new", created=1.0, completed=1.0, changed=1.0, last_read=1.0, swept=1.0, took=1.0,
        counts={}, details={}, seen={}, pages=1, hint="h", hinted=True, failures=1, missing=1, over=1.0, sweep=sweep,
        backlog=True,
    )  # fmt: skip
    stored = json.loads(state.dump())
    assert " ".join(stored) == (
        "due found status created completed changed looked swept took counts details seen pages hint hinted failures "
        "missing over sweep backlog"
    )
    assert " ".join(stored["sweep"]) == "todo started since counts details settled listed pages held"
    assert " ".join(json.loads(ListState(1.0, 2.0).dump())) == "until deep"
