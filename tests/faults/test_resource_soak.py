"""The soak of resources in its short form: each kind of fault once."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.resource_soak import FAULTS, soak

SECONDS = 110.0
LONGEST_SECONDS = 20.0


@pytest.mark.faults
@pytest.mark.timeout(400)
async def test_resources_withdrawn_at_random_lose_nothing(tmp_path: Path) -> None:
    result = await soak(SECONDS, longest=LONGEST_SECONDS, folder=tmp_path)
    assert result.faults.keys() == {*FAULTS}, result.table()
    assert (result.lost, result.changed, result.unsaid()) == (0, 0, []), result.table()
    assert result.exit_code == 0
