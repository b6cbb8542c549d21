"""What several of the unit tests stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "bridge.db", clock=Clock())
    await store.open()
    yield store
    await store.close()
