"""What a store promises: ledger, deliveries, roster and hints together, opened before they are used."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from bridge.domain.installation import Mark
from bridge.protocols.deliveries import DeliveryStore
from bridge.protocols.hints import HintStore
from bridge.protocols.ledger import Ledger
from bridge.protocols.roster import Roster


class Store(Ledger, DeliveryStore, Roster, HintStore, Protocol):
    """One store that keeps the ledger, the deliveries, the roster and the hints."""

    @property
    def place(self) -> str:
        """Where the store is, fit for a log."""
        ...

    async def open(self) -> None:
        """Connect; raises `Unavailable`."""
        ...

    async def mark(self) -> Mark | None:
        """Return the installation whose mark the store has; None if it has none."""
        ...

    async def claim_for(self, mark: Mark) -> Mark:
        """Return the store's mark, which is `mark` if it had none: processes that claim at once get the same one.

        From now on the store is used with this mark alone: one that was emptied gets it again, and after a reconnect to
        a store with another one, every call raises `OtherInstallation`.
        """
        ...

    async def take_over(self, mark: Mark) -> None:
        """Give the store this mark instead of its own."""
        ...

    async def check_rights(self, sources: Collection[str], sinks: Collection[str]) -> None:
        """Try each right that the service needs for these, and leave nothing behind.

        Raises `MissingRight` that names what is refused, and `Unavailable` if the store could not be written to.
        """
        ...
