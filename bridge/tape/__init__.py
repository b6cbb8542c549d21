"""Tapes: what the providers answered, kept without personal data, and played again offline."""

from __future__ import annotations

from bridge.tape.comparing import Difference, Side, compare
from bridge.tape.files import TapeError
from bridge.tape.playing import Missing, Replay, Summary, offline
from bridge.tape.recording import Recorder

__all__ = [
    "Difference",
    "Missing",
    "Recorder",
    "Replay",
    "Side",
    "Summary",
    "TapeError",
    "compare",
    "offline",
]
