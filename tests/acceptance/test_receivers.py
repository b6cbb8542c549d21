"""What receivers get, and what becomes of events that they refuse: webhooks and Slack, through the real command line."""

from __future__ import annotations

import asyncio
import json
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from blockkit import check_message
from harness import Process, agreed, ask, bridge, consuming_tail, until, write_config
from standardwebhooks import Webhook, WebhookVerificationError

from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fake_endpoint import FakeEndpoint, ReceivedRequest, redirect, reply, silence
from bridge.testing.free_port import free_port

pytestmark = pytest.mark.acceptance

LIVELY = SimulatorSettings(
    seed=5,
    speed=60.0,
    messages_per_minute=1.5,
    recipients_per_message=8.0,
    max_recipients=60,
    drops_per_minute=10.0,
    texts_per_minute=0.0,
    emails_per_minute=0.0,
    sends_per_minute=6.0,
    email_sends_per_minute=0.0,
    failed_share=0.2,
)
OLD, NEW = ("whsec_" + b64encode(bytes([number]) * 32).decode() for number in (1, 2))
PERSONAL = ("phone", "contact_key")


def webhook(receiver: FakeEndpoint | str, **settings: Any) -> dict[str, Any]:
    """Return a webhook sink that tries again soon."""
    url = receiver if isinstance(receiver, str) else f"{receiver.url}/hooks/status"
    again = ["200ms"] * 5
    return {"type": "webhook", "topics": ["voicemail.#"], "url": url, "allow_private": True, "retry": again, **settings}


@dataclass
class Setting:
    """A still world, and a bridge that tells its sinks of it."""

    folder: Path
    config: Path
    simulator: Simulator
    process: Process

    def drops(self, count: int = 1) -> list[str]:
        """Let voicemail drops be sent; each is one event. Return their paths."""
        return [self.simulator.world.add_drop().path for _ in range(count)]

    async def deliveries(self, *arguments: str) -> list[dict[str, Any]]:
        done = await ask(self.folder, "deliveries", "list", *arguments, "--json", "-c", str(self.config))
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)["deliveries"]

    async def command(self, *arguments: str) -> str:
        done = await ask(self.folder, *arguments, "-c", str(self.config))
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.process.log if line["event"] == event]

    def waited(self) -> float:
        """Return the seconds since the one delivery that failed began to wait."""
        (line,) = self.logged("delivery.waits")
        return (datetime.now(UTC) - datetime.fromisoformat(line["timestamp"])).total_seconds()

    async def stop(self) -> int:
        return await asyncio.to_thread(self.process.stop)


@asynccontextmanager
async def running(folder: Path, **sinks: dict[str, Any]) -> AsyncIterator[Setting]:
    """Run the bridge on a still world; at the end it stops in good order."""
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(folder, simulator, sinks=sinks)
        with bridge(folder, "run", "-c", str(config)) as process:
            setting = Setting(folder, config, simulator, process)
            yield setting
            assert await setting.stop() == 0
            assert "Traceback" not in process.err.read_text()


def subjects(receiver: FakeEndpoint) -> list[str]:
    """Return the resources that a receiver was told of, in the order of the requests."""
    return [json.loads(request.body)["subject"] for request in receiver.requests]


# --- what arrives -----------------------------------------------------------------------------------------------------


def verified(request: ReceivedRequest, secret: str) -> dict[str, Any]:
    """Return the event, if the judge of Standard Webhooks holds that `secret` signed it."""
    return Webhook(secret).verify(request.body, dict(request.headers))


async def test_every_event_arrives_once_signed_with_each_secret(tmp_path):
    async with Simulator(LIVELY) as simulator, FakeEndpoint() as receiver, FakeEndpoint() as careful:
        crm = webhook(receiver, topics=["#"], secret=[NEW, OLD])
        masked = webhook(careful, topics=["#"], secret=OLD, privacy="last4")
        config = write_config(tmp_path, simulator, sinks={"crm": crm, "careful": masked})
        async with consuming_tail(tmp_path, config) as consumer:
            with bridge(tmp_path, "run", "-c", str(config)) as process:
                await until(lambda: len(consumer.events) > 150, "150 events")
                await agreed(simulator, lambda: consumer)
                count = len(consumer.events)
                await until(lambda: len(receiver.requests) >= count <= len(careful.requests), "both have it all")
                assert await asyncio.to_thread(process.stop) == 0
        # Once, and the same bytes that another subscriber got from the broker.
        assert sorted(request.body for request in receiver.requests) == sorted(consumer.bodies)
        assert len(receiver.requests) == len({request.headers["webhook-id"] for request in receiver.requests}) == count
        for request in receiver.requests:
            assert (request.method, request.path) == ("POST", "/hooks/status")
            assert request.headers["content-type"] == "application/cloudevents+json"
            event = verified(request, OLD)
            assert event == verified(request, NEW) == json.loads(request.body)
            assert request.headers["webhook-id"] == event["id"]
            assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 120
        # What may not be seen is not there; all else is.
        assert sorted(verified(request, OLD)["id"] for request in careful.requests) == sorted(consumer.ids)
        personal = {event["data"][name] for event in consumer.events for name in PERSONAL if event["data"].get(name)}
        assert len(personal) > 50
        bodies = b"\n".join(request.body for request in careful.requests).decode()
        assert [value for value in personal if value in bodies] == []
        assert f"…{next(iter(personal))[-4:]}" in bodies


