"""The provider's own account of a message: what it counts, where that contradicts itself, and whom it lists."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial

from bridge.domain.lifecycle import UNKNOWN
from bridge.domain.times import rfc3339
from bridge.http import parsing
from bridge.http.errors import NotFound
from bridge.protocols.source import GroupCounts, Observation, Page, ResourceType, Statistics
from bridge.sources.govdelivery.api import Api
from bridge.sources.govdelivery.lifecycles import DETAILS, MESSAGE_KEY, counts, recipient_path
from bridge.sources.govdelivery.recipients import MAX_PAGES, observations
from bridge.sources.govdelivery.state import MessageState, to_datetime

_TOTAL = "total"
_COLLECTIONS = ("failed", "sent")
Kinds = tuple[ResourceType, ResourceType]


async def fetch_counts(api: Api, kinds: Kinds, path: str, now: datetime) -> GroupCounts:
    """Ask for a message: one request."""
    message, recipient = kinds
    subject = partial(_subject, path)
    try:
        answer, item = await api.object(path, having=("status", "recipient_counts"))
    except NotFound:
        return GroupCounts(path, now, recipient, subject, scope=path, not_found=True)
    status = parsing.text(item.get("status"))
    shown = () if status is None else (Observation(message, path, MESSAGE_KEY, status, item),)
    by_status, details = counts(item.get("recipient_counts")), counts(item.get("recipient_detail_counts"))
    return _counted(GroupCounts(path, answer.at, recipient, subject, scope=path, shown=shown), by_status, details)


def cached_counts(kinds: Kinds, path: str, entry: MessageState) -> GroupCounts | None:
    """Return what the message counted when its recipients were last read whole; None where that has to be repeated."""
    message, recipient = kinds
    by = to_datetime(entry.swept)
    if by is None or entry.counts is None or entry.status is None or entry.sweep is not None:
        return None
    shown = (Observation(message, path, MESSAGE_KEY, entry.status, None),)
    counted = GroupCounts(path, by, recipient, partial(_subject, path), scope=path, shown=shown)
    return _counted(counted, entry.counts, entry.details)


def _counted(bare: GroupCounts, counted: Mapping[str, int] | None, details: Mapping[str, int] | None) -> GroupCounts:
    if counted is None:
        return replace(bare, needs_full_read=True, remarks=("the provider gives no counts of it",))
    names = bare.kind.lifecycle.status_by_value
    total = counted.get(_TOTAL)
    by_status = {name: count for name, count in counted.items() if name in names and count}
    others = sum(count for name, count in counted.items() if name not in names and name != _TOTAL)
    if others and total is not None and sum(by_status.values()) + others == total:
        by_status[UNKNOWN] = others
    ours: dict[str, int] = {}
    for name, count in by_status.items():
        status = names.get(name, UNKNOWN)
        ours[status] = ours.get(status, 0) + count
    return replace(bare, counts=ours, total=total, contradictions=tuple(_contradictions(ours, total, details or {})))


def _contradictions(ours: Mapping[str, int], total: int | None, details: Mapping[str, int]) -> list[str]:
    contradictions = []
    if total is not None and sum(ours.values()) != total:
        contradictions.append(f"counts {total} recipients in total and {sum(ours.values())} by status")
    for status, names in DETAILS.items():
        present = [details[name] for name in names if name in details]
        few = len(present) == len(names) and sum(present) < ours.get(status, 0)
        if present and (few or sum(present) > ours.get(status, 0)):
            contradictions.append(f"counts {ours.get(status, 0)} {status} and {sum(present)} in their details")
    return contradictions


async def fetch_statistics(
    api: Api, recipient: ResourceType, span: tuple[datetime, datetime], messages: Collection[MessageState]
) -> Statistics | None:
    """Ask for what is counted of all messages of some whole hours; None where the account has no statistics.

    `messages` are those of these hours that are known. One whose counts are not known makes it pointless to ask.
    """
    totals = [(entry.latest or {}).get(_TOTAL) for entry in messages]
    known = [total for total in totals if total is not None]
    if not known or len(known) < len(totals):
        return None
    start, end = span
    target = f"/reports/messages/{recipient.channel}/statistics?start={rfc3339(start)}&end={rfc3339(end)}"
    try:
        answer, item = await api.object(target, having=("recipients",))
    except NotFound:
        return None
    by_status = counts(item.get("recipients"))
    if by_status is None:
        raise answer.refused("the provider's statistics are no counts")
    total = by_status.get(_TOTAL, sum(by_status.values()))
    return Statistics(f"{recipient.channel} {recipient.entity}", start, end, total, sum(known), len(known))


async def list_recipients(api: Api, recipient: ResourceType, path: str) -> AsyncGenerator[Page, None]:
    """Yield all recipients of a message, then those of its collections, where one stands that a page has left out.

    A page that shows nobody new ends its list: it leads in a circle.
    """
    for collection in ("", *_COLLECTIONS):
        target: str | None = f"{path}/recipients/{collection}".rstrip("/")
        visited: set[str] = set()
        met: set[str] = set()
        while target is not None and target not in visited and len(visited) < MAX_PAGES:
            visited.add(target)
            try:
                listing = await api.listing(target)
            except NotFound:
                if not collection:
                    raise
                break
            shown = list(observations(recipient, path, listing.items, None))
            yield Page(shown, by=listing.at)
            keys = {observation.key for observation in shown}
            if keys <= met:
                break
            met |= keys
            target = listing.next


def _subject(path: str, name: str) -> str:
    return path if name == MESSAGE_KEY else recipient_path(path, name)
