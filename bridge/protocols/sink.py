"""What a sink promises: it takes an event, or says why not; and the record by which a plugin offers one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

from pydantic import Field, model_validator

from bridge.domain.clock import Clock
from bridge.domain.event import Event, WireEvent
from bridge.domain.event_view import plain_values
from bridge.domain.filters.event_filter import EventFilter
from bridge.domain.quiet_times import QuietTimes
from bridge.domain.settings import Duration, Settings, TopicPattern

RETRY_SCHEDULE = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
Privacy = Literal["full", "last4", "token"]


@dataclass(slots=True)  # not frozen, as there is one for each event: see `WireEvent`
class Outgoing:
    """One event on its way to one sink, as far as the sink may see it.

    `wire.body` are the bytes to hand on; `event` reads them when asked.
    """

    wire: WireEvent
    attempt: int
    """1 for the first."""
    read: Callable[[bytes], Event]

    @property
    def event(self) -> Event:
        """Return the event, typed."""
        return self.read(self.wire.body)


class Sink(Protocol):
    """Gives one event at a time to the outside world.

    `send` returns when the endpoint has accepted the event, or raises `Transient` (with the wait that it asked for)
    or `Permanent`. It may be called many times at once, up to the sink's `concurrency`, and is cancelled when the
    process has to end. Error texts are fit for a log: no secrets, no personal data, no URL with a token in it.
    """

    async def open(self) -> None:
        """Get ready; called once, before anything is sent."""
        ...

    async def send(self, outgoing: Outgoing) -> None:
        """Give one event away."""
        ...

    async def probe(self) -> str:
        """Say in one line where events go, without sending any; raises as `send` does."""
        ...

    async def close(self) -> None:
        """Give back connections; what is still being sent was cancelled before."""
        ...


@runtime_checkable
class HasPreview(Protocol):
    """A sink that can say what it would send."""

    def preview(self, outgoing: Outgoing) -> Mapping[str, Any]:
        """Return what an event would become, as plain values without secrets; sends nothing, and raises as `send`."""
        ...


class SinkSettings(Settings):
    """What every sink can be told; a plugin's own settings extend this."""

    type: str
    """The name of the installed sink."""
    topics: list[TopicPattern] = Field(min_length=1)
    """Which events: exact words, `*` for one word, a final `#` for none or more."""
    where: EventFilter | None = None
    """Which of these, by their content: a filter, or a list of filters that all have to hold."""
    max_age: Duration | None = Field(default=None, gt=0)
    """An event that was recorded longer ago than this is not sent any more, and counts as expired."""
    expired: Literal["drop", "summary"] = "drop"
    """What is told of expired events: nothing, or one event a minute with their number (`bridge.delivery.expired`)."""
    quiet: QuietTimes | None = None
    """Times of the week in which nothing is sent, and events wait: `22:00-07:00 Europe/Paris`, or a list of such."""
    quiet_except: EventFilter | None = None
    """Which events are sent in quiet times, too: a filter as in `where`."""
    concurrency: int = Field(default=16, ge=1, le=10000)
    """How many events are being sent at once."""
    ordered: bool = False
    """One at a time for each partitionkey, in the order in which they happened."""
    retry: list[Duration] = Field(default_factory=lambda: list(RETRY_SCHEDULE))
    """The waits between tries; after the last one the event is a dead letter."""
    privacy: Privacy = "full"
    """What this sink may see of phones and keys: all, the last four digits, or a stable token."""
    send_timeout: Duration = Field(default=30.0, gt=0)
    """How long one try may take before it counts as failed."""

    alarm_after: int = Field(default=10, ge=0)
    """After so many failures in a row SinkFailing is published; 0 is never."""

    @model_validator(mode="after")
    def _has_what_it_refers_to(self) -> Self:
        if self.expired == "summary" and self.max_age is None:
            raise ValueError("expired: needs max_age, without which nothing expires; add max_age: 6h")
        if self.quiet_except is not None and self.quiet is None:
            raise ValueError("quiet_except: needs quiet, without which there is nothing to except; add quiet")
        return self

    def filter_selects(self, event: WireEvent) -> bool:
        """Say whether the filter selects an event; without a filter, each.

        A body that is no JSON object is for the sink to refuse: no filter drops it.
        """
        if self.where is None:
            return True
        values = plain_values(event.body)
        return not values or self.where.matches(values)


@dataclass(frozen=True, slots=True)
class SinkPlugin:
    """What an entry point of `bridge.sinks` names: settings and constructor, each once."""

    settings: type[SinkSettings]
    build: Callable[[str, Any, Clock], Sink]
    """Called with the sink's name, its validated settings and the clock; has no side effects."""
    summary: str = ""
    for_people: bool = False
    """Whether people read what it sends, so that a first configuration spares them what was there before."""
    new_secrets: Callable[[], Mapping[str, str]] = dict
    """Makes the secrets that a first configuration gets for it, by key: those that the two ends agree on."""
    settings_for: Callable[[Mapping[str, Any], Path], type[SinkSettings]] | None = None
    """For a plugin whose settings depend on what a sink is told: the model for the values of one sink, in a
    configuration that lies in a folder. Raises `ValueError` that begins with the key, a colon and a blank, and
    `ConfigError` with what is wrong with another file."""
    prints: Callable[[Any], bool] | bool = False
    """Whether it writes on standard output, or what tells that from its validated settings: a command's own answer then
    goes to standard error."""

    def is_printing(self, settings: Any) -> bool:
        """Say whether a sink with these settings writes on standard output."""
        return self.prints(settings) if callable(self.prints) else self.prints
