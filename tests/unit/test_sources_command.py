"""How `bridgectl sources` says when a source is polled next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bridge.cli.commands.sources import _row
from bridge.runtime.overview import SourceView

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(("seconds", "said"), [(-4, "due"), (0, "due"), (5, "in 5s")])
def test_next_poll_is_never_in_the_past(seconds: int, said: str) -> None:
    source = SourceView("city", "govdelivery", "ok", next_poll=NOW + timedelta(seconds=seconds))
    assert _row(source, NOW)[4] == said


@pytest.mark.parametrize("state", ["not polled", "paused"])
def test_no_poll_is_due_if_nobody_polls(state: str) -> None:
    source = SourceView("city", "govdelivery", state, reported="ok", next_poll=NOW + timedelta(seconds=5))
    assert _row(source, NOW)[4] is None
