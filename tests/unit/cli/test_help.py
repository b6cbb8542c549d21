"""Help, errors and tables of the command line."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import click
import pytest
from rigs.cli import NOW

from bridge import __version__
from bridge.cli import COMMANDS, cli
from bridge.cli.commands.tail import mask_phones
from bridge.cli.support.errors import report_error
from bridge.cli.support.options import Exit, parse_moment
from bridge.cli.support.output import ago, print_table
from bridge.domain.errors import ConfigError, ConfigProblem, Permanent, Unavailable


def pages(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from pages(inner, (*path, name))


def test_every_help_page_ends_with_examples_of_its_own() -> None:
    help_pages = dict(pages(cli))
    assert {path[0] for path in help_pages if path} == set(COMMANDS)
    for path, command in help_pages.items():
        name = " ".join(("bridgectl", *path))
        page = command.get_help(click.Context(command, info_name=name))
        examples = page.rpartition("\nExamples:\n")[2]
        assert examples != page, f"{name} --help has no examples"
        assert name in examples
        assert not examples.startswith("\n"), name


def test_help_and_version_need_none_of_the_heavy_libraries() -> None:
    heavy = ["pydantic", "aiohttp", "kombu", "redis", "structlog", "rich", "yaml", "asyncio", "importlib.metadata"]
    code = f"import sys\nfrom bridge.cli import main\ntry: main(['{{}}'])\nexcept SystemExit as e: assert e.code == 0\nprint([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    for option in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code.format(option)], capture_output=True, text=True, check=True)
        assert done.stderr == "[]\n"


def test_help_names_every_command_and_every_exit_code(bridge) -> None:
    page = bridge("--help").out
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\w", page, re.MULTILINE)
    for code in Exit:
        assert re.search(rf"^    {code.value} +\w", page, re.MULTILINE)


def test_the_version_is_the_packages(bridge) -> None:
    assert bridge("--version").out == f"bridge {__version__}\n"


def test_the_shell_completes_commands_without_importing_them() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "from bridge.cli import main; main([])"],
        env={**os.environ, "_BRIDGECTL_COMPLETE": "bash_complete", "COMP_WORDS": "bridgectl re", "COMP_CWORD": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["plain,resume", "plain,reconcile", "plain,replay", "plain,replay-tape"]
    assert "pydantic" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("demo", "--seconds", "nan"), ("demo", "--seconds", "inf"), ("simulate", "--speed", "nan"), ("demo", "--seconds", "0")],
)  # fmt: skip
def test_number_that_cannot_be_counted_with_is_refused(bridge, arguments) -> None:
    done = bridge(*arguments)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert done.err.startswith("error: invalid value for '--")


# --- errors -------------------------------------------------------------------------------------------------------

PROBLEM = ConfigError([ConfigProblem("f", 1, "a", "no"), ConfigProblem("f", 2, "b", "neither")])


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (PROBLEM, Exit.CONFIG, ["error: f:1: a: no", "error: f:2: b: neither"]),
        (Unavailable("redis is\naway"), Exit.UNREACHABLE, ["error: redis is away"]),
        (Permanent("no"), Exit.FAILED, ["error: no"]),
        (PermissionError(13, "Permission denied", "/x"), Exit.FAILED, ["error: Permission denied: /x"]),
        (KeyError("canary"), Exit.FAILED, ["error: sorry, .* unexpected KeyError; BRIDGE_DEBUG=1 .*"]),
        (ExceptionGroup("", [Permanent("a"), ExceptionGroup("", [Unavailable("b")])]), Exit.UNREACHABLE, ["error: a", "error: b"]),
    ],
)  # fmt: skip
def test_every_error_is_a_line_and_an_exit_code(capsys, error, code, lines) -> None:
    assert report_error(error) is code
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == len(lines)
    for line, wanted in zip(said.err.splitlines(), lines, strict=True):
        assert re.fullmatch(wanted, line)


def test_a_traceback_is_to_be_had_on_request(capsys, monkeypatch) -> None:
    monkeypatch.setenv("BRIDGE_DEBUG", "1")
    report_error(KeyError("x").with_traceback(None))
    assert capsys.readouterr().err.startswith("KeyError: 'x'\n")


def test_an_interrupt_before_the_end_has_its_own_exit_code(bridge, monkeypatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bridge.cli.commands.plugins.plugins.callback", interrupted)
    done = bridge("plugins")
    assert (done.code, done.out) == (Exit.INTERRUPTED, "")
    assert "error: interrupted" in done.err


def test_a_reader_that_has_seen_enough_gets_no_complaint() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "from bridge.cli import main; main(['events', 'schema'])"
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.stderr == ""


# --- what is printed ----------------------------------------------------------------------------------------------


def test_a_table_for_a_pipe_is_aligned_text(capsys) -> None:
    print_table(["name", "n"], [("a", 1), ("long", None), ("x\ny", "")])
    assert capsys.readouterr().out == "NAME  N\na     1\nlong  -\nx\\ny  -\n"


@pytest.mark.parametrize("color", [True, False])
def test_terminal_table_is_ruled_and_coloured_only_when_wanted(monkeypatch, color) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not color:
        monkeypatch.setenv("NO_COLOR", "1")
    print_table(["name", "state"], [("a", "ok"), ("[b]", "dead")])
    text = sys.stdout.getvalue()
    assert "─" in text
    assert "[b]" in text
    assert ("\x1b[32m" in text) is color


@pytest.mark.parametrize(
    ("text", "moment"),
    [("2h", NOW - timedelta(hours=2)), ("500ms", NOW - timedelta(milliseconds=500)),
     ("2026-03-15T21:00:00Z", datetime(2026, 3, 15, 21, tzinfo=UTC)),
     ("2026-03-15T21:00:00.5-06:00", datetime(2026, 3, 16, 3, 0, 0, 500000, tzinfo=UTC))],
)  # fmt: skip
def test_time_option_accepts_rfc_3339_and_age(text, moment) -> None:
    assert parse_moment(text, NOW) == moment


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yesterday", "is not a time"),
        ("2026-03-15T21:00:00", "no offset"),
        ("2", "is not a time"),
        ("99999999h", "before"),
    ],
)
def test_a_time_that_cannot_be_read_says_what_is_meant(text, said) -> None:
    with pytest.raises(ValueError, match=said):
        parse_moment(text, NOW)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s ago"), (59.9, "59s ago"), (61, "1m ago"), (7200, "2h ago"), (200000, "2d ago"), (-90, "in 1m")],
)
def test_how_long_ago_is_said_in_one_unit(seconds, text) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == text


def test_phones_in_texts_lose_all_but_four_digits() -> None:
    assert mask_phones("call to +1 (651) 555-1000 failed: 486") == "call to …1000 failed: 486"
