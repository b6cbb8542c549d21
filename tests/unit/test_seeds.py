"""The vendors' own pages, from the answer of a server to the event in the journal; and the table of all statuses."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.adapters.sqlite_store import SqliteStore
from bridge.clock import Clock
from bridge.event import CATALOGUE, Catalogue
from bridge.intake import Intake, Round
from bridge.plugins import load_source

SEEDS = Path(__file__).parents[1] / "seeds"
SMS = (SEEDS / "govdelivery-sms-message.txt").read_text(encoding="utf-8")
VOICE = (SEEDS / "govdelivery-voice-message.txt").read_text(encoding="utf-8")
RECIPIENTS = (SEEDS / "govdelivery-voice-recipients.txt").read_text(encoding="utf-8")
NOT_SENT = (SEEDS / "marketingcloud-sms-not-sent.txt").read_text(encoding="utf-8")
DROPS = (SEEDS / "spacivox-voicemail-drop-records.txt").read_text(encoding="utf-8")


def cut(page: str, opening: str, closing: str, *, after: str = "") -> str:
    """Return the JSON that stands on a page, byte for byte: from a line that is `opening` to one that is `closing`."""
    begin = page.index(f"\n{opening}\n", page.index(after)) + 1
    return page[begin : page.index(f"\n{closing}", begin) + 1 + len(closing)]


def documented(page: str) -> dict[str, Any]:
    """Return the JSON Schema that stands on a page."""
    return json.loads(cut(page, "{", "}", after='"$schema"' if '\n{\n  "$schema"' not in page else '{\n  "$schema"'))


SMS_EXAMPLE = cut(SMS, "{", "}")
VOICE_EXAMPLE = cut(VOICE, "{", "}")
DROPS_EXAMPLE = cut(DROPS, "[", "]")
