"""Fixtures of simulator's tests."""

from __future__ import annotations

import aiohttp
import pytest_asyncio
from rigs.simulator import Reader

from bridge.simulator import Simulator, SimulatorSettings


@pytest_asyncio.fixture
async def sim():
    async with Simulator(SimulatorSettings.still(manual_clock=True, begins_ago=3600)) as sim:
        yield sim


@pytest_asyncio.fixture
async def reader(sim):
    async with aiohttp.ClientSession() as session:
        yield Reader(sim, session)
