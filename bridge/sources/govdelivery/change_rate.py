"""How soon an account's recipients change, learned by the age of their message, and what a look is worth for it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from bridge.sources.govdelivery.lifecycles import RECIPIENT

HALF_LIFE = 7 * 86400.0
"""What was learned counts half after so many seconds."""
_TOTAL = "total"
_OPEN, _FINAL = "open", "final"
_GUESS = {_OPEN: 0.3, _FINAL: 0.0003}
"""Changes of one recipient while its age grows by a factor of e, by status; it weighs as much as one change seen."""
_RUNS = 22
"""Ages are told apart by runs, each twice as long as the one before; the last one begins after some 24 days."""
_SHARP = 16.0
"""Two looks between which the age grew by more tell too little of when the changes happened."""
_UNCERTAINTY = 4.0
"""What is expected of a message is halved after so many changes that were expected and did not come."""
_STEPS = 4


def rate_key(channel: str) -> str:
    """Return the name of the cursor's entry for what was learned of a channel."""
    return f"pace:{channel}"


def changes(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """Return how many recipients at least were added or left their status between two counts by status."""
    grown = [after.get(status, 0) - before.get(status, 0) for status in {*before, *after} - {_TOTAL}]
    return max(sum(max(0, more) for more in grown), sum(max(0, -more) for more in grown))


class ChangeRate:
    """What a channel of this account has shown: how often recipients changed in each run of their message's ages.

    Those in a final status, which change late or never, are kept apart from those that are open. What was learned is
    forgotten by and by, so that an account may change its ways. `finals` are the names that count as final.
    """

    def __init__(self, finals: frozenset[str] = RECIPIENT.finals) -> None:
        self.learned = False
        """Whether anything was learned that no cursor holds yet."""
        self._finals = finals
        self._watched = {kind: [0.0] * _RUNS for kind in _GUESS}
        self._changes = {kind: [0.0] * _RUNS for kind in _GUESS}

    def hazard(self, age: float, *, final: bool = False) -> float:
        """Return the changes a second to expect of one recipient whose message has this age in seconds; above 0."""
        kind = _FINAL if final else _OPEN
        age = max(1.0, age)
        run = _run(age)
        return (self._changes[kind][run] + 1.0) / (self._watched[kind][run] + age / _GUESS[kind])

    def expected(self, counts: Mapping[str, int] | None, age: float, quiet: float, *, running: bool) -> float:
        """Return the changes a second to expect of a message with these counts; above 0 where anybody is in it.

        A message that is still running counts as one open recipient at least. One that was seen quiet for longer than
        its account's ways explain is expected to stay so: 5,000 recipients that are stuck are no reason to hurry.
        """
        is_open, is_final = self._split(counts or {})
        rate = max(is_open, float(running)) * self.hazard(age) + is_final * self.hazard(age, final=True)
        return rate / (1.0 + rate * max(0.0, quiet) / _UNCERTAINTY)

    def learn(self, before: Mapping[str, int], after: Mapping[str, int], ages: tuple[float, float]) -> None:
        """Take in the counts of two looks at a message, with its age in seconds at each.

        A recipient that left a status has changed; opposite changes are not seen. Sweeps too far apart are left out.
        """
        young, old = max(1.0, ages[0]), ages[1]
        if not young < old <= young * _SHARP:
            return
        left: dict[str, int] = {_OPEN: 0, _FINAL: 0}
        for status, count in before.items():
            if status != _TOTAL:
                left[self._kind(status)] += max(0, count - after.get(status, 0))
        for kind, was, now in zip(_GUESS, self._split(before), self._split(after), strict=True):
            if was + now > 0:
                self._spread(kind, (young, old), (was + now) / 2, left[kind])

    def dump(self, now: float) -> str:
        """Return the cursor's entry, as of `now` in seconds since 1970."""
        values: dict[str, Any] = {"at": math.floor(now)}
        for kind in _GUESS:
            pairs = enumerate(zip(self._watched[kind], self._changes[kind], strict=True))
            values[kind] = {
                str(run): [_short(watched), _short(changes)] for run, (watched, changes) in pairs if watched
            }
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def load(cls, text: str | None, now: float, finals: frozenset[str] = RECIPIENT.finals) -> ChangeRate:
        """Read what `dump` wrote, less what was forgotten since; what cannot be read was never learned."""
        change_rate = cls(finals)
        try:
            values = json.loads(text or "{}")
            kept = 0.5 ** (max(0.0, now - values["at"]) / HALF_LIFE)
            for kind in _GUESS:
                for run, (watched, changes) in values[kind].items():
                    if not (run.isdecimal() and 0 <= watched < math.inf and 0 <= changes < math.inf):
                        return cls(finals)
                    change_rate._watched[kind][int(run)] = watched * kept
                    change_rate._changes[kind][int(run)] = changes * kept
        except (ValueError, TypeError, LookupError, AttributeError):
            return cls(finals)
        return change_rate

    def _kind(self, status: str) -> str:
        return _FINAL if status in self._finals else _OPEN

    def _split(self, counts: Mapping[str, int]) -> tuple[int, int]:
        """Return how many recipients are open, and how many in a final status."""
        final = sum(max(0, count) for status, count in counts.items() if status in self._finals)
        named = sum(max(0, count) for status, count in counts.items() if status not in self._finals | {_TOTAL})
        return max(named, counts.get(_TOTAL, 0) - final), final

    def _spread(self, kind: str, ages: tuple[float, float], present: float, changes: float) -> None:
        """Share out the time by its length, and the changes, of which the young have more, by how much the age grew."""
        self.learned = True
        young, old = ages
        for run in range(_run(young), _run(old) + 1):
            start = max(young, 2.0**run)
            end = old if run == _RUNS - 1 else min(old, 2.0 ** (run + 1))
            self._watched[kind][run] += present * (end - start)
            self._changes[kind][run] += changes * math.log(end / start) / math.log(old / young)


def value(rate: float, waited: float, pages: float) -> float:
    """Return what a look is worth: the seconds of waiting that it ends, summed over changes, for one request.

    Of a message that changes `rate` times a second and was not looked at for `waited` seconds, `rate * waited` changes
    are to be found, which have waited half as long on the average. A look is one request; whatever changed costs its
    `pages` of recipients too. It grows with the rate and with the time.
    """
    expected = rate * waited
    return expected * waited / 2 / (1.0 + pages * -math.expm1(-expected))


def worth_after(rate: float, pages: float, price: float) -> float:
    """Return after how many seconds a look becomes worth `price`; infinite where nothing is expected.

    Without `pages` that is the square-root rule: what changes four times as often is looked at twice as often.
    """
    if rate <= 0:
        return math.inf
    waited = math.sqrt(2 * price / rate)
    for _ in range(_STEPS):
        waited *= math.sqrt(price / value(rate, waited, pages))
    return waited


def _run(age: float) -> int:
    return min(_RUNS - 1, max(0, math.frexp(age)[1] - 1))


def _short(value: float) -> float:
    return float(f"{value:.4g}")
