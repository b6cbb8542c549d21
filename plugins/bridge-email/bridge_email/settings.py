"""What the e-mail sink can be told."""

from __future__ import annotations

from email.headerregistry import Address
from email.utils import parseaddr
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, FilePath, field_validator, model_validator

from bridge.plugin import Duration, Privacy, Secret, SinkSettings
from bridge_email.templates import SUBJECT, TEXT, check

PORTS = {"starttls": 587, "tls": 465, "none": 25}
SENDING_SECONDS = 30.0
"""Time for sending, in addition to the window."""


def address_of(text: str) -> Address:
    """Read `NAME <USER@HOST>` or `USER@HOST`; raises `ValueError`."""
    name, spec = parseaddr(text)
    user, _, host = spec.rpartition("@")
    if not text.isprintable() or not user or not host or not spec.isascii() or " " in spec:
        raise ValueError("is not an e-mail address; write USER@HOST or NAME <USER@HOST>, the address in ASCII")
    return Address(display_name=name, addr_spec=spec)


def _checked(text: str) -> str:
    address_of(text)
    return text


Mailbox = Annotated[str, AfterValidator(_checked)]


class EmailSettings(SinkSettings):
    """How to reach a mail server, whom to write to, and what to say."""

    host: str = Field(min_length=1, pattern=r"^[A-Za-z0-9.:_-]+$", examples=["smtp.example.com"])
    """The mail server that accepts the messages; its certificate has to have this name."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is encrypted: by STARTTLS, which the server has to offer, or from the start. `none` is for a
    server on the same machine, without a login."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """The server's port; 587 with `starttls`, 465 with `tls`, 25 with `none`."""
    ca_file: FilePath | None = None
    """Certificates (PEM) to trust in addition to the system's."""
    username: str | None = None
    """The name to log in with; without it, there is no login."""
    password: Secret | None = None
    """The password to log in with."""
    sender: Mailbox = Field(examples=["Bridge <bridge@example.com>"])
    """The address that messages come from: `USER@HOST`, or `NAME <USER@HOST>`."""
    to: list[Mailbox] = Field(min_length=1, max_length=100, examples=[["ops@example.com"]])
    """Whom to write to."""
    subject: str = SUBJECT
    """A Jinja template of the subject. It has `title`, `count`, `event` (the first) and `events`."""
    text: str = TEXT
    """A Jinja template of the plain text."""
    html: str | None = None
    """A Jinja template of the same as HTML; values are escaped. Unset, messages are plain text alone."""
    window: Duration | None = Field(default=None, gt=0, le=3600)
    """How long events are gathered into a digest, at most. Unset, each event is a message."""
    concurrency: int = Field(default=1000, ge=1, le=10000)
    """How many events wait for their message at once; a digest holds no more than these."""
    privacy: Privacy = "last4"
    """What this sink may see of phones and keys: all, the last four digits, or a stable token."""
    send_timeout: Duration = Field(default=120.0, gt=0)
    """How long one event may take, the wait for its digest included; 30 seconds more than `window`, or longer."""

    @field_validator("subject", "text")
    @classmethod
    def _usable_template(cls, text: str) -> str:
        return check(text)

    @field_validator("html")
    @classmethod
    def _usable_html(cls, text: str | None) -> str | None:
        return None if text is None else check(text, html=True)

    @model_validator(mode="after")
    def _login_is_whole_and_encrypted(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("give username and password, or neither")
        if self.username is not None and self.security == "none":
            raise ValueError("security: none would send the password in the clear; use starttls or tls")
        return self

    @model_validator(mode="after")
    def _has_time_to_gather(self) -> Self:
        if self.window is not None and self.send_timeout < self.window + SENDING_SECONDS:
            raise ValueError(
                f"send_timeout has to be at least {SENDING_SECONDS:g}s more than window, or digests never end"
            )
        return self
