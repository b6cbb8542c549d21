"""The lines that a command prints on stderr: errors with their remedy, and remarks."""

from __future__ import annotations

from contextlib import suppress

from bridge.cli.support.output import Coloured, print_line
from bridge.cli.support.program import in_typed_name


def print_error(text: str) -> None:
    """Print a line that says what went wrong, and the remedy if there is one: `error: …`."""
    _print_line("error", "red", text)


def print_note(text: str) -> None:
    """Print a line on stderr that is neither the answer nor an error: `note: …`."""
    _print_line("note", "cyan", text)


def _print_line(kind: str, colour: str, text: str) -> None:
    with suppress(OSError):  # nobody reads it any more, or the disk is full: the exit code still says it
        print_line(Coloured(f"{kind}:", colour), f" {in_typed_name(one_line(text))}", err=True)


def one_line(text: str) -> str:
    """Return a text in one line, with single blanks."""
    return " ".join(text.split())
