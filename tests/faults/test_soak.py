"""The soak in its short form: ten thousand transitions, twenty kills, nothing lost."""

from __future__ import annotations

import pytest
from faults.soak import MAX_IN_FLIGHT, PER_MESSAGE, SENDS, VICTIMS, soak

TRANSITIONS, KILLS = 10_000, 20


@pytest.mark.faults
@pytest.mark.timeout(400)
async def test_random_kills_lose_nothing_and_every_repeat_is_explained(tmp_path, request, record_property):
    result = await soak(TRANSITIONS, KILLS, within=240, folder=tmp_path)
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{result.table()}")  # noqa: T201 - the figures are for a reader
    record_property("soak", result.table())
    assert result.transitions >= TRANSITIONS - PER_MESSAGE - SENDS
    assert result.kills.total() == KILLS
    assert result.kills.keys() == VICTIMS.keys()
    assert (result.lost, result.undefined, result.changed) == (0, 0, 0)
    assert result.balanced
    # A repetition is what the sink's process had in hand when it was killed, and nothing else.
    assert result.unexplained == 0
    assert result.worst <= MAX_IN_FLIGHT
    assert result.refused > TRANSITIONS * 0.05
