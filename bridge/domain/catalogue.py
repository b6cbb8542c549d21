"""The events of the bridge itself, `UnknownStatus`, and the catalogue that finds the class of an event."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import cached_property
from typing import Any

from pydantic import (
    Field,
    ValidationError,
)

from bridge.domain.errors import Permanent
from bridge.domain.event import (
    INTERNAL_CHANNEL,
    SCHEMAS,
    Data,
    Event,
    Observed,
    Transition,
    UnmappedFields,
    event_id,
)
from bridge.domain.times import Time


class UnknownData(Data):
    """A resource in a status that no table knows; all that was read of it is in `provider`."""

    provider_status: str | int | None = None
    """The provider's own value."""
    provider: UnmappedFields = Field(default_factory=dict)


class SourceData(Data):
    """A source of the bridge itself."""

    failures: int = 0
    """Polls that failed in a row."""
    since: Time | None = None
    """When the first of them failed."""
    reason: str | None = None
    """Why the polls failed; of a recovery, null."""


class SinkData(Data):
    """A sink of the bridge itself."""

    reason: str | None = None
    """Why the sink was disabled; of a recovery, null."""


class DeliveryData(Data):
    """Deliveries of one sink of the bridge."""

    sink: str
    count: int
    """How many there were."""
    oldest: Time | None = None
    """When the first of their events was recorded."""
    newest: Time | None = None
    topics: dict[str, int] = Field(default_factory=dict)
    """How many there were of each topic; of more than 128 topics, some are not named."""
    reason: str | None = None
    """Why they were not sent, with their number, for a person."""


class BooksData(Data):
    """A resource of which the provider says something else than the bridge knows, and has done so for a while."""

    what: str
    """`missing` (the bridge has never seen it), `status`, `gone` (the provider does not show it any more) or `withheld`
    (the provider counts it and does not list it)."""
    provider_says: str | None = None
    ledger_says: str | None = None
    """The last status that the bridge has seen."""
    since: Time | None = None
    """When the difference was found first."""


# --- any provider, and the bridge itself ------------------------------------------------------------------------------


class UnknownStatus(Event):
    """A status that no table knows; the provider's own value is in the data."""

    channels = ("sms", "voice", "voicemail")
    entity = ""
    status = "unknown"
    data: UnknownData


_UNKNOWN: dict[str, type[UnknownStatus]] = {}


def unknown_status(entity: str) -> type[UnknownStatus]:
    """Return `UnknownStatus` for one entity: the third word of its type comes from the resource."""
    if entity not in _UNKNOWN:
        _UNKNOWN[entity] = type("UnknownStatus", (UnknownStatus,), {"entity": entity, "__doc__": UnknownStatus.__doc__})
    return _UNKNOWN[entity]


class SourceEvent(Event):
    """A source of the bridge changed its own state."""

    channels = ("bridge",)
    entity = "source"
    provider = "bridge"
    data: SourceData


class SourceStalled(SourceEvent):
    """A source failed for longer than its `stall_after`."""

    status = "stalled"


class SourceRecovered(SourceEvent):
    """A stalled source answered again."""

    status = "recovered"


class SinkEvent(Event):
    """A sink of the bridge changed its own state."""

    channels = ("bridge",)
    entity = "sink"
    provider = "bridge"
    data: SinkData


class SinkDisabled(SinkEvent):
    """A sink's endpoint failed many times in a row, or said that it is gone; its events wait."""

    status = "disabled"


class SinkRecovered(SinkEvent):
    """A disabled sink takes events again."""

    status = "recovered"


class DeliveryEvent(Event):
    """Something became of deliveries of a sink."""

    channels = ("bridge",)
    entity = "delivery"
    provider = "bridge"
    data: DeliveryData


class DeliveryExpired(DeliveryEvent):
    """Events were older than their sink's `max_age`, and were not sent to it; the subject is the sink."""

    status = "expired"


class BooksEvent(Event):
    """The books of a source and its provider do not agree; the subject is the resource in question."""

    channels = ("bridge",)
    entity = "books"
    provider = "bridge"
    data: BooksData


class BooksMismatch(BooksEvent):
    """The provider's own account of a resource differs from ours, at two checks in a row."""

    status = "mismatch"


def internal_event(
    cls: type[Event],
    data: type[Data],
    *,
    source: str,
    subject: str,
    occurrence: str,
    now: datetime,
    after: datetime | None = None,
    previous: str | None = None,
    transition: Transition = Transition.ADVANCE,
    **fields: Any,
) -> Event:
    """Return an event of the bridge itself, which happened and is recorded at `now`.

    `occurrence` makes the id: the same occurrence published again has the same id. `after` begins the interval in which
    the change happened. `fields` are those of the data class `data` that not every event has.
    """
    return cls.of(
        id=event_id(source, subject, cls.status, occurrence),
        source=source,
        subject=subject,
        time=now,
        recordedtime=now,
        data=data(
            channel=INTERNAL_CHANNEL,
            status=cls.status,
            previous=previous,
            transition=transition,
            observed=Observed(after=after, by=now),
            **fields,
        ),
    )


INTERNAL_EVENTS: tuple[type[Event], ...] = (
    UnknownStatus,
    SourceStalled, SourceRecovered, SinkDisabled, SinkRecovered, DeliveryExpired,
    BooksMismatch,
)  # fmt: skip
"""The events that belong to no provider, in the order in which a reader wants them."""


class Catalogue:
    """Finds the class of a type; sources of other distributions may bring classes of their own."""

    def __init__(self, types: Iterable[type[Event]]) -> None:
        self.types = tuple(types)

    @cached_property
    def _by_schema(self) -> dict[str, type[Event]]:
        return {cls.schema_name(): cls for cls in self.types}

    def read(self, body: bytes | str) -> Event:
        """Return the typed event in `body`; a type that is not in the catalogue comes as a plain `Event`.

        Raises `Permanent` when `body` is not a CloudEvent of ours; the text quotes nothing of it.
        """
        try:
            plain = Event.model_validate_json(body)
            name = plain.dataschema.removeprefix(SCHEMAS).partition("/")[0]
            cls = self._by_schema.get(name)
            return plain if cls is None else cls.model_validate_json(body)
        except ValidationError as error:
            places = ", ".join(".".join(map(str, item["loc"])) or "the body" for item in error.errors()[:3])
            raise Permanent(f"not a CloudEvent that the bridge knows: {places} cannot be read") from None
