"""A past that can be read in steps, and a backfill of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.ingest.intake import Intake
from bridge.protocols.source import Observation, Page
from bridge.testing.fakes import ScriptedSource

AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def page(*observations: Observation, seconds: float = 0, **cursor: str) -> Page:
    return Page(observations, AT + timedelta(seconds=seconds), None, cursor)


def intake(store: SqliteStore, source: ScriptedSource, **options: bool) -> Intake:
    return Intake("city", "govdelivery", source, store, Clock(now=lambda: AT), **options)


async def journal(store: SqliteStore) -> list[tuple[str, str, str]]:
    bodies = [json.loads(entry.event.body) for entry in await store.read("city", 0, 1000)]
    return [(body["subject"].rpartition("/")[2], body["data"]["status"], body["data"]["transition"]) for body in bodies]
