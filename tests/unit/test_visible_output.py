"""What a provider says reaches a terminal as text: it moves no cursor, forges no line, and ends no command."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli import main
from bridge.cli.support.errors import report_error
from bridge.cli.support.output import print_json, print_json_line, print_line, print_table, print_text
from bridge.config.loading import load
from bridge.domain.errors import Permanent
from bridge.domain.event import Position, Transition, event_id
from bridge.domain.events.govdelivery import RecipientData, RecipientFailed
from bridge.domain.visible_text import encodable, encodable_json, visible, visible_json
from bridge.observability.logging import configure_logging
from bridge.protocols.deliveries import Attempt, NewDelivery
from bridge.protocols.ledger import Commit
from bridge.runtime.assembly import Assembly

EVIL = "\x1b[2J\x9b31m\rbusy\nforged line\x07 \u202eltr \u200f\u2028next\u2029\x85\x00\x7f 漢字 e\u0301"
UNSAFE = set(EVIL) - set(" []2J31mbusyforgedlineltrnext漢字e\u0301")
SUBJECT = "/messages/voice/10507/recipients/1"
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(autouse=True)
def quiet_world(monkeypatch) -> Iterator[None]:
    """Undo what a command sets for its whole process."""
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)
    handlers = list(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers


def evil_event():
    data = RecipientData(
        channel="voice", status="failed", previous="sending", transition=Transition.ADVANCE,
        message="/messages/voice/10507", observed={"after": NOW, "by": NOW}, phone="+16515551000", error=EVIL,
        detail="busy",
    )  # fmt: skip
    number = event_id("/govdelivery/city", SUBJECT, "failed", 0)
    return RecipientFailed.of(
        id=number, source="/govdelivery/city", subject=SUBJECT, time=NOW, recordedtime=NOW, data=data
    )  # fmt: skip


@pytest.fixture
def file(tmp_path) -> Path:
    """Give a configuration whose store holds evil texts wherever a provider or receiver may put one."""
    path = tmp_path / "bridge.yaml"
    source = {"type": "govdelivery", "url": "https://tms.example.com", "token": "t0ken"}
    sink = {"type": "webhook", "topics": ["#"], "url": "https://crm.example.com/hook"}
    path.write_text(
        yaml.safe_dump({"state": str(tmp_path / "state"), "sources": {"city": source}, "sinks": {"crm": sink}})
    )

    async def seed() -> None:
        async with Assembly(load(path)).opened_store() as store:
            store._begin = 0  # plain numbers
            lease = await store.acquire("source/city", f"host{EVIL}", 60.0)
            await store.commit(lease, Commit("city", events=[evil_event().to_wire()], cursor={"page": "7"}))
            note = {"state": "failing", "failures": "3", "error": EVIL, "next_poll": NOW.isoformat()}
            await store.set_status("source/city", note)
            await store.watch("city", f"/messages/voice/{EVIL}")
            await store.accept("crm", [NewDelivery(Position("city", 1))], NOW.timestamp())
            attempt = Attempt(NOW.timestamp(), EVIL, "permanent")
            await store.dead_letter("crm", Position("city", 1), EVIL, attempt)
            await store.set_status("sink/crm", {"disabled": EVIL, "disabled_at": ""})

    asyncio.run(seed())
    return path


COMMANDS = (
    ("tail", "--since", "1h", "-n", "1"), ("trace", SUBJECT), ("sources",), ("watch", "list"),
    ("deliveries", "list"), ("deliveries", "show", "crm", "city:1"),
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_provider_text_is_shown_escaped_and_forges_no_line(file, capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([*command, "-c", str(file)])
    shown = capsys.readouterr()
    assert ended.value.code == 0
    assert not UNSAFE & (set(shown.out.replace("\n", "") + shown.err.replace("\n", "")))
    assert not [line for line in shown.out.splitlines() if line.lstrip().startswith("forged")]
    assert "\\u202eltr" in shown.out
    assert "漢字" in shown.out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_json_stays_exact_json(file, capsys, command):
    with pytest.raises(SystemExit):
        main([*command, "--json", "-c", str(file)])
    out = capsys.readouterr().out
    if command[0] == "tail":
        assert out == evil_event().to_wire().body.decode() + "\n"
    assert EVIL in next(text for text in texts(json.loads(out)) if "forged" in text)


def texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(part)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_terminal_of_any_encoding_ends_no_command(file, encoding):
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "LC_", "LANG"))}
    environ = {**plain, "PYTHONIOENCODING": encoding, "LANG": "C"}
    code = "import sys; from bridge.cli import main; main(sys.argv[1:])"
    script = (
        f"import sys\nfrom bridge.cli import main\nfor command in {list(map(list, COMMANDS))!r}:\n"
        f"  for more in ([], ['--json']):\n    try: main([*command, *more, '-c', {str(file)!r}])\n"
        "    except SystemExit as ended: assert ended.code == 0, (command, more)\n"
    )
    for program in (script, f"import sys; sys.argv = ['', 'trace', 'ü漢', '-c', {str(file)!r}]; {code}"):
        done = subprocess.run(
            [sys.executable, "-c", program], env=environ, capture_output=True, timeout=120, check=False
        )
        assert b"UnicodeEncodeError" not in done.stderr
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        if program is script:
            assert done.returncode == 0
            document = done.stdout.decode(encoding)
            assert json.loads(next(line for line in document.split("\n") if line.startswith('{"specversion"')))


class Terminal(io.TextIOWrapper):
    """A terminal of some encoding, which refuses what the encoding lacks."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, newline="", write_through=True)

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_terminal_gets_json_that_moves_nothing(monkeypatch, encoding):
    terminal = Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    print_json({"text": EVIL, "name": "ü 漢字 😀"})
    assert json.loads(terminal.shown) == {"text": EVIL, "name": "ü 漢字 😀"}
    assert not UNSAFE & set(terminal.shown.replace("\n", ""))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_table_on_a_terminal_without_unicode_is_drawn(monkeypatch, encoding):
    terminal = Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    print_table(["name", "said"], [["漢字", "→ …"]])
    assert "\\u6f22\\u5b57" in terminal.shown
    assert "-> ..." in terminal.shown


