"""How `bridgectl sources` says when a source is polled next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bridge.cli.commands.sources import _row

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROW = dict.fromkeys(("last_poll", "failures", "cursor", "committed", "lag", "holder", "error")) | {
    "name": "city", "type": "govdelivery", "state": "ok",
}  # fmt: skip


@pytest.mark.parametrize(("seconds", "said"), [(-4, "due"), (0, "due"), (5, "in 5s")])
def test_next_poll_is_never_in_the_past(seconds: int, said: str) -> None:
    moment = (NOW + timedelta(seconds=seconds)).isoformat()
    assert _row({**ROW, "next_poll": moment}, NOW)[4] == said
