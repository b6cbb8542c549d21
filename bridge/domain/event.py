"""The vocabulary: one class for each status transition, and the CloudEvents form in which it travels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from operator import not_
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from bridge.domain import topics
from bridge.domain.times import RecordedTime, Time, truncate_to_millis, unix_seconds

SCHEMAS = "urn:bridge:schemas/"
CONTENT_TYPE = "application/cloudevents+json"
INTERNAL_CHANNEL = "bridge"
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


class EventModel(BaseModel):
    """Base of all that travels: frozen, and open to fields that a later version adds."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)


class Observed(EventModel):
    """The interval in which the change happened, as far as polling can know."""

    after: Time | None
    """When the resource was last seen before the change; null where it was never looked for before."""
    by: Time
    """When the answer that showed the change had arrived."""
    pushed: Annotated[Time | None, Field(exclude_if=not_)] = None
    """When the provider pushed that there was news, if that is why it was looked at; else it is left out."""


UnmappedFields = Annotated[dict[str, Any], Field(exclude_if=not_)]
"""What no field of a model has read; left out if there is nothing."""


class Data(EventModel):
    """What every event says."""

    channel: str
    status: str
    previous: str | None = None
    """The status before this one; null at first sight."""
    detail: str | None = None
    transition: Transition
    observed: Observed | None = None
    resolves: Annotated[str | None, Field(exclude_if=not_)] = None
    """Of a final status that comes after an overdue event: the id of that event; else it is left out."""


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


class Event(EventModel):
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
            recordedtime=truncate_to_millis(recordedtime),
            partitionkey=subject,
            dataschema=cls.schema_uri(),
            data=data,
        )

    def to_wire(self) -> WireEvent:
        """Return the event as it travels; the bytes are the same on every broker and in every webhook."""
        return WireEvent(
            id=self.id, topic=self.topic, time=unix_seconds(self.time), body=self.model_dump_json().encode()
        )


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
        return type_of_topic(self.topic)


def type_of_topic(topic: str) -> str:
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
class JournalEntry:
    """One line of the journal; nobody changes it afterwards."""

    position: Position
    event: WireEvent


def event_id(source: str, subject: str, status: str, occurrence: int | str) -> str:
    """Return the id of one occurrence: 32 hexadecimal digits, the same wherever and whenever it is computed.

    `occurrence` tells apart several entries into one status: how often it was entered before, or the provider's own id.
    """
    text = "\0".join((source, subject, status, str(occurrence)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
