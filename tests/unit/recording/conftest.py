"""Fixtures of recording's tests."""

from __future__ import annotations

import pytest

from bridge.testing.fakes import Jumping


@pytest.fixture
def time():
    return Jumping()
