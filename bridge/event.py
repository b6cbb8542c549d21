"""The vocabulary: one class for each status transition, and the CloudEvents form in which it travels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property, lru_cache
from operator import not_
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from bridge import topics
from bridge.errors import Permanent

SCHEMAS = "urn:bridge:schemas/"
CONTENT_TYPE = "application/cloudevents+json"
OWN_CHANNEL = "bridge"
"""The channel of events that tell of the bridge itself."""


class Transition(StrEnum):
    """How a status was reached, seen from the one before it."""

    FIRST = "first"
    """The resource was not known before."""
    ADVANCE = "advance"
    """The next status of its lifecycle."""
    SKIP = "skip"
    """A later status; those between were passed between two polls."""
    REGRESS = "regress"
    """An earlier status of its lifecycle."""
    REOPEN = "reopen"
    """Out of a final status."""
    UNKNOWN = "unknown"
    """Into a status that no table knows."""


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is UTC:
        return moment  # and the same object, whose hash is known by now
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset from UTC")
    return moment.astimezone(UTC)


@lru_cache(maxsize=2048)  # the times of one page, and those of one wave of a provider, are mostly the same
def rfc3339(moment: datetime) -> str:
    """Return `moment` in UTC as RFC 3339 text, with as much of a second as it has: `2013-03-15T21:11:20.114Z`."""
    moment = moment.astimezone(UTC)
    micros = moment.microsecond
    timespec = "seconds" if not micros else "microseconds" if micros % 1000 else "milliseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"


def sortable(moment: datetime) -> str:
    """Return `moment` as `rfc3339` does, and always with milliseconds: such texts sort as their times do."""
    text = rfc3339(moment)
    return text if "." in text else f"{text.removesuffix('Z')}.000Z"


def milliseconds(moment: datetime) -> datetime:
    """Return `moment` cut to milliseconds: more is noise in a time of ours."""
    beyond = moment.microsecond % 1000
    return moment.replace(microsecond=moment.microsecond - beyond) if beyond else moment


Time = Annotated[datetime, AfterValidator(_utc), PlainSerializer(rfc3339, when_used="json")]
RecordedTime = Annotated[datetime, AfterValidator(_utc), PlainSerializer(sortable, when_used="json")]


class Model(BaseModel):
    """Base of all that travels: frozen, and open to fields that a later version adds."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)


class Observed(Model):
    """The interval in which the change happened, as far as polling can know."""

    after: Time | None
    """When the resource was last seen before the change; null where it was never looked for before."""
    by: Time
    """When the answer that showed the change had arrived."""


Unread = Annotated[dict[str, Any], Field(exclude_if=not_)]
"""What no field of a model has taken; left out where there is none."""


class Data(Model):
    """What every event says."""

    channel: str
    status: str
    previous: str | None = None
    """The status before this one; null at first sight."""
    detail: str | None = None
    transition: Transition
    observed: Observed | None = None


class RecipientData(Data):
    """One recipient of a GovDelivery message."""

    message: str
    """The path of its message."""
    phone: str | None = None
    """E.164 where the provider gives it."""
    error: str | None = None
    created_at: Time | None = None
    completed_at: Time | None = None
    provider: Unread = Field(default_factory=dict)
    """Fields of the answer that no model knows."""


class MessageData(Data):
    """One GovDelivery message."""

    recipient_counts: dict[str, int] | None = None
    recipient_detail_counts: dict[str, int] | None = None
    """Voice only."""
    created_at: Time | None = None
    completed_at: Time | None = None
    provider: Unread = Field(default_factory=dict)
    """Fields of the answer that no model knows."""


class DropData(Data):
    """One Spacivox record: a voicemail drop, a text or an e-mail."""

    phone: str | None = None
    campaign: int | str | None = None
    job: int | str | None = None
    team: int | str | None = None
    reference: str | None = None
    """The customer's own reference; unique within a campaign only."""
    state: int | str | None = None
    """The provider's own value."""
    timestamp: Time | None = None
    provider: Unread = Field(default_factory=dict)
    """Fields of the answer that no model knows."""


class SendData(Data):
    """One TransactionalSendEvent of Marketing Cloud."""

    event_id: int | str | None = None
    code: int | str | None = None
    """The provider's `statusCode`."""
    reason: str | None = None
    """The provider's `statusMessage`."""
    definition: str | None = None
    message_key: str | None = None
    contact_key: str | None = None
    phone: str | None = None
    provider_time: str | None = None
    """The provider's `timestamp` as it stood: Central Standard Time, always UTC-06:00."""
    provider: Unread = Field(default_factory=dict)
    """Fields of the answer that no model knows."""


class UnknownData(Data):
    """A resource in a status that no table knows; all that was read of it is in `provider`."""

    provider_status: str | int | None = None
    """The provider's own value."""
    provider: Unread = Field(default_factory=dict)


