"""One SQLite file as the bridge's whole memory: ledger, deliveries and roster over one writer and one reader."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from bridge.adapters.sqlite.database import SqliteDatabase
from bridge.adapters.sqlite.deliveries import SqliteDeliveries
from bridge.adapters.sqlite.ledger import SqliteLedger
from bridge.adapters.sqlite.roster import SqliteRoster
from bridge.domain.clock import Clock


class SqliteStore(SqliteLedger, SqliteDeliveries, SqliteRoster):
    """`Ledger`, `DeliveryStore` and `Roster` in one file, for one host; several processes may share it.

    Every write is on the disk when its call returns (`synchronous=FULL`); writes that are waiting at the same time
    share one transaction. The file and its folder are made at first use. While another process holds the file for
    longer than `busy_timeout` seconds, writes raise `Unavailable`. Leases and retention go by `clock`. A new journal's
    numbers follow `begin`; by default they go by the clock, so that a new file never gives a number twice. With
    `read_only` nothing is made or written: a file that is not there is read as an empty store.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        busy_timeout: float = 5.0,
        begin: int | None = None,
        read_only: bool = False,
    ) -> None:
        file = SqliteDatabase(path, busy_timeout, read_only=read_only)
        self._read_only = read_only
        SqliteLedger.__init__(self, file, clock, begin=begin)
        SqliteDeliveries.__init__(self, file, clock)
        SqliteRoster.__init__(self, file, clock)

    async def open(self) -> None:
        """Open the file, and make it if need be; raises `Unavailable` that says why it cannot be used."""
        await (self.sources() if self._read_only else self.ping())

    async def check_rights(self, _sources: Collection[str], _sinks: Collection[str]) -> None:
        """Try whether the file can be written to: there are no other rights."""
        await self.ping()

    async def close(self) -> None:
        """Finish the writes that are waiting and close the file."""
        await self._file.close()
