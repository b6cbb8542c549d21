"""The books of all sinks in Redis: due times in sorted sets, settled marks in bitmaps, each step one script."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Any, TypeVar

from bridge.adapters.lua import Script, load
from bridge.adapters.redis.client import RedisClient
from bridge.adapters.redis.keys import Keys
from bridge.adapters.redis.ledger import pack
from bridge.domain.clock import Clock
from bridge.domain.event import Position, WireEvent
from bridge.protocols.deliveries import Attempt, Delivery, DeliveryCounts, KeptAnswer, NewDelivery, Place


def _script(name: str) -> Script:
    return load("bridge.adapters.redis", "books", name)


_ACCEPT, _CLAIM, _SETTLE, _POSTPONE, _DEAD_LETTER = map(
    _script, ("accept", "claim", "settle", "postpone", "dead_letter")
)
_REDRIVE, _DISCARD, _REPLAY, _FORGET = map(_script, ("redrive", "discard", "replay", "forget"))
_FILTER_OUT = _script("filter_out")
_UNACCOUNTED, _ACCEPT_FOREIGN, _LOW_WATERMARK, _EXTEND = map(
    _script, ("unaccounted", "accept_foreign", "low_watermark", "extend")
)
_BATCH = 1000
"""Positions in one script call: Lua unpacks a few thousand values at most, and others want their turn."""
_FOREIGN_KEPT_SECONDS = 30 * 86400.0
"""Seconds after which a settled event of another publisher is forgotten."""
_NAMED_FOR_SECONDS = 60.0
_CHUNK_ITEMS = 65536
T = TypeVar("T")
_COLUMNS = {"t": "delivered", "w": "waiting", "d": "dead", "x": "discarded", "f": "filtered", "e": "expired"}


class RedisDeliveries:
    """`Settlements` on Redis 6.2 or later; everything of one sink lies in one hash slot."""

    def __init__(self, link: RedisClient, keys: Keys, clock: Clock) -> None:
        self._link = link
        self._keys = keys
        self._clock = clock
        self._sinks: dict[str, float] = {}

    async def _run(self, script: Script, sink: str, *args: Any) -> Any:
        return await self._link.run(script, [self._keys.sink(sink)], *args)

    async def _known(self, sink: str) -> None:
        """Write a sink's name down before its first mark: `forget` goes through all sinks.

        Now and then once more, should the server have been emptied in between. It is looked for first: a server without
        memory refuses to add even what is there.
        """
        now = self._clock.monotonic()
        if now - self._sinks.get(sink, float("-inf")) > _NAMED_FOR_SECONDS:
            names = self._keys.common("sinks")
            if not await self._link.command("SISMEMBER", names, sink):
                await self._link.command("SADD", names, sink)
            self._sinks[sink] = now

    async def accept(self, sink: str, arrivals: Sequence[NewDelivery], until: float) -> Sequence[Position]:
        """Accept arrivals that are unknown so far and claim them until `until`; return the claimed ones."""
        await self._known(sink)
        claimed: list[Position] = []
        for batch in _batches(arrivals):
            _, ready = await self._run(_ACCEPT, sink, repr(until), repr(self._clock.epoch()), *_arrived(batch))
            claimed += [batch[index].position for index in ready]
        return claimed

    async def enqueue(self, sink: str, arrivals: Sequence[NewDelivery], due: float) -> int:
        """Take charge as `take` does, but claim nothing: the deliveries are due at `due`. Return how many were new."""
        await self._known(sink)
        new = 0
        for batch in _batches(arrivals):
            accepted, _ = await self._run(_ACCEPT, sink, repr(due), repr(due), *_arrived(batch))
            new += accepted
        return new

    async def filter_out(self, sink: str, positions: Sequence[Position]) -> int:
        """Note that the sink's filter did not select these; return how many were unknown so far."""
        await self._known(sink)
        return await self._each(_FILTER_OUT, sink, positions)

    async def filtered(self, sink: str, position: Position) -> bool:
        """Say whether the sink's filter did not select it, or an operator had muted it."""
        return await self._has_bit(sink, "f", position)

    async def claim(self, sink: str, now: float, until: float, limit: int) -> Sequence[Delivery]:
        """Claim up to `limit` deliveries that are due at `now`, those due longest first, until `until`."""
        if limit <= 0:
            return []
        places, tries = await self._run(_CLAIM, sink, repr(now), repr(until), min(limit, _BATCH))
        return [_delivery(sink, place, until, tried) for place, tried in zip(places, tries, strict=True)]

    async def extend(self, sink: str, positions: Sequence[Position], until: float) -> None:
        """Hold the claims on these until `until`; what is not waiting any more is left alone."""
        for batch in _batches(positions):
            await self._run(_EXTEND, sink, repr(until), *map(str, batch))

    async def settle(self, sink: str, positions: Sequence[Position]) -> int:
        """Note that the endpoint accepted these; return how many deliveries behind them in a partition became due."""
        await self._known(sink)
        return await self._each(_SETTLE, sink, positions, self._clock.epoch())

    async def _each(self, script: Script, sink: str, positions: Sequence[Position], *times: float) -> int:
        different, head = list(dict.fromkeys(positions)), [repr(time) for time in times]
        return sum([await self._run(script, sink, *head, *_flat(batch)) for batch in _batches(different)])

    async def postpone(self, sink: str, position: Position, due: float, attempt: Attempt | None) -> None:
        """Wait until `due`; `attempt` is added to the history (None for a claim handed back unused)."""
        await self._run(_POSTPONE, sink, str(position), repr(due), _written(attempt))

    async def dead_letter(
        self, sink: str, position: Position, reason: str, attempt: Attempt | None, answer: KeptAnswer | None = None
    ) -> int:
        """Make a dead letter of it, with its history and the endpoint's answer."""
        kept = "" if answer is None else json.dumps([answer.status, answer.body])
        words = (repr(self._clock.epoch()), *position, reason, _written(attempt), kept)
        return int(await self._run(_DEAD_LETTER, sink, *words))

    async def unaccounted(self, sink: str, source: str, seqs: Sequence[int]) -> Sequence[int]:
        """Return those of `seqs` that are unknown: neither waiting, dead nor settled."""
        unknown: list[int] = []
        for batch in _batches(seqs):
            unknown += map(int, await self._run(_UNACCOUNTED, sink, source, *batch))
        return unknown

    async def counts(self, sink: str) -> dict[str, DeliveryCounts]:
        """Return the books of a sink by source; a source without any delivery is left out."""
        columns: dict[str, dict[str, int]] = {}
        for name, value in (await self._link.command("HGETALL", f"{self._keys.sink(sink)}:books")).items():
            if int(value) and chr(name[0]) in _COLUMNS:  # a later version may keep more
                columns.setdefault(name[1:].decode(), {})[_COLUMNS[chr(name[0])]] = int(value)
        return {source: DeliveryCounts(**columns[source]) for source in sorted(columns)}

    async def oldest(self, sink: str, source: str) -> int | None:
        """Return the lowest number of a source that this sink waits with, None when none waits; reads all that wait."""
        base, lowest = self._keys.sink(sink), None
        for key in ("due", "held"):
            cursor, begun = 0, False
            while cursor or not begun:
                begun = True
                answer = await self._link.command("ZSCAN", f"{base}:{key}", cursor, "COUNT", _BATCH)
                cursor = int(answer[0])
                waiting = [Position.parse(place.decode()) for place, _ in _members(answer[1])]
                numbers = [seq for name, seq in waiting if name == source]
                lowest = min([*numbers, *([] if lowest is None else [lowest])], default=None)
        return lowest

    async def next_due(self, sink: str) -> float | None:
        """Return when the next delivery is due, None when none waits."""
        result = await self._link.command("ZRANGE", f"{self._keys.sink(sink)}:due", 0, 0, "WITHSCORES")
        return float(_scored(result)[0][0]) if result else None

    async def deliveries(
        self,
        sink: str,
        *,
        states: Collection[str] = ("waiting", "dead"),
        limit: int = 100,
        after: Place | None = None,
    ) -> Sequence[Delivery]:
        """Return waiting and dead deliveries, those due first at the front, from behind `after` on."""
        sets = [key for key in ("due", "held", "dead") if ("dead" if key == "dead" else "waiting") in states]
        if not sets or limit <= 0:
            return []
        base = self._keys.sink(sink)
        heads = [await self._head(f"{base}:{key}", limit, after) for key in sets]
        scored = list(islice(merge(*heads), limit))
        return await self._described(sink, scored) if scored else []

    async def _head(self, key: str, limit: int, after: Place | None) -> list[tuple[float, bytes]]:
        """Return the first `limit` of a set that stand behind a place."""
        if after is None:
            return _scored(await self._link.command("ZRANGE", key, 0, limit - 1, "WITHSCORES"))
        due, place = after[0], str(after[1]).encode()
        rank, score = await self._link.commands([("ZRANK", key, place), ("ZSCORE", key, place)])
        if rank is not None and float(score) == due:
            return _scored(await self._link.command("ZRANGE", key, rank + 1, rank + limit, "WITHSCORES"))
        head: list[tuple[float, bytes]] = []
        skipped = 0
        while len(head) < limit:  # of many that are due at one time, some stand before the place
            words = ("BYSCORE", "LIMIT", skipped, limit, "WITHSCORES")
            batch = _scored(await self._link.command("ZRANGE", key, repr(due), "+inf", *words))
            head += [item for item in batch if item > (due, place)]
            skipped += len(batch)
            if len(batch) < limit:
                break
        return head[:limit]

    async def _described(self, sink: str, scored: Sequence[tuple[float, bytes]]) -> list[Delivery]:
        places = [place for _, place in scored]
        base = self._keys.sink(sink)
        tries, reasons, answers = await self._link.commands(
            [("HMGET", f"{base}:{key}", *places) for key in ("tries", "why", "answers")]
        )
        return [
            _delivery(sink, place, due, tried, reason, answer)
            for (due, place), tried, reason, answer in zip(scored, tries, reasons, answers, strict=True)
        ]

    async def delivery(self, sink: str, position: Position) -> Delivery | None:
        """Return one waiting or dead delivery."""
        base, place = self._keys.sink(sink), str(position).encode()
        scores = await self._link.commands([("ZSCORE", f"{base}:{key}", place) for key in ("due", "held", "dead")])
        due = next((float(score) for score in scores if score is not None), None)
        return None if due is None else (await self._described(sink, [(due, place)]))[0]

    async def settled(self, sink: str, position: Position) -> bool:
        """Say whether it is over: the endpoint accepted it, or it ended without being sent."""
        return await self._has_bit(sink, "m", position)

    async def _has_bit(self, sink: str, bitmap: str, position: Position) -> bool:
        chunk, offset = divmod(position.seq, _CHUNK_ITEMS)
        key = f"{self._keys.sink(sink)}:{bitmap}:{position.source}:{chunk}"
        return bool(await self._link.command("GETBIT", key, offset))

    async def redrive(self, sink: str, positions: Sequence[Position], due: float, hold: float = 0.0) -> int:
        """Make dead or waiting deliveries due at `due`, with the count of tries starting again; return how many.

        A dead letter joins the end of its partition, if it had one. One that is due by itself within `hold` seconds
        after `due` keeps its time.
        """
        return await self._each(_REDRIVE, sink, positions, due, due + hold)

    async def discard(self, sink: str, positions: Sequence[Position]) -> int:
        """End waiting or dead deliveries without sending them; return how many."""
        return await self._each(_DISCARD, sink, positions, self._clock.epoch())

    async def replay(self, sink: str, arrivals: Sequence[NewDelivery], due: float) -> int:
        """Make settled (or unknown) events due once more; return how many. Waiting and dead ones are left alone."""
        await self._known(sink)
        return sum([await self._run(_REPLAY, sink, repr(due), *_arrived(batch)) for batch in _batches(arrivals)])

    async def low_watermark(self, sink: str, source: str) -> int:
        """Return the number up to which the books of this sink were found complete; 0 at first."""
        return int(await self._link.command("HGET", f"{self._keys.sink(sink)}:floor", source) or 0)

    async def raise_low_watermark(self, sink: str, source: str, upto: int) -> None:
        """Note that everything up to `upto` is accounted for; never moves back."""
        await self._run(_LOW_WATERMARK, sink, source, upto)

    async def accept_foreign(self, sink: str, event: WireEvent) -> Position:
        """Keep an event that came without a position of ours; idempotent by its id while it is kept.

        Kept for 30 days, and longer while it waits or is dead.
        """
        await self._known(sink)
        source, now = f"@{sink}", self._clock.epoch()
        seq = await self._run(
            _ACCEPT_FOREIGN, sink, source, event.id, pack(event), repr(now), repr(now - _FOREIGN_KEPT_SECONDS)
        )
        return Position(source, int(seq))

    async def forget(self, source: str, before: int) -> None:
        """Drop the settled marks of numbers below `before`, which the journal no longer keeps."""
        named = {name.decode() for name in await self._link.command("SMEMBERS", self._keys.common("sinks"))}
        for sink in sorted(named.union(self._sinks)):
            await self._run(_FORGET, sink, source, before)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def _flat(positions: Sequence[Position]) -> list[str | int]:
    return [word for position in positions for word in position]


