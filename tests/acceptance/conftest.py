"""Tests that were not yet seen to pass on a quiet machine are collected when BRIDGE_UNPROVEN is set."""

from __future__ import annotations

import os

UNPROVEN = ["test_tape.py", "test_books.py"]
collect_ignore = [] if os.environ.get("BRIDGE_UNPROVEN") else UNPROVEN
