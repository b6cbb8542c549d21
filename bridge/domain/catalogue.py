"""The events of the bridge itself, `UnknownStatus`, and the catalogue that finds the class of an event."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import cached_property
from operator import not_
from typing import Annotated, Any

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
    EventModel,
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
    """When the first of them failed; of a quiet source, when its last event was recorded."""
    reason: str | None = None
    """Why the polls failed, or what is expected of a quiet source; of a recovery, null."""


class SinkData(Data):
    """A sink of the bridge itself."""

    reason: str | None = None
    """Why the sink is failing or was disabled; of a recovery, null."""
    failures: Annotated[int, Field(exclude_if=not_)] = 0
    """Of a failing sink, how many times in a row its endpoint has failed; else it is left out."""


class DeadLetter(EventModel):
    """One event that a sink does not get; nothing of its data is here."""

    position: str
    """Where the event stands: the name of a journal, a colon, and the number in it."""
    id: str
    """The event's id; empty if the journal does not have it any more."""
    topic: str
    """The event's topic; empty if the journal does not have it any more."""
    reason: str
    """`permanent`, `exhausted`, `malformed` or `expired`, as `bridgectl deliveries list` has it."""


class DeadLettersData(Data):
    """Dead letters of one sink, at most 100 in an event."""

    sink: str
    dead: list[DeadLetter] = Field(default_factory=list)
    """The dead letters, the oldest first."""


class ExpiryData(Data):
    """Events of one sink that were too old to be sent."""

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


class SourceQuiet(SourceEvent):
    """The polls go well, and a source has found nothing new for `expect.activity_within`."""

    status = "quiet"


class SourceActive(SourceEvent):
    """A quiet source has found something new."""

    status = "active"


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
    """A sink that was failing or disabled takes events again."""

    status = "recovered"


class SinkFailing(SinkEvent):
    """A sink's endpoint has failed `alarm_after` times in a row; what it did not accept is tried again."""

    status = "failing"


class DeliveryEvent(Event):
    """Something became of deliveries to a sink."""

    channels = ("bridge",)
    entity = "delivery"
    provider = "bridge"


class DeliveryExpired(DeliveryEvent):
    """Events were older than their sink's `max_age`, and were not sent to it; the subject is the sink."""

    status = "expired"
    data: ExpiryData


class DeliveryDead(DeliveryEvent):
    """Events became dead letters: the sink does not get them unless somebody redrives them."""

    status = "dead"
    data: DeadLettersData


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
    SourceStalled, SourceRecovered, SourceQuiet, SourceActive, SinkFailing, SinkDisabled, SinkRecovered,
    DeliveryDead, DeliveryExpired, BooksMismatch,
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
