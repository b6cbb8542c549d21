"""How things are called in Redis: one hash slot for each source and each sink, and small hashes for many resources."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

_BUCKET_BITS = 7
"""A hash of 128 small fields is still kept as one listpack by a Redis that nobody has tuned."""
_HASHED_BUCKETS = 1024
_NAME_KEPT = 20
"""Longer names stand in the ledger as 96 bits of their digest."""
_DIGITS = 18
"""What a 64-bit number surely holds."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys below one prefix.

    What stands in braces decides the slot: all keys of a source, and of a sink, are on one node of a cluster.
    """

    prefix: str

    def source(self, name: str) -> str:
        """Return what all keys of a source start with."""
        return f"{{{self.prefix}:src:{name}}}"

    def sink(self, name: str) -> str:
        """Return what all keys of a sink start with."""
        return f"{{{self.prefix}:sink:{name}}}"

    def lease(self, name: str) -> str:
        """Return the key of a lease, in the slot of the source that it protects."""
        kind, _, source = name.partition("/")
        if kind in {"source", "relay"} and source:
            return f"{self.source(source)}:l:{kind}"
        return f"{{{self.prefix}:lease:{name}}}"

    @property
    def roster(self) -> str:
        """What the keys of processes and orders start with; both are in one slot."""
        return f"{{{self.prefix}:roster}}"

    def common(self, name: str) -> str:
        """Return the key of what belongs to no single source or sink."""
        return f"{self.prefix}:{name}"


def bucket_of(name: str) -> tuple[str, str]:
    """Return the bucket of a resource's name inside its scope, and its field there.

    Decimal numbers lie 128 to a bucket, neighbours together: a field costs about seven bytes.
    """
    if name.isdecimal() and name.isascii() and len(name) <= _DIGITS and (name[0] != "0" or name == "0"):
        number = int(name)
        return str(number >> _BUCKET_BITS), str(number & ((1 << _BUCKET_BITS) - 1))
    digest = hashlib.blake2b(name.encode(), digest_size=12).digest()
    bucket = f"x{int.from_bytes(digest[:4], 'big') % _HASHED_BUCKETS}"
    if len(name) <= _NAME_KEPT and not name.startswith("#"):
        return bucket, name
    return bucket, "#" + base64.b64encode(digest).decode()


def name_of(bucket: str, kept: str) -> str:
    """Return the name that lies in a bucket's field; of a long one, only the digest is there to be told."""
    return kept if bucket.startswith("x") else str((int(bucket) << _BUCKET_BITS) + int(kept))
