"""Commands on deliveries: listed, redriven, discarded and replayed."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys

import pytest
from rigs.cli import EVENTS, ONE, TWO, at, event, minutes_ago

from bridge.cli.support.options import Exit
from bridge.config.loading import load
from bridge.domain.events.govdelivery import RecipientSent
from bridge.protocols.ledger import Commit
from bridge.runtime.assembly import Assembly


def test_deliveries_are_listed_with_their_event_and_last_error(bridge, seeded) -> None:
    rows = {row["position"]: row for row in bridge("deliveries", "list", "-c", seeded, "--json").json["deliveries"]}
    assert set(rows) == {"lamps:2", "lamps:3"}
    assert rows["lamps:2"]["state"] == "waiting"
    assert rows["lamps:3"]["reason"] == "permanent"
    assert rows["lamps:3"]["subject"] == ONE
    assert rows["lamps:3"]["attempts"][0]["error"] == "HTTP 400"
    out = bridge("deliveries", "list", "crm", "--dead", "-c", seeded).out
    assert re.search(
        rf"^crm +lamps:3 +voice.recipient.failed.busy +{ONE} +dead: permanent +1 +- +HTTP 400$", out, re.MULTILINE
    )
    assert "lamps:2" not in out
    assert out.endswith("1 of 1 shown; in all: 1 waiting, 1 dead\n")
    assert "gone" in bridge("deliveries", "list", "gone", "-c", seeded).out


@pytest.mark.parametrize("name", [str(at(3)), EVENTS[2].id])
def test_a_delivery_is_shown_by_position_or_event_id(bridge, seeded, name) -> None:
    shown = bridge("deliveries", "show", "crm", name, "-c", seeded, "--json").json
    assert (shown["state"], shown["id"], shown["event"]["subject"]) == ("dead", EVENTS[2].id, ONE)
    assert "permanent: HTTP 400" in bridge("deliveries", "show", "crm", name, "-c", seeded).out


def test_delivery_is_shown_with_event_and_without_phone(bridge, seeded) -> None:
    done = bridge("deliveries", "show", "crm", "lamps:3", "-c", seeded)
    shown = json.loads(done.out.partition("\nevent:     ")[2])
    assert (shown["id"], shown["data"]["status"], shown["data"]["phone"]) == (EVENTS[2].id, "failed", "…1000")
    assert "555" not in done.out


@pytest.mark.parametrize("command", ["show", "redrive", "discard"])
def test_missing_delivery_is_reported_and_changes_nothing(bridge, seeded, command) -> None:
    done = bridge("deliveries", command, "crm", "lamps:99", "-c", seeded)
    assert done.code == Exit.FAILED
    assert "has no event 'lamps:99'" in done.err or "crm: lamps:99 neither waits nor is a dead letter" in done.err


def test_of_several_deliveries_those_that_are_there_are_redriven(bridge, seeded) -> None:
    done = bridge("deliveries", "redrive", "crm", "lamps:1", "lamps:3", "-c", seeded)
    assert (done.code, done.out) == (Exit.FAILED, "crm: 1 due again\n")
    assert done.err == "error: crm: lamps:1 neither waits nor is a dead letter\n"


@pytest.mark.parametrize(("name", "state"), [("lamps:1", "delivered, or discarded"), ("lamps:5", "never offered")])
def test_settled_or_future_delivery_is_reported_as_such(bridge, seeded, name, state) -> None:
    assert state in bridge("deliveries", "show", "crm", name, "-c", seeded).out


def test_event_missing_from_journal_is_reported(bridge, seeded) -> None:
    done = bridge("deliveries", "show", "crm", "0" * 32, "-c", seeded)
    assert done.code == Exit.FAILED
    assert "the journal has no event" in done.err


@pytest.mark.parametrize(
    "arguments",
    [("list", "nope"), ("show", "nope", "lamps:1"), ("redrive", "crm"), ("redrive", "crm", "lamps:3", "--all"), ("redrive",),
     ("discard", "--dead", "--all"), ("redrive", "nope", "lamps:1")],
)  # fmt: skip
def test_deliveries_have_to_be_named(bridge, seeded, arguments) -> None:
    assert bridge("deliveries", *arguments, "-c", seeded).code == Exit.USAGE


@pytest.mark.parametrize(
    "arguments", [("trace", TWO), ("deliveries", "list"), ("deliveries", "show", "crm", "lamps:2")]
)
def test_deliveries_of_disabled_sink_show_reason_and_remedy(bridge, seeded, arguments) -> None:
    async def disable() -> None:
        async with Assembly(load(seeded)).opened_store() as store:
            await store.set_status(
                "sink/crm", {"disabled": "https://crm.example: 410", "disabled_at": "2026-03-15T21:00:00Z"}
            )

    asyncio.run(disable())
    said = "the sink is disabled since 2026-03-15T21:00:00Z: https://crm.example: 410; `bridgectl deliveries redrive crm --all`"
    assert said in bridge(*arguments, "-c", seeded).out
    if arguments[0] == "deliveries":
        shown = bridge(*arguments, "-c", seeded, "--json").json
        rows = shown.get("deliveries", [shown])
        delivery = next(entry for entry in rows if entry["position"] == "lamps:2")
        assert delivery["disabled"] == {"answered": "https://crm.example: 410", "since": "2026-03-15T21:00:00Z"}
    bridge("deliveries", "redrive", "crm", "--all", "-c", seeded)
    assert "disabled" not in bridge(*arguments, "-c", seeded).out


def test_dead_letters_are_redriven_and_the_sink_is_enabled_again(bridge, seeded) -> None:
    async def disable() -> None:
        async with Assembly(load(seeded)).opened_store() as store:
            await store.set_status("sink/crm", {"disabled": "410 Gone"})

    async def state() -> tuple[str, str]:
        async with Assembly(load(seeded)).opened_store() as store:
            return (await store.statuses("sink/"))["sink/crm"]["disabled"], (await store.delivery("crm", at(3))).state

    asyncio.run(disable())
    assert bridge("deliveries", "redrive", "crm", "--dead", "-c", seeded).out == (
        "crm: 1 due again; the sink is enabled again\n"
    )
    assert asyncio.run(state()) == ("", "waiting")
    assert bridge("deliveries", "redrive", "crm", EVENTS[2].id, "-c", seeded).out == "crm: 1 due again\n"
    assert bridge("deliveries", "redrive", "--all", "-c", seeded).out == "crm: 2 due again\nops: 0 due again\n"


def test_discarding_asks_first(bridge, seeded, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    done = bridge("deliveries", "discard", "crm", "--dead", "-c", seeded)
    assert (done.code, done.out) == (Exit.FAILED, "nothing was discarded\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert bridge("deliveries", "discard", "crm", "--dead", "-c", seeded).code == Exit.FAILED
    assert bridge("deliveries", "discard", "crm", "--dead", "--yes", "-c", seeded).out == "crm: 1 discarded\n"
    assert bridge("deliveries", "discard", "crm", "lamps:2", "-y", "-c", seeded).out == "crm: 1 discarded\n"
    assert bridge("deliveries", "list", "crm", "-c", seeded, "--json").json == {
        "deliveries": [], "totals": {"waiting": 0, "dead": 0, "matched": 0}, "next": None,
    }  # fmt: skip
    assert bridge("deliveries", "discard", "--all", "-c", seeded).out == "crm: 0 discarded\nops: 0 discarded\n"


@pytest.mark.parametrize(
    ("arguments", "selected", "replayed"),
    [
        (("crm", "--since", "24h"), 6, 4),  # one waits, one is dead
        (("crm", "--since", minutes_ago(65)), 4, 3),
        (("crm", "--since", "24h", "--until", minutes_ago(65)), 2, 1),
        (("crm", "--since", "24h", "--topic", "voice.*.sent.#"), 1, 1),
        (("crm", "--since", "24h", "--topic", "voice.*.sent.#", "--topic", "*.*.failed.busy"), 2, 1),
        (("ops", "--since", "24h"), 3, 3),
        (("crm", "--since", minutes_ago(1)), 0, 0),
    ],
)
def test_journalled_events_are_due_again_for_one_sink(bridge, seeded, arguments, selected, replayed) -> None:
    assert bridge("replay", *arguments, "-c", seeded, "--json").json == {
        "sink": arguments[0], "selected": selected, "replayed": replayed,
    }  # fmt: skip


def test_a_replay_says_what_it_left_alone(bridge, seeded) -> None:
    done = bridge("replay", "crm", "--since", "24h", "-c", seeded)
    assert done.out == "crm: 4 of 6 events are due again; 2 still wait or are dead letters, and were left alone\n"
    assert bridge("replay", "nope", "--since", "24h", "-c", seeded).code == Exit.USAGE
    assert bridge("replay", "crm", "--since", "24h", "--topic", "#.a", "-c", seeded).code == Exit.USAGE
    assert bridge("replay", "crm", "--since", "noon", "-c", seeded).code == Exit.USAGE
    done = bridge("replay", "crm", "--since", "1h", "--until", "2h", "-c", seeded)
    assert done.code == Exit.USAGE
    assert re.search(r"--since \S+ is not before --until \S+", done.err)


def test_a_long_journal_is_replayed_in_batches(bridge, file) -> None:
    events = [
        event(RecipientSent, f"/messages/voice/1/recipients/{number}", 5, detail="human") for number in range(2001)
    ]

    async def seed() -> None:
        async with Assembly(load(file)).opened_store() as store:
            await store.commit(None, Commit("lamps", events=[event.to_wire() for event in events]))

    asyncio.run(seed())
    assert bridge("replay", "crm", "--since", "1h", "-c", file).out == "crm: 2001 of 2001 events are due again\n"
    assert "recipients/2000" in bridge("trace", events[-1].id, "-c", file).out
