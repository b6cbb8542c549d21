"""From an event's bytes to an object of its class, whatever a later version or another publisher put into them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from bridge.domain.catalogue import INTERNAL_EVENTS
from bridge.domain.event import SCHEMAS, Data, Event, Observed, Transition
from bridge.domain.events import PROVIDER_EVENTS

EVENTS: tuple[type[Event], ...] = (*PROVIDER_EVENTS, *INTERNAL_EVENTS)
"""Every event of the bridge and of its own sources."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventReader:
    """Finds the class of an event; `events` are classes of other distributions, in addition to all of our own.

    Raises `ValueError` if two classes have one name in `dataschema`.
    """

    def __init__(self, events: Iterable[type[Event]] = ()) -> None:
        self._events = tuple(dict.fromkeys((*EVENTS, *events)))
        names = [event.schema_name() for event in self._events]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two classes of events are named {twice[0]!r}; give one of them another name")

    @cached_property
    def _by_schema(self) -> dict[str, type[Event]]:
        return {event.schema_name(): event for event in self._events}

    def read(self, body: bytes) -> Event:
        """Return the event in `body`, as an object of its class if that is known and fits.

        Everything else that is a JSON object comes as a plain `Event`: an unknown type, a field with another type than
        ours, another publisher's CloudEvent. Its attributes are there, as far as the body has them. Raises `ValueError`
        for what is no JSON object.
        """
        content = from_json(body, cache_strings="keys")
        if not isinstance(content, dict):
            raise ValueError("the body is not a JSON object")  # noqa: TRY004 - the caller asks whether it can be read
        name = str(content.get("dataschema") or "").removeprefix(SCHEMAS).partition("/")[0]
        for event in (self._by_schema.get(name), Event):
            if event is not None:
                try:
                    return event.model_validate(content)
                except ValidationError:
                    continue
        return _lenient(content)


def _lenient(content: dict[str, Any]) -> Event:
    """Return an `Event` of what is there: texts are empty, times are 1970 where the body has none that can be read."""
    texts = {
        name: str(content.get(name) or "") for name in ("id", "source", "type", "subject", "partitionkey", "dataschema")
    }
    data = content.get("data")
    values = {
        **_attributes(content),
        **texts,
        "time": _time(content.get("time")),
        "recordedtime": _time(content.get("recordedtime")),
        "data": _lenient_data(data if isinstance(data, dict) else {"value": data}),
    }
    return Event.model_construct(**values)


def _lenient_data(content: dict[str, Any]) -> Data:
    observed = content.get("observed")
    try:
        span = Observed.model_validate(observed)
    except ValidationError:
        span = None
    try:
        transition = Transition(content.get("transition", ""))
    except ValueError:
        transition = Transition.UNKNOWN
    texts = {name: str(content.get(name) or "") for name in ("channel", "status")}
    values = {**_attributes(content), **texts, "observed": span, "transition": transition}
    return Data.model_construct(**values)


def _attributes(content: dict[str, Any]) -> dict[str, Any]:
    """Return what may be an attribute: no name of Python's or of pydantic's own."""
    return {name: value for name, value in content.items() if name != "cls" and not name.startswith("_")}


def _time(text: object) -> datetime:
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else _EPOCH
    except ValueError:
        return _EPOCH
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
