"""Spacivox as an HTTP server shows it: records between a start and an end."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from bridge.simulator.ground_truth import ShownStatus
from bridge.simulator.provider_api import SimRequest, SimResponse, answer_json
from bridge.simulator.world import Record, World, iso_millis

_PATH = re.compile(r"/j/(voicemail_drop|text|email)_records/?")


class SimulatedSpacivox:
    """Answers as the vendor's reference has it: a bare array, both ends of the window included."""

    provider = "spacivox"

    def __init__(self, world: World) -> None:
        self._world = world

    def view(self, path: str) -> str | None:
        """Return `records`."""
        return "records" if path.startswith("/j/") else None

    def answer(self, ask: SimRequest) -> SimResponse:
        """Return the true answer."""
        if ask.headers.get("Authorization") != f"Bearer {self._world.settings.spacivox_token}":
            return answer_json({"error": "Forbidden"}, 403)
        match = _PATH.fullmatch(ask.path)
        if match is None:
            return answer_json({"error": "Not Found"}, 404)
        try:
            start, end = window(ask)
            team = int(ask.query["team"]) if "team" in ask.query else None
        except (KeyError, ValueError):
            return answer_json(
                {"error": "Bad Request: start and end are required, with an offset; team is a number"}, 400
            )
        now = self._world.now()
        records = [
            record for record in self._world.records_between(match[1], start, end) if team in {None, record.team}
        ]
        shown_statuses = [ShownStatus(record.path, record.state(now).status) for record in records]
        return answer_json([_record(record, now) for record in records], shown_statuses=shown_statuses)

    def shown_statuses(self, ask: SimRequest, payload: Any) -> list[ShownStatus]:
        """Return the states in a body."""
        path = ask.path.rstrip("/")
        return [
            ShownStatus(f"{path}/{item['id']}", str(item["state"]))
            for item in (payload if isinstance(payload, list) else [])
            if isinstance(item, dict)
            and isinstance(item.get("id"), int | str)
            and isinstance(item.get("state"), int | str)
        ]


def window(ask: SimRequest) -> tuple[float, float]:
    """Return start and end of a question in seconds since 1970; raises `KeyError` or `ValueError`."""
    start, end = (datetime.fromisoformat(ask.query[name]) for name in ("start", "end"))
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError("a time needs an offset from UTC")
    return start.timestamp(), end.timestamp()


def _record(record: Record, now: float) -> dict[str, Any]:
    state = record.state(now).status
    return {
        "campaign": record.campaign,
        "id": record.number,
        "job": record.job,
        "number": record.address,
        "reference": record.reference,
        "state": int(state) if state.isdecimal() else state,
        "team": record.team,
        "timestamp": iso_millis(record.born),
    }
