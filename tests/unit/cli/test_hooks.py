"""`bridgectl hooks` tells the simulated provider where to push: repeatable, resumable, and only what is ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from bridge.cli import cli
from bridge.cli.commands import hooks as command
from bridge.cli.support.options import Exit
from bridge.domain.clock import Clock
from bridge.hooks.registration import compare
from bridge.protocols.hints import PushSubscription, RegistersPushes
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.webhooks import EVENT_TYPES
from bridge.sources.govdelivery import GovDelivery, plugin

BASE = "https://hooks.example.com/city"
URL = f"{BASE}/new%2Fsecret"
EVENTS = tuple(sorted(EVENT_TYPES))


def webhook(event: str, url: str, number: int = 1) -> PushSubscription:
    return PushSubscription(f"/webhooks/{number}", event, url)


def test_what_a_provider_has_is_compared() -> None:
    present = [
        webhook("sent", URL), webhook("sent", URL), webhook("failed", f"{BASE}/old"), webhook("bounced", URL),
        webhook("sent", BASE), webhook("sent", f"{BASE}-voice/x"), webhook("failed", "https://else.example/city/x"),
    ]  # fmt: skip
    comparison = compare(present, ["sent", "failed"], BASE, URL)
    assert [state for _, state in comparison.present] == [
        "registered", "extra", "outdated", "outdated", "outdated", "other", "other",
    ]  # fmt: skip
    assert (comparison.missing, len(comparison.surplus), len(comparison.ours)) == (["failed"], 4, 5)
    assert not comparison.is_complete
    assert compare([webhook("sent", URL)], ["sent"], BASE, URL).is_complete


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings.still()) as simulator:
        yield simulator


@pytest.fixture
async def source(simulator: Simulator) -> AsyncIterator[GovDelivery]:
    values = {"type": "govdelivery", "url": simulator.urls["govdelivery"], "rate": "1000/s"}
    token = simulator.settings.govdelivery_token
    source = plugin.build("city", plugin.settings(**values, token=token, push={"secret": "new/secret"}), Clock())
    yield source
    await source.close()


class Mortal:
    """Does so many changes as it may, and then dies."""

    push_events = EVENTS

    def __init__(self, source: RegistersPushes, lives: int) -> None:
        self._source = source
        self._lives = lives

    async def subscriptions(self):
        return await self._source.subscriptions()

    async def subscribe(self, event: str, url: str) -> None:
        self._live()
        await self._source.subscribe(event, url)

    async def unsubscribe(self, subscription: PushSubscription) -> None:
        self._live()
        await self._source.unsubscribe(subscription)

    def _live(self) -> None:
        self._lives -= 1
        if self._lives < 0:
            raise KeyboardInterrupt


def board(simulator: Simulator):
    return next(api for api in simulator._apis if api.provider == "govdelivery").webhooks


async def urls(source: RegistersPushes) -> list[tuple[str, str]]:
    return sorted((webhook.event, webhook.url) for webhook in await source.subscriptions())


async def run(source: RegistersPushes, step: Callable, events=EVENTS) -> None:
    await step(source, compare(await source.subscriptions(), events, BASE, URL), URL)


async def test_registering_goes_on_after_a_kill_at_each_step(simulator: Simulator, source: GovDelivery) -> None:
    foreign = [("sent", "https://crm.example.com/city/x"), ("failed", f"{BASE}-voice/x")]
    for event, url in (*foreign, ("sent", f"{BASE}/old"), ("failed", f"{BASE}/old")):
        board(simulator).add(event, url)
    wanted = sorted([*foreign, *((event, URL) for event in EVENTS)])
    for lives in (0, 1, 2, 3, 1):
        with pytest.raises(KeyboardInterrupt):
            await run(Mortal(source, lives), command._register)
        covered = {event for event, url in await urls(source) if url.startswith(f"{BASE}/")}
        assert {"sent", "failed"} <= covered  # what was pushed before is pushed all the time
    for _ in range(2):
        await run(source, command._register)
        assert await urls(source) == wanted
    for lives in (2, 0):
        with pytest.raises(KeyboardInterrupt):
            await run(Mortal(source, lives), command._remove)
    for _ in range(2):
        await run(source, command._remove)
        assert await urls(source) == sorted(foreign)


async def test_webhooks_on_all_pages_are_seen(simulator: Simulator, source: GovDelivery) -> None:
    for number in range(120):
        board(simulator).add("sent", f"https://crm.example.com/{number}")
    board(simulator).add("sent", URL)
    assert len(await source.subscriptions()) == 121
    gone = webhook("sent", URL, 999)
    await source.unsubscribe(gone)
    assert source.push_events


async def test_commands_show_no_secret(simulator: Simulator, tmp_path: Path) -> None:
    config = {
        "state": str(tmp_path / "state"), "http": {"listen": None}, "hooks": {"url": "https://hooks.example.com/"},
        "sources": {
            "city": {
                "type": "govdelivery", "url": simulator.urls["govdelivery"], "rate": "1000/s",
                "token": simulator.settings.govdelivery_token, "push": {"secret": ["canary-secret", "old-canary"]},
            }
        },
    }  # fmt: skip
    file = tmp_path / "bridge.yaml"

    async def ask(*words: str) -> tuple[object, str]:
        file.write_text(yaml.safe_dump(config))
        result = await asyncio.to_thread(
            CliRunner().invoke, cli, ["hooks", *words, "-c", str(file)], standalone_mode=False
        )
        assert "canary" not in result.output + str(result.exception)
        return result.return_value if result.exception is None else result.exception, result.output

    board(simulator).add("sent", "https://crm.example.com/canary-path")
    assert "6 webhooks call the bridge; 1 of others are as they were\n" in (await ask("register", "city"))[1]
    code, shown = await ask("list", "city", "--json")
    rows = json.loads(shown[shown.index("[") :])
    assert code is Exit.DONE
    assert {row["state"] for row in rows} == {"registered", "other"}
    assert {row["url"] for row in rows} == {f"{BASE}/********", "https://crm.example.com/********"}
    assert "no source" in str((await ask("list", "town"))[0])
    del config["sources"]["city"]["push"]
    assert "push" in str((await ask("list", "city"))[0])
    del config["hooks"]
    assert "hooks" in str((await ask("list", "city"))[0])


@pytest.mark.parametrize(
    ("hooks_url", "push", "words"),
    [
        ("https://hooks.example.com", True, "it lacks sending, inconclusive, blacklisted, sent, canceled, failed; run"),
        ("http://hooks.example.com", True, "is not https"),
        ("https://hooks.example.com", False, "no source has `push:`"),
    ],
)
async def test_check_says_what_pushes_lack(
    simulator: Simulator, tmp_path: Path, hooks_url: str, push: bool, words: str
) -> None:
    source = {
        "type": "govdelivery", "url": simulator.urls["govdelivery"], "token": simulator.settings.govdelivery_token,
        **({"push": {"secret": "canary"}} if push else {}),
    }  # fmt: skip
    config = {
        "state": str(tmp_path), "http": {"listen": None}, "hooks": {"url": hooks_url}, "sources": {"city": source},
    }  # fmt: skip
    file = tmp_path / "bridge.yaml"
    file.write_text(yaml.safe_dump(config))
    words_given = ["check", "--json", "--strict", "-c", str(file)]
    result = await asyncio.to_thread(CliRunner().invoke, cli, words_given, standalone_mode=False)
    assert result.return_value is Exit.FAILED
    said = " ".join(part["said"] for part in json.loads(result.stdout)["parts"] if part["state"] == "warning")
    assert words in said
    assert "canary" not in result.output
