"""The alerts: promtool accepts them, each fires in its fault and not before, and each leads to a runbook."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml
from rigs.prometheus import ROOT, RULES, WINDOW, alerts, promtool, shortened

FOLDER = RULES.parent
TESTS = sorted((FOLDER / "tests").glob("*.yaml"))
NAMES = [alert["alert"] for alert in alerts()]


def test_promtool_accepts_rules_and_scrape_configuration() -> None:
    checked = subprocess.run(
        [promtool(), "check", "config", FOLDER / "prometheus.yaml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(NAMES)} rules found" in checked.stdout


def test_alerts_fire_in_their_fault_and_not_on_normal_days() -> None:
    tested = subprocess.run([promtool(), "test", "rules", *TESTS], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_alert_has_a_test_of_its_fault() -> None:
    names = [test["name"].partition(":")[0] for file in TESTS for test in yaml.safe_load(file.read_text())["tests"]]
    assert set(names) == {*NAMES, "a normal day"}


def test_normal_day_has_figures_for_each_alert() -> None:
    (test,) = yaml.safe_load((FOLDER / "tests" / "normal-day.yaml").read_text())["tests"]
    shown = {series["series"].partition("{")[0] for series in test["input_series"]}
    metrics = r"\b(?:bridge|process)_[a-z_]+\b"
    missing = {alert["alert"]: set(re.findall(metrics, alert["expr"])) - shown for alert in alerts()}
    assert {name: names for name, names in missing.items() if names} == {}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_alert_says_what_is_wrong_and_leads_to_a_runbook(alert: dict[str, dict[str, str]]) -> None:
    assert alert["labels"]["severity"] in {"page", "ticket"}
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor == str(alert["alert"]).lower()
    assert anchor in map(str.lower, headings)
    assert alert["annotations"]["summary"]


def test_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    page = (ROOT / "docs" / "how-to" / "answer-an-alert.md").read_text()
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == NAMES
    severities = dict(re.findall(r"^## (\w+)\n\n\*(\w+)\.\*", page, re.MULTILINE))
    assert severities == {alert["alert"]: alert["labels"]["severity"].capitalize() for alert in alerts()}


def test_shortened_rules_leave_no_long_time() -> None:
    text = shortened(60, longest=3)
    assert WINDOW.findall(text) == []
    assert re.findall(r"for: (?!\d{1,4}ms)", text) == []
