"""The mark by which an installation knows its own store and broker, and what is said of another one's."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from bridge.domain.errors import OtherInstallation
from bridge.domain.namespace import Namespace

_ID_BYTES = 8
UNKNOWN = "unknown"
"""The id of a mark that is there and cannot be read."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One installation: an id that was made once, and the namespace whose names it uses."""

    id: str
    namespace: str = ""

    @classmethod
    def new(cls, names: Namespace) -> Mark:
        """Return a mark that no other installation has."""
        return cls(secrets.token_hex(_ID_BYTES), names.name)

    @classmethod
    def parse(cls, text: str) -> Mark:
        """Read what `str` wrote."""
        namespace, _, own = text.rpartition("/")
        return cls(own or UNKNOWN, namespace)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.id}"


def check_broker(place: str, present: Mark | None, own: Mark | None) -> None:
    """Raise `OtherInstallation` if the broker at `place` has another mark than the store; `own` is the store's.

    A broker without a mark is nobody's yet, wherever it is.
    """
    if present is not None and (own is None or present.id != own.id):
        raise _other_broker(place, present, own)


def _other_broker(place: str, present: Mark, own: Mark | None) -> OtherInstallation:
    """Return the error that a broker has another mark than the store; `own` is None for a store without a mark."""
    ours = f"the store's is {own.id}" if own is not None else "the store has none"
    return OtherInstallation(
        f"the broker {place} belongs to another installation (its mark is {present.id}, {ours}): nothing is published "
        "or received. Set a `namespace` of your own, or another `broker`. If it is yours, as after the store's loss, "
        "say so with `bridgectl takeover`"
    )


def other_store(place: str, present: Mark, names: Namespace) -> OtherInstallation:
    """Return the error that a store has another mark than it had, or one of another namespace."""
    theirs, ours = (f"the namespace {name!r}" if name else "no namespace" for name in (present.namespace, names.name))
    said = (
        f"it has {theirs}, this configuration has {ours}"
        if present.namespace != names.name
        else f"its mark is {present.id}"
    )
    return OtherInstallation(
        f"the store {place} belongs to another installation ({said}): nothing is read or written. Set another `store`, "
        "or the `namespace` that it has. If it is yours, say so with `bridgectl takeover`"
    )
