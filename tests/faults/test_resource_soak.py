"""The soak of resources in its short form: each kind of fault once."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.resource_soak import FAULTS, soak

LONGEST_SECONDS = 12.0


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.parametrize("setup", FAULTS)
async def test_resources_withdrawn_at_random_lose_nothing(tmp_path: Path, setup: str) -> None:
    result = await soak(setup, rounds=1, longest=LONGEST_SECONDS, folder=tmp_path)
    assert result.faults.keys() == FAULTS[setup], result.table()
    assert (result.lost, result.broken_lines, result.changed, result.unsaid()) == (0, 0, 0, []), result.table()
    assert result.exit_code == 0
