"""`bridgectl deliveries`: filters, pages, totals, and the endpoint's answer; read-only commands make nothing."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.adapters.sqlite.store import SqliteStore
from bridge.cli import _run
from bridge.domain.clock import Clock
from bridge.domain.event import Position, WireEvent
from bridge.domain.times import rfc3339
from bridge.protocols.deliveries import Attempt, KeptAnswer, NewDelivery
from bridge.protocols.ledger import Commit

NOW = datetime.now(UTC)
PHONE = "+17165550143"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    sinks = {
        name: {"type": "webhook", "topics": ["#"], "url": "https://crm.example/hook"} for name in ("crm", "ops")
    }  # fmt: skip
    source = {"type": "govdelivery", "url": "https://tms.example", "token": "canary", "channels": ["sms"]}
    path = tmp_path / "bridge.yaml"
    path.write_text(yaml.safe_dump({"state": str(tmp_path / "state"), "sources": {"city": source}, "sinks": sinks}))
    return path


@pytest.fixture
def seeded(config: Path) -> Path:
    """Give a configuration whose store has six deliveries of `crm`, three of them dead, and one of `ops`."""

    async def seed(store: SqliteStore) -> None:
        events = [_event(number) for number in range(1, 7)]
        await store.commit(None, Commit("city", events=events))
        positions = [Position("city", number) for number in range(1, 7)]
        await store.accept("crm", [NewDelivery(position) for position in positions], time.time() - 10)
        await store.enqueue("ops", [NewDelivery(positions[0])], time.time())
        answer = KeptAnswer(422, f'{{"error": "unknown phone {PHONE}"}}')
        refused = Attempt(NOW.timestamp(), "https://crm.example answered 422 (code 7)", "permanent")
        await store.dead_letter("crm", positions[0], "permanent", refused, answer)
        await store.dead_letter("crm", positions[1], "permanent", refused, answer)
        await store.dead_letter("crm", positions[2], "exhausted", Attempt(1.0, "https://crm.example answered 503"))
        await store.postpone("crm", positions[3], time.time() + 600, Attempt(1.0, "https://crm.example answered 503"))

    on_store(config, seed)
    return config


def _event(number: int) -> WireEvent:
    recorded = NOW - timedelta(hours=number)
    topic = "sms.recipient.failed" if number % 2 else "sms.recipient.sent"
    body = {
        "id": f"id-{number}", "subject": f"/messages/sms/1/recipients/{number}", "recordedtime": rfc3339(recorded),
        "data": {"phone": PHONE},
    }  # fmt: skip
    return WireEvent(f"id-{number}", topic, int(recorded.timestamp()), json.dumps(body).encode())


def on_store(config: Path, work: Callable[[SqliteStore], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        store = SqliteStore(config.parent / "state" / "bridge.db", clock=Clock(), begin=0)
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


@pytest.fixture
def bridge(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = _run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def listed(bridge: Any, config: Path, *arguments: str) -> dict[str, Any]:
    code, out, err = bridge("deliveries", "list", *arguments, "--json", "-c", config)
    assert (code, err) == (0, "")
    return json.loads(out)


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        ((), [1, 2, 3, 4, 5, 6]),
        (("--status", "dead"), [1, 2, 3]),
        (("--dead",), [1, 2, 3]),
        (("--status", "waiting"), [4, 5, 6]),
        (("--reason", "exhausted"), [3]),
        (("--reason", "exhausted", "--reason", "permanent"), [1, 2, 3]),
        (("--code", "422"), [1, 2]),
        (("--code", "503"), [3, 4]),
        (("--code", "422", "--code", "503", "--dead"), [1, 2, 3]),
        (("--topic", "*.recipient.failed.#"), [1, 3, 5]),
        (("--since", "150m"), [1, 2]),
        (("--until", "270m"), [5, 6]),
        (("--since", "270m", "--until", "90m", "--status", "dead"), [2, 3]),
        (("--topic", "voice.#"), []),
    ],
)
def test_filters_choose_deliveries(bridge: Any, seeded: Path, arguments: tuple[str, ...], numbers: list[int]) -> None:
    page = listed(bridge, seeded, "crm", *arguments)
    assert sorted(int(row["position"].partition(":")[2]) for row in page["deliveries"]) == numbers
    assert page["totals"] == {"waiting": 3, "dead": 3, "matched": len(numbers)}
    assert page["next"] is None


def test_pages_follow_each_other_over_all_sinks(bridge: Any, seeded: Path) -> None:
    whole = listed(bridge, seeded)["deliveries"]
    assert len(whole) == 7
    rows: list[Any] = []
    mark: list[str] = []
    while True:
        page = listed(bridge, seeded, "--limit", "2", *mark)
        rows += page["deliveries"]
        assert page["totals"]["matched"] == 7
        if page["next"] is None:
            break
        mark = ["--after", page["next"]]
    assert rows == whole
    _, out, _ = bridge("deliveries", "list", "--limit", "2", "-c", seeded)
    assert "2 of 7 shown; in all: 4 waiting, 3 dead; the next page: --after crm/" in out


def test_list_without_matches_says_so(bridge: Any, seeded: Path) -> None:
    _, out, _ = bridge("deliveries", "list", "--topic", "voice.#", "-c", seeded)
    assert out == "nothing to list; in all: 4 waiting, 3 dead\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--status", "waiting", "--dead"), "only dead letters have a reason"),
        (("--since", "1h", "--until", "2h"), "is not before --until"),
        (("--topic", "#.a"), "--topic: "),
        (("--after", "nonsense"), "is no mark of a page"),
        (("ops", "--after", "crm/1.5/city:1"), "the mark is of the sink 'crm'"),
    ],
)
def test_contradicting_filters_are_wrong_usage(
    bridge: Any, seeded: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, _, err = bridge("deliveries", "list", *arguments, "-c", seeded)
    assert code == 2
    assert said in err


def test_answer_is_shown_without_the_phone(bridge: Any, seeded: Path) -> None:
    _, out, _ = bridge("deliveries", "show", "crm", "city:1", "-c", seeded)
    assert 'answer:    422 {"error": "unknown phone …0143"}' in out
    assert PHONE not in out
    _, out, _ = bridge("deliveries", "show", "crm", "city:1", "--json", "-c", seeded)
    assert json.loads(out)["answer"] == {"status": 422, "body": f'{{"error": "unknown phone {PHONE}"}}'}
    _, out, _ = bridge("trace", "/messages/sms/1/recipients/1", "-c", seeded)
    assert 'answered 422 {"error": "unknown phone …0143"}' in out


def test_filtered_redrive_asks_first(bridge: Any, seeded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    code, out, err = bridge("deliveries", "redrive", "crm", "--code", "422", "-c", seeded)
    assert (code, out) == (1, "nothing was redriven\n")
    assert "Make 2 deliveries due now?" in err
    code, out, _ = bridge("deliveries", "redrive", "crm", "--code", "422", "--yes", "--json", "-c", seeded)
    assert (code, json.loads(out)) == (0, {"sinks": [{"sink": "crm", "due_again": 2, "enabled": False}], "missing": []})
    assert listed(bridge, seeded, "crm")["totals"] == {"waiting": 5, "dead": 1, "matched": 6}


def test_filtered_discard_leaves_the_rest(bridge: Any, seeded: Path) -> None:
    code, out, _ = bridge("deliveries", "discard", "--topic", "sms.recipient.sent", "--dead", "--yes", "-c", seeded)
    assert (code, out) == (0, "crm: 1 discarded\nops: 0 discarded\n")
    left = listed(bridge, seeded, "crm", "--dead")["deliveries"]
    assert sorted(row["position"] for row in left) == ["city:1", "city:3"]


READERS = (
    ("status",), ("sources",), ("sinks",), ("deliveries", "list"), ("trace", "1"), ("sources", "--json"),
    ("status", "--json"), ("deliveries", "show", "crm", "city:1"),
)  # fmt: skip


@pytest.mark.parametrize("command", READERS)
def test_reading_commands_make_no_store(bridge: Any, config: Path, command: tuple[str, ...]) -> None:
    bridge(*command, "-c", config)
    assert sorted(path.name for path in config.parent.iterdir()) == ["bridge.yaml"]


def test_pause_and_resume_say_what_changed(bridge: Any, config: Path) -> None:
    code, out, _ = bridge("pause", "city", "--reason", "a\nquiet day", "-c", config, "--json")
    first = json.loads(out)
    assert (code, first["part"], first["changed"], first["paused"]["reason"]) == (0, "source/city", True, "a quiet day")
    _, out, _ = bridge("pause", "city", "-c", config)
    assert out.startswith("source/city: it is paused already, by ")
    _, out, _ = bridge("sources", "-c", config)
    assert "paused" in out
    assert bridge("resume", "city", "-c", config)[:2] == (0, "source/city: resumed\n")
    _, out, _ = bridge("resume", "city", "--json", "-c", config)
    assert json.loads(out) == {"part": "source/city", "changed": False, "paused": None}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pause", "citty"), "did you mean 'city'?"),
        (("resume", "cmr"), "did you mean 'crm'?"),
        (("poll", "crm"), "there is no source 'crm'"),
        (("pause", "zzz"), "there is city, crm, ops"),
    ],
)
def test_unknown_part_gets_a_suggestion(bridge: Any, config: Path, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = bridge(*arguments, "-c", config)
    assert code == 2
    assert said in err


def test_poll_without_a_service_is_withdrawn(bridge: Any, config: Path) -> None:
    code, out, _ = bridge("poll", "city", "--wait", "0.2", "-c", config)
    assert (code, out) == (1, "city: not polled: no process polls it; is the service running? see `bridgectl status`\n")
    assert on_store(config, lambda store: store.orders()).polls == {}
    bridge("pause", "city", "-c", config)
    code, _, err = bridge("poll", "city", "-c", config)
    assert code == 1
    assert "`bridgectl resume city` comes first" in err
