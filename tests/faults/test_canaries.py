"""No secret and nobody's number or address in anything that is written, whatever strikes and however much is logged."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import yaml
from aiohttp import web
from harness import Process, ask, bridge, until, write_config

from bridge.adapters.redis.store import RedisStore
from bridge.adapters.sqlite.store import SqliteStore
from bridge.cli import _run as cli_run
from bridge.domain.clock import Clock
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.fault_catalogue import FAULTS
from bridge.testing.fake_endpoint import FakeEndpoint
from bridge.testing.free_port import free_port
from bridge.testing.servers import RabbitMQServer, RedisServer

pytestmark = pytest.mark.faults

SECRETS = {
    "govdelivery_token": "canary-govdelivery-Xk81",
    "spacivox_token": "canary-spacivox-Zq72",
    "client_secret": "canary-client-secret-Wp63",
    "webhook_secret": "whsec_Y2FuYXJ5LXdlYmhvb2stc2VjcmV0LVZvNTQ=",
    "webhook_url": "canary-webhook-path-Un45",
    "webhook_header": "canary-header-Tm36",
    "slack_url": "canary-slack-path-Sl27",
    "redis_password": "canary-redis-Rk18",
    "rabbitmq_password": "canary-rabbitmq-Qj09",
}
WORLD = SimulatorSettings(
    seed=5,
    speed=120.0,
    messages_per_minute=3.0,
    recipients_per_message=4.0,
    max_recipients=10,
    drops_per_minute=6.0,
    emails_per_minute=3.0,
    texts_per_minute=3.0,
    sends_per_minute=6.0,
    email_sends_per_minute=3.0,
    failed_share=0.4,
    govdelivery_token=SECRETS["govdelivery_token"],
    spacivox_token=SECRETS["spacivox_token"],
    client_secret=SECRETS["client_secret"],
)
# Those that only cost time here; each has a test of its own.
SLOW = {
    "gzip_bomb",
    "huge_body",
    "endless_pages",
    "retry_after_absurd",
    "blocked_50200",
    "never_answers",
    "headers_only",
}


# --- who is looked for ------------------------------------------------------------------------------------------------


def people(simulator: Simulator) -> set[str]:
    """Return the numbers, addresses and keys of everybody in a world."""
    world = simulator.world
    addresses = {address for group in world.messages.values() for message in group for address in message.addresses}
    addresses |= {record.address for group in world.records.values() for record in group}
    sends = [send for group in world.sends.values() for send in group]
    addresses |= {send.to for send in sends}
    keys = {send.contact_key for send in sends} | {send.message_key for send in sends if send.message_key}
    private = keys | addresses | {address.removeprefix("+1").removeprefix("+") for address in addresses}
    assert len(private) > 50
    return private


def any_of(words: Iterable[str]) -> str:
    """Return a pattern that finds any of the words by their common beginnings, whatever their number.

    One after the other, thousands of words take minutes in a log of some megabytes.
    """
    rests: dict[str, set[str]] = {}
    for word in words:
        if not word:
            return ""
        rests.setdefault(word[0], set()).add(word[1:])
    return "(?:" + "|".join(re.escape(first) + any_of(rest) for first, rest in sorted(rests.items())) + ")"


class CanaryWitness:
    """Reads all that was written, and knows what must not stand there."""

    def __init__(self, canaries: Iterable[str]) -> None:
        # The secret of a webhook is its key, with or without its prefix.
        secrets = {*SECRETS.values(), SECRETS["webhook_secret"].removeprefix("whsec_"), "simulated-access-"}
        words = {*canaries, *secrets}
        words |= {quote(word, safe="") for word in words}
        assert all(words)
        self._pattern = re.compile(any_of(words))
        self.read = 0

    def search(self, where: str, text: str) -> None:
        self.read += len(text)
        match = self._pattern.search(text)
        if match is not None:
            around = text[max(0, match.start() - 200) : match.end() + 100]
            pytest.fail(f"{where}: {match[0]!r} stands in: …{around}…")

    def search_process(self, name: str, process: Process) -> None:
        self.search(f"{name} stdout", process.said)
        self.search(f"{name} stderr", process.err.read_text())

    def search_command(self, name: str, done: subprocess.CompletedProcess[str]) -> None:
        assert "Traceback" not in done.stderr
        self.search(f"{name} stdout", done.stdout)
        self.search(f"{name} stderr", done.stderr)


# --- the stage --------------------------------------------------------------------------------------------------------


def quoting(statuses: Iterator[int]) -> Any:
    """Answer in turn with these statuses, and with all that was asked, secrets included."""

    async def step(request: web.BaseRequest) -> web.StreamResponse:
        said = await request.read() + str(dict(request.headers)).encode() + request.path_qs.encode()
        status = next(statuses)
        return web.Response(status=status, body=said, headers={"X-Echo": request.path_qs, "Retry-After": "0"})

    return step


def stage_config(folder: Path, simulator: Simulator, receiver: FakeEndpoint, **values: Any) -> Path:
    retry = {"retry": ["50ms", "100ms"], "topics": ["#"], "allow_private": True}
    path = write_config(
        folder,
        simulator,
        interval="100ms",
        http={"listen": f"127.0.0.1:{free_port()}"},
        log={"level": "debug", "format": "json"},
        lease="2s",
        sinks={
            "crm": {
                "type": "webhook",
                "url": f"{receiver.url}/hooks/{SECRETS['webhook_url']}?key={SECRETS['webhook_url']}",
                "secret": SECRETS["webhook_secret"],
                "headers": {"Authorization": f"Bearer {SECRETS['webhook_header']}"},
                **retry,
            },
            "nowhere": {
                "type": "webhook",
                "url": f"http://127.0.0.1:{free_port()}/{SECRETS['webhook_url']}",
                "secret": SECRETS["webhook_secret"],
                **retry,
            },
            "ops": {
                "type": "slack",
                "webhook_url": f"{receiver.url}/services/T0/B0/{SECRETS['slack_url']}",
                "window": "1s",
                "privacy": "full",
                **retry,
            },
        },
        **values,
    )
    config = yaml.safe_load(path.read_text())
    config["sources"]["drops"]["records"] = ["voicemail_drop", "text", "email"]
    config["sources"]["journeys"] |= {"kinds": ["sms", "email"], "page_size": 5}
    config["sources"]["city"]["timeout"] = "300ms"
    for source in config["sources"].values():
        source["stall_after"] = "1s"
    path.write_text(yaml.safe_dump(config))
    return path


async def fetch(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.text() + str(dict(response.headers))


async def trouble(simulator: Simulator, config: Path, witness: CanaryWitness, seconds: float = 0.25) -> None:
    """Let every fault strike for a while, a few at a time, and read the pages of the process meanwhile."""
    listen = yaml.safe_load(config.read_text())["http"]["listen"]
    names = sorted(set(FAULTS) - SLOW)
    for number in range(0, len(names), 4):
        simulator.switch_off()
        for name in names[number : number + 4]:
            simulator.switch_on(
                name, share=0.4, value=0.1 if name.startswith(("slow", "refused", "too_many")) else None
            )
        await asyncio.sleep(seconds)  # how long the trouble lasts, not what is waited for
        for page in ("metrics", "readyz", "livez"):
            witness.search(page, await fetch(f"http://{listen}/{page}"))
    simulator.switch_off()
    assert len(simulator.board.applied) > 35


COMMANDS = (
    ("sources",),
    ("sources", "--json"),
    ("status",),
    ("status", "--json"),
    ("sinks",),
    ("deliveries", "list"),
    ("config", "show"),
    ("config", "show", "--json"),
    ("check",),
    ("check", "--json"),
    ("reconcile", "city"),
    ("reconcile", "drops"),
)


async def search_commands(folder: Path, config: Path, witness: CanaryWitness) -> None:
    for command in COMMANDS:
        done = await ask(folder, *command, "-c", str(config))
        assert done.stdout or done.stderr
        witness.search_command(" ".join(command), done)


async def search_store(store: RedisStore | SqliteStore, witness: CanaryWitness) -> None:
    """Read what the store keeps for operators: notes, cursors, and why deliveries wait or were given up."""
    errors = []
    try:
        notes = {name: said for name, said in (await store.statuses("")).items() if not name.startswith("secret/")}
        assert any(said.get("error") or said.get("state") for said in notes.values())
        witness.search("notes", json.dumps(notes))
        for sink in ("crm", "nowhere", "ops"):
            for delivery in await store.deliveries(sink, limit=2000):
                errors += [attempt.error for attempt in delivery.attempts] + [delivery.reason]
        for source in ("city", "drops", "journeys"):
            for name, value in (await store.cursor(source)).items():
                witness.search(f"cursor of {source}", f"{name}={value}")
    finally:
        await store.close()
    assert len(set(errors)) > 3, errors
    witness.search("errors of deliveries", "\n".join(errors))


def check_noise(process: Process, *events: str) -> None:
    """Make sure that the log had occasion to tell too much."""
    said = {line["event"] for line in process.log}
    assert {*events} <= said, sorted(said)
    assert any(line["level"] == "debug" for line in process.log)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.acceptance
@pytest.mark.timeout(400)
async def test_embedded_process_writes_nothing_private(tmp_path):
    answers = quoting(cycle([200, 500, 400, 429, 302, 200, 404]))
    async with Simulator(WORLD) as simulator, FakeEndpoint(default=answers) as receiver:
        config = stage_config(tmp_path, simulator, receiver)
        with bridge(tmp_path, "run", "-c", str(config)) as running:
            await until(lambda: len(receiver.requests) > 50, "events arrive")
            witness = CanaryWitness(people(simulator))
            await trouble(simulator, config, witness)
            witness = CanaryWitness(people(simulator))
            await search_commands(tmp_path, config, witness)
            assert await asyncio.to_thread(running.stop) == 0
        # They did arrive at the far side, which shows that they were there to be told.
        assert SECRETS["slack_url"] in "".join(request.path for request in receiver.requests)
        witness.search_process("run", running)
        check_noise(running, "source.backs_off", "source.resource_fails", "source.stalled", "delivery.waits")
        await search_store(SqliteStore(tmp_path / "state" / "bridge.db", clock=Clock()), witness)
        assert witness.read > 50_000


@pytest.mark.acceptance
@pytest.mark.timeout(400)
async def test_redis_and_rabbitmq_outages_write_nothing_private(tmp_path):
    user = ("--user", "bridge", "on", f">{SECRETS['redis_password']}", "~*", "&*", "+@all")
    answers = quoting(cycle([200, 200, 500, 400]))
    with RedisServer(appendonly=True, options=user) as redis, RabbitMQServer() as rabbitmq:
        password = SECRETS["rabbitmq_password"]
        await asyncio.to_thread(rabbitmq.ctl, "add_user", "bridge", password)
        await asyncio.to_thread(rabbitmq.ctl, "set_permissions", "bridge", ".*", ".*", ".*")
        store = f"redis://bridge:{SECRETS['redis_password']}@127.0.0.1:{redis.port}/0"
        broker = f"amqp://bridge:{password}@127.0.0.1:{rabbitmq.port}//"
        async with Simulator(WORLD) as simulator, FakeEndpoint(default=answers) as receiver:
            config = stage_config(tmp_path, simulator, receiver, store=store, broker=broker)
            witness = CanaryWitness(people(simulator))
            with bridge(tmp_path, "run", "-c", str(config)) as running:
                await until(lambda: len(receiver.requests) > 20, "events arrive")
                for server in (redis, rabbitmq):
                    await asyncio.to_thread(server.kill)
                    down = "store" if server is redis else "broker"
                    await until(lambda down=down: waits_for(running, down), f"the log says that the {down} is away")
                    for command in ("check", "sources"):
                        done = await ask(tmp_path, command, "-c", str(config))
                        witness.search_command(f"{command} without the {down}", done)
                    before = len(receiver.requests)
                    await asyncio.to_thread(server.start)
                    await until(lambda before=before: len(receiver.requests) > before + 10, "events arrive again")
                assert await asyncio.to_thread(running.stop) == 0
            witness = CanaryWitness(people(simulator))
            witness.search_process("run", running)
            await search_store(RedisStore(store, clock=Clock()), witness)
            # A password that has become wrong is said to be so, and not said.
            redis_cli = f"redis://bridge:{password}@127.0.0.1:{redis.port}/0"
            wrong = stage_config(tmp_path, simulator, receiver, name="wrong.yaml", store=redis_cli,
                                 broker=broker.replace(password, SECRETS["redis_password"]))  # fmt: skip
            for command in (("check",), ("run", "--once"), ("sources",)):
                done = await ask(tmp_path, *command, "-c", str(wrong))
                assert done.returncode != 0
                witness.search_command(f"{command} with a wrong password", done)


def waits_for(process: Process, what: str) -> bool:
    words = {"store": ("source.waits_for_store", "lease.cannot_be_taken", "lease.lost"), "broker": ("relay.waits",)}
    return any(line["event"] in words[what] for line in process.log)


# --- files that are wrong ---------------------------------------------------------------------------------------------

SECRET = "canary-in-a-file-7Kq2"
SOURCE = {"type": "govdelivery", "token": "fine"}
BROKEN: dict[str, Any] = {
    "a token that is a list": {"sources": {"city": SOURCE | {"token": [SECRET]}}},
    "a token that is a mapping": {"sources": {"city": SOURCE | {"token": {"value": SECRET}}}},
    "a key that nobody knows": {"sources": {"city": SOURCE | {"tokn": SECRET}}},
    "an address with a password": {"sources": {"city": SOURCE | {"url": f"https://me:{SECRET}@tms.example.com"}}},
    "an address with a key in its query": {"sources": {"city": SOURCE | {"url": f"https://tms.example.com/?key={SECRET}"}}},
    "a webhook secret that is no base64": {"sinks": {"crm": {"type": "webhook", "topics": ["#"], "url": "https://crm.example.com", "secret": f"whsec_!{SECRET}"}}},
    "a webhook secret that is short": {"sinks": {"crm": {"type": "webhook", "topics": ["#"], "url": "https://crm.example.com", "secret": [SECRET, "x"]}}},
    "a header that is a list": {"sinks": {"crm": {"type": "webhook", "topics": ["#"], "url": "https://crm.example.com", "headers": {"Authorization": [SECRET]}}}},
    "a header with a line break": {"sinks": {"crm": {"type": "webhook", "topics": ["#"], "url": "https://crm.example.com", "headers": {"Authorization": f"{SECRET}\nx"}}}},
    "a webhook that is no address": {"sinks": {"crm": {"type": "webhook", "topics": ["#"], "url": SECRET}}},
    "a webhook with a strange port": {"sinks": {"crm": {"type": "webhook", "topics": ["#"], "url": f"https://crm.example.com:port/{SECRET}"}}},
    "a Slack address that is none": {"sinks": {"ops": {"type": "slack", "topics": ["#"], "webhook_url": f"hooks.slack.com/{SECRET}"}}},
    "a Slack address of another scheme": {"sinks": {"ops": {"type": "slack", "topics": ["#"], "webhook_url": f"ftp://hooks.slack.com/{SECRET}"}}},
    "two ways to Slack": {"sinks": {"ops": {"type": "slack", "topics": ["#"], "webhook_url": f"https://hooks.slack.com/{SECRET}", "bot_token": SECRET}}},
    "a store with a strange port": {"store": f"redis://:{SECRET}@localhost:port/0"},
    "a store of another kind": {"store": f"postgres://me:{SECRET}@localhost/db"},
    "a broker with a strange port": {"broker": f"amqp://me:{SECRET}@localhost:99999999//"},
    "a broker of another kind": {"broker": f"nonsense://me:{SECRET}@localhost//"},
    "a broker that is a list": {"broker": [f"amqp://me:{SECRET}@localhost//"]},
    "a privacy key that is a list": {"privacy_key": [SECRET]},
}  # fmt: skip
UNREADABLE = {
    "a colon too many": f"sources:\n  city:\n    token: {SECRET}: x\n",
    "a quote that never ends": f'sources:\n  city:\n    token: "{SECRET}\n',
    "a tab": f"sources:\n  city:\n\ttoken: {SECRET}\n",
    "a line that is no key": f"sources:\n  city:\n    {SECRET}\n    type: govdelivery\n",
    "a variable that is not set": f"sources:\n  city:\n    type: govdelivery\n    token: {SECRET}${{NOT_SET_AT_ALL}}\n",
    "a variable that is not closed": f"sources:\n  city:\n    type: govdelivery\n    token: {SECRET}${{NOT\n",
    "one key twice": f"sources:\n  city:\n    type: govdelivery\n    token: {SECRET}\n    token: {SECRET}\n",
    "a tag": f"sources:\n  city:\n    token: !!python/object {SECRET}\n",
}


@pytest.mark.parametrize("what", [*BROKEN, *UNREADABLE])
def test_wrong_file_is_reported_without_its_secrets(what, tmp_path, capfd):
    file = tmp_path / "bridge.yaml"
    file.write_text(UNREADABLE[what] if what in UNREADABLE else yaml.safe_dump({"state": "state"} | BROKEN[what]))
    for command in (("check", "--offline"), ("check", "--offline", "--json"), ("run", "--once"), ("config", "show")):
        assert cli_run([*command, "-c", str(file)]) == 3
        said = capfd.readouterr()
        assert said.err
        for text in (said.out, said.err):
            assert SECRET not in text
            assert "Traceback" not in text


# --- what libraries and the interpreter write by themselves -----------------------------------------------------------

_SAYS = """
import asyncio, concurrent.futures, gc, logging, sys, threading, warnings
from bridge.cli.support.running import guard_interpreter
from bridge.observability.logging import configure_logging
guard_interpreter()
configure_logging("debug", sys.argv[1])
SECRET = sys.argv[2]

