"""What a store promises: ledger, deliveries and roster together, opened before they are used."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from bridge.protocols.deliveries import DeliveryStore
from bridge.protocols.ledger import Ledger
from bridge.protocols.roster import Roster


class Store(Ledger, DeliveryStore, Roster, Protocol):
    """One store that keeps the ledger, the deliveries and the roster."""

    async def open(self) -> None:
        """Connect; raises `Unavailable`."""
        ...

    async def check_rights(self, sources: Collection[str], sinks: Collection[str]) -> None:
        """Try each right that the service needs for these, and leave nothing behind.

        Raises `MissingRight` that names what is refused, and `Unavailable` if the store could not be written to.
        """
        ...