async def test_changed_body_and_wrong_secret_do_not_verify(tmp_path):
    async with FakeEndpoint() as receiver, running(tmp_path, crm=webhook(receiver, secret=NEW)) as setting:
        setting.drops()
        request = (await receiver.arrived(1, within=120))[0]
        assert verified(request, NEW)["data"]["status"] == "sent"
        changed = request.body.replace(b'"status":"sent"', b'"status":"gone"')
        assert changed != request.body
        for secret, body in ((NEW, changed), (OLD, request.body)):
            with pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(body, dict(request.headers))


async def test_ordered_sink_keeps_resource_order_after_a_failure(tmp_path):
    async with FakeEndpoint() as receiver, running(tmp_path, crm=webhook(receiver, ordered=True)) as setting:
        receiver.answer(reply(503), reply(503))
        drop = setting.simulator.world.add_drop()
        await receiver.arrived(1, within=120)
        setting.simulator.world.move_drop(drop, 1)
        await until(lambda: len(receiver.requests) >= 4, "three tries of the first, one of the second")
        statuses = [json.loads(request.body)["data"]["status"] for request in receiver.requests]
        assert statuses == ["sent", "sent", "sent", "delivered"]


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_answer_500_is_retried_with_same_id_and_bytes(tmp_path):
    async with FakeEndpoint() as receiver, running(tmp_path, crm=webhook(receiver)) as setting:
        receiver.answer(reply(500), reply(502))
        setting.drops()
        first, second, third = (await receiver.arrived(3, within=120))[:3]
        assert first.body == second.body == third.body
        assert {request.headers["webhook-id"] for request in (first, second, third)} == {json.loads(first.body)["id"]}
        waits = setting.logged("delivery.waits")
        assert [(line["sink"], line["attempt"]) for line in waits] == [("crm", 1), ("crm", 2)]
        assert all(0.2 <= line["after"] <= 0.3 for line in waits)
        await until(lambda: _none(setting), "nothing waits any more", within=120)
        assert len(receiver.requests) == 3


async def test_retry_after_of_429_overrides_a_shorter_schedule(tmp_path):
    async with FakeEndpoint() as receiver, running(tmp_path, crm=webhook(receiver)) as setting:
        receiver.answer(reply(429, headers={"Retry-After": "2"}))
        setting.drops()
        await receiver.arrived(2, within=120)
        assert setting.waited() > 1.9
        assert [line["after"] for line in setting.logged("delivery.waits")] == [2.0]


async def test_answer_400_makes_a_dead_letter_that_can_be_redriven(tmp_path):
    secret = "Bearer a-token-of-the-receiver"
    sink = {"privacy": "last4", "headers": {"Authorization": secret}}
    async with FakeEndpoint() as receiver, running(tmp_path, crm=webhook(receiver, **sink)) as setting:
        receiver.answer(reply(400, f"nobody has +17165550143; you sent {secret}".encode() + b"." * 4000))
        (path,) = setting.drops()
        await until(setting.deliveries, "a dead letter is listed", within=120)
        (dead,) = await setting.deliveries("crm", "--dead")
        assert len(receiver.requests) == 1
        event = json.loads(receiver.requests[0].body)
        assert re.fullmatch(r"drops:\d+", dead["position"])
        assert dead == {
            "sink": "crm",
            "disabled": None,
            "position": dead["position"],
            "id": event["id"],
            "topic": "voicemail.drop.sent",
            "subject": path,
            "state": "dead",
            "reason": "permanent",
            "code": 400,
            "due": None,
            "attempts": [
                {
                    "at": dead["attempts"][0]["at"],
                    "kind": "permanent",
                    "error": f"http://127.0.0.1:{receiver.port} answered 400",
                }
            ],
            "answer": dead["answer"],
        }
        assert dead["answer"]["status"] == 400
        assert re.match(r"nobody has …0143; you sent \*{8}(?: \*{8})?\.{4}", dead["answer"]["body"])
        assert len(dead["answer"]["body"].encode()) == 2048
        shown = json.loads(await setting.command("deliveries", "show", "crm", event["id"], "--json"))
        assert {**shown, "event": None} == {**dead, "event": None}
        assert shown["event"]["id"] == event["id"]
        said = await setting.command("deliveries", "show", "crm", dead["position"])
        assert re.search(r"^state: +dead$", said, re.MULTILINE)
        assert re.search(r"^try 1: .* permanent: .* answered 400$", said, re.MULTILINE)
        assert await setting.command("deliveries", "redrive", "crm", dead["position"]) == "crm: 1 due again\n"
        await receiver.arrived(2, within=120)
        assert receiver.requests[1].body == receiver.requests[0].body
        await until(lambda: _none(setting), "nothing is left", within=120)


