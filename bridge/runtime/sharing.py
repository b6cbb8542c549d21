"""How the processes of one store share the accounts: how long an announcement holds, and what is said of changes."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from bridge.coordination.shares import ShareChange
from bridge.observability.metrics import Metrics

log = structlog.get_logger()

_MAX_ANNOUNCED_SECONDS = 10.0
_ANNOUNCED_SHARE = 2 / 3
"""The part of a lease for which an announcement holds: when the leases of a dead process end, others know of it."""
_MAX_LOGGED_ACCOUNTS = 20
"""Names of accounts in one line of the log."""


def announced_for(lease: float) -> float:
    """Return for how many seconds an announcement holds, with leases of `lease` seconds."""
    return min(_MAX_ANNOUNCED_SECONDS, lease * _ANNOUNCED_SHARE)


def report_change(metrics: Metrics, change: ShareChange) -> None:
    """Say that the accounts of this process have changed."""
    for direction, names in (("gained", change.gained), ("handed_over", change.handed_over)):
        metrics.account_moves.labels(direction).inc(len(names))
    log.info(
        "share.changed", accounts=f"{change.share} of {change.all_accounts}", gained=_shown(change.gained) or None,
        handed_over=_shown(change.handed_over) or None, reason=change.reason,
        consequence="an account goes over when the poll under way has ended",
    )  # fmt: skip


def _shown(names: Sequence[str]) -> str:
    """Return the first names of a list."""
    more = len(names) - _MAX_LOGGED_ACCOUNTS
    return ", ".join(sorted(names)[:_MAX_LOGGED_ACCOUNTS]) + (f" and {more} more" if more > 0 else "")
