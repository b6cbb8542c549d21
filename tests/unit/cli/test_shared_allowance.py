"""Sources of one account are added up against what the account allows in a year."""

from __future__ import annotations

import pytest

from bridge.cli.support.options import Exit
from bridge.cli.support.shared_allowance import AccountCost, overdrawn
from bridge.protocols.source import Probe
from bridge.sources.marketingcloud.source import MarketingCloud

ALLOWED = 365_000


def costs(*per_day: float, account: str = "a") -> list[AccountCost]:
    return [AccountCost(f"s{number}", account, requests, ALLOWED) for number, requests in enumerate(per_day)]


@pytest.mark.parametrize("per_day", [(), (2000,), (400, 600), (500, 500)])
def test_sources_within_the_allowance_get_no_warning(per_day) -> None:
    assert overdrawn(costs(*per_day)) == {}


def test_all_sources_of_an_overdrawn_account_get_one_warning() -> None:
    warnings = overdrawn([*costs(600, 600), AccountCost("alone", "b", 900, ALLOWED)])
    assert set(warnings) == {"s0", "s1"}
    assert warnings["s0"] == warnings["s1"]
    assert "the sources s0, s1 share an account" in warnings["s0"]
    assert "438,000 requests together, 120% of the 365,000" in warnings["s0"]


def test_the_smallest_allowance_of_an_account_counts() -> None:
    assert overdrawn([AccountCost("a", "x", 600, 10**9), AccountCost("b", "x", 600, ALLOWED)]).keys() == {"a", "b"}


SOURCE = """{{type: marketingcloud, auth_url: "https://mc.example", client_id: c, client_secret: s, account_id: "{account}"}}"""


@pytest.mark.parametrize(("accounts", "state"), [("11", "warning"), ("12", "ok")])
def test_check_adds_up_the_sources_of_one_account(bridge, tmp_path, monkeypatch, accounts, state) -> None:
    async def probe(source: MarketingCloud) -> Probe:
        del source
        return Probe("answers", 1000, None, ALLOWED + 1)

    monkeypatch.setattr(MarketingCloud, "probe", probe)
    file = tmp_path / "bridge.yaml"
    named = "\n".join(f"  s{n}: {SOURCE.format(account=account)}" for n, account in enumerate(accounts))
    file.write_text(f"state: {tmp_path}\nsources:\n{named}\n")
    done = bridge("check", "-c", file, "--json", "--strict")
    assert done.code == (Exit.FAILED if state == "warning" else Exit.DONE)
    states = {row["part"]: row["state"] for row in done.json["parts"]}
    assert states["source s0"] == states["source s1"] == state
