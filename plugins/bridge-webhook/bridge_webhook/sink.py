"""One URL that gets every event: its settings, and the sink."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

import structlog
from pydantic import BeforeValidator, Field, FilePath, WithJsonSchema, field_validator, model_validator

from bridge.plugin import (
    CONTENT_TYPE,
    EVENT_IS_WRONG_STATUSES,
    Clock,
    Endpoint,
    GuardedClient,
    Network,
    Outgoing,
    Secret,
    SecretUrl,
    SinkSettings,
    Tls,
    Transient,
    Unauthorized,
)
from bridge_webhook.signing import keys_of, signatures

log = structlog.get_logger()

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


class WebhookSettings(SinkSettings):
    """What a webhook can be told."""

    url: SecretUrl = Field(repr=False)
    """Where events are posted."""
    secret: Secrets = Field(default_factory=list)
    """`whsec_` and the base64 of 24 to 64 random bytes; during rotation a list, or a file with one a line: each signs.
    Unset, nothing is signed."""
    allow_private: bool = False
    """Whether the URL may lead to a private, loopback or link-local address."""
    allow_networks: list[Network] = Field(default_factory=list)
    """Networks such as `10.2.0.0/16`: the URL may lead to them, and to no other private address."""
    headers: dict[str, Secret] = Field(default_factory=dict)
    """Further headers of each request, such as Authorization."""
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
        _some_keys(tuple(secret.reveal() for secret in secrets))
        return secrets

    @field_validator("headers")
    @classmethod
    def _usable_headers(cls, headers: dict[str, Secret]) -> dict[str, Secret]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a header")
            if name.lower() in _OWN_HEADERS or name.lower().startswith("webhook-"):
                raise ValueError(f"{name} is set by the sink itself; remove it")
            if not value.reveal().isprintable():
                raise ValueError(f"the value of {name} has a line break or another control character")
        return headers

    @model_validator(mode="after")
    def _key_has_certificate(self) -> Self:
        if self.key_file and not self.cert_file:
            raise ValueError("key_file is given without cert_file; give both")
        return self


class Webhook:
    """Posts `outgoing.wire.body` as it is; the endpoint sees the event's id, the time of sending, and who signed."""

    def __init__(self, name: str, settings: WebhookSettings, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._endpoint = Endpoint.of(settings.url)
        self._headers = {"Content-Type": CONTENT_TYPE}
        self._headers |= {header: value.reveal() for header, value in settings.headers.items()}
        self._permanent_statuses = frozenset(settings.permanent_statuses)
        self._secrets = settings.secret
        self._texts: tuple[str, ...] = ()
        self._keys: tuple[bytes, ...] = ()
        self._warned = False
        self._outbound = GuardedClient(
            allow_private=settings.allow_private,
            allow_networks=settings.allow_networks,
            clock=clock,
            timeout=settings.send_timeout,
            connections=settings.concurrency,
            tls=Tls(settings.ca_file, settings.cert_file, settings.key_file),
        )

    async def open(self) -> None:
        """Make the connection pool."""
        await self._outbound.open()

    async def send(self, outgoing: Outgoing) -> None:
        """Post one event; returns when it was answered with 2xx."""
        wire = outgoing.wire
        timestamp = str(int(self._clock.epoch()))
        headers = {**self._headers, "webhook-id": wire.id, "webhook-timestamp": timestamp}
        if self._secrets:
            headers["webhook-signature"] = signatures(self._signing_keys(), wire.id, timestamp, wire.body)
        answer = await self._outbound.post(self._endpoint, wire.body, headers)
        if error := answer.error(self._permanent_statuses):
            raise error

    async def probe(self) -> str:
        """Connect, without posting anything."""
        signed = self._signed()
        await self._outbound.open()
        await self._outbound.check_connectivity(self._endpoint)
        return f"posts to {self._endpoint.name}, {signed}"

    async def close(self) -> None:
        """Close the connections."""
        await self._outbound.close()

    def _signed(self) -> str:
        keys = self._signing_keys()
        if not keys:
            return "unsigned: receivers cannot tell who sent it; give a secret"
        return "signed with 1 secret" if len(keys) == 1 else f"signed with {len(keys)} secrets"

    def _signing_keys(self) -> tuple[bytes, ...]:
        """Return the keys; a file is read again when it changed, and one that broke leaves the keys as they were."""
        try:
            texts = tuple(secret.reveal() for secret in self._secrets)
            if texts != self._texts:
                self._keys, self._texts = _some_keys(texts), texts
        except (OSError, ValueError, Unauthorized) as error:
            if not self._keys:
                raise Transient(f"sink {self._name} has no usable secret to sign with; nothing is sent") from None
            if not self._warned:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                log.warning(
                    "webhook.secret_unusable", sink=self._name, reason=reason,
                    consequence="signs with the secrets that the file held before",
                )  # fmt: skip
            self._warned = True
        else:
            self._warned = False
        return self._keys


def _some_keys(texts: tuple[str, ...]) -> tuple[bytes, ...]:
    keys = keys_of(texts)
    if texts and not keys:  # a file caught between truncating and writing: never a reason to send unsigned
        raise ValueError("no secret is there")
    return keys
