"""Tables on narrow terminals: the least important columns give way, and nothing that is copied is cut."""

from __future__ import annotations

import io
import re
import sys

import pytest

from bridge.cli.support.output import print_table
from bridge.cli.support.table_layout import fit

HEADERS = ["sink", "position", "topic", "state", "tries", "last error"]
TOPIC = "voice.recipient.failed.could_not_connect"
ERROR = "the endpoint answered HTTP 503 after thirty seconds, and said that it is being moved to another place"
ROW = ["crm", "city-voice:1799999999001042", TOPIC, "dead: permanent", 9, ERROR]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch):
    def show(columns: int, **options) -> list[str]:
        monkeypatch.setattr(sys, "stdout", Terminal())
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("NO_COLOR", "1")
        print_table(HEADERS, [ROW], **options)
        return sys.stdout.getvalue().splitlines()

    return show


@pytest.mark.parametrize("columns", [60, 80, 100, 120, 200])
def test_names_are_never_cut_at_any_width(shown, columns) -> None:
    lines = shown(columns, give_way=("tries", "topic"), prose="last error")
    text = "\n".join(lines)
    assert "city-voice:1799999999001042" in text
    assert "dead: permanent" in text
    assert TOPIC in text or "left out, as the terminal is narrow: tries, topic" in text
    assert "…" not in text
    assert all(len(re.sub(r"\x1b\[\d*m", "", line).rstrip()) <= columns for line in lines) or columns == 60
    assert all(word in text for word in ERROR.split())


def test_columns_give_way_in_their_order(shown) -> None:
    assert "left out, as the terminal is narrow: tries" in shown(140, give_way=("tries", "topic"), prose="last error")
    assert "left out" not in "\n".join(shown(250, give_way=("tries", "topic"), prose="last error"))


def test_table_without_columns_to_spare_is_wider_than_its_terminal(shown) -> None:
    assert any(TOPIC in line and "city-voice:1799999999001042" in line for line in shown(60))


def test_layout_wraps_prose_before_a_column_is_left_out() -> None:
    layout = fit(["a", "b", "said"], [10, 10, 100], 70, ["b"], "said")
    assert (layout.shown, layout.prose_width, layout.left_out) == ((0, 1, 2), 42, ())
    layout = fit(["a", "b", "said"], [10, 10, 100], 60, ["b"], "said")
    assert (layout.shown, layout.prose_width, layout.left_out) == ((0, 2), 45, ("b",))


def test_empty_list_is_a_sentence(bridge, file) -> None:
    assert bridge("watch", "list", "-c", file).out.startswith("no message is followed by name")
    assert bridge("watch", "list", "-c", file, "--json").json == []


def test_states_have_their_colour(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_table(["state", "topic"], [("failing (3)", "failed x"), ("dead: permanent", "ok x")])
    text = sys.stdout.getvalue()
    assert "\x1b[33mfailing (3)" in text
    assert "\x1b[31mdead: permanent" in text
    assert "\x1b[31mfailed x" not in text
    assert "\x1b[32mok x" not in text


# --- commands that change something -------------------------------------------------------------------------------


def test_changes_are_reported_as_json(bridge, file) -> None:
    path = "/messages/voice/7"
    row = {"source": "lamps", "resource": path, "followed": True, "changed": True}
    assert bridge("watch", "add", "lamps", "7", "-c", file, "--json").json == [row]
    assert bridge("watch", "add", "lamps", "7", "-c", file, "--json").json == [row | {"changed": False}]
    done = bridge("watch", "remove", "lamps", path, "-c", file, "--json")
    assert (done.code, done.json) == (0, [row | {"followed": False}])
    done = bridge("watch", "remove", "lamps", path, "-c", file, "--json")
    assert (done.code, done.json) == (1, [row | {"followed": False, "changed": False}])
    assert bridge("sources", "reset", "lamps", "-c", file, "--json").json == {"source": "lamps", "reset": True}
