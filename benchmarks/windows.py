"""A window that is read again: by the source of Spacivox, by a definition, and by a bare loop."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.rig import Rig, Sides
from bridge.domain.clock import Clock
from bridge.ingest.intake import Intake
from bridge.sources import rest, spacivox

_HOURS = 24
_DEFINITION = """
definition: 1
title: Texts of a vendor with nothing special
docs: [https://vendor.example]
settings: {token: {about: The token., type: secret}}
auth: {bearer: token}
listing: {path: /j/text_records, items: $}
window: {start: {param: start, format: iso_ms}, end: {param: end, format: iso_ms}, lookback: 24h, slice: 1h}
identity: {key: $.id}
times: {created: {path: $.timestamp}}
status:
  path: $.state
  map: {"0": sent, "1": delivered, "2": failed}
  follows: {sent: [delivered, failed]}
  finals: [delivered, failed]
facts: {phone: $.number}
events: {provider: vendor, channel: sms}
"""


async def bare(url: str) -> float:
    """Fetch and parse the same slices; return records a second."""
    now = datetime.now(UTC)
    count = 0
    async with aiohttp.ClientSession() as session:
        started = time.perf_counter()
        for hour in range(_HOURS):
            end = f"{now - timedelta(hours=hour):%Y-%m-%dT%H:00:01.000Z}"
            async with session.get(f"{url}/j/text_records?end={end}", headers={"Authorization": "Bearer t"}) as answer:
                count += len(json.loads(await answer.read()))
        return count / (time.perf_counter() - started)


def sources(url: str, folder: Path) -> dict[str, Any]:
    """Return both sources, which read all of the window at each poll."""
    file = folder / "vendor.yaml"
    file.write_text(_DEFINITION)
    shared = {"url": url, "token": "t", "interval": "1ms", "rate": "1000000/s", "reread_every": "1ms"}
    ours = {"type": "rest", "provider": str(file), **shared}
    theirs = {"type": "spacivox", "records": ["voicemail_drop"], "lookback": "24h", "slice": "1h", **shared}
    assert rest.plugin.settings_for is not None
    model = rest.plugin.settings_for(ours, folder)
    return {
        "rest": rest.plugin.build("rest", model.model_validate(ours), Clock()),
        "spacivox": spacivox.plugin.build("spacivox", spacivox.plugin.settings.model_validate(theirs), Clock()),
    }


async def compare(rig: Rig, folder: Path, records: int, sides: Sides) -> None:
    """Let all read the same window in turns, after the ledger has learnt it."""
    rig.far.make_records(hours=_HOURS + 3, records=records, stirred=0)
    both = sources(rig.far.url, folder)
    async with rig.store() as store:
        intakes = {name: Intake(name, name, source, store, Clock()) for name, source in both.items()}
        leases = {name: await store.acquire(f"source/{name}", "bench", 600) for name in both}
        for name, intake in intakes.items():
            first = await intake.poll(leases[name])
            assert first.events >= records * _HOURS, first
            await intake.poll(leases[name])
        for turn in range(rig.scale.of(5, 2)):
            for word in ("", ", stirred"):
                if word:
                    rig.far.make_records(hours=_HOURS + 3, records=records, stirred=turn + 1)
                for name, intake in intakes.items():
                    started = time.perf_counter()
                    done = await intake.poll(leases[name])
                    sides.add(name + word, done.observed / (time.perf_counter() - started))
                    assert (done.events > 0) == bool(word), done
            sides.add("bare", await bare(rig.far.url))
    for source in both.values():
        await source.close()


def measure(rig: Rig) -> Sides:
    """Let all take turns."""
    sides = Sides()
    rig.reset()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(rig, Path(folder), rig.scale.of(2000, 100), sides))
    return sides
