"""The walk through the list of one channel's messages: which are new, which are worth a look, which are over."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping, MutableMapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from bridge.domain.errors import BridgeError, NotReady
from bridge.domain.lifecycle import Lifecycle
from bridge.http import parsing
from bridge.protocols.source import Page, ResourceType
from bridge.sources.govdelivery.api import ENDS_SWEEP, Api, MessageListing, message_path
from bridge.sources.govdelivery.lifecycles import counts
from bridge.sources.govdelivery.scheduling import MAX_WAIT_RUNNING_SECONDS
from bridge.sources.govdelivery.settings import GovDeliverySettings
from bridge.sources.govdelivery.state import ListState, MessageState, epoch, is_in_future, past, to_millis

MAX_PAGES = 1000
_MARGIN_SECONDS = 3600.0
_DEEP_EVERY_SECONDS = 6 * 3600.0
_DEPTH_BEYOND_SECONDS = 7 * 86400.0
_SEEN_AGAIN_SECONDS = 86400.0
_SETTLED_PAGES = 2
_MAX_PAGES_WITHOUT_NEWS = 3


def list_key(channel: str) -> str:
    """Return the name of the cursor's entry for a channel's list."""
    return f"list:{channel}"


@dataclass(frozen=True, slots=True)
class _WalkDirection:
    """The next page of a list, and the relation that leads on from there."""

    target: str
    params: Mapping[str, str | int] | None = None
    relation: str = "next"


class MessageList:
    """The list of one channel's messages, page by page, the newest first wherever that can be had."""

    def __init__(self, api: Api, channel: str, page_size: int, report: Callable[[str], None]) -> None:
        self._api = api
        self.path = f"/messages/{channel}"
        self._first = _WalkDirection(self.path)  # for voice, no parameters are documented
        if channel != "voice":
            self._first = _WalkDirection(
                self.path, {"page_size": page_size, "sort_by": "created_at", "sort_order": "DESC"}
            )
        self.report = report

    async def pages(self) -> AsyncGenerator[tuple[MessageListing, bool], None]:
        """Yield each page, and whether all that follow are older."""
        way: _WalkDirection | None = self._first
        visited: set[str] = set()
        shown: set[str | None] = {None}
        nothing_new = 0
        while way is not None:
            visited.add(way.target)
            listing = await self._api.listing(way.target, way.params)
            ascending = _ascending(listing)
            yield listing, way.relation == "prev" or not ascending
            known = len(shown)
            shown.update(self.path_of(parsing.mapping(item)) for item in listing.items)
            nothing_new = nothing_new + 1 if len(shown) == known else 0
            if nothing_new == _MAX_PAGES_WITHOUT_NEWS:
                self.report(f"{self.path}: {nothing_new} pages in a row show nothing new; treated as the list's end")
                return
            way = self._advance(listing, way, visited, ascending=ascending)

    def _advance(
        self, listing: MessageListing, way: _WalkDirection, visited: set[str], *, ascending: bool
    ) -> _WalkDirection | None:
        target = listing.next if way.relation == "next" else listing.prev
        relation = way.relation
        if ascending and len(visited) == 1 and listing.last is not None:
            # The order of this list is documented nowhere: where the oldest come first, it is walked from its end.
            target, relation = listing.last, "prev"
        if target is None or target in visited:
            return None
        if len(visited) >= MAX_PAGES:
            self.report(f"{self.path}: the list has more than {MAX_PAGES} pages; the rest is not read")
            return None
        return _WalkDirection(target, relation=relation)

    def path_of(self, item: Mapping[str, Any]) -> str | None:
        """Return a listed message's path, None where it has no identity."""
        path = message_path(parsing.mapping(item.get("_links")).get("self"))
        if path is None and (number := parsing.text(item.get("id"))) is not None:
            path = message_path(f"{self.path}/{number}")
        return path if path is not None and path.startswith(f"{self.path}/") else None


class CreatedMessages(NamedTuple):
    """The messages of one page of a list that were created in a range of time; later pages have older ones."""

    paths: list[str]
    oldest: float
    """When the oldest of them was created, in epoch seconds."""


