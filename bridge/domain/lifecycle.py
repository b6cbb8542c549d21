"""Statuses as data, and the pure decision what a new status means after an old one."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from urllib.parse import quote, unquote

from bridge.domain.event import Transition

UNKNOWN = "unknown"
_OVERDUE_MARK = "!"
"""What a history begins with once the resource was published as overdue."""
_TOKEN = re.compile(r"([a-zA-Z]|\([^)]*\))(\d*)")
_MARKS_KEPT = 1024
"""More occurrences of one resource than a provider shows at once, or each look would make all of them news again."""
_DECISIONS_KEPT = 4096
_SHORT = 64
"""Characters of a value that is kept whole; a longer value is kept as a digest."""


@dataclass(frozen=True)
class Lifecycle:
    """One provider's statuses of one entity: what they are called, which follows which, and which are final.

    `names` maps the provider's value (as text) to our status. `follows` lists the direct successors of each status; a
    status further along is a skip, one further back a regression. A status in `finals` may still change: that is a
    reopening, never an error.
    """

    status_by_value: Mapping[str, str]
    follows: Mapping[str, Collection[str]]
    finals: frozenset[str]
    codes: Mapping[str, str] = field(default_factory=dict)
    """One letter for each status, kept in the ledger; by default the status's first letter that is still free."""

    def __post_init__(self) -> None:
        statuses = list(dict.fromkeys(self.status_by_value.values()))
        undefined = ({*self.follows, *self.finals} | {s for after in self.follows.values() for s in after}) - {
            *statuses
        }
        if undefined:
            raise ValueError(f"statuses without a provider's value: {', '.join(sorted(undefined))}")
        codes = dict(self.codes)
        for status in statuses:
            if status not in codes:
                used = set(codes.values())
                codes[status] = next(c for c in status + "abcdefghijklmnopqrstuvwxyz" if c.isalpha() and c not in used)
        object.__setattr__(self, "codes", codes)

    @property
    def statuses(self) -> list[str]:
        """Return our statuses in the order of the table."""
        return list(dict.fromkeys(self.status_by_value.values()))

    def with_names(self, names: Mapping[str, str]) -> Lifecycle:
        """Return this lifecycle with further provider's values mapped to statuses that it has.

        Raises `ValueError` that names a status which is not in the table.
        """
        for value, status in names.items():
            if status not in self.codes:
                raise ValueError(f"{value!r}: {status!r} is not one of {', '.join(self.statuses)}")
        return Lifecycle({**self.status_by_value, **names}, self.follows, self.finals, self.codes)

    @cached_property
    def code_of(self) -> dict[str, str]:
        """The ledger's letter for each of the provider's values."""
        return {value: self.codes[status] for value, status in self.status_by_value.items()}

    @cached_property
    def decisions(self) -> dict[tuple[str | None, str], Change | None]:
        """What `classify` decided so far, by history and value: resources are many, and their histories few."""
        return {}

    @cached_property
    def _status_of_code(self) -> dict[str, str]:
        return {code: status for status, code in self.codes.items()}

    @cached_property
    def _later(self) -> dict[str, frozenset[str]]:
        later: dict[str, frozenset[str]] = {}
        for status in self.statuses:
            reached: set[str] = set()
            rest = list(self.follows.get(status, ()))
            while rest:
                later_status = rest.pop()
                if later_status not in reached:
                    reached.add(later_status)
                    rest.extend(self.follows.get(later_status, ()))
            later[status] = frozenset(reached)
        return later

    def code(self, raw: str) -> str:
        """Return what the ledger keeps for the provider's value `raw`, known or not."""
        known = self.code_of.get(raw)
        return known if known is not None else f"({quote(raw, safe='')})"

    def status(self, code: str) -> str:
        """Return the status of a ledger's code."""
        return self._status_of_code.get(code, UNKNOWN)

    def relation(self, previous: str | None, status: str) -> Transition:
        """Say how `status` was reached from `previous`."""
        if status == UNKNOWN:
            return Transition.UNKNOWN
        if previous is None:
            return Transition.FIRST
        if previous in self.finals:
            return Transition.REOPEN
        if previous == UNKNOWN or status in self.follows.get(previous, ()):
            return Transition.ADVANCE
        return Transition.SKIP if status in self._later.get(previous, ()) else Transition.REGRESS


