"""An outage of one receiver, a quiet time of another and a mute of a third: what became of each event adds up."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from harness import ask, until, write_config

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fake_endpoint import FakeEndpoint, reply

pytestmark = pytest.mark.acceptance


def bodies(receiver: FakeEndpoint) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in receiver.requests]


async def test_what_was_sent_summed_up_and_expired_adds_up(tmp_path) -> None:
    now, hour = datetime.now(UTC), timedelta(hours=1)
    async with (
        Simulator(SimulatorSettings.still()) as simulator,
        FakeEndpoint(default=reply(503)) as crm,
        FakeEndpoint() as night,
        FakeEndpoint() as ops,
    ):
        shared = {"type": "webhook", "allow_private": True, "topics": ["voice.#"], "retry": ["3s"] * 5}
        end = now + hour
        sinks = {
            "crm": {**shared, "url": crm.url, "max_age": "2500ms", "expired": "summary"},
            "night": {
                **shared, "url": night.url, "quiet": f"{now - hour:%H:%M}-{end:%H:%M} UTC",
                "quiet_except": {"exact": {"data.status": "sending"}},
            },
            "ops": {**shared, "url": ops.url, "topics": ["voice.#", "bridge.delivery.#"]},
        }  # fmt: skip
        config = write_config(tmp_path, simulator, sinks=sinks)

        async def command(*arguments: str, code: int = 0) -> str:
            done = await ask(tmp_path, *arguments, "-c", config.name)
            assert (done.returncode, done.stderr if code == 0 else "") == (code, "")
            return done.stdout or done.stderr

        async def run_once() -> None:
            done = await ask(tmp_path, "run", "--once", "--json", "-c", config.name)
            assert done.returncode == 0, done.stderr

        wrong = ("mute", "ops", "--for", "1h", "--where", "{exact: {data.status: nwe}}")
        assert "exact.data.status: never has the value 'nwe'; did you mean 'new'?" in await command(*wrong, code=2)
        await command("mute", "ops", "--for", "1h", "--where", "{exact: {data.status: new}}", "--reason", "a test")
        message = simulator.world.add_message("voice", 2)
        await run_once()
        tried = datetime.now(UTC)
        assert night.requests == ops.requests == []
        crm.requests.clear()
        crm.default = reply(200)
        for path in (message.path, *message.recipients):
            simulator.world.move(path, "sending")
        await until(lambda: datetime.now(UTC) - tried > timedelta(seconds=3.5), "what failed is due again")
        await run_once()
        await run_once()  # brings the summary, which was published at the end of the one before

        shown = {sink["name"]: sink for sink in json.loads(await command("sinks", "--json"))["sinks"]}
        counted = ("delivered", "waiting", "dead", "discarded", "filtered", "expired")
        books = {name: [sink[word] for word in counted] for name, sink in shown.items()}
        expired = shown["crm"]["expired"]
        summaries = [body for body in bodies(ops) if body["type"] == "bridge.bridge.delivery.expired"]
        assert expired >= 3, "the new ones, whose first try failed"
        assert len(bodies(crm)) + expired == 6
        assert sum(body["data"]["count"] for body in summaries) == expired
        assert sum(sum(body["data"]["topics"].values()) for body in summaries) == expired
        assert {body["data"]["sink"] for body in summaries} == {"crm"}
        assert {body["data"]["status"] for body in bodies(night)} == {"sending"}
        assert books == {
            "crm": [6 - expired, 0, 0, 0, 0, expired],
            "night": [3, 3, 0, 0, 0, 0],
            "ops": [3 + len(summaries), 0, 0, 0, 3, 0],
        }
        assert shown["night"]["quiet_until"] is not None
        first = json.loads(await command("trace", message.recipients[0], "--json"))[0]
        states = {sink["sink"]: (sink["state"], sink["said"]) for sink in first["sinks"]}
        assert states["crm"][0] == "expired"
        assert "older than max_age at" in states["crm"][1]
        assert states["night"][1].endswith(f"quiet until {end:%H:%M} UTC")
        assert (states["ops"][0], "muted by" in states["ops"][1], ": a test;" in states["ops"][1]) == (
            "filtered",
            True,
            True,
        )
