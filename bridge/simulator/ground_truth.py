"""What the simulator has shown: the statuses in its complete answers, in order, which is all that a poll can see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bridge.domain.times import rfc3339

UNKNOWN = "unknown"
_SPACIVOX = {"0": "sent", "1": "delivered", "2": "failed", "3": "rejected"}
_MARKETINGCLOUD = {
    "smsnotsent": "not_sent",
    "emailnotsent": "not_sent",
    "smssent": "sent",
    "emailsent": "sent",
    "smsqueued": "queued",
    "emailqueued": "queued",
}
_MESSAGES = ("new", "queued", "sending", "completed", "canceled")
_RECIPIENTS = ("new", "sending", "inconclusive", "blacklisted", "canceled", "sent", "failed")


def status_word(provider: str, subject: str, raw: str) -> str:
    """Return the word that the topics have for a provider's value; `unknown` where they have none."""
    if provider == "spacivox":
        return _SPACIVOX.get(raw, UNKNOWN)
    if provider == "marketingcloud":
        return _MARKETINGCLOUD.get(raw.rpartition(".")[2].lower(), UNKNOWN)
    return raw if raw in (_RECIPIENTS if "/recipients/" in subject else _MESSAGES) else UNKNOWN


class ShownStatus(NamedTuple):
    """One resource in one answer."""

    subject: str
    raw: str
    """The provider's own value of the status, as text."""
    detail: str | None = None
    mark: str | None = None
    """The id of the occurrence, where the provider gives it one: each is one transition."""


@dataclass(slots=True)
class ShownTransition:
    """A status that a resource was shown in, for the first time since it was shown in another."""

    provider: str
    subject: str
    status: str
    raw: str
    previous: str | None
    detail: str | None
    at: float
    """When the answer had been sent, in the world's time."""
    view: str
    """The kind of answer that showed it first: `messages`, `message`, `recipients`, `records`, `events`, …"""
    mark: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what `/_simulator/truth` says of it."""
        return {
            "provider": self.provider,
            "subject": self.subject,
            "status": self.status,
            "raw": self.raw,
            "previous": self.previous,
            "detail": self.detail,
            "at": rfc3339(datetime.fromtimestamp(round(self.at, 3), UTC)),
            "view": self.view,
            "mark": self.mark,
        }


@dataclass(slots=True)
class _Line:
    subject: str
    raw: str
    view: str
    at: float
    detail: str | None
    mark: str | None


class GroundTruth:
    """The log of one provider's answers.

    It keeps every change that any kind of answer showed, so that `transitions` can leave out kinds that a client does
    not read, such as the list of messages, and still give the exact sequence of the others.
    """

    def __init__(self, provider: str, word: Callable[[str], str] | None = None) -> None:
        """Begin; `word` says what the topics call a value, of a provider that is not built in."""
        self.provider = provider
        self._word = word
        self._log: list[_Line] = []
        self._last: dict[str, str] = {}
        self._last_in: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._details: dict[str, str] = {}
        self._marks: set[str] = set()

    def saw(self, view: str, shown_statuses: Iterable[ShownStatus], at: float) -> None:
        """Record one answer that was sent complete."""
        last, last_here, details = self._last, self._last_in[view], self._details
        for subject, raw, detail, mark in shown_statuses:
            if mark is not None:
                if mark not in self._marks:
                    self._marks.add(mark)
                    last[subject] = raw
                    self._log.append(_Line(subject, raw, view, at, detail, mark))
                continue
            same = last.get(subject) == raw
            same_detail = detail is None or (same and details.get(subject) == detail)
            if same and same_detail and last_here.get(subject) == raw:
                continue
            if not same:
                details.pop(subject, None)
            if detail is not None:
                details[subject] = detail
            last[subject] = last_here[subject] = raw
            self._log.append(_Line(subject, raw, view, at, detail, mark))

    def last(self, subject: str) -> str | None:
        """Return the provider's value in which a resource was shown last."""
        return self._last.get(subject)

    def transitions(self, *, without: Collection[str] = ()) -> list[ShownTransition]:
        """Return every change of status that answers showed, in the order of the answers.

        A detail that was shown while the status stood belongs to that status, even when it came in a later answer.
        `without` names kinds of answers to leave out; `messages` for a client that reads no status from lists.
        """
        transitions: list[ShownTransition] = []
        present: dict[str, ShownTransition] = {}
        for line in self._log:
            if line.view in without:
                continue
            before = present.get(line.subject)
            if before is not None and before.raw == line.raw and line.mark is None:
                before.detail = line.detail or before.detail
                continue
            now = ShownTransition(
                provider=self.provider,
                subject=line.subject,
                status=status_word(self.provider, line.subject, line.raw)
                if self._word is None
                else self._word(line.raw),
                raw=line.raw,
                previous=before.status if before else None,
                detail=line.detail,
                at=line.at,
                view=line.view,
                mark=line.mark,
            )
            present[line.subject] = now
            transitions.append(now)
        return transitions