class SourceData(Data):
    """A source of the bridge itself."""

    failures: int = 0
    """Polls that failed in a row."""
    since: Time | None = None
    """When the first of them failed."""
    reason: str | None = None


class SinkData(Data):
    """A sink of the bridge itself."""

    reason: str | None = None


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


@lru_cache(maxsize=1024)
def kebab(name: str) -> str:
    """Return a class name as its schema's name: `SMSNotSent` is `sms-not-sent`."""
    out = []
    for index, char in enumerate(name):
        after_lower = index > 0 and (name[index - 1].islower() or name[index - 1].isdigit())
        before_lower = index > 0 and index + 1 < len(name) and name[index + 1].islower() and name[index - 1] != "-"
        if char.isupper() and (after_lower or before_lower):
            out.append("-")
        out.append(char.lower())
    return "".join(out)


class Event(Model):
    """One status transition of one resource, as a CloudEvent 1.0.

    `id` is a function of the occurrence: the same occurrence seen again, by another replica or after a crash, has the
    same id. Subclasses name the transition; they are made of three words: the channels, the entity and the status. A
    class whose words are not lower snake case cannot be made: no subscription could name its topic.
    """

    channels: ClassVar[tuple[str, ...]] = ()
    entity: ClassVar[str] = ""
    status: ClassVar[str] = ""
    details: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """For each channel, the words that may follow the status in the topic."""
    provider: ClassVar[str] = ""
    version: ClassVar[int] = 1

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: Time
    recordedtime: RecordedTime
    partitionkey: str
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: str
    data: Data

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        details = [word for words in cls.details.values() for word in words]
        for word in (*cls.channels, cls.entity, cls.status, *details):
            if word and not topics.is_word(word):
                raise ValueError(f"{cls.__name__}: {word!r} cannot stand in a topic; use lower snake case")

    @classmethod
    def schema_name(cls) -> str:
        """Return the last part of `dataschema`: `recipient-failed`."""
        return kebab(cls.__name__)

    @classmethod
    def schema_uri(cls) -> str:
        """Return what events of this class have as `dataschema`."""
        return f"{SCHEMAS}{cls.schema_name()}/{cls.version}"

    @classmethod
    def type_on(cls, channel: str) -> str:
        """Return what events of this class have as `type` in a channel."""
        return f"bridge.{channel}.{cls.entity or 'resource'}.{cls.status}"

    @property
    def topic(self) -> str:
        """The routing key: the type without its prefix, and the detail where there is one."""
        stem = self.type.removeprefix("bridge.")
        return f"{stem}.{self.data.detail}" if self.data.detail else stem

    @classmethod
    def of(
        cls,
        *,
        id: str,  # noqa: A002 - the attribute's name in CloudEvents
        source: str,
        subject: str,
        time: datetime,
        recordedtime: datetime,
        data: Data,
    ) -> Self:
        """Make the event of this class; type and schema follow from the class and the channel in `data`."""
        return cls(
            id=id,
            source=source,
            type=cls.type_on(data.channel),
            subject=subject,
            time=time,
            recordedtime=milliseconds(recordedtime),
            partitionkey=subject,
            dataschema=cls.schema_uri(),
            data=data,
        )

    def to_wire(self) -> WireEvent:
        """Return the event as it travels; the bytes are the same on every broker and in every webhook."""
        return WireEvent(
            id=self.id, topic=self.topic, time=unix_seconds(self.time), body=self.model_dump_json().encode()
        )


@lru_cache(maxsize=2048)
def unix_seconds(moment: datetime) -> int:
    """Return whole seconds since 1970, and 0 before: AMQP knows no earlier time."""
    return max(0, int(moment.timestamp()))


@dataclass(slots=True)  # not frozen, which would make each three times as dear: there is one for each event
class WireEvent:
    """An event as it travels: the bytes, and what routing needs of them; nobody changes it afterwards."""

    id: str
    topic: str
    time: int
    """The event's `time` in whole seconds since 1970, 0 for what was before, for the AMQP property `timestamp`."""
    body: bytes
    """Structured CloudEvents JSON, UTF-8."""

    @property
    def type(self) -> str:
        """Return the CloudEvents type: the topic's first three words."""
        return type_of(self.topic)


def type_of(topic: str) -> str:
    """Return the CloudEvents type of the events of a topic."""
    return "bridge." + ".".join(topic.split(".", 3)[:3])


class Position(NamedTuple):
    """Where an event stands: the journal of a source, and the number in it."""

    source: str
    seq: int

    def __str__(self) -> str:
        return f"{self.source}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what `str` wrote; raises `ValueError`."""
        source, _, seq = text.rpartition(":")
        if not source:
            raise ValueError(f"{text!r} is not a journal position")
        return cls(source, int(seq))


@dataclass(slots=True)  # not frozen: see `WireEvent`
class Entry:
    """One line of the journal; nobody changes it afterwards."""

    position: Position
    event: WireEvent


# --- GovDelivery TMS: messages and their recipients -------------------------------------------------------------------