async def created_between(messages: MessageList, start: float, end: float) -> AsyncGenerator[CreatedMessages, None]:
    """Yield the messages created in a range of time, both ends included, one page's at once."""
    beyond = 0
    async with aclosing(messages.pages()) as pages:
        async for listing, older in pages:
            items = []
            oldest = end
            last = True
            for raw in listing.items:
                item = parsing.mapping(raw)
                path, created = messages.path_of(item), epoch(item.get("created_at"))
                last = last and created is not None and created < start
                if path is not None and created is not None and start <= created <= end:
                    items.append(path)
                    oldest = min(oldest, created)
            if items:
                yield CreatedMessages(items, oldest)
            beyond = beyond + 1 if last and older else 0
            if beyond >= _SETTLED_PAGES:
                return


class BackfillWalk:
    """How far a backfill is: its lists go from the newest message to the oldest, one channel after the other."""

    def __init__(self, start: float, end: float, channels: int) -> None:
        """Take the range in epoch seconds."""
        self._start, self._end = start, end
        self._channels = channels
        self._number = -1
        self._from = self._to = 0.0
        self._messages = 1
        self._scopes: set[str] = set()

    def begin_channel(self) -> None:
        """Begin the next channel's list."""
        self._number += 1
        self._to = 0.0

    def begin_page(self, messages: CreatedMessages) -> None:
        """Begin to read the messages of one page of the list."""
        whole = self._end - self._start
        self._from, self._to = self._to, (self._end - messages.oldest) / whole if whole > 0 else 1.0
        self._messages = len(messages.paths)
        self._scopes = set()

    def progress(self, page: Page) -> float:
        """Return how much is read by a page of these messages, from 0 to 1."""
        self._scopes.update(observation.scope for observation in page.observations)
        share = min(1.0, len(self._scopes) / self._messages)
        return (self._number + self._from + (self._to - self._from) * share) / self._channels


class ListWalk:
    """One walk through one list, as far back as something may be unknown.

    It goes on until everything on a page is known and older than the last complete walk, and one page more: a message
    made at the same time pushes others onto the next page, so that one may stand behind known ones. Every few hours it
    goes as far back as any message is followed. A walk that breaks off is repeated: only a complete one counts.
    """

    def __init__(
        self,
        messages: MessageList,
        key: str,
        listed: ListState,
        followed: MutableMapping[str, MessageState],
        lifecycle: Lifecycle,
        *,
        now: float,
        follow_for: float,
    ) -> None:
        self._messages = messages
        self._key = key
        self._listed = listed
        self._followed = followed
        self._lifecycle = lifecycle
        self._now = now
        self._follow_for = follow_for
        self._first = listed.until is None
        self._since = (listed.until or now) - _MARGIN_SECONDS
        self._deep = self._first or is_in_future(listed.until, now) or now - listed.deep >= _DEEP_EVERY_SECONDS
        self._oldest = now - follow_for - _DEPTH_BEYOND_SECONDS if self._deep else self._since

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Yield the cursor's entries of messages to follow, and at the end that of the list."""
        settled = 0
        async with aclosing(self._messages.pages()) as pages:
            async for listing, older in pages:
                changes, is_settled = self._read(listing)
                if changes:
                    yield Page((), by=listing.at, cursor=changes)
                settled = settled + 1 if is_settled and older else 0
                if settled >= _SETTLED_PAGES:
                    break
        done = ListState(until=to_millis(self._now), deep=to_millis(self._now) if self._deep else self._listed.deep)
        yield Page((), by=listing.at, cursor={self._key: done.dump()})

    def _read(self, listing: MessageListing) -> tuple[dict[str, str | None], bool]:
        """Return the changes of the cursor that a page leads to, and whether all on it is known and old."""
        changes: dict[str, str | None] = {}
        is_settled = True
        nameless = 0
        for raw in listing.items:
            item = parsing.mapping(raw)
            path = self._messages.path_of(item)
            if path is None:
                nameless += 1
                continue
            created = epoch(item.get("created_at"))
            if created is not None and created >= self._oldest:
                is_settled = False
            known = self._followed.get(path)
            entry = self._check_entry(item, known, created)
            if entry is known:
                continue
            if known is None:
                is_settled = False
            if entry is None:
                del self._followed[path]
            else:
                self._followed[path] = entry
            changes[path] = None if entry is None else entry.dump()
        if nameless:
            self._messages.report(f"{self._messages.path}: {nameless} messages of a page have no identity: passed over")
        return changes, is_settled

    def _check_entry(
        self, item: Mapping[str, Any], known: MessageState | None, created: float | None
    ) -> MessageState | None:
        """Return what the cursor shall say of a message from now on; the same object is no change."""
        wanted = self._wanted(item, created)
        hint = _hint(item)
        if known is None:
            now, made = to_millis(self._now), past(item.get("created_at"), self._now)
            return (
                MessageState(due=now, discovered=now, created=made, hint=hint, backlog=self._first) if wanted else None
            )
        if known.over is not None:
            if not wanted:
                return None
            news = hint != known.hint
            if news or (known.missing and self._now - known.over >= MAX_WAIT_RUNNING_SECONDS):
                # It was left alone, for it was not there or did not begin, and the list shows it: another look decides.
                missing = max(0, known.missing - 1)
                return replace(known, over=None, missing=missing, hint=hint, hinted=news, due=to_millis(self._now))
            stale = self._now - known.over >= _SEEN_AGAIN_SECONDS
            return replace(known, over=to_millis(self._now)) if stale else known
        # A list may lag behind the message, so what it says is a reason to look and never an observation.
        return (
            known
            if hint == known.hint
            else replace(known, hint=hint, hinted=True, due=min(known.due, to_millis(self._now)))
        )

    def _wanted(self, item: Mapping[str, Any], created: float | None) -> bool:
        """Whether a message is worth following; not what ended long ago, unless it was made since the last walk."""
        if self._lifecycle.status_by_value.get(parsing.text(item.get("status")) or "") not in self._lifecycle.finals:
            return True
        ended = epoch(item.get("completed_at")) or created
        if ended is None or self._now < ended + self._follow_for:
            return True
        return not self._first and created is not None and created >= self._since


