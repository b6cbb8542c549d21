"""A ledger in memory whose events can be read."""

from __future__ import annotations

from catalogue import CATALOGUE

from bridge.domain.catalogue import Catalogue
from bridge.domain.event import Event
from bridge.testing.fakes import MemoryLedger


class ReadableLedger(MemoryLedger):
    """A ledger whose events can be read."""

    @property
    def events(self) -> list[Event]:
        catalogue = Catalogue(CATALOGUE)
        return [catalogue.read(body) for body in self.bodies]
