"""Asking a provider beside the running service: the two share an account, and so its budget of requests."""

from __future__ import annotations

from bridge.assembly import Assembly
from bridge.ledger import Ledger
from bridge.source import Source


async def is_polled(store: Ledger, name: str) -> bool:
    """Say whether a service polls the source at this moment."""
    return await store.holder(f"source/{name}") is not None


async def paced(parts: Assembly, store: Ledger, name: str, rate: float | None = None) -> Source:
    """Return a source that asks at `rate`; by default at its own, and at half of it while a service polls it.

    Budgets are kept in each process, so that the two together ask at most half as much again as the settings say.
    """
    settings = parts.config.sources[name]
    if rate is None:
        rate = settings.rate / 2 if await is_polled(store, name) else settings.rate
    slower = {**parts.config.sources, name: settings.model_copy(update={"rate": rate})}
    return Assembly(parts.config.model_copy(update={"sources": slower}), parts.clock).source(name)
