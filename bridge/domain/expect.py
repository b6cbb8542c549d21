"""What an operator expects of a source's provider: final statuses within a time, and news in certain hours."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from bridge.domain.settings import Duration, Settings
from bridge.domain.weekly_window import WeeklyWindow


def _window(value: Any) -> Any:
    return WeeklyWindow.parse(value) if isinstance(value, str) else value


Window = Annotated[
    WeeklyWindow,
    BeforeValidator(_window),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["Mon-Fri 08:00-18:00 Europe/Paris"]}),
]


class ExpectSettings(Settings):
    """What you expect of a provider; the bridge publishes what does not come."""

    final_within: Duration | None = Field(default=None, ge=1)
    """A resource that has no final status so long after its first event is published as `overdue`, once."""
    activity_within: Duration | None = Field(default=None, ge=1)
    """If the polls go well, and nothing new is found for so long, SourceQuiet is published."""
    during: Window | None = None
    """When `activity_within` counts, such as `Mon-Fri 08:00-18:00 Europe/Paris`; without it, always."""

    @model_validator(mode="after")
    def _window_has_a_use(self) -> ExpectSettings:
        if self.during is not None and self.activity_within is None:
            raise ValueError("during says when activity_within counts; add activity_within, or remove during")
        if self.final_within is None and self.activity_within is None:
            raise ValueError("says nothing; give final_within, activity_within or both")
        return self
