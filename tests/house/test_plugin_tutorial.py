"""The plugin tutorials work as they are written: their blocks are built, tested by their own tests, and run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.testing.fake_endpoint import FakeEndpoint, reply

ROOT = Path(__file__).parents[2]
TITLED = re.compile(r'^```\w+ title="(?P<file>[^"]+)"\n(?P<text>.*?)^```', re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "docs" / "tutorial" / f"{page}.md" for page in ("first-sink", "first-source")]
BLOCKS = {block["file"]: block["text"] for page in PAGES for block in TITLED.finditer(page.read_text())}
PACKAGES = sorted({file.partition("/")[0] for file in BLOCKS if "/" in file})
FAXES = [
    {"id": 7, "state": "QUEUED", "number": "+16515551000", "changed_at": "2026-03-15T21:11:02Z"},
    {"id": 8, "state": "ERROR", "number": "+16515551001", "changed_at": "2026-03-15T21:11:03Z"},
]

SOURCE_LINES = 90

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder with all files of the pages, and both distributions built and installed under `site`."""
    folder = tmp_path_factory.mktemp("plugins")
    for file, text in BLOCKS.items():
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(folder / "site")]
    built = subprocess.run(
        [*pip, *offline, *(str(folder / package) for package in PACKAGES)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture
def run(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a Python module where the plugins are installed."""
    monkeypatch.setenv("HOME", str(workshop))

    def call(*words: str, inside: str = ".", **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=workshop / inside,
            env={**os.environ, "PYTHONPATH": str(workshop / "site"), **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    return call


def test_the_pages_have_packages_with_code_metadata_and_tests() -> None:
    assert PACKAGES == ["bridge-fax", "bridge-mattermost"]
    for package in PACKAGES:
        module = package.replace("-", "_")
        assert {f"{package}/{module}.py", f"{package}/pyproject.toml"} <= set(BLOCKS)
        assert f"{package}/test_{module.removeprefix('bridge_')}.py" in BLOCKS


def test_source_of_the_page_is_short() -> None:
    assert len(BLOCKS["bridge-fax/bridge_fax.py"].splitlines()) <= SOURCE_LINES


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_typed_strictly_from_outside(workshop: Path, package: str) -> None:
    module = package.replace("-", "_")
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            f"--cache-dir={workshop / 'mypy'}",
            f"{module}.py",
        ],
        cwd=workshop / "site",
        env={name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_package_passes_its_tests_of_the_page(run: Run, package: str) -> None:
    tested = run("pytest", "-q", "-p", "no:cacheprovider", inside=package)
    assert tested.returncode == 0, tested.stdout
    assert re.search(r"\d+ passed", tested.stdout)
    assert "skipped" not in tested.stdout


def test_plugins_are_listed_with_distributions_and_events(run: Run) -> None:
    plugins = {plugin["name"]: plugin for plugin in json.loads(run("bridge", "plugins", "--json").stdout)}
    assert plugins["mattermost"]["distribution"] == "bridge-mattermost"
    assert plugins["fax"]["distribution"] == "bridge-fax"
    events = json.loads(run("bridge", "events", "list", "--json").stdout)
    classes = {event["class"]: event["topics"] for event in events}
    assert classes["FaxFailed"] == ["fax.document.failed"]


async def test_each_moved_fax_arrives_in_the_channel(workshop: Path, run: Run) -> None:
    body = json.dumps(FAXES).encode()
    answer = reply(200, body, {"Content-Type": "application/json"})
    async with FakeEndpoint(default=answer) as provider, FakeEndpoint() as channel:
        urls = {"FAX_URL": provider.url, "FAX_TOKEN": "a-token", "MATTERMOST_URL": f"{channel.url}/hooks/a-secret"}
        await checked(run, "check", **urls)
        assert channel.requests == []
        await checked(run, "run", "--once", **urls)
        await checked(run, "run", "--once", **urls)
    lines = sorted(json.loads(request.body)["text"] for request in channel.requests)
    assert lines == ["fax.document.failed /faxes/8", "fax.document.queued /faxes/7"]
    assert {request.headers["authorization"] for request in provider.requests} == {"Bearer a-token"}
    assert "since=" in provider.requests[-1].path


async def test_recording_of_the_source_replays_same_events(workshop: Path, run: Run) -> None:
    answer = reply(200, json.dumps(FAXES).encode(), {"Content-Type": "application/json"})
    async with FakeEndpoint(default=answer) as provider, FakeEndpoint() as channel:
        urls = {"FAX_URL": provider.url, "FAX_TOKEN": "a-token", "MATTERMOST_URL": f"{channel.url}/hooks/a-secret"}
        (workshop / "recorded").mkdir()
        here = {**urls, "HOME": str(workshop / "recorded")}
        await checked(run, "run", "--once", "--record", "tape", **here)
        lived = await checked(run, "tail", "--json", "--since", "1h", "--count", str(len(FAXES)), **here)
    asked = len(provider.requests)
    replayed = await checked(run, "replay-tape", "tape", "--json", **here)
    assert events_of(replayed) == events_of(lived)
    assert len(events_of(replayed)) == len(FAXES)
    assert len(provider.requests) == asked
    assert all(fax["number"] not in replayed for fax in FAXES)


def events_of(lines: str) -> list[dict[str, Any]]:
    """Return the events of a command's output, but what a recording does not keep: phones, and when it was written."""
    events = [json.loads(line) for line in lines.splitlines()]
    for event in events:
        event.pop("recordedtime")
        event["data"].pop("phone")
    return sorted(events, key=lambda event: event["id"])


async def checked(run: Run, *words: str, **environ: str) -> str:
    done = await asyncio.to_thread(run, "bridge", *words, "-c", "bridge.yaml", **environ)
    assert done.returncode == 0, textwrap.indent(f"{done.stdout}\n{done.stderr}", "  ")
    assert "a-token" not in done.stdout + done.stderr
    assert "a-secret" not in done.stdout + done.stderr
    return done.stdout