def columns(text: str) -> int:
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def test_wide_and_combining_characters_keep_columns_aligned(capsys):
    print_table(
        ["name", "said"], [["漢字漢字", "|a"], ["e\u0301e\u0301", "|b"], ["plain name", "|c"], ["x\x1b\n", "|d"]]
    )
    lines = capsys.readouterr().out.splitlines()
    assert {columns(line[: line.index("|")]) for line in lines[1:]} == {len("plain name") + 2}


def test_errors_and_wrong_usage_quote_nothing_raw(capsys):
    report_error(Permanent(f"the provider said {EVIL}"))
    with pytest.raises(SystemExit):
        main(["events", "schema", EVIL.replace("\0", "")])
    assert not UNSAFE & set(capsys.readouterr().err.replace("\n", ""))


def test_console_log_shows_texts_without_obeying_them():
    stream = io.StringIO()
    configure_logging("info", "console", stream)
    structlog.get_logger().warning("source.failed", reason=EVIL, source="\x1b[31mcity")
    assert len(stream.getvalue().splitlines()) == 1
    assert not UNSAFE & set(stream.getvalue().replace("\n", ""))


def test_own_texts_keep_their_lines(capsys):
    print_text("one\n\ttwo\x1b\n\nthree\n")
    print_line("a\nb")
    assert capsys.readouterr().out == "one\n\\ttwo\\x1b\n\nthree\na\\nb\n"


def test_json_of_a_pipe_is_passed_on_byte_for_byte(capsysbinary):
    body = '{"a":"\u202e\x7f漢"}'.encode()
    print_json_line(body)
    assert capsysbinary.readouterr().out == body + b"\n"


@given(st.text())
def test_visible_text_holds_nothing_that_is_not_seen(text):
    assert visible(text).isprintable()
    for encoding in ("ascii", "latin-1", "utf-8"):
        encodable(visible(text), encoding).encode(encoding)


@given(st.text())
def test_escapes_in_json_change_no_value(text):
    document = json.dumps({"a": text}, ensure_ascii=False)
    assert json.loads(visible_json(document)) == json.loads(encodable_json(document, "ascii")) == {"a": text}
