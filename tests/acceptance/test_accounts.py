"""A source that is pointed at another account is refused by name, and loses nothing once somebody says what is meant."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from harness import ask

from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.testing.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

NAMES = ("city", "drops", "journeys")
RECIPIENTS, DROPS, SENDS = 199, 100, 100


class Bridge:
    """The commands of one installation; what its sink gets is in a file."""

    def __init__(self, folder: Path, polled: dict[str, Any]) -> None:
        self.folder = folder
        self.polled = polled
        self.file = folder / "events.jsonl"

    async def __call__(self, *arguments: str) -> Any:
        config = {
            "state": str(self.folder / "state"), "http": {"listen": None}, "sources": self.polled,
            "sinks": {"file": {"type": "stdout", "topics": ["*.*.#"], "path": str(self.file)}},
        }  # fmt: skip
        path = self.folder / "bridge.yaml"
        path.write_text(yaml.safe_dump(config))
        return await ask(self.folder, *arguments, "-c", str(path))

    def events(self, *channels: str) -> Sequence[dict[str, Any]]:
        """Return what the sink got of these channels."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [event for event in map(json.loads, lines) if event["data"]["channel"] in channels]


def account(simulator: Simulator, **changes: dict[str, Any]) -> dict[str, Any]:
    polled = sources(simulator.urls, simulator.settings, interval="1s")
    for name, source in polled.items():
        source |= {"rate": "200/s", **changes.get(name, {})}
    return polled


def fill(simulator: Simulator, *, recipients: int = 1, drops: int = 1, sends: int = 1) -> None:
    simulator.world.add_message("sms", recipients)
    for _ in range(drops):
        simulator.world.add_drop()
    for _ in range(sends):
        simulator.world.add_send_event()


def states(done: Any) -> dict[str, tuple[str, str]]:
    return {part["part"]: (part["state"], part["said"]) for part in json.loads(done.stdout)["parts"]}


async def test_another_account_is_refused_and_then_read_whole(tmp_path: Path) -> None:
    """All three providers at once: refused by the service and by `check`; after `sources reset` all 400 come."""
    former, following = (Simulator(SimulatorSettings.still(seed=seed)) for seed in (3, 4))
    async with former, following:
        fill(former, recipients=5, drops=150, sends=150)
        fill(following, recipients=RECIPIENTS, drops=DROPS, sends=SENDS)
        bridge = Bridge(tmp_path, account(former))
        assert (await bridge("run", "--once")).returncode == 0
        before = len(bridge.events("sms", "voicemail"))
        bridge.polled = account(following)
        refused = await bridge("run", "--once", "--json")
        failures = json.loads(refused.stdout)["failures"]
        assert (refused.returncode, set(failures)) == (1, set(NAMES))
        checked = await bridge("check", "--json")
        assert checked.returncode == 1
        for name in NAMES:
            for state, said in (("refused", failures[name]), states(checked)[f"source {name}"]):
                assert state == "refused"
                assert f"bridgectl sources reset {name}" in said
                assert "account_label" in said
        assert len(bridge.events("sms", "voicemail")) == before
        for name in NAMES:
            assert (await bridge("sources", "reset", name)).returncode == 0
        assert (await bridge("run", "--once")).returncode == 0
    following_events = bridge.events("sms", "voicemail")[before:]
    assert len({event["id"] for event in following_events}) == RECIPIENTS + 1 + DROPS + SENDS


