"""What is written without being made is byte for byte what its class writes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import pytest
from catalogue import CATALOGUE
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError, field_serializer, field_validator

from bridge.domain.catalogue import unknown_status
from bridge.domain.encoding import EventEncoder, ObservationTimes
from bridge.domain.event import Data, Event, Transition
from bridge.domain.events.govdelivery import MessageCompleted, MessageData, RecipientData, RecipientFailed
from bridge.domain.events.marketingcloud import SendData, SMSNotSent
from bridge.domain.events.spacivox import DropData, VoicemailRejected

NOW = datetime(2013, 3, 15, 21, 11, 20, 114_567, UTC)

moments = st.datetimes(
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-6)), timezone(timedelta(minutes=345))])
)
texts = st.text(st.characters(exclude_categories=()), max_size=20)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    texts,
    moments,
    st.just(NOW.replace(tzinfo=None)),
    st.dictionaries(texts | st.integers(), st.integers() | st.floats() | texts | st.lists(st.floats()), max_size=3),
)


def fits(about: Any, value: object) -> bool:
    try:
        TypeAdapter(Annotated[about.annotation, about]).validate_python(value)
    except ValidationError:
        return False
    return True


def fields(model: type[Data]) -> st.SearchStrategy[dict[str, object]]:
    """Return values for the fields of a class of data, most of which it takes, and some that it does not know."""
    own = {}
    for name in sorted(model.model_fields.keys() - Data.model_fields.keys()):
        about = model.model_fields[name]
        good = values.filter(lambda value, about=about: fits(about, value))
        own[name] = good | good | good | values
    needed = {name: own.pop(name) for name in list(own) if model.model_fields[name].is_required()}
    return st.fixed_dictionaries(needed, optional=own | {"odd": st.none() | texts | st.lists(st.floats(), max_size=2)})


def outcome(act: Callable[[], object]) -> object:
    """Return what came of it, or which kind of error."""
    try:
        return act()
    except ValidationError as error:
        return [error["loc"] for error in error.errors()]
    except (TypeError, ValueError, OverflowError):
        return "refused"


@given(st.data(), st.sampled_from([*CATALOGUE, unknown_status("recipient"), Event]), moments, moments)
def test_built_and_unbuilt_events_have_the_same_bytes(
    data: st.DataObject, cls: type[Event], time: datetime, recorded: datetime
) -> None:
    model = cls.model_fields["data"].annotation
    assert model is not None
    encoder = EventEncoder(
        cls, model, data.draw(words), channel=data.draw(words), status="failed", previous=data.draw(st.none() | words),
        detail=data.draw(st.none() | words), transition=Transition.SKIP,
    )  # fmt: skip
    times = ObservationTimes(data.draw(st.none() | st.just(NOW)), NOW, recorded)
    when = data.draw(st.just(time) | st.just(time.replace(tzinfo=None)))
    arguments = (data.draw(texts), data.draw(texts), when, times, data.draw(fields(model)))
    expected = outcome(lambda: encoder.build(*arguments).to_wire())
    encoded = outcome(lambda: encoder.encode(*arguments))
    assert encoded == expected or (isinstance(expected, list) and encoded == "refused")


@pytest.mark.parametrize(
    ("cls", "model", "said"),
    [
        (RecipientFailed, RecipientData, {
            "message": "/messages/sms/1", "phone": "+16515551000", "error": "No route", "created_at": NOW,
            "completed_at": None, "provider": {"carrier": "x", "parts": [1, 2.5, None]},
        }),
        (VoicemailRejected, DropData, {"phone": "+16515551000", "campaign": 7, "job": "a", "state": 3, "timestamp": NOW}),
        (SMSNotSent, SendData, {"event_id": 12, "code": "24", "reason": "No \u201cstop\u201d \u0007", "provider": {}}),
        (MessageCompleted, MessageData, {"recipient_counts": None, "completed_at": NOW}),
    ],
)  # fmt: skip
def test_what_providers_usually_say_is_written_without_making_an_object(
    cls: type[Event], model: type[Data], said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = plain(cls, model)
    arguments = ("5f0c", "/z/1", NOW, ObservationTimes(None, NOW, NOW), said)
    expected = encoder.build(*arguments).to_wire()
    monkeypatch.setattr(EventEncoder, "build", None)
    assert encoder.encode(*arguments) == expected


class Richer(RecipientFailed):
    """A plugin's event that says more in its frame."""

    tenant: str = "city"


class Shouting(RecipientFailed):
    """A plugin's event that writes itself."""

    @field_serializer("subject")
    def loud(self, subject: str) -> str:
        return subject.upper()


class RicherData(RecipientData):
    """A plugin's data that says more, in ways of its own."""

    tenant: str = "city"
    size: int = 3


class CheckedData(RecipientData):
    """A plugin's data that looks at what it is given."""

    @field_validator("error")
    @classmethod
    def shorter(cls, error: str) -> str:
        return error[:3]


class BoundedData(RecipientData):
    """A plugin's data with a bound."""

    size: Annotated[int, Field(lt=10)] = 3


class Renamed(RecipientData):
    """A plugin's data with a field that is called otherwise where it travels."""

    size: int = Field(3, serialization_alias="Size")


class Odd(RecipientData):
    """A plugin's data with a field of a kind of its own."""

    share: float = 0.5


def plain(cls: type[Event], model: type[Data]) -> EventEncoder:
    return EventEncoder(
        cls, model, "/x/y", channel="voice", status="failed", previous=None, detail=None, transition=Transition.FIRST
    )


@pytest.mark.parametrize("cls", [RecipientFailed, Richer, Shouting, Event])
@pytest.mark.parametrize("model", [RecipientData, RicherData, CheckedData, BoundedData, Renamed, Odd])
def test_plugin_event_is_encoded_with_its_added_fields(cls: type[Event], model: type[RecipientData]) -> None:
    class Whole(cls):  # type: ignore[valid-type, misc]  # a class of which the test says the data
        data: model

    said = {"message": "/messages/voice/1", "error": "abcdef"}
    for encoder in (plain(cls, model), plain(Whole, model)):
        arguments = ("5f0c", "/z", NOW, ObservationTimes(NOW, NOW, NOW), said)
        wire = encoder.encode(*arguments)
        assert wire == encoder.build(*arguments).to_wire()
    assert wire.body.endswith(b'},"tenant":"city"}') is issubclass(cls, Richer)
    assert (b'"/Z"' in wire.body) is issubclass(cls, Shouting)
    assert (b'"abc"' in wire.body) is issubclass(model, CheckedData)
    assert (b'"size":3' in wire.body) is ("size" in model.model_fields)


def test_a_value_that_its_class_refuses_is_refused() -> None:
    arguments = ("5f0c", "/z", NOW, ObservationTimes(None, NOW, NOW))
    for said in ({}, {"message": 5}, {"message": "/m", "created_at": NOW.replace(tzinfo=None)}):
        with pytest.raises(ValidationError):
            plain(RecipientFailed, RecipientData).encode(*arguments, said)
