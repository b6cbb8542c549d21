"""Standard Webhooks signatures: HMAC-SHA256 over id, timestamp and body, once for each secret."""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterable

PREFIX = "whsec_"


def keys_of(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """Return the signing keys of secrets written as `whsec_` and base64; a text may hold several, one a line.

    Raises `ValueError`, whose text quotes nothing of them.
    """
    return tuple(_key(word) for text in secrets for word in text.split())


def _key(secret: str) -> bytes:
    if secret.startswith("whsk_"):
        raise ValueError("is an asymmetric key (whsk_); give a symmetric one: whsec_ and base64")
    text = secret.removeprefix(PREFIX)
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(f"is no webhook secret; write {PREFIX} and the base64 of 24 to 64 random bytes")
    return key


def signatures(keys: Iterable[bytes], event_id: str, timestamp: str, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature for each key, separated by blanks."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    return " ".join("v1," + b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
