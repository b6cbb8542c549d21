"""Fixtures of the deliveries' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rigs.delivery import Store, World

from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.domain.clock import Clock


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = Clock()
    store, broker = Store(tmp_path / "bridge.db", clock=clock), SqliteBroker(tmp_path / "broker.db", clock=clock)
    await store.open()
    await broker.open()
    yield World(store, broker)
    await broker.close()
    await store.close()
