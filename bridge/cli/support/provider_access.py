"""Asking a provider while the service runs: the two share an account, and so its request budget."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bridge.cli.support.notes import print_note
from bridge.coordination.leases import hold_lease, new_owner
from bridge.coordination.quota import SharedQuota, accounts, command_lease, cooldown
from bridge.protocols.ledger import Ledger
from bridge.protocols.request_context import bound
from bridge.protocols.source import Source
from bridge.runtime.assembly import Assembly

_LEASE_SECONDS = 15.0
_MAX_WAIT_SECONDS = 12 * 3600.0


async def is_polled(store: Ledger, name: str) -> bool:
    """Say whether a service polls the source at this moment."""
    return await store.holder(f"source/{name}") is not None


@asynccontextmanager
async def quota_limited_source(
    parts: Assembly, store: Ledger, name: str, rate: float | None = None
) -> AsyncIterator[Source]:
    """Give a source that asks within what a service leaves of the account's budget, and no faster than `rate`.

    Of two commands that ask by one account the second waits for the first.
    """
    configured = parts.config.sources
    names = _account(parts, name)
    budget = min(configured[name].rate for name in names)
    share = SharedQuota.for_command(store, parts.clock, names, budget)
    own = configured[name].model_copy(update={"rate": min(budget, rate or budget)})
    source = Assembly(parts.config.model_copy(update={"sources": {**configured, name: own}}), parts.clock).source(name)
    try:
        async with hold_lease(
            store, parts.clock, command_lease(names), new_owner(), _LEASE_SECONDS,
            max_wait=_MAX_WAIT_SECONDS, cooldown_seconds=cooldown(budget), waiting=_report_other_holder,
        ):  # fmt: skip
            await parts.clock.sleep(await share.entry_delay())
            with bound(share=share):
                yield source
    finally:
        await source.close()


def _account(parts: Assembly, name: str) -> Sequence[str]:
    return next(names for names in accounts(parts.sources()) if name in names)


def _report_other_holder() -> None:
    print_note("waits for another command that asks by the same account")
