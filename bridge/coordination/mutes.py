"""The mutes of one sink, as this process has heard them: which events are not sent, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import structlog

from bridge.domain.filters.event_filter import EventFilter
from bridge.domain.filters.expression import FilterError
from bridge.protocols.roster import Mute

log = structlog.get_logger()


class Mutes:
    """Decides whether an operator has muted an event. A mute whose filter cannot be read here mutes nothing."""

    def __init__(self) -> None:
        self._mutes: tuple[Mute, ...] = ()
        self._readable: list[tuple[Mute, EventFilter | None]] = []
        """Those whose filter can be read; without a filter, a mute covers all events."""

    def __bool__(self) -> bool:
        return bool(self._readable)

    def apply(self, mutes: Iterable[Mute], now: float) -> None:
        """Take the mutes of the sink as they are now, without those that have ended."""
        lasting = tuple(mute for mute in mutes if mute.until > now)
        if lasting != self._mutes:
            self._mutes = lasting
            self._readable = [pair for mute in lasting for pair in _read(mute)]

    def of(self, values: Mapping[str, Any], now: float) -> Mute | None:
        """Return the mute that covers an event, given its plain values; of several, the one that ends last."""
        covering = [
            mute
            for mute, selected in self._readable
            if mute.until > now and (selected is None or selected.matches(values))
        ]
        return max(covering, key=lambda mute: mute.until, default=None)


def _read(mute: Mute) -> list[tuple[Mute, EventFilter | None]]:
    try:
        return [(mute, None if mute.where is None else EventFilter(mute.where))]
    except FilterError as error:
        log.warning(
            "sink.mute_cannot_be_read", sink=mute.sink, mute=mute.id, reason=str(error),
            consequence="this process sends what the mute covers",
        )  # fmt: skip
        return []
