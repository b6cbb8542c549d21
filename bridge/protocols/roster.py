"""Which processes run, and what operators order: one announcement says the first and is answered with the second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from bridge.domain.times import rfc3339, truncate_to_millis

PartKind = Literal["source", "sink"]


@dataclass(frozen=True, slots=True)
class OpenCircuit:
    """A process sends nothing to a sink but a probe now and then, because its endpoint failed many times in a row."""

    since: float
    """Seconds since 1970."""
    reason: str
    """Fit for a log."""


@dataclass(frozen=True, slots=True)
class Member:
    """What a process says of itself."""

    owner: str
    """The name under which it holds leases; no other process has it."""
    host: str
    pid: int
    roles: tuple[str, ...]
    version: str
    generation: str
    """Tells one configuration from another: processes with the same settings have the same."""
    since: float
    """When it started, in seconds since 1970."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """What its `/readyz` names, with the reasons."""
    circuits: Mapping[str, OpenCircuit] = field(default_factory=dict)
    """The sinks whose circuit is open in this process."""
    steady: float = 0.0
    """Seconds for which it had announced itself without a gap when it said this."""
    accounts: Sequence[str] | None = None
    """The leases of the accounts that it can poll; None is said by a version that does not share them out."""
    share: Sequence[str] = ()
    """Which of these it polls, or waits for."""
    share_reason: str = ""
    """How this share comes about."""
    is_leaving: bool = False
    """It ends, and gives its leases back."""


@dataclass(frozen=True, slots=True)
class Presence:
    """A process as the store knows it."""

    member: Member
    announced: float
    """When it last announced itself, in seconds since 1970 by the clock of the store."""
    age: float
    """Seconds since its last announcement."""
    gone: bool
    """Its last announcement is no longer valid, and it did not leave by itself."""


@dataclass(frozen=True, slots=True)
class Pause:
    """An operator wants a source or a sink to rest until it is resumed."""

    since: float
    """Seconds since 1970."""
    by: str
    """Who paused it: `user@host`."""
    reason: str = ""
    """In the operator's words; empty if none was given."""

    def __str__(self) -> str:
        return f"paused by {self.by}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True)
class Mute:
    """An operator wants events of a sink not to be sent for a time. It ends by itself."""

    id: str
    sink: str
    since: float
    """Seconds since 1970."""
    until: float
    by: str
    """Who muted it: `user@host`."""
    reason: str = ""
    """In the operator's words; empty if none was given."""
    where: Any = None
    """Which events, as a filter is written; None for all."""

    def __str__(self) -> str:
        until = rfc3339(truncate_to_millis(datetime.fromtimestamp(self.until, UTC)))
        return f"muted by {self.by} until {until}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True)
class StartedPoll:
    """A process has begun the poll that an operator asked for."""

    source: str
    request: str
    """The id of the request."""
    owner: str
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What operators want, as the store has it now."""

    pauses: Mapping[str, Pause] = field(default_factory=dict)
    """By part: `source/NAME` or `sink/NAME`."""
    polls: Mapping[str, str] = field(default_factory=dict)
    """The ids of requests for a poll that no process has begun, by source."""
    started: Mapping[str, StartedPoll] = field(default_factory=dict)
    """The last request of each source that a process has begun."""
    mutes: Mapping[str, Mute] = field(default_factory=dict)
    """By id; also those that have ended and were not forgotten yet."""

    def lasting_mutes(self, now: float, sink: str | None = None) -> list[Mute]:
        """Return the mutes, of one sink or of all, that have not ended, those that end first at the front."""
        lasting = [mute for mute in self.mutes.values() if mute.until > now and sink in (None, mute.sink)]
        return sorted(lasting, key=lambda mute: (mute.until, mute.id))


@dataclass(frozen=True, slots=True)
class RosterAnswer:
    """What a process hears when it announces itself."""

    orders: Orders = field(default_factory=Orders)
    presences: Sequence[Presence] = ()
    """All processes by the time at which they started, with itself."""


class Roster(Protocol):
    """The processes of one store, and the orders for them. Every method raises `Unavailable` without the store."""

    async def announce(self, member: Member, ttl: float, started: Sequence[StartedPoll] = ()) -> RosterAnswer:
        """Say for `ttl` seconds that a process runs; return the orders, and who else runs. It is one round trip.

        A request that is among `started` is no longer among the polls of the answer. A process that neither announces
        itself again nor leaves is shown as gone for an hour.
        """
        ...

    async def leave(self, owner: str) -> None:
        """Forget a process that ends in good order."""
        ...

    async def presences(self) -> Sequence[Presence]:
        """Return the processes by the time at which they started; writes nothing."""
        ...

    async def orders(self) -> Orders:
        """Return the orders; writes nothing."""
        ...

    async def pause(self, part: str, pause: Pause) -> bool:
        """Have a part rest until it is resumed; False if it is paused already, and stays so as it was."""
        ...

    async def resume(self, part: str) -> bool:
        """Have a part work again; False if it was not paused."""
        ...

    async def keep_mute(self, mute: Mute) -> None:
        """Keep a mute, in the place of one with the same id."""
        ...

    async def forget_mute(self, id: str) -> None:  # noqa: A002 - what the mute calls it
        """Forget a mute."""
        ...

    async def request_poll(self, source: str, request: str) -> None:
        """Ask the process that polls a source to do so now; a new request replaces an older one."""
        ...

    async def withdraw_poll(self, source: str, request: str) -> bool:
        """Take a request back; False if a process has begun it, or another request has replaced it."""
        ...
