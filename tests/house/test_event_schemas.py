"""The committed schemas are a promise: no change of the code breaks them without another version."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from catalogue import CATALOGUE

from bridge.cli.support.schemas import event_schema
from bridge.testing.schema_changes import breaking_changes

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "docs" / "reference" / "schemas"
COMMITTED = {path.name: json.loads(path.read_text()) for path in sorted(SCHEMAS.glob("*.json"))}


@pytest.mark.parametrize("event", CATALOGUE, ids=lambda event: event.__name__)
def test_events_keep_what_their_schema_promises(event):
    committed = COMMITTED[f"{event.schema_name()}.{event.version}.json"]
    broken = breaking_changes(committed, event_schema(event))
    assert broken == [], f"raise {event.__name__}.version, or take the change back"
    assert committed["$id"] == event.schema_uri()


def test_no_event_with_a_committed_schema_is_gone():
    names = {name.partition(".")[0] for name in COMMITTED} - {"event"}
    assert names == {event.schema_name() for event in CATALOGUE}


def test_a_breaking_change_is_not_written(tmp_path):
    for folder in ("docs", "plugins"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    promised = tmp_path / "docs" / "reference" / "schemas" / "recipient-failed.1.json"
    schema = json.loads(promised.read_text())
    schema["properties"]["fax"] = {"type": "string"}
    promised.write_text(json.dumps(schema))
    made = subprocess.run(
        [sys.executable, tmp_path / "docs" / "generate.py"], capture_output=True, text=True, check=False, timeout=60
    )
    assert made.returncode == 1
    assert made.stderr == "schemas/recipient-failed.1.json: fax: field removed; give the event another `version`\n"
    assert "fax" in promised.read_text()
