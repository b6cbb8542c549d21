"""A real Prometheus that scrapes real processes: panels have data, faults fire their alerts, a normal day fires none."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from harness import until
from rigs.faulty_jobs import FAULTS, LIVELY, NORMAL, Site, Watch, normal, push
from rigs.prometheus import Prometheus, shortened

from bridge.simulator import Simulator

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

DASHBOARD = Path(__file__).parents[2] / "config" / "grafana" / "bridge.json"
CHEAP = ("bridge-ends", "bridge-mute")
"""The jobs whose faults are there from the beginning; `benchmarks/alerts.py` runs all of them."""


def queries() -> dict[str, list[str]]:
    """Return the queries of each panel as Grafana would send them."""
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    filled = {"$job": NORMAL, "$__rate_interval": "30s"}
    pattern = re.compile("|".join(map(re.escape, filled)))
    return {
        panel["title"]: [pattern.sub(lambda match: filled[match[0]], target["expr"]) for target in panel["targets"]]
        for panel in panels
        if panel["type"] != "row"
    }


async def test_faults_fire_alerts_and_a_normal_day_fills_panels(tmp_path) -> None:
    async with Simulator(LIVELY) as simulator, Site(tmp_path, simulator) as site:
        await normal(site)
        for job in CHEAP:
            await FAULTS[job][0](site)
        jobs = {name: job.ports for name, job in site.jobs.items()}
        async with Prometheus(tmp_path, jobs, shortened(60, longest=2)) as prometheus:
            await until(prometheus.is_up, "Prometheus is ready")
            watch = Watch(prometheus)
            empty = queries()

            async def panels_have_data() -> bool:
                with suppress(aiohttp.ClientConnectorError):  # it starts
                    await push(site)
                for title, texts in list(empty.items()):
                    empty[title] = [text for text in texts if not await prometheus.query(text)]
                    if not empty[title]:
                        del empty[title]
                return not empty

            try:
                await until(panels_have_data, "each panel has data", within=240)
            except TimeoutError:
                pytest.fail(f"no data: {empty}")
            for job in CHEAP:
                _, happens, names = FAULTS[job]
                await happens(site, prometheus)
                await watch.until_fired(job, names, within=120)
            await watch.until_silent(NORMAL)
            assert {
                text for texts in watch.annotations.values() for text in texts.values() if "<no value>" in text
            } == set()
