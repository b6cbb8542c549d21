"""`bridgectl providers`: definitions are listed, shown, begun from an answer, and checked."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bridge.providers import loading
from bridge.providers.drafting import draft

SHIPPED = sorted(loading.installed())
ANSWER = {
    "paging": {"next": "/v1/messages?page=2"},
    "messages": [
        {
            "id": "m1",
            "status": "Delivered",
            "to": "+16515551000",
            "created_at": "2026-03-01T10:00:00Z",
            "updated_at": 1,
        },
        {"id": "m2", "status": "sent", "to": "+16515551001", "created_at": "2026-03-01T10:00:01Z", "parts": [{"a": 1}]},
        {"id": "m3", "status": "sendingNow", "created_at": None},
    ],
}


def test_list_names_each_shipped_definition(bridge) -> None:
    listed = json.loads(bridge("providers", "list", "--json").out)
    assert [row["name"] for row in listed] == SHIPPED
    assert {row["shapes"] for row in listed} <= {"window", "feed", "window, follow", "follow"}
    text = bridge("providers", "list").out
    assert [name for name in SHIPPED if name not in text] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_definition_is_shown_and_its_samples_hold(bridge, name: str) -> None:
    shown = json.loads(bridge("providers", "show", name, "--json").out)
    assert any(status["final"] for status in shown["statuses"].values())
    text = bridge("providers", "show", name).out
    assert [status["topic"] for status in shown["statuses"].values() if status["topic"] not in text] == []
    checked = bridge("providers", "check", name, "--against", name)
    assert (checked.code, checked.err) == (0, "")
    assert f"{name}: ok: {len(shown['statuses'])} events" in checked.out


def test_definition_begun_from_an_answer_is_valid(bridge, tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps(ANSWER))
    begun = bridge("providers", "new", answer, "--path", "/v1/messages", "--provider", "acme", "--channel", "voice")
    assert begun.code == 0
    (tmp_path / "acme.yaml").write_text(begun.out)
    values = yaml.safe_load(begun.out)
    assert values["listing"] == {"path": "/v1/messages", "items": "$.messages", "pages": {"link": "$.paging.next"}}
    assert values["identity"] == {"key": "$.id"}
    assert values["times"]["created"] == {"path": "$.created_at", "format": "iso"}
    assert values["status"]["map"] == {"Delivered": "delivered", "sent": "sent", "sendingNow": "sending_now"}
    assert values["status"]["finals"] == ["delivered"]
    assert values["facts"] == {"phone": "$.to"}
    assert bridge("providers", "check", tmp_path / "acme.yaml").code == 0


def test_changed_promise_of_a_definition_is_named(bridge, tmp_path: Path) -> None:
    former = loading.find("plivo-messages", Path()).read_text()
    (tmp_path / "former.yaml").write_text(former)
    values = yaml.safe_load(former)
    word = next(iter(values["status"]["map"].values()))
    values["status"]["map"] = {value: name for value, name in values["status"]["map"].items() if name != word}
    values["status"]["follows"] = {
        name: [follower for follower in followers if follower != word]
        for name, followers in values["status"]["follows"].items()
        if name != word
    }
    values["status"]["finals"] = [name for name in values["status"]["finals"] if name != word]
    values["samples"] = []
    (tmp_path / "present.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    checked = bridge("providers", "check", tmp_path / "present.yaml", "--against", tmp_path / "former.yaml")
    assert checked.code == 1
    assert word in checked.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "twilio-mesages"), "twilio-messages"),
        (("check", "./nowhere.yaml"), "nowhere.yaml"),
        (("new", "nowhere.json"), "nowhere.json cannot be read"),
    ],
)
def test_wrong_name_is_answered_with_the_remedy(bridge, arguments: tuple[str, ...], words: str) -> None:
    done = bridge("providers", *arguments)
    assert done.code in (2, 3)
    assert words in done.err


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "is no JSON"),
        (b"{}", "no list with objects"),
        (b'{"messages": [1, 2]}', "no list with objects"),
        (b"[]", "no list with objects"),
    ],
)
def test_answer_without_items_is_refused(bridge, tmp_path: Path, body: bytes, words: str) -> None:
    answer = tmp_path / "answer.json"
    answer.write_bytes(body)
    done = bridge("providers", "new", answer)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


@pytest.mark.parametrize("option", ["--provider", "--channel"])
def test_word_that_no_topic_can_have_is_refused(bridge, tmp_path: Path, option: str) -> None:
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps(ANSWER))
    done = bridge("providers", "new", answer, option, "Two Words")
    assert done.code == 2
    assert "cannot stand in a topic" in done.err


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "status", "to", "created", "next", "odd key", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_any_answer_is_drafted_or_refused(answer: object) -> None:
    with contextlib.suppress(ValueError):
        text = draft(json.dumps(answer).encode(), path="/messages", provider="acme", channel="sms")
        assert yaml.safe_load(text)["definition"] == 1
