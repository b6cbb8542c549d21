"""Standard Webhooks signatures: HMAC-SHA256 over id, timestamp and body, once for each secret."""

from __future__ import annotations

import binascii
import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable

PREFIX = "whsec_"
LENGTHS = range(24, 65)
"""How many bytes a key may have; what Standard Webhooks asks for."""


def new_secret() -> str:
    """Return a new random secret, as it is written in a configuration."""
    return PREFIX + b64encode(os.urandom(LENGTHS[0])).decode()


def keys_of(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """Return the signing keys of secrets written as `whsec_` and base64; a text may hold several, one a line.

    Raises `ValueError`, whose text quotes nothing of them.
    """
    return tuple(_key(word) for text in secrets for word in text.split())


def _key(secret: str) -> bytes:
    if secret.startswith("whsk_"):
        raise ValueError("is an asymmetric key (whsk_); give a symmetric one: whsec_ and base64")
    asked = f"the base64 of {LENGTHS[0]} to {LENGTHS[-1]} random bytes"
    text = secret.removeprefix(PREFIX)
    if not text:  # said without the prefix: a configuration's problem shows nothing that equals the secret
        raise ValueError(f"is a prefix without a key; write {asked} behind it")
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"is no webhook secret; write {PREFIX} and {asked}") from None
    if len(key) not in LENGTHS:
        raise ValueError(f"is a key of {len(key)} bytes; write {PREFIX} and {asked}")
    return key


def signatures(keys: Iterable[bytes], event_id: str, timestamp: str, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature for each key, separated by blanks."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    return " ".join("v1," + b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
