"""What an HTTP sink can be told: where, in which form, and how the answers are read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, FilePath, create_model, field_validator, model_validator

from bridge.domain.errors import PlacedError
from bridge.domain.settings import Rate, Secret
from bridge.forms import loading
from bridge.forms.expressions import settings_in
from bridge.forms.models import AnswerRules, Escape, FormSetting, RequestForm, RequestTemplate, check_header, templates
from bridge.http.guarded import Endpoint, SecretUrl
from bridge.http.status import EVENT_IS_WRONG_STATUSES
from bridge.protocols.sink import Privacy, SinkSettings


class HttpSinkSettings(SinkSettings):
    """How to send to an HTTP endpoint: give a `preset`, or a `request` of your own."""

    form: ClassVar[RequestForm | None] = None
    """The form of a preset; it brings settings of its own."""

    url: SecretUrl = Field(repr=False)
    """Where requests go; the form may add to its path and query, and never changes its host."""
    preset: str | None = None
    """A form that ships (`bridgectl sinks form` lists them), or the path of a file, from this one."""
    request: RequestTemplate | None = None
    """Method, path, query, headers and body, with expressions such as `{data.status}` at the leaves."""
    escape: Escape = "none"
    """How texts of the event are escaped in the body: `lines`, `mentions`, `markdown` or `html`."""
    answers: AnswerRules | None = None
    """What answers mean that are not as their status says."""
    throttle: Rate | None = None
    """How many requests a process sends; further events wait in the store."""
    headers: dict[str, Secret] = Field(default_factory=dict)
    """Further headers of each request, such as Authorization."""
    permanent_statuses: list[Annotated[int, Field(ge=300, le=599)]] = Field(
        default_factory=lambda: list(EVENT_IS_WRONG_STATUSES)
    )
    """Answers that say that this event is wrong, so that it is a dead letter at once."""
    allow_private: bool = False
    """Whether the URL may lead to a private, loopback or link-local address."""
    ca_file: FilePath | None = None
    """Certificates (PEM) to trust in addition to the system's; read again when the file changes."""
    cert_file: FilePath | None = None
    """The client certificate (PEM) to show, with its chain; read again when the file changes."""
    key_file: FilePath | None = None
    """Its key (PEM), if it is not in `cert_file`."""

    @field_validator("url")
    @classmethod
    def _no_login(cls, url: str) -> str:
        read = Endpoint.of(url).url
        if read.user or read.password:
            raise ValueError("has a login in it; give it as a header: headers: {Authorization: …}")
        return url

    @field_validator("headers")
    @classmethod
    def _usable_headers(cls, headers: dict[str, Secret]) -> dict[str, Secret]:
        for name, value in headers.items():
            check_header(name)
            if not value.reveal().isprintable():
                raise PlacedError((name,), "has a line break or another control character; remove it")
        return headers

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        if self.key_file and not self.cert_file:
            raise ValueError("key_file is given without cert_file; give both")
        if self.form is None and self.request is None:
            raise PlacedError(("request",), "is missing; write a request, or name a preset")
        if self.form is not None and self.request is not None:
            raise PlacedError(("request",), "is given in addition to a preset, which has its own; keep one")
        return self

    @model_validator(mode="after")
    def _own_request_uses_no_settings(self) -> Self:
        for part, template in [] if self.request is None else templates(self.request):
            for used in (name for text in template.texts() for name in settings_in(text)):
                raise PlacedError(
                    ("request", part),
                    f"uses the setting {used!r}, which only a preset's file can have; write the value",
                )
        if self.request is not None and self.request.when is not None:
            raise PlacedError(("request", "when"), "chooses events, which is for the sink's `where`; move it there")
        return self

    @property
    def requests(self) -> list[RequestTemplate]:
        """The requests, by the events that they are for."""
        if self.form is not None:
            return self.form.requests
        return [] if self.request is None else [self.request]

    def form_values(self) -> dict[str, str | None]:
        """Return the values of the form's own settings; None for what was left empty."""
        names = {} if self.form is None else self.form.settings
        values = {name: getattr(self, name) for name in names}
        return {name: (of.reveal() if isinstance(of, Secret) else of) or None for name, of in values.items()}


def settings_for(values: Mapping[str, Any], folder: Path) -> type[HttpSinkSettings]:
    """Return the model of the settings of one sink in a configuration in `folder`.

    Raises `ValueError` that begins with the key, and `ConfigError` with what is wrong with the form.
    """
    preset = values.get("preset")
    if not isinstance(preset, str) or not preset:
        return HttpSinkSettings
    try:
        path = loading.find(preset, folder)
    except ValueError as error:
        raise ValueError(f"preset: {error}") from None
    return model_of(loading.load(path))


def model_of(form: RequestForm) -> type[HttpSinkSettings]:
    """Return the model of the settings of all sinks of a form."""
    return _model(_Keyed(form))


class _Keyed:
    """A form as a key of the cache: two files with the same content are one form."""

    def __init__(self, form: RequestForm) -> None:
        self.form = form
        self._text = form.model_dump_json()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@lru_cache(maxsize=64)
def _model(keyed: _Keyed) -> type[HttpSinkSettings]:
    form = keyed.form
    fields: dict[str, Any] = {
        "privacy": (Privacy, Field(form.privacy, description="What this sink may see of phones and keys.")),
        "throttle": (Rate | None, Field(form.throttle, description="How many requests a process sends.")),
        **{name: _own(spec) for name, spec in form.settings.items()},
    }
    default: dict[str, Any] = {} if form.url is None else {"default": form.url}
    fields["url"] = (SecretUrl, Field(**default, repr=False, description=form.url_about))
    model = create_model("HttpPresetSettings", __base__=HttpSinkSettings, __doc__=form.title, **fields)
    model.form = form
    return model


def _own(spec: FormSetting) -> Any:
    kind: Any = {"secret": Secret, "text": str}.get(spec.type) or Literal[tuple(spec.choices)]
    if spec.default is None:
        return (kind, Field(description=spec.about))
    if spec.type == "secret":
        return (Secret | None, Field(default=None, description=spec.about))
    return (kind, Field(default=spec.default, description=spec.about))
