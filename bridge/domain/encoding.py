"""Events as bytes: the data is checked by its model, and the envelope around it is written in one go.

Making the envelope's model as well would double the cost of an event, and check only what this module itself has put
there. A class that writes its envelope in a way of its own does so: `EventEncoder` then builds the whole event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pydantic_core import to_json

from bridge.domain.event import Data, Event, EventModel, Observed, Transition, WireEvent
from bridge.domain.times import rfc3339, rfc3339_millis, truncate_to_millis, unix_seconds

_OVERRIDES = frozenset({"__init__", "__new__", "model_post_init", "model_dump_json", "of", "to_wire", "topic"})
"""A class of events that defines one of these writes its envelope itself."""


class ObservationTimes:
    """What all events of one answer have in common: when the change happened, as far as it is known, and was noted."""

    __slots__ = ("observed", "recorded", "recorded_text")

    def __init__(
        self, after: datetime | None, by: datetime, recorded: datetime, pushed: datetime | None = None
    ) -> None:
        self.observed = Observed(
            after=None if after is None else truncate_to_millis(after),
            by=truncate_to_millis(by),
            pushed=None if pushed is None else truncate_to_millis(pushed),
        )
        self.recorded = truncate_to_millis(recorded)
        self.recorded_text = rfc3339_millis(self.recorded)


class EventEncoder:
    """Writes the events of one class, source, channel and transition, whose data is a `model`."""

    def __init__(
        self,
        cls: type[Event],
        model: type[Data],
        source: str,
        *,
        channel: str,
        status: str,
        previous: str | None,
        detail: str | None,
        transition: Transition,
    ) -> None:
        self._cls = cls
        self._validate: Callable[[dict[str, Any]], Data] = model.__pydantic_validator__.validate_python
        self._source = source
        self._common = {
            "channel": channel, "status": status, "previous": previous, "detail": detail, "transition": transition,
        }  # fmt: skip
        self._type = cls.type_on(channel)
        self._topic = ".".join(filter(None, (self._type.removeprefix("bridge."), detail)))
        self._schema = cls.schema_uri()
        self._is_plain = _has_plain_envelope(cls, model)

    def encode(
        self,
        id: str,  # noqa: A002 - the attribute's name in CloudEvents
        subject: str,
        time: datetime,
        times: ObservationTimes,
        fields: Mapping[str, Any],
    ) -> WireEvent:
        """Return an event as it travels, byte for byte as its class writes it.

        `fields` are those of the data that not every event has. Raises `ValidationError` for data that the model
        refuses, and `ValueError` for a text that no JSON can hold.
        """
        if not self._is_plain or time.tzinfo is None:
            return self.build(id, subject, time, times, fields).to_wire()
        event = {
            "specversion": "1.0",
            "id": id,
            "source": self._source,
            "type": self._type,
            "subject": subject,
            "time": rfc3339(time),
            "recordedtime": times.recorded_text,
            "partitionkey": subject,
            "datacontenttype": "application/json",
            "dataschema": self._schema,
            "data": self._data(times, fields),
        }
        return WireEvent(id, self._topic, unix_seconds(time), to_json(event, by_alias=False, inf_nan_mode="null"))

    def build(
        self,
        id: str,  # noqa: A002 - the attribute's name in CloudEvents
        subject: str,
        time: datetime,
        times: ObservationTimes,
        fields: Mapping[str, Any],
    ) -> Event:
        """Return the event as an object of its class; raises `ValidationError`."""
        data = self._data(times, fields)
        return self._cls.of(
            id=id, source=self._source, subject=subject, time=time, recordedtime=times.recorded, data=data
        )

    def _data(self, times: ObservationTimes, fields: Mapping[str, Any]) -> Data:
        return self._validate({**self._common, "observed": times.observed, **fields})


def _has_plain_envelope(cls: type[Event], model: type[Data]) -> bool:
    """Say whether events of the class have the envelope of `Event`, around data of this very model."""
    envelope, plain = (
        [(name, info.annotation, info.is_required()) for name, info in event.model_fields.items() if name != "data"]
        for event in (cls, Event)
    )
    subclasses = [base for base in cls.__mro__ if base is not Event and issubclass(base, Event)]
    return (
        cls.model_fields["data"].annotation is model
        and envelope == plain
        and cls.model_config == EventModel.model_config
        and not any(_writes_itself(subclass) for subclass in subclasses)
    )


def _writes_itself(cls: type[Event]) -> bool:
    made = cls.__pydantic_decorators__
    decorators = (
        made.validators, made.field_validators, made.root_validators, made.model_validators,
        made.field_serializers, made.model_serializers, made.computed_fields,
    )  # fmt: skip
    return any(decorators) or not _OVERRIDES.isdisjoint(vars(cls))
