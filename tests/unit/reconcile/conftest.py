"""Fixtures of reconcile's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rigs.reconcile import AT, Books

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    store = SqliteStore(tmp_path / "bridge.db", clock=Clock(now=lambda: AT))
    await store.open()
    yield Books(store)
    await store.close()
