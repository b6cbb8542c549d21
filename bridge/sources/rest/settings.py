"""What a source of a definition can be told: what every source can, what its shape needs, and its own settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, create_model

from bridge.domain.settings import Duration, Rate, Secret
from bridge.hooks.settings import PushSettings
from bridge.http.client import Origin
from bridge.protocols.source import SourceSettings
from bridge.providers import loading
from bridge.providers.events import event_classes, lifecycle, overdue_class
from bridge.providers.memo import OncePerDefinition
from bridge.providers.models import Definition, SettingSpec

_DAY_SECONDS = 86400.0


class RestSettings(SourceSettings):
    """A source that a definition describes; each definition adds settings of its own."""

    definition: ClassVar[Definition]

    provider: str
    """The definition: an installed one's name (`bridgectl providers list`), or the path of a file, from this one."""
    url: Origin | None = None
    """Where the API is; the definition may know it."""
    ca_file: str | None = None
    """PEM: the authorities to trust for this provider, instead of the system's."""


def settings_for(values: Mapping[str, Any], folder: Path) -> type[RestSettings]:
    """Return the model of the settings of one source in a configuration in `folder`.

    Raises `ValueError` that begins with the key, and `ConfigError` with what is wrong with the definition.
    """
    provider = values.get("provider")
    if not isinstance(provider, str) or not provider:
        known = ", ".join(loading.installed())
        raise ValueError(f"provider: must name a definition; installed: {known}; or write the path of a file")
    try:
        path = loading.find(provider, folder)
    except ValueError as error:
        raise ValueError(f"provider: {error}") from None
    return model_of(loading.load(path))


def _model(definition: Definition) -> type[RestSettings]:
    fields: dict[str, Any] = {
        **_shape_fields(definition),
        "rate": _default(Rate, definition.budget.rate, "Requests a second, for the account.", gt=0),
        "statuses": (
            Annotated[dict[str, str], AfterValidator(lambda value: _known_statuses(definition, value))],
            Field(default_factory=dict, description="Further values of the provider, mapped to statuses of its table."),
        ),
        **{name: _own(spec) for name, spec in definition.settings.items()},
    }
    about = "Where the API is."
    fields["url"] = (
        Origin,
        Field(description=about) if definition.url is None else Field(definition.url, description=about),
    )
    model = create_model(
        f"{definition.events.provider}Settings", __base__=RestSettings, __doc__=definition.title, **fields
    )
    model.definition = definition
    overdue = overdue_class(definition)
    model.own_events = (*event_classes(definition).values(), *(() if overdue is None else (overdue,)))
    return model


model_of = OncePerDefinition(_model)
"""Return the model of the settings of all sources of a definition."""


def _known_statuses(definition: Definition, value: dict[str, str]) -> dict[str, str]:
    lifecycle(definition).with_names(value)
    return value


def _default(kind: Any, value: Any, about: str, **bounds: Any) -> Any:
    return (kind, Field(default=value, description=about, **bounds))


def _shape_fields(definition: Definition) -> dict[str, Any]:
    fields: dict[str, Any] = {"interval": _default(Duration, 60.0, "How often the newest records are read.", gt=0)}
    window, feed, follow = definition.window, definition.feed, definition.follow
    if window is not None:
        fields["lookback"] = _default(
            Duration, window.lookback, "For how long after its time a record may still change, or appear.", gt=0,
            **({} if window.retention is None else {"le": window.retention}),
        )  # fmt: skip
        fields["slice"] = _default(Duration, window.slice, "For how much time a request asks.", ge=60)
        fields["overlap"] = _default(Duration, window.overlap, "How far neighbouring requests overlap.", ge=0)
        fields["reread_every"] = _default(
            Duration, window.reread_every, "How often, at the least, all of `lookback` is read.", gt=0
        )
        fields["catch_up"] = _default(
            Duration, window.retention or 30 * _DAY_SECONDS,
            "How old records may be that are read after an outage of the bridge.", gt=0,
        )  # fmt: skip
    if feed is not None:
        fields["start"] = _default(
            Literal["earliest", "latest"], "earliest", "Where a first start begins; `latest` skips what there is."
        )
    if definition.auth.oauth2 is not None:
        fields["token_url"] = _default(Origin, definition.auth.oauth2.token_url, "Where tokens are fetched.")
    if definition.push is not None:
        fields["push"] = _default(
            PushSettings | None, None, "The provider pushes to `hooks.url`, and this is how its pushes are verified."
        )
    if follow is not None:
        fields["give_up"] = _default(
            Duration, follow.give_up, "For how long a resource without a final status is looked at.", gt=0
        )
        fields["lookup_every"] = _default(
            Duration, follow.every, "How often, at the least, a resource is looked at.", gt=0
        )
    return fields


def _own(spec: SettingSpec) -> Any:
    kind: Any = {"secret": Secret, "number": int | float, "text": str}.get(spec.type) or Literal[tuple(spec.choices)]
    if spec.pattern is not None and spec.type == "text":
        kind = Annotated[kind, AfterValidator(lambda value: _matching(value, str(spec.pattern)))]
    if spec.default is None:
        return (kind, Field(description=spec.about))
    return (kind, Field(default=spec.default, description=spec.about))


def _matching(value: str, pattern: str) -> str:
    if not re.fullmatch(pattern, value):
        raise ValueError(f"does not look right; it has to match {pattern}")
    return value
