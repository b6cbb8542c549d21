"""Says a log line that repeats once a minute, with its count, instead of each time."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import structlog

_EVERY_SECONDS = 60.0
"""Seconds for which a line that is repeated is only counted."""
_MAX_LINES = 1000
"""Different lines that are remembered; the one that came longest ago is forgotten."""
_TEXTS = ("reason", "said", "error", "consequence")
"""Fields in which figures do not make another line of it: ports, seconds, sizes."""
_FIGURE = re.compile(r"(?<!\d)(?:(?!\d{3}(?!\d))|(?<!: )(?<!answered ))\d+")
"""A number in a text; a status that a server answered (`: 403`, `answered 503`) is none: another one is news."""
_RECOVERS = ".recovers"
"""How the event ends which says that a part works again: its next failure is news."""

Line = MutableMapping[str, Any]


@dataclass(slots=True)
class _Repeated:
    said_at: float
    last: Line
    count: int = 0


class RepeatLimiter:
    """A processor of structlog: lets a warning or an error pass once a minute, and counts what it holds back.

    Lines are the same if their event and their texts are the same. `repeated` says how often a line came since it was
    written last. Lines below a warning pass, for a normal life has few of them. After `source.recovers`, the next
    failure of that source is written at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.RLock()  # reentrant: a finalizer may log while this thread logs
        self._lines: OrderedDict[object, _Repeated] = OrderedDict()

    def __call__(self, _: Any, __: str, line: Line) -> Line:
        """Return the line, or raise `DropEvent` if it is only counted."""
        if line.get("level") not in ("warning", "error") or "repeated" in line:
            if str(line.get("event")).endswith(_RECOVERS):
                self._end_minute(line)
            return line
        key, now = _key(line), self._clock()
        with self._guard:
            repeated = self._lines.get(key)
            if repeated is None or now - repeated.said_at >= _EVERY_SECONDS:
                self._lines[key] = _Repeated(now, dict(line))
                self._lines.move_to_end(key)
                if len(self._lines) > _MAX_LINES:
                    self._lines.popitem(last=False)
                return {**line, "repeated": repeated.count + 1} if repeated and repeated.count else line
            repeated.count += 1
            repeated.last = dict(line)
        raise structlog.DropEvent

    def _end_minute(self, recovery: Line) -> None:
        """Let the next line of the part that recovers pass, whatever its minute."""
        part = str(recovery["event"]).removesuffix(_RECOVERS)
        with self._guard:
            for repeated in self._lines.values():
                event, name = repeated.last.get("event"), repeated.last.get(part)
                if str(event).startswith(f"{part}.") and name == recovery.get(part):
                    repeated.said_at = -math.inf

    def due(self, *, at_once: bool = False) -> list[Line]:
        """Return the lines that were counted and are to be written now: after their minute, or all of them."""
        now = self._clock()
        lines: list[Line] = []
        with self._guard:
            for key, repeated in list(self._lines.items()):
                if not at_once and now - repeated.said_at < _EVERY_SECONDS:
                    continue
                if repeated.count:
                    lines.append({**repeated.last, "repeated": repeated.count})
                    self._lines[key] = _Repeated(now, repeated.last)
                else:
                    del self._lines[key]
        return lines


def _key(line: Line) -> object:
    texts = sorted((name, value) for name, value in line.items() if isinstance(value, str))
    return tuple((name, _FIGURE.sub("0", value) if name in _TEXTS else value) for name, value in texts)
