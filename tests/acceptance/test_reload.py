"""A process follows its configuration file while it works: by a signal, by a page, and by itself."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from harness import Process, ask, bridge, until, write_config
from rigs.hangups import default_hangups

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fake_endpoint import FakeEndpoint

pytestmark = pytest.mark.acceptance


@pytest.fixture(autouse=True)
def hangups() -> Iterator[None]:
    with default_hangups():
        yield


def logged(process: Process, event: str) -> list[dict[str, Any]]:
    return [line for line in process.log if line["event"] == event]


def hook(endpoint: FakeEndpoint, *topics: str) -> dict[str, Any]:
    return {"type": "webhook", "topics": [*topics] or ["#"], "url": endpoint.url, "allow_private": True}


def received(endpoint: FakeEndpoint) -> Counter[str]:
    return Counter(request.headers["webhook-id"] for request in endpoint.requests)


class Mounted:
    """A folder with the file, mounted as Kubernetes mounts a ConfigMap: a link to a link that is exchanged."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self.path = folder / "bridge.yaml"
        self.path.symlink_to("..data/bridge.yaml")

    def write(self, text: str) -> None:
        self._number += 1
        version, data = self._folder / f"..{self._number}", self._folder / "..data"
        following = self._folder / "..data_tmp"
        version.mkdir()
        (version / "bridge.yaml").write_text(text)
        following.symlink_to(version.name)
        following.replace(data)


@dataclass
class Site:
    """A process, its file, the providers and two receivers."""

    folder: Path
    file: Mounted
    values: dict[str, Any]
    process: Process
    simulator: Simulator
    crm: FakeEndpoint
    more: FakeEndpoint
    client: aiohttp.ClientSession

    def write(self, **values: Any) -> None:
        self.values |= values
        self.file.write(yaml.safe_dump(self.values))

    def follows(self, times: int) -> Awaitable[None]:
        return until(lambda: len(logged(self.process, "config.in_effect")) == times, f"it follows {times} files")

    @property
    def base(self) -> str:
        return f"http://{logged(self.process, 'http.listens')[0]['address']}"


@asynccontextmanager
async def site(folder: Path, **values: Any) -> AsyncIterator[Site]:
    (folder / "config").mkdir()
    async with (
        Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as crm, FakeEndpoint() as more,
        aiohttp.ClientSession() as client,
    ):  # fmt: skip
        plain = write_config(folder, simulator, sinks={"crm": hook(crm)}, **values)
        file = Mounted(folder / "config")
        file.write(plain.read_text())
        with bridge(folder, "run", "-c", str(file.path)) as process:
            await until(lambda: logged(process, "http.listens"), "it runs")
            simulator.world.add_drop(state=1)
            await until(lambda: crm.requests, "the first event is delivered")
            yield Site(folder, file, yaml.safe_load(plain.read_text()), process, simulator, crm, more, client)
            assert await asyncio.to_thread(process.stop) == 0
        assert set(received(crm).values()) == {1}
        assert logged(process, "part.restarted") == []


async def test_signal_and_page_have_the_file_followed_or_refused(tmp_path: Path) -> None:
    async with site(tmp_path, http={"listen": "127.0.0.1:0"}) as scene:
        process, simulator = scene.process, scene.simulator
        async with scene.client.post(f"{scene.base}/-/reload") as answer:
            assert answer.status == 404
        scene.values["sinks"]["more"] = hook(scene.more, "voicemail.#")
        del scene.values["sources"]["journeys"]
        scene.write(http={"listen": "127.0.0.1:0", "reload": True})
        process.process.send_signal(signal.SIGHUP)
        await scene.follows(1)
        (line,) = logged(process, "config.reloaded")
        assert (line["sinks_added"], line["sources_removed"]) == (["more"], ["journeys"])
        assert (line["settings"], line["trigger"]) == (["http.reload"], "SIGHUP")
        simulator.world.add_drop(state=1)
        await until(lambda: scene.more.requests and len(scene.crm.requests) == 2, "both have the second event")
        assert received(scene.more).keys() < received(scene.crm).keys()

        scene.write(lease="9s")
        async with scene.client.post(f"{scene.base}/-/reload") as answer:
            assert answer.status == 422
            refused = await answer.json()
        assert refused["reason"].startswith(f"{scene.file.path}:")
        assert "lease: has changed and needs a restart" in refused["reason"]
        async with scene.client.get(f"{scene.base}/readyz") as answer:
            shown = {"problem": refused["reason"], "generation": refused["generation"]}
            assert (answer.status, (await answer.json())["reload"]) == (200, shown)
        async with scene.client.get(f"{scene.base}/metrics") as answer:
            assert "bridge_config_last_reload_successful 0.0" in (await answer.text()).splitlines()
        await until(lambda: _says(scene, refused), "the status says it")