@dataclass(frozen=True, slots=True)
class StatusHistory:
    """The statuses a resource was seen in, the last one last, with how often each was entered.

    Written into the ledger as a few letters: `nsf` is new, sending, failed; `nfs2` says that it then was sending once
    more. `marks` are the provider's own ids of the occurrences, where the provider has such.
    """

    visits: tuple[tuple[str, int], ...] = ()
    occurrence_ids: tuple[str, ...] = ()
    is_overdue: bool = False
    """Whether the resource was published as overdue, and has had no final status since; written as a leading `!`."""

    @classmethod
    def parse(cls, text: str | None) -> StatusHistory:
        """Read what `str` wrote; None is a resource never seen."""
        if not text:
            return cls()
        visits, _, marks = text.partition("|")
        pairs = tuple((code, int(count or 1)) for code, count in _TOKEN.findall(visits))
        ids = tuple(unquote(mark) for mark in marks.split(",")) if marks else ()
        return cls(pairs, ids, text.startswith(_OVERDUE_MARK))

    def __str__(self) -> str:
        text = "".join(code if count == 1 else f"{code}{count}" for code, count in self.visits)
        text = f"{_OVERDUE_MARK}{text}" if self.is_overdue else text
        return (
            f"{text}|{','.join(quote(mark, safe='') for mark in self.occurrence_ids)}" if self.occurrence_ids else text
        )

    @property
    def last(self) -> str | None:
        """Return the code of the present status."""
        return self.visits[-1][0] if self.visits else None

    def entered(self, code: str) -> int:
        """Return how often the status was entered so far."""
        return next((count for visited, count in self.visits if visited == code), 0)

    def enter(self, code: str, mark: str | None = None) -> StatusHistory:
        """Return the history after the status was entered (once more)."""
        rest = tuple(visit for visit in self.visits if visit[0] != code)
        marks = self.occurrence_ids if mark is None else (*self.occurrence_ids, mark)[-_MARKS_KEPT:]
        return StatusHistory((*rest, (code, self.entered(code) + 1)), marks, self.is_overdue)


@dataclass(frozen=True, slots=True)
class Change:
    """One status transition: what `classify` decided."""

    status: str
    previous: str | None
    transition: Transition
    occurrence: int | str
    """How often the status had been entered before, or the provider's own id of the occurrence."""
    history: str
    """What the ledger keeps from now on."""
    resolves_overdue: bool = False
    """Whether it is the final status of a resource that was published as overdue."""


def classify(lifecycle: Lifecycle, seen: str | None, raw: str, mark: str | None = None) -> Change | None:
    """Decide what it means that a resource, last `seen` so, now has the provider's status `raw`; None is no change.

    Pure: the same three values always give the same answer. Nothing is dropped for being unexpected. With a `mark`, the
    provider's own id of an occurrence, each mark is one occurrence, whatever the status was before.
    """
    if mark is not None or len(raw) > _SHORT:
        return _decide(lifecycle, seen, raw, mark)
    decisions, case = lifecycle.decisions, (seen, raw)
    if case not in decisions:
        if len(decisions) >= _DECISIONS_KEPT:  # a provider that makes up a status for each resource
            decisions.clear()
        decisions[case] = _decide(lifecycle, seen, raw, None)
    return decisions[case]


def _decide(lifecycle: Lifecycle, seen: str | None, raw: str, mark: str | None) -> Change | None:
    code = lifecycle.code(raw)
    history = StatusHistory.parse(seen)
    if mark is not None:
        if mark in history.occurrence_ids:
            return None
    elif history.last == code:
        return None
    status = lifecycle.status(code)
    previous = None if history.last is None else lifecycle.status(history.last)
    entered = history.enter(code, mark)
    resolves = entered.is_overdue and status in lifecycle.finals
    return Change(
        status=status,
        previous=previous,
        transition=lifecycle.relation(previous, status),
        occurrence=history.entered(code) if mark is None else mark,
        history=str(replace(entered, is_overdue=False) if resolves else entered),
        resolves_overdue=resolves,
    )


def awaits_final(lifecycle: Lifecycle, seen: str | None) -> bool:
    """Say whether a resource has had no final status yet, and was not published as overdue."""
    history = StatusHistory.parse(seen)
    return not history.is_overdue and all(lifecycle.status(code) not in lifecycle.finals for code, _ in history.visits)
