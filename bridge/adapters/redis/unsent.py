"""Deliveries that end unsent, in Redis: a record of each by its number, and totals in a small hash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from bridge.adapters.lua import Script, load
from bridge.adapters.redis.client import RedisClient
from bridge.adapters.redis.keys import Keys
from bridge.domain.event import Position
from bridge.protocols.unsent import ExpiryTotals, Unsent, UnsentDelivery

_WAIT_UNTIL, _END_UNSENT, _OPEN_TOTALS, _CLOSE_TOTALS = (
    load("bridge.adapters.redis", "books", name) for name in ("wait_until", "end_unsent", "open_totals", "close_totals")
)
_BATCH = 500
"""Deliveries in one script call."""


class RedisUnsent:
    """`UnsentStore` on Redis 6.2 or later; all keys lie in the slot of the sink's books."""

    def __init__(self, link: RedisClient, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def _call(self, script: Script, sink: str, *args: Any) -> Any:
        return await self._link.run(script, [self._keys.sink(sink)], *args)

    async def wait_until(self, sink: str, dues: Sequence[tuple[Position, float]]) -> None:
        """Have claimed deliveries wait, each until its time; what is not waiting is left alone."""
        for start in range(0, len(dues), _BATCH):
            words = [word for position, due in dues[start : start + _BATCH] for word in (str(position), repr(due))]
            await self._call(_WAIT_UNTIL, sink, *words)

    async def end_unsent(
        self, sink: str, deliveries: Sequence[UnsentDelivery], unsent: Unsent, *, is_totalled: bool = False
    ) -> int:
        """End waiting deliveries without sending them; return how many there were."""
        head, number = (repr(unsent.at), unsent.kind, unsent.mute, "1" if is_totalled else ""), 0
        for start in range(0, len(deliveries), _BATCH):
            words: list[str | int] = []
            for delivery in deliveries[start : start + _BATCH]:
                recorded = "" if delivery.recorded is None else repr(delivery.recorded)
                words += (*delivery.position, delivery.topic, recorded)
            number += int(await self._call(_END_UNSENT, sink, *head, *words))
        return number

    async def unsent(self, sink: str, position: Position) -> Unsent | None:
        """Return why a delivery was ended unsent; None if it was not, or if its entry has left the journal."""
        key = f"{self._keys.sink(sink)}:u:{position.source}"
        records = await self._link.command("ZRANGE", key, position.seq, position.seq, "BYSCORE")
        if not records:
            return None
        _, kind, at, mute = records[0].decode().split(" ", 3)
        return Unsent(cast("Literal['expired', 'muted']", kind), float(at), mute)

    async def open_totals(self, sink: str, id: str) -> ExpiryTotals | None:  # noqa: A002 - what the totals call it
        """Return totals to tell: those that were opened before and not closed, or what has come since, as `id`."""
        words = [word.decode() for word in await self._call(_OPEN_TOTALS, sink, id)]
        if not words:
            return None
        fields = dict(zip(words[::2], words[1::2], strict=True))
        topics = {name[1:]: int(value) for name, value in sorted(fields.items()) if name.startswith("t")}
        oldest, newest = (float(fields[name]) if name in fields else None for name in ("a", "z"))
        return ExpiryTotals(fields["id"], int(fields["n"]), oldest, newest, topics)

    async def close_totals(self, sink: str, id: str) -> None:  # noqa: A002 - what the totals call it
        """Note that the totals with this id were told; told again, it changes nothing."""
        await self._call(_CLOSE_TOTALS, sink, id)
