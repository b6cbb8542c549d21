"""Every command of the bridge that a page quotes runs, on a small world with the names that the pages use."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from house.pages import SHELLS, blocks, calls

from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.cli.support.program import NAMES
from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.testing.fake_endpoint import FakeEndpoint, reply

# These tutorials have tests of their own, which make the plugins and files of the page first.
OTHERS = ("first-sink.md", "first-source.md", "your-form.md", "your-provider.md")
COMMANDS = sorted(
    {
        # The tutorials' file stands for the same configuration here.
        shlex.join(words).replace("-c demo.yaml", "-c bridge.yaml").replace("-c trial.yaml", "-c bridge.yaml")
        for block in blocks(*SHELLS)
        if block.page.name not in OTHERS
        for words in calls(block, *NAMES)
        if words
    }
)
UNTIL_INTERRUPTED = ("run", "tail", "simulate")
AT_ONCE = 4
RUN_SECONDS, LIMIT_SECONDS = 1.5, 120.0

Run = tuple[int | None, str]


@dataclass(frozen=True)
class World:
    """A folder with a recording, a store with events, dead and waiting deliveries, and configurations of all that."""

    folder: Path
    known: Mapping[str, str]
    """What the pages name, and what has its place here."""

    def words(self, command: str) -> list[str]:
        for name, value in self.known.items():
            command = re.sub(rf"(?<![\w/-]){re.escape(name)}(?![\w/])", value, command)
        return shlex.split(command)


def ends_by_signals(pid: int) -> bool:
    """Say whether a process catches SIGTERM by now: from then on it also ends in good order by Ctrl-C."""
    status = Path(f"/proc/{pid}/status")
    caught = re.search(r"^SigCgt:\s*(\w+)$", status.read_text(), re.MULTILINE) if status.exists() else None
    return caught is None or bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


async def bridge(folder: Path, words: Sequence[str], *, seconds: float | None = None) -> Run:
    """Run a command in a folder; after `seconds` it gets Ctrl-C. Returns its exit code and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", *words,
        cwd=folder, env={**os.environ, "HOME": str(folder)},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output = asyncio.ensure_future(process.communicate(b"y\n"))  # some ask before they discard
    if seconds is not None:
        while not (output.done() or ends_by_signals(process.pid)):
            await asyncio.sleep(0.05)
        await asyncio.wait([output], timeout=seconds)
        if not output.done():
            process.send_signal(signal.SIGINT)
    printed, _ = await asyncio.wait_for(output, LIMIT_SECONDS)
    return process.returncode, printed.decode()


def configuration(simulator: str, receiver: str) -> str:
    govdelivery = {"type": "govdelivery", "url": simulator, "token": "simulated-govdelivery-token", "rate": "50/s"}
    sources = {
        "city": {**govdelivery, "channels": ["sms"]},
        "city-voice": {**govdelivery, "channels": ["voice"], "push": {"secret": "a-long-random-word"}},
        "drops": {"type": "spacivox", "url": simulator, "token": "simulated-spacivox-token", "rate": "50/s"},
    }
    private = {"allow_private": True}
    sinks = {
        "crm": {"type": "webhook", "topics": ["voice.#"], "url": f"{receiver}/crm", **private},
        "ops-slack": {"type": "slack", "topics": ["bridge.#"], "webhook_url": f"{receiver}/slack", **private},
    }
    hooks = {"listen": "127.0.0.1:0", "url": "https://hooks.example.com"}
    whole = {"state": "state", "http": {"listen": None}, "hooks": hooks, "sources": sources, "sinks": sinks}
    return json.dumps(whole)  # which is YAML, too


async def declare_queue(folder: Path, queue: str) -> None:
    """Declare the queue of a subscriber, which some commands name."""
    broker = SqliteBroker(folder / load(folder / "bridge.yaml").broker_file, clock=Clock())
    await broker.open()
    await broker.declare(queue, ["#"])
    await broker.close()


async def made_world(folder: Path, simulator: str, receiver: str) -> World:
    for name in ("bridge.yaml", "changed.yaml"):
        (folder / name).write_text(configuration(simulator, receiver))
    code, printed = await bridge(folder, ["run", "--once", "--record", "tape", "-c", "bridge.yaml"])
    assert code == 0, printed
    await declare_queue(folder, "billing")
    _, replayed = await bridge(folder, ["replay-tape", "tape", "-c", "bridge.yaml", "--json"])
    events = [line for line in replayed.splitlines() if line.startswith("{")]
    (folder / "before.jsonl").write_text("\n".join([*events, ""]))
    subjects = [json.loads(line)["subject"] for line in events]
    _, listed = await bridge(folder, ["deliveries", "list", "--json", "-c", "bridge.yaml"])
    known = {
        "/etc/bridge/bridge.yaml": "bridge.yaml",
        "city-voice:1042": json.loads(listed)["deliveries"][0]["position"],
        "/messages/sms/11038031": next(subject for subject in subjects if re.fullmatch(r"/messages/sms/\d+", subject)),
        "/messages/voice/10507/recipients/364898": next(subject for subject in subjects if "/recipients/" in subject),
        "/messages/voice/10507": next(subject for subject in subjects if re.fullmatch(r"/messages/voice/\d+", subject)),
        "--since 2026-03-01T00:00:00Z --until 2026-03-15T00:00:00Z": "--since 1h",
        "--seconds 20": "--seconds 2",
        "--rate 1/s": "--rate 50/s",
        "simulate": "simulate --listen 127.0.0.1:0",
    }
    return World(folder, known)


async def run_all(folder: Path) -> dict[str, Run]:
    """Run every command, each in a copy of the world, a few at once."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def run(number: int, command: str, world: World) -> Run:
        words = world.words(command)
        copy = folder / str(number)
        endless = "--watch" in words or (words[0] in UNTIL_INTERRUPTED and "--once" not in words)
        async with gate:
            shutil.copytree(world.folder, copy)
            return await bridge(copy, words, seconds=RUN_SECONDS if endless else None)

    async with FakeEndpoint(default=reply(400)) as receiver:
        simulator = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bridge", "simulate", "--listen", "127.0.0.1:0", "--json", "--seed", "7",
            "--speed", "1", "--messages-per-minute", "1", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert simulator.stdout
        try:
            url = json.loads(await simulator.stdout.readline())["url"]
            start = folder / "start"
            start.mkdir()
            world = await made_world(start, url, receiver.url)
            runs = await asyncio.gather(*(run(number, command, world) for number, command in enumerate(COMMANDS)))
        finally:
            simulator.terminate()
            await simulator.wait()
    return dict(zip(COMMANDS, runs, strict=True))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return asyncio.run(run_all(tmp_path_factory.mktemp("commands")))


@pytest.mark.parametrize("command", COMMANDS)
def test_quoted_command_runs(runs: dict[str, Run], command: str) -> None:
    code, printed = runs[command]
    # What the simulator moves while a command compares is a difference, and that no service runs, or that no webhook is
    # registered yet, is one more thing that is wrong: no failures of the command.
    allowed = {0, 1} if command.startswith(("reconcile", "status", "poll", "hooks list")) else {0}
    assert code in allowed, printed
    assert "Traceback" not in printed
