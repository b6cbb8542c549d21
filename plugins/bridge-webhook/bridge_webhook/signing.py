"""Standard Webhooks signatures over id, timestamp and body, once for each secret: HMAC-SHA256 (v1), Ed25519 (v1a)."""

from __future__ import annotations

import binascii
import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable
from importlib import import_module
from typing import Any

PREFIX = "whsec_"
LENGTHS = range(24, 65)
"""How many bytes a key may have; what Standard Webhooks asks for."""


PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"
_SEED_BYTES = 32


class Ed25519Key:
    """A private key, which only the sender has; receivers verify with `public`."""

    def __init__(self, seed: bytes) -> None:
        """Make the key; raises `ValueError` if the library for it is not installed."""
        try:
            library: Any = import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
        except ImportError:
            raise ValueError("is an asymmetric key (whsk_), which needs the extra: pip install 'bridge[jwt]'") from None
        self._key = library.Ed25519PrivateKey.from_private_bytes(seed)
        self.public_bytes: bytes = self._key.public_key().public_bytes_raw()

    @property
    def public(self) -> str:
        """The public key as receivers write it."""
        return PUBLIC_PREFIX + b64encode(self.public_bytes).decode()

    def sign(self, text: bytes) -> bytes:
        """Return the signature of a text."""
        signature: bytes = self._key.sign(text)
        return signature


SigningKey = bytes | Ed25519Key
"""The key of an HMAC, or a private key."""


def new_secret() -> str:
    """Return a new random secret, as it is written in a configuration."""
    return PREFIX + b64encode(os.urandom(LENGTHS[0])).decode()


def keys_of(secrets: Iterable[str]) -> tuple[SigningKey, ...]:
    """Return the keys of secrets written as `whsec_` or `whsk_` and base64; a text may hold several, one a line.

    Raises `ValueError`, whose text quotes nothing of them.
    """
    return tuple(_key(word) for text in secrets for word in text.split())


def _key(secret: str) -> SigningKey:
    if secret.startswith(PRIVATE_PREFIX):
        return _private_key(secret.removeprefix(PRIVATE_PREFIX))
    if secret.startswith(PUBLIC_PREFIX):
        raise ValueError("is a public key (whpk_), which receivers have; give the private one: whsk_ and base64")
    asked = f"the base64 of {LENGTHS[0]} to {LENGTHS[-1]} random bytes"
    text = secret.removeprefix(PREFIX)
    if not text:  # said without the prefix: a configuration's problem shows nothing that equals the secret
        raise ValueError(f"is a prefix without a key; write {asked} behind it")
    key = _decoded(text)
    if key is None:
        raise ValueError(f"is no webhook secret; write {PREFIX} and {asked}")
    if len(key) not in LENGTHS:
        raise ValueError(f"is a key of {len(key)} bytes; write {PREFIX} and {asked}")
    return key


def _private_key(text: str) -> Ed25519Key:
    raw = _decoded(text)
    if raw is None or len(raw) not in (_SEED_BYTES, 2 * _SEED_BYTES):
        raise ValueError(f"is no asymmetric key; write {PRIVATE_PREFIX} and the base64 of its {_SEED_BYTES} bytes")
    key = Ed25519Key(raw[:_SEED_BYTES])
    if raw[_SEED_BYTES:] not in (b"", key.public_bytes):  # some libraries write the public key behind the private one
        raise ValueError("is an asymmetric key whose two halves do not belong together")
    return key


def _decoded(text: str) -> bytes | None:
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def signatures(keys: Iterable[SigningKey], event_id: str, timestamp: str, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature for each key, separated by blanks."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    return " ".join(_signature(key, signed) for key in keys)


def _signature(key: SigningKey, signed: bytes) -> str:
    if isinstance(key, bytes):
        return "v1," + b64encode(hmac.digest(key, signed, "sha256")).decode()
    return "v1a," + b64encode(key.sign(signed)).decode()
