"""What a store promises: the ledger and the deliveries together, opened before they are used."""

from __future__ import annotations

from typing import Protocol

from bridge.protocols.deliveries import DeliveryStore
from bridge.protocols.ledger import Ledger


class Store(Ledger, DeliveryStore, Protocol):
    """One store that keeps both the ledger and the deliveries."""

    async def open(self) -> None:
        """Connect; raises `Unavailable`."""
        ...
