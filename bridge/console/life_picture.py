"""A resource's life as a picture: when each change was observed, when it happened, and each failed try. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.console.words import cut, moment

WIDTH = 1120  # in the units of the picture, as all lengths here
_LEFT, _RIGHT = 210, 24
_TOP, _ROW = 34, 58
_MIN_BAR = 4.0  # the width of an interval too short to be seen
_TICKS = 5  # times that the axis names
_TONES = {
    "failed": "bad", "rejected": "bad", "not_sent": "bad", "blacklisted": "warn", "canceled": "warn",
    "unknown": "warn", "inconclusive": "warn", "sent": "well", "delivered": "well", "completed": "well",
}  # fmt: skip


def status_tone(status: str) -> str:
    """Return how a status is coloured."""
    return _TONES.get(status, "rest")


@dataclass(frozen=True, slots=True)
class Row:
    """One change: its label, its bar, and marks on it."""

    label: str
    href: str
    tone: str
    y: float
    bar_x: float
    bar_width: float
    is_open: bool
    """Whether nobody looked before, so that the bar has no beginning."""
    event_x: float | None
    committed_x: float | None
    tries: tuple[tuple[float, str], ...]
    """Where, and what the failed try says."""
    words: str


@dataclass(slots=True)
class LifePicture:
    """Rows over a common axis of time."""

    width: float
    height: float
    rows: list[Row] = field(default_factory=list)
    ticks: list[tuple[float, str]] = field(default_factory=list)


def of(changes: Sequence[Mapping[str, Any]]) -> LifePicture:
    """Return the picture of changes as `timeline` describes them."""
    times = [time for change in changes for time in _times(change)]
    start = min(times, default=datetime.now(UTC))
    end = max(max(times, default=start), start + timedelta(seconds=1))
    width = WIDTH - _LEFT - _RIGHT

    def x(at: datetime) -> float:
        return round(_LEFT + (at - start) / (end - start) * width, 1)

    picture = LifePicture(WIDTH, _TOP + len(changes) * _ROW + 8)
    step = (end - start) / (_TICKS - 1)
    picture.ticks = [(x(start + step * index), _tick(start + step * index, end - start)) for index in range(_TICKS)]
    for index, change in enumerate(changes):
        picture.rows.append(_row(change, x, _TOP + index * _ROW))
    return picture


def _row(change: Mapping[str, Any], x: Any, y: float) -> Row:
    observed = change["observed"] or {}
    after, by = moment(observed.get("after")), moment(observed.get("by"))
    happened, committed = moment(change["time"]), moment(change["recorded"])
    right = x(by) if by else x(happened) if happened else _LEFT
    left = x(after) if after else max(_LEFT, right - _MIN_BAR * 6)
    tries = tuple(
        (x(at), f"{sink['sink']}: {cut(str(attempt['error']), 80)}")
        for sink in change["sinks"]
        for attempt in sink["attempts"]
        if (at := moment(attempt["at"]))
    )
    status = change["topic"].split(".")[2] if change["topic"].count(".") > 1 else change["topic"]
    outcomes = ", ".join(f"{sink['sink']}: {sink['state']}" for sink in change["sinks"])
    seen = f"observed by {observed.get('by')}" if by else "observed at an unknown time"
    words = f"{status}, {seen}; {'published' if change['confirmed'] else 'not published yet'}; {outcomes or 'no sinks'}"
    return Row(
        status, f"/events/{change['position']}", status_tone(status), y, left, max(right - left, _MIN_BAR),
        after is None,
        x(happened) if happened else None, x(committed) if committed else None, tries, words,
    )  # fmt: skip


def _times(change: Mapping[str, Any]) -> list[datetime]:
    observed = change["observed"] or {}
    texts = [change["time"], change["recorded"], observed.get("after"), observed.get("by")]
    texts += [attempt["at"] for sink in change["sinks"] for attempt in sink["attempts"]]
    return [at for text in texts if (at := moment(text)) is not None]


def _tick(at: datetime, whole: timedelta) -> str:
    if whole > timedelta(days=2):
        return f"{at:%d %b %H:%M}"
    return f"{at:%H:%M:%S}" if whole > timedelta(seconds=10) else f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}"
