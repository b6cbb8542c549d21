"""The reloads under load in their short form: each kind of change and each kind of broken file once."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.reload_proof import BROKEN, CHANGES, INTERVAL_SECONDS, prove

NOISE_SECONDS = 2.0
"""Seconds that a poll may be late on a machine that does other things, which no reload explains."""


@pytest.mark.faults
@pytest.mark.timeout(400)
async def test_reloads_under_load_lose_and_repeat_nothing(tmp_path: Path) -> None:
    reloads = len(CHANGES) + len(BROKEN)
    result = await prove(
        "sqlite", "embedded", reloads=reloads, broken=len(BROKEN), transitions=1_500, quiet=1.0, folder=tmp_path
    )
    assert result.is_good, result.table()
    assert result.outcomes.total() == reloads
    assert result.longest <= INTERVAL_SECONDS + NOISE_SECONDS, result.table()
