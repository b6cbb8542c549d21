"""What a Spacivox source can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from bridge.domain.settings import Duration, Secret
from bridge.http.client import Origin
from bridge.providers import loading, shipped
from bridge.providers.events import lifecycle
from bridge.providers.models import Definition, TimesSpec
from bridge.sources.base import HttpSourceSettings

SORTS = ("voicemail_drop", "text", "email")
"""The sorts of records; each is described by a definition."""
_DAY_SECONDS = 86400.0
_DEFINITIONS = Path(shipped.__file__).parent
_FILES = {"voicemail_drop": "spacivox-voicemails.yaml", "text": "spacivox-texts.yaml", "email": "spacivox-emails.yaml"}


class SpacivoxSettings(HttpSourceSettings):
    """A source of Spacivox records."""

    url: Origin
    """Where the API is: the customer's own host, such as https://spacivox.example.com."""
    token: Secret
    """The token that the vendor issued; sent as `Authorization: Bearer`."""
    team: int | list[int] | None = None
    """Only the records of this team, or of these; of all if it is left out."""
    records: list[Literal["voicemail_drop", "text", "email"]] = Field(default=["voicemail_drop"], min_length=1)
    """Which kinds of records are read."""
    interval: Duration = Field(default=60.0, gt=0)
    """How often the newest records are read."""
    lookback: Duration = Field(default=72 * 3600.0, gt=0)
    """For how long after its own timestamp a record is followed: later changes of its state are not seen."""
    reread_every: Duration = Field(default=600.0, gt=0)
    """How often, at the least, every record within `lookback` is read; young records are read more often."""
    slice: Duration = Field(default=_DAY_SECONDS, ge=60)
    """For how much time one request asks; less if the provider cannot answer for so much."""
    overlap: Duration = Field(default=1.0, ge=0)
    """How far neighbouring requests overlap, since the vendor does not say whether their ends are included."""
    catch_up: Duration = Field(default=30 * _DAY_SECONDS, gt=0)
    """How old records may be that are read after an outage of the bridge to make up for it."""
    timestamp_is: Literal["created", "updated"] = "created"
    """What a record's `timestamp` means, of which the vendor says nothing; `updated` makes it every event's time."""

    @field_validator("statuses")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        lifecycle(_loaded(SORTS[0])).with_names(value)
        return value


def _loaded(sort: str) -> Definition:
    return loading.load(_DEFINITIONS / _FILES[sort])


def definition_of(sort: str, settings: SpacivoxSettings | None = None) -> Definition:
    """Return the definition of a sort of records; `timestamp_is` decides what its time means."""
    definition = _loaded(sort)
    if settings is None or settings.timestamp_is == "created":
        return definition
    times = TimesSpec(created=definition.times.created, changed=definition.times.created)
    return definition.model_copy(update={"times": times})