async def test_the_same_account_goes_on_where_it_can_be_told(tmp_path: Path) -> None:
    """A new token of GovDelivery is recognised by the messages; another URL needs the operator's word."""
    async with Simulator(SimulatorSettings.still(seed=3)) as simulator:
        fill(simulator)
        bridge = Bridge(tmp_path, account(simulator))
        assert (await bridge("run", "--once")).returncode == 0
        for name in ("govdelivery_token", "spacivox_token", "client_secret"):
            object.__setattr__(simulator.settings, name, f"rotated-{name}")
        bridge.polled = account(simulator)
        fill(simulator)
        assert (await bridge("check")).returncode == 0
        assert (await bridge("run", "--once")).returncode == 0
        assert len(bridge.events("sms", "voicemail")) == 2 * 4
        async with TcpProxy(urlsplit(simulator.url).port or 0) as moved:
            elsewhere = f"http://127.0.0.1:{moved.port}"
            url = {name: {"auth_url" if name == "journeys" else "url": elsewhere} for name in NAMES}
            bridge.polled = account(simulator, **url)
            assert (await bridge("check")).returncode == 1
            for name in NAMES:
                url[name]["account_label"] = "ours"
            bridge.polled = account(simulator, **url)
            fill(simulator)
            assert (await bridge("check")).returncode == 0
            assert (await bridge("run", "--once")).returncode == 0
            assert len(bridge.events("sms", "voicemail")) == 3 * 4, "what was known is not published anew"


async def test_another_account_behind_the_same_url_is_refused(tmp_path: Path) -> None:
    """GovDelivery knows none of the messages; Marketing Cloud's business unit is another."""
    former, following = (Simulator(SimulatorSettings.still(seed=seed)) for seed in (3, 4))
    async with former, following, TcpProxy(urlsplit(former.url).port or 0) as proxy:
        fill(former, recipients=3)
        for number in range(3):
            following.world.add_message("sms", number + 1)
        url = f"http://127.0.0.1:{proxy.port}"
        bridge = Bridge(tmp_path, account(former, city={"url": url}))
        assert (await bridge("run", "--once")).returncode == 0
        proxy._target = ("127.0.0.1", urlsplit(following.url).port or 0)
        object.__setattr__(following.settings, "govdelivery_token", "of-another-account")
        polled = account(following, city={"url": url})
        bridge.polled = account(former, journeys={"account_id": "7654321"}) | {"city": polled["city"]}
        checked = states(await bridge("check", "--json"))
        refused = json.loads((await bridge("run", "--once", "--json")).stdout)["failures"]
    assert checked["source city"][0] == "refused"
    assert set(refused) == {"city", "journeys"}
    assert all("bridgectl sources reset" in reason for reason in refused.values())


async def test_settings_that_widen_an_account_lose_nothing(tmp_path: Path) -> None:
    """More channels, other teams, further feeds and another start are read from their own beginning."""
    narrow = {
        "city": {"channels": ["sms"]}, "drops": {"team": 1}, "journeys": {"kinds": ["sms"], "start": "latest"},
    }  # fmt: skip
    async with Simulator(SimulatorSettings.still(seed=3)) as simulator:
        world = simulator.world
        for channel in ("sms", "voice"):
            world.add_message(channel, 20)
        for team in (1, 2, 3):
            for _ in range(10):
                world.add_drop(team=team)
        for feed in ("sms", "email"):
            for _ in range(10):
                world.add_send_event(feed)
        bridge = Bridge(tmp_path, account(simulator, **narrow))
        assert (await bridge("run", "--once")).returncode == 0
        assert len(bridge.events("sms", "voice", "voicemail", "email")) == 21 + 10
        wide = {
            "city": {"channels": ["sms", "voice"]}, "drops": {"team": [2, 3]},
            "journeys": {"kinds": ["sms", "email"], "start": "earliest"},
        }  # fmt: skip
        bridge.polled = account(simulator, **wide)
        assert (await bridge("run", "--once")).returncode == 0
        assert len(bridge.events("voice")) == 21
        assert len(bridge.events("voicemail")) == 30
        assert len(bridge.events("email")) == 10
        del wide["drops"]
        bridge.polled = account(simulator, **wide)
        world.add_drop(team=1)
        world.add_send_event()
        assert (await bridge("run", "--once")).returncode == 0
        assert len(bridge.events("voicemail")) == 31
        subjects = [event["subject"] for event in bridge.events("sms", "voice", "voicemail", "email")]
        assert len(subjects) == len(set(subjects)) == 21 + 21 + 31 + 10 + 1
