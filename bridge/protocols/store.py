"""What a store promises: the ledger and the deliveries together, opened before they are used."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from bridge.protocols.deliveries import DeliveryStore
from bridge.protocols.ledger import Ledger


class Store(Ledger, DeliveryStore, Protocol):
    """One store that keeps both the ledger and the deliveries."""

    async def open(self) -> None:
        """Connect; raises `Unavailable`."""
        ...

    async def check_rights(self, sources: Collection[str], sinks: Collection[str]) -> None:
        """Try each right that the service needs for these, and leave nothing behind.

        Raises `MissingRight` that names what is refused, and `Unavailable` if the store could not be written to.
        """
        ...
