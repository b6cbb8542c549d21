"""One row for each figure: ours, what it is held against, the ratio, the goal, and whether it is met."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound of a ratio, or of the figure itself."""

    kind: Literal["≥", "≤"]
    bound: float
    unit: str = ""

    def met(self, value: float) -> bool:
        """Say whether a value is within the bound."""
        return value >= self.bound if self.kind == "≥" else value <= self.bound

    def __str__(self) -> str:
        return f"{self.kind} {self.bound:g}{self.unit and ' ' + self.unit}"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    measure: str
    ours: str
    against: str = ""
    """What it is held against, with its figure."""
    value: float | None = None
    """The ratio, or the figure that the goal is about."""
    goal: Goal | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        return None if self.goal is None or self.value is None else self.goal.met(self.value)


def rate(value: float) -> str:
    """Return a speed as it is read."""
    return f"{value:,.0f}/s"


def ratio(measure: str, ours: float, other: float, against: str, goal: Goal | None = None, note: str = "") -> Row:
    """Return the row of two speeds of one run."""
    return Row(measure, rate(ours), f"{against} {rate(other)}", ours / other, goal, note)


_TITLES = ("measure", "ours", "held against", "ratio", "goal", "")


def table(rows: Sequence[Row]) -> str:
    """Return the rows for a reader, notes below."""
    cells = [_TITLES, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_TITLES))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = [f"  {row.measure}: {row.note}" for row in rows if row.note]
    return "\n".join([*lines, *(["", "notes"] if notes else []), *notes])


def _cells(row: Row) -> tuple[str, ...]:
    value = "" if row.value is None else f"{row.value:.3g}" if row.value < 1000 else f"{row.value:,.0f}"
    met = "" if row.met is None else "met" if row.met else "MISSED"
    return row.measure, row.ours, row.against, value, str(row.goal or ""), met


def as_json(rows: Sequence[Row], **run: object) -> str:
    """Return the rows for a program, with what is to be known of the run."""
    return json.dumps({**run, "rows": [{**asdict(row), "met": row.met} for row in rows]}, ensure_ascii=False, indent=1)
