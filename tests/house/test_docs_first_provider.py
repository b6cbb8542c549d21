"""The tutorial on providers works as it is written: its configuration, piece by piece, against the simulator."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from house.pages import blocks

PAGE = "first-provider.md"
PIECES = [block.text for block in blocks("yaml") if block.page.name == PAGE]
EXPORTS = dict(
    word.split("=", 1)
    for block in blocks("sh")
    if block.page.name == PAGE
    for line in block.text.splitlines()
    if line.startswith("export ")
    for word in line.split()[1:]
)


def whole() -> str:
    """Return the first piece with the further sources in their place."""
    first, *further = PIECES
    sources, sinks = re.split(r"(?=^sinks:)", first, flags=re.MULTILINE)
    return "".join([sources, *further, sinks])


def bridge(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge", *words, "-c", "bridge.yaml"],
        cwd=folder, env={**os.environ, **environ, "HOME": str(folder)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def environ() -> Iterator[Mapping[str, str]]:
    """Serve the simulator, and give the variables of the page with its address."""
    command = [
        sys.executable,
        "-m",
        "bridge",
        "simulate",
        "--speed",
        "10",
        "--seed",
        "7",
        "--listen",
        "127.0.0.1:0",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as simulator:
        assert simulator.stdout
        url = json.loads(simulator.stdout.readline())["url"]
        yield {name: value.replace("http://127.0.0.1:8025", url) for name, value in EXPORTS.items()}
        simulator.terminate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bridge.yaml").write_text(whole())
    return tmp_path


def test_check_accepts_every_provider(folder: Path, environ: Mapping[str, str]) -> None:
    checked = bridge(folder, "check", **environ)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert all(f"source {name}" in checked.stdout for name in ("city", "drops", "journeys"))


def test_check_says_that_a_token_is_refused(folder: Path, environ: Mapping[str, str]) -> None:
    checked = bridge(folder, "check", **{**environ, "GOVDELIVERY_TOKEN": "wrong"})
    assert checked.returncode == 1
    assert "refused" in checked.stdout


def test_first_run_publishes_events_of_every_provider(folder: Path, environ: Mapping[str, str]) -> None:
    ran = bridge(folder, "run", "--once", **environ)
    assert ran.returncode == 0, ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert {event["source"] for event in events} == {"/govdelivery/city", "/spacivox/drops", "/marketingcloud/journeys"}
