"""The model of a form: its settings, its requests, and what the answers mean."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bridge.domain.errors import PlacedError
from bridge.domain.filters.event_filter import EventFilter
from bridge.domain.settings import Rate, Settings
from bridge.forms.escaping import TABLES
from bridge.forms.expressions import settings_in
from bridge.forms.json_template import JsonTemplate

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
Escape = Literal["none", "lines", "mentions", "markdown", "html"]
assert set(Escape.__args__) == set(TABLES)  # type: ignore[attr-defined]  # noqa: S101 - one list, written twice


def check_header(name: str) -> None:
    """Raise `PlacedError` for a name that no header of a request can have, or that only the sink may set."""
    if not _TOKEN.fullmatch(name):
        raise PlacedError((name,), f"{name!r} is not the name of a header")
    if name.lower() in _OWN_HEADERS:
        raise PlacedError((name,), f"{name} is set by the sink itself; remove it")


def _headers(template: JsonTemplate) -> JsonTemplate:
    _mapping(template)
    for name in template.raw:
        check_header(str(name))
    if len({str(name).lower() for name in template.raw}) != len(template.raw):
        raise ValueError("has one header twice; names that differ in case are one name")
    return template


def _mapping(template: JsonTemplate) -> JsonTemplate:
    if not isinstance(template.raw, dict):
        raise ValueError("must be a mapping of names to values")  # noqa: TRY004 - pydantic wants this error
    return template


def _segments(template: JsonTemplate) -> JsonTemplate:
    if not isinstance(template.raw, list):
        raise ValueError("must be a list of the path's parts, such as [v2, alerts]")  # noqa: TRY004 - pydantic wants this error
    return template


class RequestTemplate(Settings):
    """One request, with expressions at its leaves."""

    when: EventFilter | None = None
    """Which events it is for; without it, for all that none before it was for."""
    method: Literal["POST", "PUT", "PATCH", "DELETE", "GET"] = "POST"
    """The method."""
    path: Annotated[JsonTemplate, AfterValidator(_segments)] = Field(default_factory=lambda: JsonTemplate([]))
    """The parts of the path behind that of the URL; each is percent-encoded."""
    query: Annotated[JsonTemplate, AfterValidator(_mapping)] = Field(default_factory=lambda: JsonTemplate({}))
    """Parameters behind those of the URL; each is percent-encoded."""
    headers: Annotated[JsonTemplate, AfterValidator(_headers)] = Field(default_factory=lambda: JsonTemplate({}))
    """Headers by name. What is not printable ASCII in a value is percent-encoded."""
    encoding: Literal["json", "form"] = "json"
    """How the body is written: as JSON, or as the fields of a form on a web page."""
    body: JsonTemplate | None = None
    """The body; without it, the request has none."""


class AnswerRule(Settings):
    """What an answer means that is not as its status alone says."""

    when: EventFilter
    """About `status` (a number), `body` (the JSON of the answer) and `text` (the answer as it stands)."""
    then: Literal["accept", "retry", "permanent", "disable"]
    """Delivered; tried again; a dead letter; or the sink is disabled until an operator enables it."""
    about: str = Field(min_length=1)
    """Why, for the operator; it stands in the log, and in the dead letter."""


class AnswerRules(Settings):
    """How answers are read; without any rule, as those of a webhook."""

    accepted: EventFilter | None = None
    """What an answer with a status 2xx has to say to count as a delivery; see `rules.when`."""
    rules: list[AnswerRule] = Field(default_factory=list)
    """The first that holds decides; without one, the status does."""
    retry_after: str | None = None
    """The field of the answer's JSON with the seconds to wait, such as `parameters.retry_after`."""


class FormSetting(Settings):
    """A setting of a form's own, for its expressions: `{setting.NAME}`."""

    about: str = Field(min_length=1)
    """What it is, in a sentence."""
    type: Literal["text", "secret", "choice"] = "text"
    """A secret may be given as a file, and is shown to nobody."""
    choices: list[str] = Field(default_factory=list)
    """Of a choice: its values."""
    default: str | None = None
    """Its value where none is given; without a default, it has to be given. `''` makes it optional."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.type == "choice") != bool(self.choices):
            raise ValueError("choices are for a setting of the type choice, and it needs them")
        if self.choices and self.default is not None and self.default not in self.choices:
            raise ValueError(f"default must be one of {', '.join(self.choices)}")
        if self.type == "secret" and self.default:
            raise ValueError("a secret has no default; remove it")
        return self


class RequestForm(Settings):
    """A file that says how an event becomes a request to one service."""

    form: Literal[1]
    """The version of this format."""
    title: str = Field(min_length=1)
    """What it sends to."""
    docs: str | None = None
    """The page of the service that it was written from."""
    url: str | None = None
    """Where requests go, if that is the same for everybody; else the sink's `url` says it."""
    url_about: str = "Where requests go."
    """What the sink's `url` is, in a sentence."""
    privacy: Literal["full", "last4", "token"] = "full"
    """What the sink may see of phones and keys unless its own `privacy` says otherwise."""
    escape: Escape = "none"
    """How texts of the event are escaped; `|plain` leaves one as it is."""
    throttle: Rate | None = None
    """How many requests the service takes."""
    max_body: int | None = Field(default=None, ge=1)
    """Bytes of the largest body that the service takes."""
    settings: dict[str, FormSetting] = Field(default_factory=dict)
    """Settings of its own, by name."""
    requests: list[RequestTemplate] = Field(min_length=1)
    """The request for an event is the first whose `when` holds; the last has none."""
    answers: AnswerRules = AnswerRules()
    """What the answers mean."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.requests[-1].when is not None:
            raise PlacedError(("requests", len(self.requests) - 1, "when"), "the last request is for all other events")
        if (early := next((i for i, item in enumerate(self.requests[:-1]) if item.when is None), None)) is not None:
            raise PlacedError(("requests", early), "is for all events, so none behind it is used; give it a `when`")
        return self

    @model_validator(mode="after")
    def _knows_its_settings(self) -> Self:
        for name in self.settings:
            if not _NAME.fullmatch(name):
                raise PlacedError(("settings", name), "is no name; use lower-case letters, digits and '_'")
        for index, request in enumerate(self.requests):
            for part, template in templates(request):
                for used in (name for text in template.texts() for name in settings_in(text)):
                    if used not in self.settings:
                        raise PlacedError(("requests", index, part), f"uses the setting {used!r}; add it to `settings`")
        return self


def templates(request: RequestTemplate) -> list[tuple[str, JsonTemplate]]:
    """Return the parts of a request that have expressions."""
    parts: list[tuple[str, JsonTemplate | None]] = [
        ("path", request.path), ("query", request.query), ("headers", request.headers), ("body", request.body),
    ]  # fmt: skip
    return [(name, template) for name, template in parts if template is not None]
