"""Fixtures of provider faults's tests."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rigs.provider_faults import SILENCE

from bridge.sources.marketingcloud import client as marketingcloud
from bridge.sources.rest import requests as spacivox


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a moment for an answer, not half a minute; GovDelivery's patience is a setting."""
    for module in (spacivox, marketingcloud):
        monkeypatch.setattr(module, "_LIMITS", replace(module._LIMITS, read=SILENCE, total=2.0))