async def test_refusals_of_a_rolling_update_cost_no_event(tmp_path):
    async with FakeEndpoint() as receiver, running(tmp_path, crm=webhook(receiver, retry=["100ms"] * 9)) as setting:
        receiver.answer(*(reply(status) for status in (404, 401, 403, 405, 409, 421, 423)), redirect("/elsewhere"))
        setting.drops()
        await receiver.arrived(9, within=120)
        await until(lambda: _none(setting), "nothing is left", within=120)
        assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
        assert not setting.logged("delivery.dead_letter")


async def test_a_lasting_refusal_becomes_a_dead_letter_after_the_schedule(tmp_path):
    refusal = reply(404, b'{"code": "route_unknown"}')
    async with FakeEndpoint(default=refusal) as receiver, running(tmp_path, crm=webhook(receiver)) as setting:
        setting.drops()
        await until(lambda: setting.deliveries("crm", "--dead"), "a dead letter is listed", within=120)
        (dead,) = await setting.deliveries("crm", "--dead")
        assert dead["reason"] == "exhausted"
        assert len(dead["attempts"]) == len(receiver.requests) == 6
        assert all(attempt["error"].endswith("answered 404 (code route_unknown)") for attempt in dead["attempts"])


async def _none(setting: Setting) -> bool:
    return not await setting.deliveries()


async def test_exhausted_attempts_make_a_dead_letter_with_history(tmp_path):
    async with FakeEndpoint(default=reply(503)) as receiver:
        crm = webhook(receiver, retry=["200ms", "200ms"])
        async with running(tmp_path, crm=crm) as setting:
            setting.drops()
            await until(lambda: setting.logged("delivery.dead_letter"), "the tries are spent", within=120)
            (dead,) = await setting.deliveries("--dead")
            assert (dead["reason"], [attempt["kind"] for attempt in dead["attempts"]]) == (
                "exhausted",
                ["transient"] * 3,
            )
            assert len(receiver.requests) == 3
            (line,) = setting.logged("delivery.dead_letter")
            assert line["consequence"] == f"kept; see `bridgectl deliveries show crm {dead['position']}`"
            assert await setting.command("deliveries", "discard", "crm", "--dead", "--yes") == "crm: 1 discarded\n"
            assert await setting.deliveries() == []


async def test_answer_410_disables_one_sink_until_an_operator_enables_it(tmp_path):
    async with FakeEndpoint(default=reply(410)) as gone, FakeEndpoint() as other:
        sinks = {"gone": webhook(gone), "other": webhook(other)}
        async with running(tmp_path, **sinks) as setting:
            setting.drops()
            await until(lambda: setting.logged("sink.disabled"), "the sink is disabled", within=120)
            more = setting.drops(5)
            await other.arrived(6, within=120)
            await until(lambda: _waiting(setting, "gone", 6), "six wait for the operator", within=120)
            assert len(gone.requests) == 1
            assert set(more) < set(subjects(other))
            gone.default = reply()
            said = await setting.command("deliveries", "redrive", "gone", "--all")
            assert said == "gone: 6 due again; the sink is enabled again\n"
            await gone.arrived(7, within=120)
            assert sorted(subjects(gone)[1:]) == sorted(subjects(other))
            assert [line["sink"] for line in setting.logged("sink.enabled")] == ["gone"]
            assert len(other.requests) == 6


async def _waiting(setting: Setting, sink: str, count: int) -> bool:
    deliveries = await setting.deliveries(sink)
    return len(deliveries) == count and {delivery["state"] for delivery in deliveries} == {"waiting"}


