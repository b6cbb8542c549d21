"""Fixtures of backfill's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rigs.backfill import AT

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "bridge.db", clock=Clock(now=lambda: AT))
    await store.open()
    yield store
    await store.close()