class MessageEvent(Event):
    """A message itself moved; it carries its recipient counts."""

    channels = ("sms", "voice")
    entity = "message"
    provider = "govdelivery"
    data: MessageData


class MessageNew(MessageEvent):
    """The message has been created."""

    status = "new"


class MessageQueued(MessageEvent):
    """The message has been queued for sending."""

    status = "queued"


class MessageSending(MessageEvent):
    """The message has begun sending."""

    status = "sending"


class MessageCompleted(MessageEvent):
    """All recipients have positive confirmation or have expired; single recipients may still change."""

    status = "completed"


class MessageCanceled(MessageEvent):
    """The message was canceled."""

    status = "canceled"


class RecipientEvent(Event):
    """One recipient of a message moved."""

    channels = ("sms", "voice")
    entity = "recipient"
    provider = "govdelivery"
    data: RecipientData


class RecipientNew(RecipientEvent):
    """The recipient has not been sent."""

    status = "new"


class RecipientSending(RecipientEvent):
    """The recipient has been sent, but no delivery information has been obtained."""

    status = "sending"


class RecipientSent(RecipientEvent):
    """The recipient has been confirmed as sent; of a call, whether a human or a machine answered."""

    status = "sent"
    details = {"voice": ("human", "machine")}


class RecipientFailed(RecipientEvent):
    """The recipient has been confirmed as failed; of a call, why."""

    status = "failed"
    details = {"voice": ("busy", "no_answer", "could_not_connect")}


class RecipientInconclusive(RecipientEvent):
    """No result was to be had so far; not final."""

    status = "inconclusive"


class RecipientBlacklisted(RecipientEvent):
    """The recipient is on the blacklist."""

    status = "blacklisted"


class RecipientCanceled(RecipientEvent):
    """The recipient was canceled."""

    status = "canceled"


# --- Spacivox: voicemail drops, and its sister records ----------------------------------------------------------------


class VoicemailEvent(Event):
    """One voicemail drop moved."""

    channels = ("voicemail",)
    entity = "drop"
    provider = "spacivox"
    data: DropData


class VoicemailSent(VoicemailEvent):
    """State 0: sent, where a drop starts."""

    status = "sent"


class VoicemailDelivered(VoicemailEvent):
    """State 1: delivered."""

    status = "delivered"


class VoicemailFailed(VoicemailEvent):
    """State 2: failed."""

    status = "failed"


class VoicemailRejected(VoicemailEvent):
    """State 3: rejected."""

    status = "rejected"


# --- Salesforce Marketing Cloud: TransactionalSendEvents --------------------------------------------------------------


class SMSSendEvent(Event):
    """One TransactionalSendEvent of an SMS."""

    channels = ("sms",)
    entity = "message"
    provider = "marketingcloud"
    data: SendData


class SMSNotSent(SMSSendEvent):
    """The message was not sent; the reason is in the data."""

    status = "not_sent"


class SMSSent(SMSSendEvent):
    """The message was sent for delivery."""

    status = "sent"


class SMSQueued(SMSSendEvent):
    """The SMS has not yet been processed for sending."""

    status = "queued"


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
    """A sink's far side failed many times in a row, or said that it is gone; its events wait."""

    status = "disabled"


class SinkRecovered(SinkEvent):
    """A disabled sink takes events again."""

    status = "recovered"


class BooksEvent(Event):
    """The books of a source and its provider do not agree; the subject is the resource in question."""

    channels = ("bridge",)
    entity = "books"
    provider = "bridge"
    data: BooksData


class BooksMismatch(BooksEvent):
    """The provider's own account of a resource differs from ours, at two checks in a row."""

    status = "mismatch"


CATALOGUE: tuple[type[Event], ...] = (
    MessageNew, MessageQueued, MessageSending, MessageCompleted, MessageCanceled,
    RecipientNew, RecipientSending, RecipientSent, RecipientInconclusive, RecipientBlacklisted, RecipientCanceled,
    RecipientFailed,
    VoicemailSent, VoicemailDelivered, VoicemailFailed, VoicemailRejected,
    SMSNotSent, SMSSent, SMSQueued,
    UnknownStatus,
    SourceStalled, SourceRecovered, SinkDisabled, SinkRecovered,
    BooksMismatch,
)  # fmt: skip
"""Every event that the bridge and its own providers make, in the order in which a reader wants them."""


def occurrence_id(source: str, subject: str, status: str, occurrence: int | str) -> str:
    """Return the id of one occurrence: 32 hexadecimal digits, the same wherever and whenever it is computed.

    `occurrence` tells apart several entries into one status: how often it was entered before, or the provider's own id.
    """
    text = "\0".join((source, subject, status, str(occurrence)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Catalogue:
    """Finds the class of a type; sources of other distributions may bring classes of their own."""

    def __init__(self, types: Iterable[type[Event]] = CATALOGUE) -> None:
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
