"""Tapes: what the providers answered, kept without personal data, and played again offline."""

from __future__ import annotations

from bridge.recording.diff import EventDifference, Side, compare
from bridge.recording.files import TapeError
from bridge.recording.playback import Summary, UnmatchedRequest
from bridge.recording.player import Replay, offline
from bridge.recording.recorder import Recorder

__all__ = [
    "EventDifference",
    "Recorder",
    "Replay",
    "Side",
    "Summary",
    "TapeError",
    "UnmatchedRequest",
    "compare",
    "offline",
]
