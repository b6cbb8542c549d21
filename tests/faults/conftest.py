"""Tests that were not yet seen to pass on a quiet machine are collected when BRIDGE_UNPROVEN is set."""

from __future__ import annotations

import os

UNPROVEN = [
    "test_canaries.py",
    "test_soak.py",
    "test_crash_matrix.py",
    "test_replicas.py",
    "test_outages.py",
    "test_budget.py",
    "test_large_message.py",
    "test_provider_catalogue.py",
]
collect_ignore = [] if os.environ.get("BRIDGE_UNPROVEN") else UNPROVEN
