"""Pages of recipients: what they show, and where their links lead in a circle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from bridge.http import parsing
from bridge.protocols.source import Observation, ResourceType
from bridge.sources.govdelivery.api import MessageListing, channel_of, recipient_key
from bridge.sources.govdelivery.lifecycles import DETAILS, MESSAGE_KEY, STATUS_OF_DETAIL
from bridge.sources.govdelivery.state import SweepTimes, epoch

MAX_PAGES = 20_000
"""A list of recipients with more pages is treated as a circle."""
_MAX_PAGES_WITHOUT_NEWS = 10


class RecipientReader:
    """Reads the pages of one message's recipients."""

    def __init__(self, kind: ResourceType, path: str, report: Callable[[str], None]) -> None:
        self._kind = kind
        self._path = path
        self._voice = channel_of(path) == "voice"
        self._report = report

    def read(self, listing: MessageListing, detail: str, sweep: SweepTimes) -> tuple[list[Observation], int]:
        """Return a page's observations, and how many recipients are left to the next sweep.

        A call that ended during this sweep may be in `recipients` but not yet in the collection
        of its detail when that was read. The next sweep finds both.
        """
        shown = list(observations(self._kind, self._path, listing.items, detail or None))
        unreadable_items = len(listing.items) - len(shown)
        if unreadable_items:
            self._report(
                f"{self._path}: {unreadable_items} recipients of a page have no status or no identity: passed over"
            )
        if not self._voice:
            return shown, 0
        names = self._kind.lifecycle.status_by_value
        if detail:
            # Who ended otherwise than this collection tells is shown by `recipients`, to be looked up elsewhere.
            finals = self._kind.lifecycle.finals
            return [
                observation
                for observation in shown
                if observation.detail or names.get(observation.status) not in finals
            ], 0
        kept = []
        for observation in shown:
            details = DETAILS.get(names.get(observation.status, ""))
            if details is None:
                kept.append(observation)
                continue
            completed = epoch(observation.item.get("completed_at"))
            known = completed is not None and sweep.since is not None
            if known and _during(completed, sweep.since, listing.date):
                continue
            # What ended before the sweep and stands in none of its collections has no detail to wait for.
            settled = known and (completed or 0.0) < (sweep.since or 0.0) and set(details) <= set(sweep.settled)
            kept.append(observation if settled else replace(observation, awaits_detail=True))
        return kept, len(shown) - len(kept)


class LoopGuard:
    """Which pages a reading has met: whatever the links are called, a circle shows the same people again."""

    def __init__(self) -> None:
        self._pages: set[int] = set()
        self._in_a_row = 0

    def nothing_new(self, digest: int) -> bool:
        """Take in a page, and say whether too many in a row have shown nobody new."""
        self._in_a_row = self._in_a_row + 1 if digest in self._pages else 0
        self._pages.add(digest)
        return self._in_a_row >= _MAX_PAGES_WITHOUT_NEWS


def why_not_followed(*, again: bool, nothing_new: bool, pages: int) -> str | None:
    """Return where a link leads that is not followed; None for one that is."""
    if again:
        return "leads back to a page that was read"
    if nothing_new:
        return f"has led to nobody new for {_MAX_PAGES_WITHOUT_NEWS} pages"
    return f"leads beyond {MAX_PAGES} pages" if pages >= MAX_PAGES else None


def _during(completed: float | None, since: float | None, until: float | None) -> bool:
    """Whether something ended between two times of the provider's clock, which it gives in whole seconds."""
    return completed is not None and since is not None and until is not None and since <= completed <= until + 1


def observations(kind: ResourceType, message: str, items: Iterable[Any], detail: str | None) -> Iterable[Observation]:
    """Read recipients; those without a status or an identity are left out. A detail is told of its own status only."""
    prefix = f"{message}/recipients/"
    names = kind.lifecycle.status_by_value
    expected = STATUS_OF_DETAIL.get(detail or "")
    for item in items:
        if not isinstance(item, dict):
            continue
        status = item.get("status")
        if type(status) is not str or status not in names:
            status = parsing.text(status)
        key = _key(item, prefix, message)
        if key is None or status is None:
            continue
        fits = detail is not None and names.get(status) == expected
        yield Observation(kind, message, key, status, item, detail if fits else None)


def _key(item: Mapping[str, Any], prefix: str, message: str) -> str | None:
    links = item.get("_links")
    itself = links.get("self") if isinstance(links, dict) else None
    if isinstance(itself, str) and itself.startswith(prefix) and (key := itself[len(prefix) :]).isalnum():
        return key
    name = recipient_key(itself, message) or parsing.text(item.get("id"))
    return f"{prefix}{name}" if name == MESSAGE_KEY else name
