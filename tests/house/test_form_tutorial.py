"""The tutorial on forms works as it is written: its files are written and checked, and its preview is what is shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from house.pages import ROOT, blocks, calls

from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.domain.errors import EndpointGone
from bridge.sinks.http import HttpSink
from bridge.testing.fake_endpoint import FakeEndpoint, reply
from bridge.testing.sink_suite import outgoing, sample

PAGE = ROOT / "docs" / "tutorial" / "your-form.md"
TITLED = re.compile(r'^```\w+ title="(?P<file>[^"]+)"\n(?P<text>.*?)^```', re.MULTILINE | re.DOTALL)
FILES = {block["file"]: block["text"] for block in TITLED.finditer(PAGE.read_text())}
COMMANDS = [words for block in blocks("sh") if block.page == PAGE for words in calls(block, "bridgectl")]
SHOWN = re.search(r"^```text\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
VARIABLES = dict(re.findall(r"(\w+)=(\S+)", re.search(r"^export (.*)$", PAGE.read_text(), re.MULTILINE)[1]))


def test_the_tutorials_commands_print_what_it_shows(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    printed = [
        subprocess.run(
            [sys.executable, "-m", "bridge", *words], cwd=tmp_path, env={**os.environ, **VARIABLES}, timeout=120,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
        ).stdout
        for words in COMMANDS
    ]  # fmt: skip
    assert [words[0] for words in COMMANDS] == ["check", "sinks"]
    assert SHOWN is not None
    assert printed[-1] == SHOWN[1]


async def test_the_tutorials_form_reads_answers_as_it_says(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    settings = load(tmp_path / "bridge.yaml", environ=VARIABLES).sinks["klaxon"]
    async with FakeEndpoint(default=reply(201)) as endpoint:
        here = settings.model_copy(update={"url": f"{endpoint.url}/v1/alarms", "allow_private": True})
        sink = HttpSink("klaxon", here, Clock())
        await sink.open()
        endpoint.answer(reply(201), reply(409), reply(423))
        await sink.send(outgoing(sample(1)))
        await sink.send(outgoing(sample(2)))
        with pytest.raises(EndpointGone, match="the account is locked"):
            await sink.send(outgoing(sample(3)))
        await sink.close()
    assert [request.headers["x-key"] for request in endpoint.requests] == ["k-123456"] * 3