async def test_hanging_and_missing_receivers_delay_no_other(tmp_path):
    async with FakeEndpoint(default=silence()) as hanging, FakeEndpoint() as healthy:
        absent = FakeEndpoint()
        port = free_port()
        long_retry = ["500ms"] * 100
        sinks = {
            "hanging": webhook(hanging, send_timeout="60s", concurrency=2),
            "absent": webhook(f"http://127.0.0.1:{port}/hooks", retry=long_retry),
            "healthy": webhook(healthy),
        }
        async with running(tmp_path, **sinks) as setting:
            paths = setting.drops(300)
            await healthy.arrived(300, within=120)
            assert sorted(subjects(healthy)) == sorted(paths)
            assert len(hanging.requests) == 2
            waits = {line["sink"] for line in setting.logged("delivery.waits")}
            assert waits == {"absent"}
            # Once somebody listens there, all of it arrives, and once only.
            await absent.start(port)
            try:
                await absent.arrived(300, within=120)
                assert sorted(subjects(absent)) == sorted(paths)
            finally:
                await absent.stop()
            began = time.monotonic()
            assert await setting.stop() == 0
            assert time.monotonic() - began < 25


async def test_private_address_is_refused_unless_allowed(tmp_path):
    async with FakeEndpoint() as receiver, running(tmp_path, crm=webhook(receiver, allow_private=False)) as setting:
        setting.drops()
        await until(lambda: setting.logged("delivery.dead_letter"), "it is given up", within=120)
        (line,) = setting.logged("delivery.dead_letter")
        assert "leads to a private, loopback, link-local or reserved address, so nothing was sent" in line["reason"]
        assert "set allow_private: true" in line["reason"]
        checked = await ask(tmp_path, "check", "--json", "-c", str(setting.config))
        assert checked.returncode == 1
        parts = {part["part"]: part for part in json.loads(checked.stdout)["parts"]}
        assert parts["sink crm"]["state"] == "refused"
        assert "set allow_private: true" in parts["sink crm"]["said"]
        assert {part["state"] for name, part in parts.items() if name != "sink crm"} == {"ok"}
        assert receiver.requests == []
        assert receiver.connections == 0


# --- Slack ------------------------------------------------------------------------------------------------------------


def counted(message: dict[str, Any]) -> int:
    """Return how many events a post tells of."""
    title = message["blocks"][0]["text"]["text"]
    many = re.search(r"(\d+) more: sms recipients failed$", title)
    assert many or title.endswith("Sms recipient failed")
    return int(many[1]) if many else 1


async def test_300_failures_are_few_slack_posts_without_phones(tmp_path):
    async with FakeEndpoint(default=reply(200, b"ok")) as receiver:
        slack = {
            "type": "slack",
            "topics": ["*.recipient.failed.#", "voicemail.drop.rejected"],
            "webhook_url": f"{receiver.url}/services/T0/B0/s3cr3t",
            "allow_private": True,
        }
        async with running(tmp_path, ops=slack) as setting:
            world = setting.simulator.world
            message = world.add_message("sms", 300, status="sending", recipient_status="sending")
            await until(lambda: not setting.simulator.unseen(), "the bridge follows all recipients", within=120)
            for step in range(6):
                for path in message.recipients[50 * step : 50 * step + 50]:
                    world.move(path, "failed", error="The handset is unreachable.")
                await until(lambda: not setting.simulator.unseen(), "the bridge has seen them fail", within=120)
            await until(lambda: sum(map(counted, _posts(receiver))) >= 300, "300 failures are told of", within=120)
            posts = _posts(receiver)
            assert sum(map(counted, posts)) == 300
            assert 2 <= len(posts) <= 6
            for request, post in zip(receiver.requests, posts, strict=True):
                check_message(post)
                assert request.path == "/services/T0/B0/s3cr3t"
                assert message.path in post["text"]
            statuses = json.dumps(posts, ensure_ascii=False)
            assert [
                phone for phone in message.addresses if phone in statuses or phone.removeprefix("+") in statuses
            ] == []
            assert f"…{message.addresses[0][-4:]}" in statuses
            assert "The handset is unreachable.: " in statuses
        assert "s3cr3t" not in setting.process.err.read_text()


def _posts(receiver: FakeEndpoint) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in receiver.requests]


async def test_slack_retry_after_is_honoured_and_loses_nothing(tmp_path):
    async with FakeEndpoint(default=reply(200, b"ok")) as receiver:
        receiver.answer(reply(429, b"rate_limited", {"Retry-After": "2"}))
        slack = {
            "type": "slack", "topics": ["voicemail.drop.rejected"], "webhook_url": f"{receiver.url}/services/s3cr3t",
            "allow_private": True, "retry": ["200ms"] * 5,
        }  # fmt: skip
        async with running(tmp_path, ops=slack) as setting:
            drop = setting.simulator.world.add_drop(state=3)
            await receiver.arrived(2, within=120)
            assert setting.waited() > 1.9
            first, second = _posts(receiver)
            assert first == check_message(second)
            assert drop.path in second["text"]
            await until(lambda: _none(setting), "nothing waits any more", within=120)
