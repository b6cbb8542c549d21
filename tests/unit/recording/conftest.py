"""Fixtures of recording's tests."""

from __future__ import annotations

import math
import time as real_time

import pytest

from bridge.testing.fakes import Jumping

HOUR_SECONDS = 3600.0
INTO_THE_HOUR_SECONDS = 300.0


@pytest.fixture
def time():
    """Give a clock that starts five minutes past an hour: sources read by the hour, so its end changes what is asked."""
    now = real_time.time()
    return Jumping(ahead=math.ceil(now / HOUR_SECONDS) * HOUR_SECONDS + INTO_THE_HOUR_SECONDS - now)