class Leaks:
    def __repr__(self): return SECRET
    def __del__(self): raise ValueError(SECRET)

def fails(*_): raise ValueError(SECRET)

async def task(): raise ValueError(SECRET)

async def main():
    asyncio.ensure_future(task())                                    # nobody asks how it ended
    asyncio.get_running_loop().call_soon(fails)                      # a callback that fails
    asyncio.get_running_loop().call_exception_handler({"message": SECRET, "exception": ValueError(SECRET), "future": Leaks})
    await asyncio.sleep(0.05)
    gc.collect()
    await asyncio.sleep(0.05)

for name in ("kombu.connection", "amqp", "redis.client", "aiohttp.client", "aiohttp.server", "asyncio", "vine", "urllib3", "somebody"):
    logger = logging.getLogger(name)
    logger.warning("cannot reach %s", SECRET)
    logger.error("failed", exc_info=ValueError(SECRET))
    logger.error("line\\n" + SECRET)
    logger.error(f"Unhandled notification type: {SECRET}")
    try: fails()
    except ValueError: logger.exception("went wrong with %r", Leaks)
logging.warning("of the root: %s", SECRET)
asyncio.run(main())
thread = threading.Thread(target=fails); thread.start(); thread.join()
future = concurrent.futures.Future(); future.add_done_callback(fails); future.set_result(None)
Leaks(); gc.collect()
warnings.warn(SECRET, ResourceWarning, stacklevel=1)
warnings.warn(SECRET, RuntimeWarning, stacklevel=1)
print("done")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_library_and_interpreter_messages_are_logged_without_values(form, tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", _SAYS, form, SECRET],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.stdout == "done\n"
    assert SECRET not in done.stderr
    warnings = done.stderr.count("library.warns")
    assert warnings >= 9 * 5, done.stderr
    assert "cannot reach %s" in done.stderr
    assert "Unhandled notification type:" in done.stderr
    for part in ("vine", "somebody", "kombu.connection", "asyncio", "concurrent.futures"):
        assert part in done.stderr
    assert "ValueError" in done.stderr
    assert "Traceback" not in done.stderr
    if form == "json":
        assert all(json.loads(line)["event"] for line in done.stderr.splitlines())
