"""How answers are printed: JSON and tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    _TimeType = click.ParamType[datetime]
else:
    _TimeType = click.ParamType  # generic from click 8.4 on


# --- answers ------------------------------------------------------------------------------------------------------


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, to: TextIO | None = None) -> None:
    """Print a table: ruled on a terminal, aligned columns elsewhere; None and empty cells are a dash."""
    cells = [["-" if value is None or value == "" else " ".join(str(value).split()) for value in row] for row in rows]
    out = to or sys.stdout
    if out.isatty():
        _rich_table(headers, cells, out)
        return
    table = [[header.upper() for header in headers], *cells]
    widths = [max(len(row[column]) for row in table) for column in range(len(headers))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=out)


def _rich_table(headers: Sequence[str], cells: Sequence[Sequence[str]], out: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headers, box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for row in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(file=out).print(table)


_STYLES = {"ok": "green", "taken": "green", "failed": "red", "dead": "red", "stalled": "red", "failing": "yellow"}


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago something was, or in how long it will be, in one unit: `12s ago`, `in 3m`."""
    seconds = (now - moment).total_seconds()
    size, unit = next(((size, unit) for size, unit in _AGES if abs(seconds) >= size), (1, "s"))
    amount = f"{int(abs(seconds) / size)}{unit}"
    return f"{amount} ago" if seconds >= 0 else f"in {amount}"


_AGES = ((86400, "d"), (3600, "h"), (60, "m"))
