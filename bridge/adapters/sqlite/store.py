"""One SQLite file as the bridge's whole memory: ledger, deliveries, roster and hints over one writer and one reader."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from bridge.adapters.sqlite.database import SqliteDatabase
from bridge.adapters.sqlite.deliveries import SqliteDeliveries
from bridge.adapters.sqlite.hints import SqliteHints
from bridge.adapters.sqlite.ledger import SqliteLedger
from bridge.adapters.sqlite.mark import SqliteMark
from bridge.adapters.sqlite.roster import SqliteRoster
from bridge.adapters.sqlite.unsent import SqliteUnsent
from bridge.domain.clock import Clock
from bridge.domain.installation import Mark


class SqliteStore(SqliteLedger, SqliteDeliveries, SqliteUnsent, SqliteRoster, SqliteHints):
    """`Ledger`, `DeliveryStore`, `Roster` and `HintStore` in one file, for one host; several processes may share it.

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
        SqliteUnsent.__init__(self, file)
        SqliteRoster.__init__(self, file, clock)
        SqliteHints.__init__(self, file, clock)
        self._mark = SqliteMark(file)

    @property
    def place(self) -> str:
        """Where the store is."""
        return str(self._file.path)

    async def open(self) -> None:
        """Open the file, and make it if need be; raises `Unavailable` that says why it cannot be used."""
        await (self.sources() if self._read_only else self.ping())

    async def mark(self) -> Mark | None:
        """Return the installation whose mark the store has; None if it has none."""
        return await self._mark.read()

    async def claim_for(self, mark: Mark) -> Mark:
        """Return the store's mark, `mark` if it had none; every later call is refused where another one is met."""
        return await self._mark.claim(mark)

    async def take_over(self, mark: Mark) -> None:
        """Give the store this mark instead of its own."""
        await self._mark.write(mark)

    async def check_rights(self, _sources: Collection[str], _sinks: Collection[str]) -> None:
        """Try whether the file can be written to: there are no other rights."""
        await self.ping()

    async def close(self) -> None:
        """Finish the writes that are waiting and close the file."""
        await self._file.close()
