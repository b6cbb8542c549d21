"""Topic patterns mean the same on every broker because they are decided here."""

from __future__ import annotations

import pytest

from bridge.domain import topics


@pytest.mark.parametrize(
    ("pattern", "topic", "selected"),
    [
        ("sms.recipient.failed", "sms.recipient.failed", True),
        ("sms.recipient.failed", "sms.recipient.failed.busy", False),
        ("*.recipient.failed.#", "sms.recipient.failed", True),
        ("*.recipient.failed.#", "voice.recipient.failed.no_answer", True),
        ("*.recipient.failed.#", "recipient.failed", False),
        ("voice.*.sent.*", "voice.recipient.sent.human", True),
        ("voice.*.sent.*", "voice.recipient.sent", False),
        ("#", "voice.recipient.sent.human", True),
        ("a.#", "a", True),
        ("a.#", "ab", False),
        ("a.#", "a.b.c", True),
        ("*", "a", True),
        ("*", "a.b", False),
    ],
)
def test_a_pattern_selects_what_amqp_says_it_selects(pattern: str, topic: str, selected: bool) -> None:
    assert topics.matches([pattern], topic) is selected


def test_no_pattern_selects_nothing() -> None:
    assert not topics.matches([], "a")


def test_one_of_several_patterns_is_enough() -> None:
    assert topics.matches(["x.y", "a.*"], "a.b")


@pytest.mark.parametrize("pattern", ["a.#.b", "#.a", "a..b", "", "a b", "a.*b", "a.b#", "."])
def test_a_pattern_that_would_mean_something_else_elsewhere_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="topic"):
        topics.check(pattern)


@pytest.mark.parametrize("pattern", ["Voice.#", "-a", "voice.recipient.no-answer", "vöice.#", "*.recipient.Failed"])
def test_a_pattern_that_no_topic_can_ever_match_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not a word; words are lower-case letters, digits and '_'"):
        topics.check(pattern)


def test_a_pattern_is_as_long_as_a_broker_takes_it() -> None:
    assert topics.check("a" * 255) == "a" * 255
    with pytest.raises(ValueError, match=r"topic 'aaaaaaaaaaaaaaaaaaaa'… has 256 characters; no broker takes more"):
        topics.check("a" * 256)


def test_binding_keys_add_the_stem_that_virtual_transports_miss() -> None:
    assert topics.bindings(["a.#", "b.*", "#"]) == ["a.#", "b.*", "#", "a"]
