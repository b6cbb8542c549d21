"""What a poller does about silence: about resources that stay without a final status, and about a quiet provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bridge.ingest.overdue import OverdueWatch
from bridge.ingest.quiet import QuietWatch
from bridge.protocols.ledger import Lease


@dataclass(frozen=True, slots=True)
class SilenceWatch:
    """The watches of one source; without any, nothing is done or asked."""

    overdue: OverdueWatch | None = None
    quiet: QuietWatch | None = None

    @asynccontextmanager
    async def watching(self, lease: Lease, stop: asyncio.Event) -> AsyncIterator[None]:
        """Publish what becomes overdue while the `with` block polls."""
        if self.overdue is None:
            yield
            return
        watching = asyncio.ensure_future(self.overdue.run(lease, stop))
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def after_poll(self, lease: Lease, *, has_news: bool, is_complete: bool) -> None:
        """Look after a poll that went well; an incomplete one tells nothing of silence."""
        if self.quiet is not None and (is_complete or has_news):
            await self.quiet.after_poll(lease, has_news=has_news)

    async def check(self, lease: Lease) -> None:
        """Publish what is overdue now."""
        if self.overdue is not None:
            await self.overdue.check(lease)
