"""Waiting until the running processes have heard an order: each hears it when it announces itself the next time."""

from __future__ import annotations

import asyncio

from bridge.domain.clock import Clock
from bridge.protocols.roster import Roster

_MAX_WAIT_SECONDS = 8.0
_CHECK_EVERY_SECONDS = 0.25


async def wait_until_followed(roster: Roster, clock: Clock) -> bool:
    """Return True as soon as each process has announced itself after now; False if one has not within seconds."""
    began = clock.monotonic()
    while (waited := clock.monotonic() - began) < _MAX_WAIT_SECONDS:
        if all(presence.gone or presence.age < waited for presence in await roster.presences()):
            return True
        await asyncio.sleep(_CHECK_EVERY_SECONDS)
    return False
