"""The tutorial on definitions works as it is written: its files are written, checked, simulated and polled."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from house.pages import ROOT, blocks, calls

PAGE = "your-provider.md"
TITLED = re.compile(r'^```\w+ title="(?P<file>[^"]+)"\n(?P<text>.*?)^```', re.MULTILINE | re.DOTALL)
FILES = {block["file"]: block["text"] for block in TITLED.finditer((ROOT / "docs" / "tutorial" / PAGE).read_text())}
COMMANDS = [words for block in blocks("sh") if block.page.name == PAGE for words in calls(block, "bridgectl")]


def bridge(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge", *words],
        cwd=folder, env={**os.environ, "HOME": str(folder)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def simulated(folder: Path) -> Iterator[dict[str, object]]:
    """Start the simulated provider of the page, and give what it says of itself."""
    words = next(words for words in COMMANDS if words[0] == "simulate")
    command = [
        sys.executable,
        "-m",
        "bridge",
        *words,
        "--listen",
        "127.0.0.1:0",
        "--json",
        "--speed",
        "600",
        "--seed",
        "8",  # two messages are there before the provider answers
        "--messages-per-minute",
        "0.02",
    ]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_the_page_quotes_each_command_on_definitions() -> None:
    quoted = {tuple(words[:2]) for words in COMMANDS if words[0] == "providers"}
    assert quoted == {("providers", name) for name in ("new", "check", "show", "try")}
    lines = FILES["acme.yaml"].partition("samples:")[0].splitlines()
    assert len(lines) <= 60


def test_the_draft_finds_what_the_page_says(folder: Path) -> None:
    words = next(words for words in COMMANDS if words[1] == "new")
    drafted = bridge(folder, *words)
    assert drafted.returncode == 0, drafted.stderr
    (folder / "draft.yaml").write_text(drafted.stdout)
    draft, page = yaml.safe_load(drafted.stdout), yaml.safe_load(FILES["acme.yaml"])
    for path in (
        ("listing", "items"),
        ("listing", "pages"),
        ("identity", "key"),
        ("status", "path"),
        ("facts", "phone"),
    ):
        assert draft[path[0]][path[1]] == page[path[0]][path[1]]
    assert draft["times"]["created"]["path"] == page["times"]["created"]["path"]
    assert bridge(folder, "providers", "check", "./draft.yaml").returncode == 0


def test_the_page_is_right_and_its_sample_becomes_the_event(folder: Path) -> None:
    checked = bridge(folder, "providers", "check", "./acme.yaml")
    assert (checked.returncode, checked.stdout) == (0, "./acme.yaml: ok: 4 events, 1 samples as expected\n")
    (folder / "wrong.yaml").write_text(
        FILES["acme.yaml"].replace("topic: sms.message.delivered", "topic: sms.message.sent")
    )
    wrong = bridge(folder, "providers", "check", "./wrong.yaml")
    assert wrong.returncode == 1
    assert "becomes sms.message.delivered of m-2 instead of sms.message.sent of m-2" in wrong.stderr


def test_the_simulated_provider_of_the_page_is_polled(folder: Path, simulated: dict[str, object]) -> None:
    assert str(simulated["config"]) == "bridge.yaml"
    listed = bridge(folder, "events", "list", "-c", "bridge.yaml", "--json")
    assert "sms.message.delivered" in {topic for event in json.loads(listed.stdout) for topic in event["topics"]}
    assert bridge(folder, "check", "-c", "bridge.yaml").returncode == 0
    tried = bridge(folder, "providers", "try", "acme", "-c", "bridge.yaml", "--json")
    assert tried.returncode == 0, tried.stderr
    assert {item["topic"].rpartition(".")[0] for item in json.loads(tried.stdout)} == {"sms.message"}
    ran = bridge(folder, "run", "--once", "-c", "bridge.yaml")
    assert ran.returncode == 0, ran.stderr
    tailed = bridge(folder, "tail", "sms.#", "-c", "bridge.yaml", "--json", "--since", "1h", "--count", "1")
    event = json.loads(tailed.stdout.splitlines()[0])
    assert event["source"] == "/rest/acme"
    assert event["dataschema"].startswith("urn:bridge:schemas/acme-message-")
