"""What a webhook can be told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, FilePath, WithJsonSchema, field_validator, model_validator

from bridge.plugin import (
    EVENT_IS_WRONG_STATUSES,
    Duration,
    Endpoint,
    Network,
    Rate,
    Secret,
    SecretUrl,
    Settings,
    SinkSettings,
)
from bridge_webhook.signing import SigningKey, keys_of

_OWN_HEADERS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection"})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        return [line for line in value.split("\n") if line.strip()] or [value]
    return [value] if isinstance(value, Secret) else value


_SECRET_SCHEMA = {"type": "string", "format": "password", "writeOnly": True}
Secrets = Annotated[
    list[Secret],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [_SECRET_SCHEMA, {"type": "array", "items": _SECRET_SCHEMA}]}),
]


def _from_file(value: Any) -> Any:
    """Read `{file: PATH}` as a secret that is in a file."""
    if not isinstance(value, dict) or value.keys() != {"file"}:
        return value
    secret = Secret(path=Path(str(value["file"])))
    try:
        secret.read()
    except OSError as error:
        raise ValueError(f"cannot read {secret.path}: {error.strerror}") from None
    return secret


HeaderValue = Annotated[
    Secret,
    BeforeValidator(_from_file),
    WithJsonSchema(
        {
            "anyOf": [
                _SECRET_SCHEMA,
                {
                    "type": "object",
                    "properties": {"file": {"type": "string"}},
                    "required": ["file"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


class BatchSettings(Settings):
    """How events are gathered into one request."""

    size: int = Field(default=100, ge=2, le=1000)
    """How many events a request holds at most."""
    wait: Duration = Field(default=1.0, gt=0, le=60)
    """How long the first of them waits for the others."""


class WebhookSettings(SinkSettings):
    """What a webhook can be told."""

    url: SecretUrl = Field(repr=False)
    """Where events are posted."""
    secret: Secrets = Field(default_factory=list)
    """`whsec_` and the base64 of 24 to 64 random bytes, or for Ed25519 `whsk_` and the base64 of the 32 bytes of a
    private key; during rotation a list, or a file with one a line: each signs. Unset, nothing is signed."""
    allow_private: bool = False
    """Whether the URL may lead to a private, loopback or link-local address."""
    allow_networks: list[Network] = Field(default_factory=list)
    """Networks such as `10.2.0.0/16`: the URL may lead to them, and to no other private address."""
    headers: dict[str, HeaderValue] = Field(default_factory=dict)
    """Further headers of each request, such as Authorization. A value may be `{file: PATH}`; the file is read again
    when it changes."""
    token_url: SecretUrl | None = Field(default=None, repr=False)
    """Where access tokens come from (OAuth 2, client credentials). Each request then has one."""
    client_id: str | None = None
    """The name with which a token is asked for."""
    client_secret: Secret | None = None
    """The secret with which a token is asked for."""
    scope: str | None = None
    """The scope that a token is asked for."""
    token_style: Literal["basic", "form", "json"] = "basic"  # noqa: S105 - no password
    """How name and secret are sent: as basic authentication, or in the form or the JSON of the request."""
    mode: Literal["structured", "binary"] = "structured"
    """The form of a CloudEvent: all of it in the body, or its data in the body and its attributes in headers."""
    batch: BatchSettings | None = None
    """Several events in one request: `size` says how many at most (100), `wait` how long the first one waits (1s)."""
    origin: str | None = Field(default=None, pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")
    """The DNS name by which this bridge asks the endpoint for its permission, before the first event. Unset, it does
    not ask."""
    origin_rate: Rate | None = None
    """How many requests it asks for. What the endpoint allows is kept, whether it was asked for or not."""
    permanent_statuses: list[Annotated[int, Field(ge=300, le=599)]] = Field(
        default_factory=lambda: list(EVENT_IS_WRONG_STATUSES)
    )
    """Answers that say that this event is wrong, so that it is a dead letter at once. After any other refusal the event
    is sent again, as `retry` says; 410 disables the sink."""
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

    @field_validator("secret")
    @classmethod
    def _usable_secrets(cls, secrets: list[Secret]) -> list[Secret]:
        if not secrets:
            raise ValueError("is an empty list; give a secret, or leave the key out to send unsigned")
        usable_keys(tuple(secret.reveal() for secret in secrets))
        return secrets

    @field_validator("headers")
    @classmethod
    def _usable_headers(cls, headers: dict[str, Secret]) -> dict[str, Secret]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a header")
            if name.lower() in _OWN_HEADERS or name.lower().startswith(("webhook-", "ce-")):
                raise ValueError(f"{name} is set by the sink itself; remove it")
            if not value.reveal().isprintable():
                raise ValueError(f"the value of {name} has a line break or another control character")
        return headers

    @field_validator("token_url")
    @classmethod
    def _no_login_for_tokens(cls, url: str | None) -> str | None:
        return None if url is None else cls._no_login(url)

    @model_validator(mode="after")
    def _token_request_is_whole(self) -> Self:
        given = [self.token_url is not None, self.client_id is not None, self.client_secret is not None]
        if any(given) and not all(given):
            raise ValueError("give token_url, client_id and client_secret, or none of them")
        if self.token_url is not None and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("headers has Authorization, and token_url is given; keep one")
        return self

    @model_validator(mode="after")
    def _batch_can_fill(self) -> Self:
        if self.batch is None:
            return self
        if self.mode == "binary":
            raise ValueError("batch and mode: binary are both given; a batch is always structured")
        if self.concurrency < self.batch.size:
            raise ValueError(f"concurrency has to be at least batch.size, {self.batch.size}, or no batch gets full")
        if self.send_timeout < 2 * self.batch.wait:
            raise ValueError("send_timeout has to be at least twice batch.wait, or a batch has no time to be sent")
        return self

    @model_validator(mode="after")
    def _rate_has_origin(self) -> Self:
        if self.origin_rate is not None and self.origin is None:
            raise ValueError("origin_rate is given without origin; give both")
        return self

    @model_validator(mode="after")
    def _key_has_certificate(self) -> Self:
        if self.key_file and not self.cert_file:
            raise ValueError("key_file is given without cert_file; give both")
        return self


def usable_keys(texts: tuple[str, ...]) -> tuple[SigningKey, ...]:
    """Return the keys of secrets; raises `ValueError` if there is none."""
    keys = keys_of(texts)
    if texts and not keys:  # a file caught between truncating and writing: never a reason to send unsigned
        raise ValueError("no secret is there")
    return keys
