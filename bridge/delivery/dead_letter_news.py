"""Publishes which events became dead letters, some at once: their places and reasons, and nothing of their data."""

from __future__ import annotations

from datetime import UTC, datetime

from bridge.domain.catalogue import DeadLetter, DeadLettersData, DeliveryDead, internal_event
from bridge.domain.clock import Clock
from bridge.domain.errors import Conflict
from bridge.domain.event import Position
from bridge.domain.own_news import DEAD_TOPIC, sink_subject
from bridge.domain.times import truncate_to_millis
from bridge.protocols.deliveries import Delivery, Place
from bridge.protocols.ledger import Commit, Key, StatusChange
from bridge.protocols.store import Store

MAX_LETTERS = 100
"""Dead letters in one event."""
_SETTLE_SECONDS = 2.0
"""Seconds after which a dead letter is published: until then another process may write one with an earlier time."""
NEWS_SECONDS = 70.0
"""Seconds before the first publication of a sink in which a dead letter is news; look at a sink more often."""
_AHEAD_SECONDS = 60.0
"""A mark that lies further ahead was written by a clock that was wrong."""
_KEPT_SECONDS = 3650 * 86400.0
"""The mark is kept for as long as the store is."""
_SCOPE = "dead letters"


class DeadLetterNews:
    """Publishes the dead letters behind a mark, which the store keeps for each sink.

    One commit moves the mark and writes the event, and is refused if another process has moved the mark: each dead
    letter is published once, whatever is killed. A clock that was set back by more than a minute repeats what died in
    that time, rather than losing it. Dead letters of such news are not published: that would never end.
    """

    def __init__(self, store: Store, clock: Clock, journal: str) -> None:
        """Prepare; the events are written into `journal`."""
        self._store = store
        self._clock = clock
        self._journal = journal

    async def publish(self, sink: str) -> bool:
        """Publish the next dead letters of a sink, if there are any; say whether to ask again soon."""
        before, now = await self._mark(sink), self._clock.epoch()
        place = (now - NEWS_SECONDS, Position("", 0)) if before is None else _place(before)
        if place[0] > now + _AHEAD_SECONDS:
            await self._move(sink, before, (now - _SETTLE_SECONDS, Position("", 0)), ())
            return True
        letters = await self._store.deliveries(sink, states=("dead",), limit=MAX_LETTERS, after=place)
        old = [letter for letter in letters if letter.due <= now - _SETTLE_SECONDS]
        if old:
            await self._move(sink, before, old[-1].place, await self._letters(old))
        return bool(letters)

    async def _letters(self, letters: list[Delivery]) -> tuple[DeadLetter, ...]:
        entries = await self._store.entries([letter.position for letter in letters])
        known = []
        for letter, entry in zip(letters, entries, strict=True):
            topic = "" if entry is None else entry.event.topic
            if topic != DEAD_TOPIC:
                identity = "" if entry is None else entry.event.id
                known.append(DeadLetter(position=str(letter.position), id=identity, topic=topic, reason=letter.reason))
        return tuple(known)

    async def _move(self, sink: str, before: str | None, place: Place, letters: tuple[DeadLetter, ...]) -> None:
        mark = f"{place[0]!r} {place[1]}"
        events = []
        if letters:
            event = internal_event(
                DeliveryDead,
                DeadLettersData,
                source="/bridge/sinks",
                subject=sink_subject(sink),
                occurrence=f"{before} {mark}",
                now=truncate_to_millis(datetime.fromtimestamp(self._clock.epoch(), UTC)),
                sink=sink,
                dead=letters,
            )
            events = [event.to_wire()]
        change = StatusChange(Key(_SCOPE, sink), before, mark)
        try:
            await self._store.commit(None, Commit(self._journal, [change], events, retention=_KEPT_SECONDS))
        except Conflict:
            return  # another process has published them

    async def _mark(self, sink: str) -> str | None:
        (mark,) = await self._store.last_seen(self._journal, [Key(_SCOPE, sink)], _KEPT_SECONDS)
        return mark


def _place(mark: str) -> Place:
    due, _, position = mark.partition(" ")
    source, _, number = position.rpartition(":")
    return float(due), Position(source, int(number))
