"""What the sources of one account cost together, against the requests that the account allows in a year."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.domain.times import YEAR_DAYS


@dataclass(frozen=True, slots=True)
class AccountCost:
    """What one source costs its account when nothing happens."""

    source: str
    account: str
    """The account's name without secrets, as `HasAccount.account` gives it."""
    requests_per_day: float
    requests_per_year: int
    """How many requests the account allows in a year, as this source's settings say."""


def overdrawn(costs: Sequence[AccountCost]) -> dict[str, str]:
    """Return a warning for each source whose account allows less in a year than its sources cost together.

    A source that is alone on its account is left out: its own probe compares it with the allowance.
    """
    accounts: dict[str, list[AccountCost]] = defaultdict(list)
    for cost in costs:
        accounts[cost.account].append(cost)
    return {
        cost.source: warning
        for shared in accounts.values()
        if len(shared) > 1 and (warning := _warning(shared)) is not None
        for cost in shared
    }


def _warning(shared: Sequence[AccountCost]) -> str | None:
    year = sum(cost.requests_per_day for cost in shared) * YEAR_DAYS
    allowed = min(cost.requests_per_year for cost in shared)
    if year <= allowed:
        return None
    names = ", ".join(cost.source for cost in shared)
    return (
        f"the sources {names} share an account: an idle year costs about {year:,.0f} requests together, "
        f"{year / allowed:.0%} of the {allowed:,} that it allows: make the intervals longer, or give another allowance"
    )
