"""Whether an event is sent now: an operator may have muted it, it may be too old, or it may be a quiet time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal

import structlog

from bridge.coordination.mutes import Mutes
from bridge.delivery.claims import ClaimedDelivery, Claims
from bridge.domain.catalogue import DeliveryExpired
from bridge.domain.clock import Clock
from bridge.domain.event import INTERNAL_CHANNEL, Position, WireEvent
from bridge.domain.event_view import plain_values
from bridge.domain.quiet_times import QuietTime
from bridge.protocols.sink import SinkSettings
from bridge.protocols.unsent import Unsent, UnsentDelivery

log = structlog.get_logger()

TOTALS_TOPIC = DeliveryExpired.type_on(INTERNAL_CHANNEL).removeprefix("bridge.")
"""The topic of the event that tells totals; totals of such events are not told, or each would be told of in turn."""
_SPREAD_SECONDS = 5.0
"""Seconds behind the end of a quiet time within which what has waited becomes due, in order."""
_STEP_SECONDS = 2.0**-21
"""Seconds between two that become due: twice the least difference that a time of this century can have."""

CountUnsent = Callable[[str, int], None]
"""Hears how many deliveries were ended unsent, and why: `expired` or `muted`."""


def uncounted(_: str, _number: int) -> None:
    """Hear how many deliveries were ended unsent, and do nothing."""


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why an event is not sent now."""

    kind: Literal["quiet", "expired", "muted"]
    mute: str = ""


@dataclass(frozen=True, slots=True)
class Hindered:
    """A claimed delivery that is not sent now, and why."""

    claimed: ClaimedDelivery
    hindrance: Hindrance


class SendTimes:
    """Decides for each event of one sink at the moment at which it would be sent, and writes down what is not.

    What is muted ends as filtered, and what is too old as expired. In a quiet time an event waits for its end.
    """

    def __init__(
        self, sink: str, settings: SinkSettings, mutes: Mutes, claims: Claims, clock: Clock, count: CountUnsent
    ) -> None:
        self._sink = sink
        self._settings = settings
        self._mutes = mutes
        self._claims = claims
        self._clock = clock
        self._count = count
        self._last: tuple[datetime | None, float] = (None, 0.0)
        """The end of the quiet time, and the last time after it at which a delivery of this process is due."""

    @property
    def is_open(self) -> bool:
        """Whether nothing hinders any event now."""
        return self._settings.max_age is None and not self._mutes and self._quiet() is None

    def lets(self, event: WireEvent) -> bool:
        """Say whether an event is sent now."""
        return self.is_open or self._hindrance(event) is None

    def divide(self, claimed: Iterable[ClaimedDelivery]) -> tuple[list[ClaimedDelivery], list[Hindered]]:
        """Return what is sent now, in order, and what is not."""
        ready: list[ClaimedDelivery] = []
        hindered: list[Hindered] = []
        for item in claimed:
            if (hindrance := self._hindrance(item.event)) is None:
                ready.append(item)
            else:
                hindered.append(Hindered(item, hindrance))
        return ready, hindered

    def writes(self, hindered: Sequence[Hindered]) -> list[Callable[[], Awaitable[None]]]:
        """Return what writes down all that is not sent now, and releases the claims; each may be called again."""
        groups: dict[tuple[Hindrance, bool], list[ClaimedDelivery]] = {}
        for item in hindered:
            is_totals = item.claimed.event.topic == TOTALS_TOPIC
            groups.setdefault((item.hindrance, is_totals), []).append(item.claimed)
        return [
            partial(self._wait, claimed)
            if hindrance.kind == "quiet"
            else partial(self._end, hindrance, claimed, is_totalled=self._settings.expired == "summary" and not totals)
            for (hindrance, totals), claimed in groups.items()
        ]

    def _quiet(self) -> QuietTime | None:
        quiet = self._settings.quiet
        return None if quiet is None else quiet.at(self._clock.now())

    def _hindrance(self, event: WireEvent) -> Hindrance | None:
        values, now = plain_values(event.body), self._clock.epoch()
        if self._mutes and (mute := self._mutes.of(values, now)) is not None:
            return Hindrance("muted", mute.id)
        max_age, recorded = self._settings.max_age, _recorded(values)
        if max_age is not None and recorded is not None and now - recorded > max_age:
            return Hindrance("expired")
        if self._quiet() is None:
            return None
        excepted = self._settings.quiet_except
        return None if excepted is not None and excepted.matches(values) else Hindrance("quiet")

    async def _wait(self, claimed: Sequence[ClaimedDelivery]) -> None:
        await self._claims.wait_until(self._dues(claimed))

    def _dues(self, claimed: Sequence[ClaimedDelivery]) -> list[tuple[Position, float]]:
        """Return when each is due: behind the end of the quiet time, in the order in which they came.

        What is due at one moment comes in any order. So each process counts on; and as the time goes by, it begins
        further back, for a process that has restarted and for one that came later.
        """
        quiet, now = self._quiet(), self._clock.now()
        if quiet is None:  # it has ended just now
            return [(item.position, self._clock.epoch()) for item in claimed]
        share = (now - quiet.begin) / (quiet.end - quiet.begin)
        after = max(share * _SPREAD_SECONDS, self._last[1] if self._last[0] == quiet.end else 0.0)
        dues = []
        for item in sorted(claimed, key=lambda item: item.position):
            after += _STEP_SECONDS
            dues.append((item.position, quiet.end.timestamp() + after))
        self._last = (quiet.end, after)
        return dues

    async def _end(self, hindrance: Hindrance, claimed: Sequence[ClaimedDelivery], *, is_totalled: bool) -> None:
        is_expired = hindrance.kind == "expired"
        unsent = Unsent("expired" if is_expired else "muted", self._clock.epoch(), hindrance.mute)
        deliveries = [
            UnsentDelivery(item.position, item.event.topic, _recorded(plain_values(item.event.body)))
            for item in claimed
        ]
        number = await self._claims.end_unsent(deliveries, unsent, is_totalled=is_expired and is_totalled)
        self._count(unsent.kind, number)
        first, consequence = str(claimed[0].position), "not sent; the books count it, and `bridgectl replay` sends it"
        if is_expired:
            log.info("delivery.expired", sink=self._sink, events=number, first=first, consequence=consequence)
        else:
            log.info(
                "delivery.muted", sink=self._sink, events=number, first=first, mute=hindrance.mute,
                consequence=consequence,
            )  # fmt: skip


def _recorded(values: Mapping[str, Any]) -> float | None:
    """Return when an event was recorded, or happened if it does not say; None if it says neither."""
    for name in ("recordedtime", "time"):
        try:
            moment = datetime.fromisoformat(str(values.get(name)))
        except ValueError:
            continue
        if moment.tzinfo is not None:
            return moment.timestamp()
    return None
