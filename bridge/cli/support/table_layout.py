"""Which columns of a table fit a terminal: the least important ones give way, and no cell is ever cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_GAP_COLUMNS = 3
"""Blanks between two columns."""
_EDGE_COLUMNS = 2
"""Blanks before the first column and behind the last one."""
_GOOD_PROSE_COLUMNS = 36
"""A column of sentences that is easy to read: other columns give way to it."""
_MIN_PROSE_COLUMNS = 24
"""The narrowest column of sentences, where no other column can give way."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that are shown, from left to right, and the headers of those that are not."""

    shown: tuple[int, ...]
    prose: int | None
    """The column whose texts are wrapped; None where there is none."""
    prose_width: int
    left_out: tuple[str, ...]


def fit(headers: Sequence[str], widths: Sequence[int], width: int, give_way: Sequence[str], prose: str) -> Layout:
    """Return the layout of columns with these widths for a terminal.

    The headers in `give_way` are left out one after another, the first one first, until the rest fits; the column
    `prose` may be wrapped. If all the rest is wider than the terminal, it stays: a name that is copied has to be whole.
    """
    shown = list(range(len(headers)))
    wrapped = headers.index(prose) if prose in headers else None
    left_out = []
    for header in give_way:
        if _needed(shown, widths, wrapped) + _EDGE_COLUMNS <= width:
            break
        if header in headers:
            shown.remove(headers.index(header))
            left_out.append(header)
    width -= _EDGE_COLUMNS
    others = sum(widths[index] for index in shown if index != wrapped) + _GAP_COLUMNS * (len(shown) - 1)
    free = max(width - others, _MIN_PROSE_COLUMNS)
    prose_width = min(free, widths[wrapped]) if wrapped is not None else 0
    return Layout(tuple(shown), wrapped, prose_width, tuple(left_out))


def _needed(shown: Sequence[int], widths: Sequence[int], wrapped: int | None) -> int:
    narrow = (min(widths[index], _GOOD_PROSE_COLUMNS) if index == wrapped else widths[index] for index in shown)
    return sum(narrow) + _GAP_COLUMNS * (len(shown) - 1)
