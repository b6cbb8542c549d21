"""A definition's events: a class for each status, and the model of their data."""

from __future__ import annotations

from typing import Any, cast

from pydantic import Field, create_model

from bridge.domain.event import Data, Event, UnmappedFields
from bridge.domain.events import PROVIDER_EVENTS
from bridge.domain.lifecycle import Lifecycle
from bridge.domain.overdue import OVERDUE, OverdueFields
from bridge.domain.times import Time
from bridge.providers.memo import OncePerDefinition
from bridge.providers.models import Definition, FieldSpec

_TYPES: dict[str, Any] = {
    "text": str | None, "number": int | float | None, "code": int | str | None, "time": Time | None,
}  # fmt: skip


def lifecycle(definition: Definition) -> Lifecycle:
    """Return the statuses of a definition and their order."""
    status = definition.status
    values = dict(status.map) or {str(status.always): str(status.always)}
    if status.ignore_case:
        values = {value.lower(): word for value, word in values.items()}
    return Lifecycle(values, status.follows, frozenset(status.finals))


def class_prefix(definition: Definition) -> str:
    """Return what the names of the events' classes begin with: `TwilioMessage`."""
    return f"{_camel(definition.events.provider)}{_camel(definition.events.entity)}"


def _camel(text: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in text.split("_"))


def _event(definition: Definition, word: str, model: type[Data], about: str | None) -> type[Event]:
    events = definition.events
    return type(
        f"{class_prefix(definition)}{_camel(word)}",
        (Event,),
        {
            "__module__": __name__,
            "__doc__": about or f"{definition.title}: the status is `{word}`.",
            "__annotations__": {"data": model},
            "channels": (events.channel,),
            "entity": events.entity,
            "status": word,
            "provider": events.provider,
            "version": events.version,
        },
    )


def built_in(definition: Definition) -> dict[str, type[Event]]:
    """Return our own classes of a definition's topics, by status: events of one topic have one class."""
    return {event.status: event for event in _own_events(definition) if event.status != OVERDUE}


def _own_events(definition: Definition) -> list[type[Event]]:
    own = definition.events
    return [
        event
        for event in PROVIDER_EVENTS
        if event.provider == own.provider and event.entity == own.entity and own.channel in event.channels
    ]


def _data_model(definition: Definition) -> type[Data]:
    for event in built_in(definition).values():
        return data_of(event)
    facts, times = definition.facts, definition.times
    fields: dict[str, Any] = {}
    if facts.phone is not None:
        fields["phone"] = _field("text", "The recipient's phone or address.")
    if facts.error_code is not None:
        fields["error_code"] = _field("text", "The provider's code of what went wrong.")
    if facts.error is not None:
        fields["error"] = _field("text", "What the provider says went wrong.")
    for name, time in (("created_at", times.created), ("changed_at", times.changed)):
        if time is not None:
            fields[name] = _field("time", "By the provider's clock.")
    fields |= {name: _own_field(spec) for name, spec in facts.fields.items()}
    fields["provider"] = (UnmappedFields, Field(default_factory=dict, description="Fields that no other has read."))
    return create_model(
        f"{class_prefix(definition)}Data", __base__=Data, __module__=__name__, __doc__=f"{definition.title}.", **fields
    )


data_model = OncePerDefinition(_data_model, "title", "events", "facts", "times")
"""Return the model of what all events of a definition say."""


def data_of(event: type[Event]) -> type[Data]:
    """Return the model of what events of a class say."""
    model = event.model_fields["data"].annotation
    assert isinstance(model, type)  # noqa: S101 - every event's data is a model
    return model


def _classes(definition: Definition) -> dict[str, type[Event]]:
    known = built_in(definition)
    words = lifecycle(definition).statuses
    if known:
        return {word: known[word] for word in words if word in known}
    model = data_model(definition)
    about = definition.status.about
    return {word: _event(definition, word, model, about.get(word)) for word in words}


event_classes = OncePerDefinition(_classes, "title", "events", "status", "facts", "times")
"""Return the class of each status of a definition."""


def _overdue(definition: Definition) -> type[Event] | None:
    table = lifecycle(definition)
    if not table.finals or OVERDUE in table.statuses or definition.identity.mark is not None:
        return None
    if built_in(definition):
        return next((event for event in _own_events(definition) if event.status == OVERDUE), None)
    about = f"{definition.title}: no final status within `expect.final_within`."
    bases: Any = (OverdueFields, data_model(definition))
    name = f"{class_prefix(definition)}OverdueData"
    made = create_model(name, __base__=bases, __module__=__name__, __doc__=about)
    return _event(definition, OVERDUE, cast("type[Data]", made), about)


overdue_class = OncePerDefinition(_overdue, "title", "events", "status", "facts", "times", "identity")
"""Return the class of the overdue events of a definition; None if its resources have no final status to wait for."""


def _field(kind: str, about: str) -> Any:
    return (_TYPES[kind], Field(default=None, description=about))


def _own_field(spec: FieldSpec) -> Any:
    return _field(spec.type, spec.about)