async def _says(scene: Site, refused: dict[str, Any], code: int = 1) -> bool:
    """Return whether `bridgectl status` says that the process has refused its file, and why."""
    done = await ask(scene.folder, "status", "--json", "-c", str(scene.file.path))
    overview = json.loads(done.stdout)
    texts = [problem["text"] for problem in overview["problems"] if problem["code"] == "reload-failed"]
    if texts and refused["reason"] in texts[0]:
        assert done.returncode == code
        assert f"generation {refused['generation']} runs on" in texts[0]
        (shown,) = overview["processes"]
        assert (shown["reload_problem"], shown["generation"]) == (refused["reason"], refused["generation"])
        return True
    return False


async def test_watched_file_is_followed_by_itself(tmp_path: Path) -> None:
    async with site(tmp_path, http={"listen": "127.0.0.1:0"}, reload="watch") as scene:
        scene.values["sinks"]["crm"]["topics"] = ["sms.#"]
        scene.values["sinks"]["more"] = hook(scene.more, "voicemail.#")
        scene.write()
        await scene.follows(1)
        scene.file.write(yaml.safe_dump({**scene.values, "sinks": {"crm": {"type": "webhook"}}}))
        await until(lambda: logged(scene.process, "config.refused"), "the broken file is seen")
        (line,) = logged(scene.process, "config.refused")
        await until(lambda: _says(scene, line, 3), "the status says it even of a broken file")
        scene.file.write("no: [mapping")
        done = await ask(scene.folder, "status", "-c", str(scene.file.path))
        assert (done.returncode, done.stdout) == (3, "")
        del scene.values["sources"]["city"]
        scene.write()
        await scene.follows(2)
        scene.simulator.world.add_drop(state=1)
        await until(lambda: scene.more.requests, "the new sink has the second event")
        assert len(scene.crm.requests) == 1


async def test_replicas_reload_alone_and_do_not_disturb_each_other(tmp_path: Path) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as crm, FakeEndpoint() as more:
        sinks = {"crm": hook(crm)}
        file = write_config(tmp_path, simulator, http={"listen": "127.0.0.1:0"}, lease="2s", audit="1s", sinks=sinks)
        run = ("run", "-c", str(file))
        with bridge(tmp_path, *run, name="first") as first, bridge(tmp_path, *run, name="second") as second:
            await until(lambda: logged(first, "http.listens") and logged(second, "http.listens"), "both run")
            simulator.world.add_drop(state=1)
            await until(lambda: crm.requests, "the first event")
            values = yaml.safe_load(file.read_text())
            values["sinks"] |= {"crm": hook(crm, "#", "voicemail.#"), "more": hook(more)}
            file.write_text(yaml.safe_dump(values))
            await _follow(first, simulator, crm, more, 11)
            await _follow(second, simulator, crm, more, 21)
            assert await asyncio.to_thread(first.stop) == 0
            simulator.world.add_drop(state=1)
            await until(lambda: len(received(more)) == 21, "the other replica goes on")
            assert await asyncio.to_thread(second.stop) == 0
        assert set(received(crm).values()) == set(received(more).values()) == {1}


async def _follow(
    replica: Process, simulator: Simulator, crm: FakeEndpoint, more: FakeEndpoint, events: int
) -> None:  # fmt: skip
    """Have one replica follow the file, and wait until both sinks have all events of ten more resources."""
    replica.process.send_signal(signal.SIGHUP)
    await until(lambda: logged(replica, "config.in_effect"), "it follows the file")
    for _ in range(10):
        simulator.world.add_drop(state=1)
    await until(lambda: len(received(crm)) == events, "all events are delivered")
    await until(lambda: len(received(more)) == events - 1, "the new sink has its own")


async def test_closed_terminal_ends_the_process_in_good_order(tmp_path: Path) -> None:
    async with Simulator(SimulatorSettings.still()) as simulator:
        file = write_config(tmp_path, simulator, http={"listen": "127.0.0.1:0"}, log={"format": "json"})
        primary, terminal = pty.openpty()
        with (tmp_path / "bridge.err").open("wb") as err:
            process = subprocess.Popen(  # noqa: ASYNC220 - it only forks
                [sys.executable, "-c", ON_A_TERMINAL, os.ttyname(terminal), "run", "-c", str(file)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err, cwd=tmp_path, start_new_session=True,
            )  # fmt: skip
        try:
            os.close(terminal)
            await until(lambda: "http.listens" in (tmp_path / "bridge.err").read_text(), "it runs")
            process.send_signal(signal.SIGHUP)
            await until(lambda: "config.unchanged" in (tmp_path / "bridge.err").read_text(), "it reads its file")
            os.close(primary)
            assert await asyncio.to_thread(process.wait, 60) == 0
            assert '"signal": "SIGHUP"' in (tmp_path / "bridge.err").read_text()
        finally:
            process.kill()


ON_A_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.open(sys.argv.pop(1), os.O_RDWR)  # the first terminal of a new session controls it
sys.argv[0] = "bridge"
from bridge.cli import main
main()
"""
