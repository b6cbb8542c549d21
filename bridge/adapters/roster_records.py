"""How processes and orders are written down: JSON whose unknown fields are skipped, so that versions may be mixed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from bridge.protocols.roster import Member, Mute, OpenCircuit, Orders, Pause, Presence, StartedPoll

KEPT_SECONDS = 3600.0
"""Seconds for which a process that ended without a word is shown."""
_PAUSE, _POLL, _STARTED, _MUTE = "pause/", "poll/", "started/", "mute/"


def pause_field(part: str) -> str:
    """Return the name under which the order to pause a part is kept."""
    return _PAUSE + part


def poll_field(source: str) -> str:
    """Return the name under which a request for a poll is kept."""
    return _POLL + source


def started_field(source: str) -> str:
    """Return the name under which the last request that was begun is kept."""
    return _STARTED + source


def mute_field(id: str) -> str:  # noqa: A002 - what the mute calls it
    """Return the name under which a mute is kept."""
    return _MUTE + id


def pack(record: Member | Mute | Pause | StartedPoll) -> str:
    """Return a record as text."""
    return json.dumps(asdict(record), ensure_ascii=False, separators=(",", ":"))


def unpack_member(text: str) -> Member:
    """Read a process."""
    values = _known(Member, json.loads(text))
    values["roles"] = tuple(values["roles"])
    for name in {"accounts", "share"} & values.keys():
        values[name] = None if values[name] is None else tuple(values[name])
    circuits = values.get("circuits", {})
    values["circuits"] = {name: OpenCircuit(**_known(OpenCircuit, value)) for name, value in circuits.items()}
    return Member(**values)


def presence(text: str, announced: float, ends: float, now: float) -> Presence:
    """Return a process whose last announcement was at `announced`, and is valid until `ends`."""
    return Presence(unpack_member(text), announced, max(0.0, now - announced), gone=now >= ends)


def by_start(presences: Iterable[Presence]) -> list[Presence]:
    """Return processes in the order in which they started."""
    return sorted(presences, key=lambda item: (item.member.since, item.member.owner))


def read_orders(fields: Mapping[str, str]) -> Orders:
    """Read all orders by the names under which they are kept; names of a later version are skipped."""
    pauses, polls, started, mutes = {}, {}, {}, {}
    for name, value in sorted(fields.items()):
        if name.startswith(_PAUSE):
            pauses[name.removeprefix(_PAUSE)] = Pause(**_known(Pause, json.loads(value)))
        elif name.startswith(_POLL):
            polls[name.removeprefix(_POLL)] = value
        elif name.startswith(_STARTED):
            started[name.removeprefix(_STARTED)] = StartedPoll(**_known(StartedPoll, json.loads(value)))
        elif name.startswith(_MUTE):
            mutes[name.removeprefix(_MUTE)] = Mute(**_known(Mute, json.loads(value)))
    return Orders(pauses, polls, started, mutes)


def _known(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in kind.__dataclass_fields__ if name in values}
