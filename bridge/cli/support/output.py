"""The one way out for what a person sees: lines, texts, tables, JSON. Nothing of a provider moves a cursor.

No other module of the command line writes on standard output or standard error.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import click

from bridge.cli.support.table_layout import fit
from bridge.domain.visible_text import encodable, encodable_json, visible, visible_json, visible_lines

if TYPE_CHECKING:
    from rich.console import Console


class Coloured(NamedTuple):
    """A piece of a line, in a colour where the terminal has any; None is no colour."""

    text: str
    colour: str | None


# --- lines --------------------------------------------------------------------------------------------------------


def print_line(*pieces: str | Coloured, err: bool = False) -> None:
    """Print one line; line breaks in it, as a provider's text may have, are shown and not obeyed."""
    stream = sys.stderr if err else sys.stdout
    line = "".join(
        click.style(_shown(piece.text, stream), fg=piece.colour) if isinstance(piece, Coloured)
        else _shown(piece, stream)
        for piece in pieces
    )  # fmt: skip
    click.echo(line, file=stream)


def print_text(text: str, *, err: bool = False) -> None:
    """Print a text of several lines of our own making, each as `print_line` does."""
    stream = sys.stderr if err else sys.stdout
    click.echo(encodable(visible_lines(text.removesuffix("\n")), _encoding(stream)), file=stream)


def styled(text: str, colour: str, *, bold: bool = False) -> str:
    """Return a text in a colour, for what is drawn for the whole screen."""
    return click.style(visible(text), fg=colour, bold=bold)


def print_drawn(text: str, *, line_break: bool = True) -> None:
    """Print what was drawn for the whole screen, whose texts were made visible before."""
    click.echo(encodable(text, sys.stdout.encoding), file=sys.stdout, nl=line_break)


def print_progress_line(text: str) -> None:
    """Print on a terminal's standard error a line that the next one overwrites."""
    click.echo(f"\r\x1b[K{_shown(text, sys.stderr)}\r", file=sys.stderr, nl=False)


def make_streams_lenient() -> None:
    """Have standard output and error escape what their encoding lacks, in help pages and the lines of libraries too."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="bridge.visible")


def progress_console() -> Console:
    """Return what a progress bar is drawn on."""
    from rich.console import Console

    return Console(file=sys.stderr)


def _shown(text: str, stream: TextIO | None) -> str:
    return encodable(visible(text), _encoding(stream))


def _encoding(stream: TextIO | None) -> str | None:
    return getattr(stream, "encoding", None)  # closed from the start, a standard stream is None


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


# --- answers ------------------------------------------------------------------------------------------------------


def print_json(value: Any, *, to: TextIO | None = None) -> None:
    """Print one JSON document."""
    _print_json(json.dumps(value, ensure_ascii=False, indent=2), to or sys.stdout)


def print_json_line(value: Any) -> None:
    """Print a value as JSON on one line; bytes are JSON already, and go to a file or a pipe as they are."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False)
    _print_json(text, sys.stdout)


def _print_json(text: str, out: TextIO | None) -> None:
    click.echo(encodable_json(visible_json(text) if _is_terminal(out) else text, _encoding(out)), file=out)


def print_table(
    headers: Sequence[str], rows: Sequence[Sequence[Any]], *, to: TextIO | None = None,
    give_way: Sequence[str] = (), prose: str = "", empty: str = "",
) -> None:  # fmt: skip
    """Print a table: ruled on a terminal, aligned columns elsewhere; None and empty cells are a dash.

    Where a terminal is too narrow, the columns in `give_way` are left out, the first one first, and the texts of the
    column `prose` are wrapped; see `bridge.cli.support.table_layout`. `empty` is the sentence for a table without rows.
    """
    out = to or sys.stdout
    if empty and not rows:
        click.echo(_shown(empty, out), file=out)
        return
    cells = [["-" if value is None or value == "" else _shown(str(value), out) for value in row] for row in rows]
    if _is_terminal(out):
        _rich_table(headers, cells, out, give_way, prose)
        return
    table = [[header.upper() for header in headers], *cells]
    widths = [max(_width(row[column]) for row in table) for column in range(len(headers))]
    for row in table:
        padded = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(padded).rstrip(), file=out)


def _width(text: str) -> int:
    """Return how many columns a text takes: a wide character two, a combining one none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _rich_table(
    headers: Sequence[str], cells: Sequence[Sequence[str]], out: TextIO, give_way: Sequence[str], prose: str
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=out)
    widths = [max(_width(row[column]) for row in [headers, *cells]) for column in range(len(headers))]
    layout = fit(headers, widths, console.width, give_way, prose)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for index in layout.shown:
        wraps = index == layout.prose
        table.add_column(headers[index], no_wrap=not wraps, min_width=None if wraps else widths[index], overflow="fold")
    for row in cells:
        table.add_row(*(Text(row[index], style=_style(headers[index], row[index])) for index in layout.shown))
    whole = sum(layout.prose_width if index == layout.prose else widths[index] for index in layout.shown)
    Console(file=out, width=max(console.width, whole + 3 * len(layout.shown) - 1)).print(table)
    if layout.left_out:
        click.echo(f"left out, as the terminal is narrow: {', '.join(layout.left_out)}", file=out)


def _style(header: str, cell: str) -> str:
    """Return the colour of a cell: of a state, by its first word; of any other, if it is such a word alone."""
    word = re.split(r"[ :(]", cell, maxsplit=1)[0] if header in _STATE_HEADERS else cell
    return _STYLES.get(word, "")


_STATE_HEADERS = {"state", "outcome"}
_STYLES = {
    "ok": "green", "taken": "green", "failed": "red", "dead": "red", "stalled": "red", "refused": "red",
    "unreachable": "red", "disabled": "red", "failing": "yellow", "warning": "yellow", "late": "yellow",
    "paused": "yellow", "not": "yellow", "quiet": "yellow",
}  # fmt: skip


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago something was, or in how long it will be, in one unit: `12s ago`, `in 3m`."""
    seconds = (now - moment).total_seconds()
    size, unit = next(((size, unit) for size, unit in _AGES if abs(seconds) >= size), (1, "s"))
    amount = f"{int(abs(seconds) / size)}{unit}"
    return f"{amount} ago" if seconds >= 0 else f"in {amount}"


_AGES = ((86400, "d"), (3600, "h"), (60, "m"))
