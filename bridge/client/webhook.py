"""A webhook of the bridge, verified as Standard Webhooks asks, and read into a typed event."""

from __future__ import annotations

import binascii
import hmac
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from bridge.client.reading import EventReader
from bridge.domain.event import Event

TOLERANCE_SECONDS = 300.0
"""Seconds that a webhook's timestamp may lie before or after now: what Standard Webhooks advises."""

_OURS = EventReader()
_PREFIX = "whsec_"
_VERSION = "v1,"


class WebhookError(Exception):
    """A request that must not be handled; `status` is the HTTP status to answer. The text quotes nothing of it."""

    status = 400


class UnverifiedWebhook(WebhookError):
    """The request is not proven to be the bridge's, or not of now: answer 401. The bridge sends the event again."""

    status = 401


class MalformedWebhook(WebhookError):
    """The request is signed, and its body is no event: answer 400. The bridge makes it a dead letter."""

    status = 400


def receive(
    headers: Mapping[str, str],
    body: bytes | str,
    secrets: str | Iterable[str],
    *,
    reader: EventReader = _OURS,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    now: float | None = None,
) -> Event:
    """Verify a webhook and return its event; a type that nobody knows comes as a plain `Event`.

    `headers` are the request's, in any case of letters. `body` are the bytes as they arrived: a body that was parsed
    and written again has another signature. `secrets` are the sink's: `whsec_` and base64; during a rotation give the
    old and the new one. `now` is in seconds since 1970; by default, the clock's.

    Raises `UnverifiedWebhook`, `MalformedWebhook`, and `ValueError` for a secret that is none.
    """
    payload = body.encode() if isinstance(body, str) else bytes(body)
    keys = _keys((secrets,) if isinstance(secrets, str) else tuple(secrets))
    values = {_text(name).lower(): _text(value) for name, value in headers.items()}
    _verify(values, payload, keys, tolerance_seconds, time.time() if now is None else now)
    try:
        return reader.read(payload)
    except ValueError:
        raise MalformedWebhook("the body is not a JSON object; answer 400") from None


def _verify(headers: Mapping[str, str], body: bytes, keys: Iterable[bytes], tolerance: float, now: float) -> None:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    if missing := [name for name in names if not headers.get(name)]:
        raise UnverifiedWebhook(f"the header {missing[0]} is missing; has the sink a secret?")
    event_id, timestamp, signatures = (headers[name] for name in names)
    if not (timestamp.isascii() and timestamp.isdigit()):
        raise UnverifiedWebhook("the header webhook-timestamp is not a number")
    if abs(now - int(timestamp)) > tolerance:
        raise UnverifiedWebhook(f"the webhook was sent more than {tolerance:g} s from now; is a clock wrong?")
    signed = f"{event_id}.{timestamp}.".encode() + body
    given = list(_signatures(signatures))
    # All pairs are compared, so that the time says nothing of which one fitted.
    fits = [hmac.compare_digest(hmac.digest(key, signed, "sha256"), signature) for key in keys for signature in given]
    if not any(fits):
        raise UnverifiedWebhook("no signature fits a secret; compare the secrets of sink and receiver")


def _signatures(text: str) -> Iterator[bytes]:
    for word in text.split():
        if word.startswith(_VERSION):  # others are of other versions of the standard
            try:
                yield b64decode(word.removeprefix(_VERSION), validate=True)
            except (binascii.Error, ValueError):
                continue


@lru_cache(maxsize=64)
def _keys(secrets: tuple[str, ...]) -> tuple[bytes, ...]:
    words = [word for secret in secrets for word in secret.split()]
    if not words:
        raise ValueError("no secret is given; without one, a webhook of anybody would be accepted")
    return tuple(_key(word) for word in words)


def _key(secret: str) -> bytes:
    text = secret.removeprefix(_PREFIX)
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(f"is no webhook secret; write {_PREFIX} and base64, as in the sink's settings") from None
    return key


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
