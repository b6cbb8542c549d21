"""Fail a test run that skipped something, or whose line or branch coverage is below the floor."""

# ruff: noqa: INP001, T201 - a script that prints what it finds

import json
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

FLOOR = 90.0


def unrun(report: Path) -> list[str]:
    """Return the tests that were skipped or expected to fail: each is a promise that nobody checked."""
    cases = ET.parse(report).getroot().iter("testcase")  # noqa: S314 - pytest wrote this file a moment ago
    return [f"{case.get('classname')}.{case.get('name')}" for case in cases if case.find("skipped") is not None]


def coverage(report: Path) -> dict[str, float]:
    """Return the shares of lines and of branches that the tests went through, in per cent."""
    totals = json.loads(report.read_text())["totals"]
    return {
        "line": 100 * totals["covered_lines"] / totals["num_statements"],
        "branch": 100 * totals["covered_branches"] / totals["num_branches"],
    }


def main(covered: str, *tests: str) -> int:
    """Print what was found and return the exit code."""
    skipped = [name for report in tests for name in unrun(Path(report))]
    for name in skipped:
        print(f"not run: {name}; a test that is skipped or expected to fail promises nothing")
    shares = coverage(Path(covered))
    for kind, share in shares.items():
        print(f"{kind} coverage {share:.1f} % (floor {FLOOR:.0f} %)")
    return int(bool(skipped) or min(shares.values()) < FLOOR)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
