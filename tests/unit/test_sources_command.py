"""How `bridge sources` says when a source is polled next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bridge.cli.commands.sources import _next_poll, _row

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROW = dict.fromkeys(("last_poll", "failures", "cursor", "committed", "lag", "holder", "error")) | {
    "name": "city", "type": "govdelivery", "state": "ok",
}  # fmt: skip


@pytest.mark.parametrize(("seconds", "said"), [(-4, "due"), (0, "due"), (5, "in 5s")])
def test_next_poll_is_never_in_the_past(seconds: int, said: str) -> None:
    moment = (NOW + timedelta(seconds=seconds)).isoformat()
    assert _row({**ROW, "next_poll": moment}, NOW)[4] == said


@pytest.mark.parametrize(
    ("seconds", "holder", "said"),
    [(5, "host-1", "2026-03-01T00:00:05Z"), (-4, "host-1", "2026-03-01T00:00:00Z"), (5, None, None), (-4, None, None)],
)
def test_noted_next_poll_is_shown_while_it_lies_ahead(seconds: int, holder: str | None, said: str | None) -> None:
    noted = (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert _next_poll(noted, holder, NOW) == said
    assert _next_poll(None, holder, NOW) is None
