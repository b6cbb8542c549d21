"""Events as bytes, without making each as an object first: what those of one transition have in common is written once.

An event is written once and seldom looked at. Making and checking its two models is most of what that costs, and of a
thousand events in a row the fields of which a class says all have the same plain types. `EventEncoder` knows from the
classes how each field is written, and leaves whatever is out of the ordinary to the classes themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import not_
from types import NoneType
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from bridge.domain.event import Data, Event, EventModel, Observed, Transition, WireEvent
from bridge.domain.times import Time, rfc3339, rfc3339_millis, truncate_to_millis, unix_seconds

_Write = Callable[[Any], bytes | None]
"""Returns a value as JSON; nothing where it is left out, None where only its class can tell."""
_CHANGES = frozenset({
    "__init__", "__new__", "model_post_init", "model_dump_json", "of", "to_wire", "topic", "schema_name",
    "schema_uri", "type_on",
})  # fmt: skip
"""What a class may not have of its own if its events are to be written without it."""


class ObservationTimes:
    """What all events of one answer have in common: when the change happened, as far as it is known, and was noted."""

    __slots__ = ("observed", "observed_json", "recorded", "recorded_json")

    def __init__(self, after: datetime | None, by: datetime, recorded: datetime) -> None:
        self.observed = Observed(after=None if after is None else truncate_to_millis(after), by=truncate_to_millis(by))
        self.recorded = truncate_to_millis(recorded)
        self.observed_json = self.observed.model_dump_json().encode()
        self.recorded_json = b'"%b"' % rfc3339_millis(self.recorded).encode()


@dataclass(frozen=True, slots=True)
class _Field:
    """How one field of the data is written."""

    name: str
    label: bytes
    writes: Mapping[type, _Write]
    """By the exact type of the value."""
    absent: bytes | None
    """What stands there where the value is not given; None where it has to be."""


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
        self._model = model
        self._source = source
        self._common = {
            "channel": channel, "status": status, "previous": previous, "detail": detail, "transition": transition,
        }  # fmt: skip
        kind = cls.type_on(channel)
        stem = kind.removeprefix("bridge.")
        self._topic = f"{stem}.{detail}" if detail else stem
        self._fields = _fields(model) if _is_plain(cls, model) else None
        if self._fields is not None:
            data = Data.model_validate(self._common).model_dump_json(exclude={"observed"}).encode()
            self._after_id = b',"source":%b,"type":%b,"subject":' % (to_json(source), to_json(kind))
            schema = to_json(cls.schema_uri())
            self._after_key = b',"datacontenttype":"application/json","dataschema":%b,"data":%b,"observed":' % (
                schema, data.removesuffix(b"}"),
            )  # fmt: skip

    def cast(
        self,
        id: str,  # noqa: A002 - the attribute's name in CloudEvents
        subject: str,
        time: datetime,
        sight: ObservationTimes,
        fields: Mapping[str, Any],
    ) -> WireEvent:
        """Return an event as it travels, byte for byte as its class would write it; raises `ValidationError` as it.

        `fields` are those of the data that are not of every event.
        """
        own = self._own(fields) if type(subject) is str and time.tzinfo is not None else None
        if own is None:
            return self.make(id, subject, time, sight, fields).to_wire()
        named = to_json(subject)
        pieces = (
            b'{"specversion":"1.0","id":', to_json(id), self._after_id, named, b',"time":', _quoted(time),
            b',"recordedtime":', sight.recorded_json, b',"partitionkey":', named, self._after_key, sight.observed_json,
            *own, b"}}",
        )  # fmt: skip
        return WireEvent(id, self._topic, unix_seconds(time), b"".join(pieces))

    def make(
        self,
        id: str,  # noqa: A002 - the attribute's name in CloudEvents
        subject: str,
        time: datetime,
        sight: ObservationTimes,
        fields: Mapping[str, Any],
    ) -> Event:
        """Return the event as an object of its class; raises `ValidationError`."""
        data = self._model(**self._common, observed=sight.observed, **fields)
        return self._cls.of(
            id=id, source=self._source, subject=subject, time=time, recordedtime=sight.recorded, data=data
        )  # fmt: skip

    def _own(self, fields: Mapping[str, Any]) -> list[bytes] | None:
        """Return the data's own fields in the order of its class; None where the class has to write them."""
        if self._fields is None:
            return None
        pieces: list[bytes] = []
        left = len(fields)
        for field in self._fields:
            if field.name not in fields:
                if field.absent is None:
                    return None
                pieces.append(field.absent)
                continue
            left -= 1
            value = fields[field.name]
            write = field.writes.get(type(value))
            written = None if write is None else write(value)
            if written is None:
                return None
            if written:
                pieces += (field.label, written)
        return None if left else pieces