class Discovery:
    """Walks through the lists of all channels; one that cannot be read keeps no other from being read."""

    def __init__(self, settings: GovDeliverySettings, kinds: Mapping[str, tuple[ResourceType, ResourceType]]) -> None:
        self._settings = settings
        self._kinds = kinds
        self._not_ready: dict[str, float] = {}

    async def pages(
        self,
        api: Api,
        cursor: Mapping[str, str],
        followed: MutableMapping[str, MessageState],
        now: float,
        report: Callable[[str], None],
    ) -> AsyncGenerator[Page, None]:
        """Yield the cursor's entries of the messages to follow; raises only failures that concern all channels."""
        follow_for = self._settings.follow_for
        for channel in self._settings.channels:
            key, lifecycle = list_key(channel), self._kinds[channel][0].lifecycle
            messages = MessageList(api, channel, self._settings.page_size, report)
            listed = ListState.load(cursor.get(key))
            walk = ListWalk(messages, key, listed, followed, lifecycle, now=now, follow_for=follow_for)
            try:
                async with aclosing(walk.pages()) as pages:
                    async for page in pages:
                        yield page
            except ENDS_SWEEP:
                raise
            except NotReady as error:
                if now - self._not_ready.setdefault(channel, now) >= self._settings.stall_after:
                    report(_unlisted(api, channel, error))
            except BridgeError as error:
                report(_unlisted(api, channel, error))
            else:
                self._not_ready.pop(channel, None)


def _unlisted(api: Api, channel: str, error: BridgeError) -> str:
    api.health.refused(error)
    what = str(error) if f"/messages/{channel}" in str(error) else f"/messages/{channel}: {error}"
    return f"{what}; new messages of this channel wait for the next poll"


def _hint(item: Mapping[str, Any]) -> str:
    digest = [parsing.text(item.get("status")), counts(item.get("recipient_counts"))]
    return json.dumps(digest, separators=(",", ":"), sort_keys=True)


def _ascending(listing: MessageListing) -> bool:
    times = [time for item in listing.items if (time := epoch(parsing.mapping(item).get("created_at"))) is not None]
    return len(times) > 1 and times[0] < times[-1]
