"""The scanner behind the list of words, on small samples: it finds each word, and leaves ordinary English alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from house import dialect
from house.dialect import ALLOWED, LOG_EVENTS, TABLE, Text, Word, findings


def found_words(text: str, *, name: bool = False) -> list[str]:
    return [finding.word.word for finding in findings(Text("page.md", 1, text, is_name=name))]


FORMS = [(word, form) for word in TABLE for form in word.word.split(", ")]


@pytest.mark.parametrize(("word", "form"), FORMS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_word_of_the_table_is_found(word: Word, form: str) -> None:
    if not word.names_only:
        assert found_words(f"It says {form}, here.") == [word.word]
        assert found_words(form.capitalize()) == [word.word]
    if "." not in form:
        assert found_words(f"_{form.replace(' ', '_')}", name=True) == [word.word]
        assert found_words(f"Some{form.title().replace(' ', '')}Thing", name=True) == [word.word]
        assert found_words(f"MAX_{form.replace(' ', '_').upper()}_9", name=True) == [word.word]


@pytest.mark.parametrize("word", TABLE, ids=lambda word: word.word)
def test_standard_terms_are_no_dialect_themselves(word: Word) -> None:
    assert found_words(word.instead) == []


@pytest.mark.parametrize("new", LOG_EVENTS.values())
def test_new_names_of_log_events_are_no_dialect_themselves(new: str) -> None:
    assert found_words(new) == []


def test_each_word_stands_in_the_table_once() -> None:
    words = [form for _, form in FORMS]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("word", [word for word in TABLE if word.names_only], ids=lambda word: word.word)
def test_word_banned_as_name_may_stand_in_sentence(word: Word) -> None:
    assert found_words(word.word) == []


@pytest.mark.parametrize(
    "text",
    [
        "Refresh the interface; the surface of trailing planes is embedded in handles.",
        "The lease is held by another process.",
        "The configuration was taken over, the fan was taken apart, and a backup was taken.",
        "The address is taken.",
        "first_sight: emit",
        "The simulator's ground truth is the source of truth.",
        "SettlementSuite, LaneSuite and AdoptionSuite",
        "A date of birth is personal data.",
        "Dictionaries amend recommended commends.",
    ],
)
def test_ordinary_english_is_left_alone(text: str) -> None:
    assert found_words(text) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("look_up", []),
        ("lookback", []),
        ("looks_down", []),
        ("_look", ["look"]),
        ("handler", []),
        ("floordiv", []),
        ("held", []),
        ("held_back", ["held back, held up"]),
        ("HeldUp", ["held back, held up"]),
        ("by_far_side", ["far side"]),
        ("test_sink_is_told", []),
        ("test_fate_is_told", ["fate"]),
        ("taken", ["taken"]),
        ("HTTPLane", ["lane"]),
        ("laneHTTP2", ["lane"]),
    ],
)
def test_identifiers_are_taken_apart(name: str, words: list[str]) -> None:
    assert found_words(name, name=True) == words


@pytest.mark.parametrize("text", ["the far\nside", "# the far\n# side", "-- far\n-- side", "the far\n  > side"])
def test_phrase_goes_on_in_the_next_line(text: str) -> None:
    assert found_words(text) == ["far side"]


def test_phrase_ends_with_its_paragraph() -> None:
    assert found_words("It is far\n\nside by side") == []


@pytest.mark.parametrize(
    "text",
    [
        "local chunk = math.floor(n / 8)",
        "SELECT lane, taken FROM delivery WHERE floor > ?",
        "CREATE TABLE a (\n  taken INTEGER NOT NULL,\n  lane TEXT\n);",
        "redis.call('HGET', base .. ':lane')",
        "taken",
        'counted as `taken`: {"taken": 5}',
        "/_simulator/truth",
        "bridge reconcile city --patience 60s",
    ],
)
def test_contract_keeps_its_words(text: str) -> None:
    assert found_words(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "the math floor",
        "It may SELECT what was taken",
        "CREATE TABLE a (\n  -- TEXT of its lane\n  name TEXT\n);",
        "the sink has taken `taken`",
        "in its lane",
        "the truth of /_simulator/books",
        "with patience",
    ],
)
def test_allowance_covers_nothing_next_to_it(text: str) -> None:
    assert len(found_words(text)) == 1


def test_allowance_covers_no_identifier() -> None:
    assert found_words("taken", name=True) == ["taken"]
    assert any(dialect.uses(allowance, Text("a", 1, "taken")) for allowance in ALLOWED)
    assert not any(dialect.uses(allowance, Text("a", 1, "taken", is_name=True)) for allowance in ALLOWED)
    assert not any(dialect.uses(allowance, Text("a", 1, "delivered")) for allowance in ALLOWED)


SOURCE = '''"""A mould."""

import math

# It stays
# beside the door.
LANE = math.floor(2.5)  # a fate


class Trail:
    """Fine.

    Its truth.
    """

    def run(self, patience):
        log.info("sink.pauses", reason=f"the {patience} of a far side")
'''


def test_everything_that_code_says_is_read(tmp_path: Path) -> None:
    (tmp_path / "bridge").mkdir()
    (tmp_path / "bridge" / "sample.py").write_text(SOURCE)
    assert [(finding.line, finding.word.word) for finding in dialect.scan(tmp_path)] == [
        (1, "mould"),
        (6, "beside"),
        (7, "lane"),
        (7, "fate"),
        (10, "trail"),
        (13, "truth"),
        (16, "patience"),
        (17, "far side"),
        (17, "sink.pauses"),
    ]


def test_of_tests_only_identifiers_are_read(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_sample.py").write_text('"""A mould."""\nlane = "fate"  # beside\n')
    assert [str(finding) for finding in dialect.scan(tmp_path)] == ["tests/test_sample.py:2: 'lane': partition"]


def test_pages_are_read_with_their_code(tmp_path: Path) -> None:
    for path in ("README.md", "docs/how-to/run.md", "plugins/bridge-slack/README.md", "bridge/adapters/redis/take.lua"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("Fine.\n```\nthe fate\n```\n")
    assert [(finding.path, finding.line) for finding in dialect.scan(tmp_path)] == [
        ("README.md", 3),
        ("bridge/adapters/redis/take.lua", 3),
        ("docs/how-to/run.md", 3),
        ("plugins/bridge-slack/README.md", 3),
    ]


def test_change_log_may_quote_former_names(tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text("`sink.pauses` is `sink.circuit_opened` now.\nIts fate.\n")
    assert [(finding.line, finding.word.word) for finding in dialect.scan(tmp_path)] == [(2, "fate")]