# --- what is plain ----------------------------------------------------------------------------------------------------


def _is_plain(cls: type[Event], model: type[Data]) -> bool:
    """Say whether nothing but their fields decides how an event of these classes is written."""
    frame, plain = (
        [
            (name, info.annotation, info.is_required())
            for name, info in model_class.model_fields.items()
            if name != "data"
        ]
        for model_class in (cls, Event)
    )
    return (
        cls.model_fields["data"].annotation is model
        and frame == plain
        and list(model.model_fields)[: len(Data.model_fields)] == list(Data.model_fields)
        and all(_is_untouched(subclass) for subclass in (*_heirs(cls, Event), *_heirs(model, Data)))
        and all(info.annotation == model.model_fields[name].annotation for name, info in Data.model_fields.items())
    )


def _heirs(cls: type[BaseModel], base: type[BaseModel]) -> list[type[BaseModel]]:
    return [subclass for subclass in cls.__mro__ if subclass is not base and issubclass(subclass, base)]


def _is_untouched(cls: type[BaseModel]) -> bool:
    made = cls.__pydantic_decorators__
    decorators = (
        made.validators, made.field_validators, made.root_validators, made.model_validators,
        made.field_serializers, made.model_serializers, made.computed_fields,
    )  # fmt: skip
    return _CHANGES.isdisjoint(vars(cls)) and not any(decorators) and cls.model_config == EventModel.model_config


@lru_cache(maxsize=256)
def _fields(model: type[Data]) -> tuple[_Field, ...] | None:
    """Return how the fields beyond those of `Data` are written; None where one of them is of another kind."""
    fields = []
    for name, info in model.model_fields.items():
        if name in Data.model_fields:
            continue
        writes = _writes(info)
        if not writes or info.alias or info.serialization_alias or info.exclude or info.metadata:
            return None
        label = b",%b:" % to_json(name)
        absent = None
        if not info.is_required():
            default = info.get_default(call_default_factory=True, validated_data={})
            written = writes[type(default)](default) if type(default) in writes else None
            if written is None:
                return None
            absent = label + written if written else b""
        fields.append(_Field(name, label, writes, absent))
    return tuple(fields)


def _writes(info: FieldInfo) -> Mapping[type, _Write]:
    """Return how the values of a field are written, by their exact types; empty where that is not known."""
    if info.annotation == dict[str, Any]:
        return {dict: _unread} if info.exclude_if is not_ else {}
    return next((writes for annotation, writes in _KINDS if info.annotation == annotation), {})


def _null(_: None) -> bytes:
    return b"null"


def _number(value: int) -> bytes:
    return b"%d" % value


def _unread(value: dict[Any, Any]) -> bytes | None:
    if all(type(key) is str for key in value):
        return to_json(value, inf_nan_mode="null") if value else b""
    return None


def _quoted(moment: datetime) -> bytes:
    return b'"%b"' % rfc3339(moment).encode()


def _time(value: datetime) -> bytes | None:
    return _quoted(value) if value.tzinfo is not None else None


_KINDS: tuple[tuple[Any, Mapping[type, _Write]], ...] = (
    (str, {str: to_json}),
    (str | None, {str: to_json, NoneType: _null}),
    (int, {int: _number}),
    (int | None, {int: _number, NoneType: _null}),
    (int | str | None, {int: _number, str: to_json, NoneType: _null}),
    (Time | None, {datetime: _time, NoneType: _null}),
    (dict[str, int] | None, {NoneType: _null}),
)
