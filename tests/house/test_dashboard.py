"""The dashboard asks for metrics that exist, and none of its panels lies on another."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bridge.observability.metrics import Metrics

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "config" / "grafana" / "bridge.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_panels_ask_for_metrics_that_exist() -> None:
    known = set()
    for family in Metrics().registry.collect():
        known |= {family.name, *(f"{family.name}_{part}" for part in ("total", "bucket", "sum", "count"))}
    text = "\n".join(target["expr"] for panel in PANELS for target in panel["targets"])
    assert set(re.findall(r"\b(?:bridge|process)_[a-z_]+\b", text)) - known == set()


def test_each_panel_has_title_source_and_query() -> None:
    assert len({panel["title"] for panel in PANELS} | {panel["id"] for panel in PANELS}) == 2 * len(PANELS)
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
    assert all('job=~"$job"' in target["expr"] for panel in PANELS for target in panel["targets"])


def test_no_panel_lies_on_another() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        own = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert not own & cells
        assert place["x"] + place["w"] <= 24
        cells |= own


def test_dashboard_shows_every_metric_of_the_bridge() -> None:
    text = json.dumps(DASHBOARD)
    unseen = {
        family.name for family in Metrics().registry.collect() if not re.search(rf"\b{family.name}(?:_|\b)", text)
    }
    assert unseen == {
        "process_virtual_memory_bytes",
        "bridge_role",  # an alert says which one is missing
        "bridge_source_interval_seconds",
    }