def _arrived(arrivals: Sequence[NewDelivery]) -> list[str | int]:
    words: list[str | int] = []
    for arrival in arrivals:
        words += (*arrival.position, arrival.partition or "")
    return words


def _scored(answer: Sequence[Any]) -> list[tuple[float, bytes]]:
    """Read a `WITHSCORES` answer: member and score by turns."""
    return [(float(score), member) for member, score in zip(answer[::2], answer[1::2], strict=True)]


def _members(answer: Sequence[Any]) -> Iterator[tuple[bytes, Any]]:
    """Read a `ZSCAN` answer: pairs, or member and score by turns, as the library has made of it."""
    if answer and isinstance(answer[0], (tuple, list)):
        return iter(answer)
    return zip(answer[::2], answer[1::2], strict=True)


def _written(attempt: Attempt | None) -> str:
    return "" if attempt is None else json.dumps([attempt.at, attempt.error, attempt.kind])


def _delivery(
    sink: str, place: bytes, due: float, tried: bytes | None, reason: bytes | None = None, answer: bytes | None = None
) -> Delivery:
    attempts = tuple(Attempt(*json.loads(line)) for line in tried.split(b"\n")) if tried else ()
    state = "waiting" if reason is None else "dead"
    kept = KeptAnswer(*json.loads(answer)) if answer and state == "dead" else None
    return Delivery(sink, Position.parse(place.decode()), due, attempts, state, (reason or b"").decode(), kept)
