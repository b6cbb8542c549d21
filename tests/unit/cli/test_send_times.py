"""What the commands tell of quiet times, mutes and what has expired, and how an operator mutes and unmutes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rigs.cli import ONE

from bridge.config.loading import load
from bridge.domain.event import Position
from bridge.protocols.deliveries import NewDelivery
from bridge.protocols.store import Store
from bridge.protocols.unsent import Unsent, UnsentDelivery
from bridge.runtime.assembly import Assembly


def with_store(file: Path, work: Callable[[Store], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with Assembly(load(file)).opened_store() as store:
            return await work(store)

    return asyncio.run(run())


def end(bridge, file: Path, number: int, unsent: Unsent) -> str:
    """End a delivery of the sink `ops` unsent; return its position."""
    place = Position.parse(bridge("trace", ONE, "-c", file, "--json").json[number]["position"])

    async def work(store: Store) -> None:
        await store.discard("ops", [place])
        await store.replay("ops", [NewDelivery(place)], 0.0)
        assert await store.end_unsent("ops", [UnsentDelivery(place)], unsent) == 1

    with_store(file, work)
    return str(place)


def said(bridge, file: Path, number: int) -> str:
    sinks = bridge("trace", ONE, "-c", file, "--json").json[number]["sinks"]
    return next(f"{sink['state']}: {sink['said']}" for sink in sinks if sink["sink"] == "ops")


AT = datetime(2026, 3, 15, 21, tzinfo=UTC).timestamp()


def test_trace_tells_when_an_event_expired(bridge, seeded) -> None:
    place = end(bridge, seeded, 1, Unsent("expired", AT))
    assert said(bridge, seeded, 1) == "expired: not sent: it was older than max_age at 2026-03-15T21:00:00Z"
    assert "expired" in bridge("deliveries", "show", "ops", place, "-c", seeded).out
    answer = bridge("sinks", "-c", seeded, "--json").json
    assert {sink["name"]: sink["expired"] for sink in answer["sinks"]} == {"crm": 0, "ops": 1}


def test_mute_is_listed_told_and_ended(bridge, seeded) -> None:
    where = "{exact: {data.status: failed}}"
    muted = bridge("mute", "ops", "--for", "2h", "--where", where, "--reason", "a test", "-c", seeded, "--json").json
    assert (muted["sink"], muted["reason"], muted["where"]) == ("ops", "a test", {"exact": {"data.status": "failed"}})
    lasts = datetime.fromisoformat(muted["until"]) - datetime.fromisoformat(muted["since"])
    assert abs(lasts - timedelta(hours=2)) < timedelta(seconds=1)
    (listed,) = bridge("mutes", "list", "-c", seeded, "--json").json["mutes"]
    assert listed == {key: value for key, value in muted.items() if key != "followed"}
    assert 'exact data.status: "failed"' in bridge("mutes", "list", "-c", seeded).out
    assert ", muted" in bridge("sinks", "-c", seeded).out
    assert f"`bridgectl unmute ops {muted['id']}` ends it" in bridge("status", "-c", seeded).out
    end(bridge, seeded, 0, Unsent("muted", AT, muted["id"]))
    text = said(bridge, seeded, 0)
    assert text.startswith(f"filtered: not sent at 2026-03-15T21:00:00Z: muted by {muted['by']} until {muted['until']}")
    assert text.endswith(": a test; `bridgectl replay` sends it")
    assert bridge("unmute", "ops", muted["id"], "-c", seeded).out == f"ops: no longer muted by {muted['id']}\n"
    assert bridge("mutes", "list", "-c", seeded).out == "nothing is muted\n"
    assert bridge("unmute", "ops", "-c", seeded).out == "ops: it was not muted\n"
    assert muted["by"] in said(bridge, seeded, 0)  # it is kept for this


def test_unmute_without_id_ends_all_of_a_sink(bridge, seeded) -> None:
    for sink in ("ops", "ops", "crm"):
        assert bridge("mute", sink, "--for", "1h", "-c", seeded).code == 0
    assert len(bridge("unmute", "ops", "-c", seeded, "--json").json["ended"]) == 2
    assert [mute["sink"] for mute in bridge("mutes", "list", "-c", seeded, "--json").json["mutes"]] == ["crm"]


def test_mutes_that_ended_long_ago_are_forgotten(bridge, seeded) -> None:
    old = bridge("mute", "ops", "--for", "1h", "-c", seeded, "--json").json

    async def age(store: Store) -> None:
        mute = (await store.orders()).mutes[old["id"]]
        await store.keep_mute(replace(mute, until=mute.since - 365 * 86400))

    with_store(seeded, age)
    new = bridge("mute", "ops", "--for", "1h", "-c", seeded, "--json").json
    assert with_store(seeded, lambda store: store.orders()).mutes.keys() == {new["id"]}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["opps", "--for", "2h"], "did you mean 'ops'?"),
        (["ops", "--for", "2"], "'2' is not a duration; write a number and a unit, such as 500ms, 30s, 5m, 72h"),
        (["ops", "--for", "0s"], "'0s' is not between 1ms and 8760h, a year"),
        (["ops"], "missing option '--for'"),
        (["ops", "--for", "2h", "--where", "{exakt: {data.status: failed}}"], "exakt: is no dialect of filters"),
        (["ops", "--for", "2h", "--where", "{exact: "], "is neither YAML nor JSON"),
        (["ops", "--for", "2h", "--where", "failed"], "must be a mapping of a dialect"),
    ],
)
def test_wrong_mutes_say_what_to_write(bridge, seeded, words: list[str], text: str) -> None:
    done = bridge("mute", *words, "-c", seeded)
    assert done.code == 2
    assert text in " ".join(done.err.split())
    assert bridge("mutes", "list", "-c", seeded).out == "nothing is muted\n"


def test_unknown_mute_names_those_that_there_are(bridge, seeded) -> None:
    assert "ops has no mute 'abc'; it is not muted" in bridge("unmute", "ops", "abc", "-c", seeded).err
    known = bridge("mute", "ops", "--for", "1h", "-c", seeded, "--json").json["id"]
    done = bridge("unmute", "ops", "abc", "-c", seeded)
    assert (done.code, f"it has {known}" in done.err) == (2, True)
    assert "did you mean 'ops'?" in bridge("unmute", "opps", "-c", seeded).err


def test_quiet_time_is_shown_with_its_end(bridge, seeded) -> None:
    now = datetime.now(UTC)
    begin, end_ = now - timedelta(hours=1), now + timedelta(hours=1)
    quiet = f'"{begin:%H:%M}-{end_:%H:%M} UTC"'
    seeded.write_text(seeded.read_text().replace("ordered: true", f"quiet: {quiet}"))
    answer = {sink["name"]: sink for sink in bridge("sinks", "-c", seeded, "--json").json["sinks"]}
    assert datetime.fromisoformat(answer["ops"]["quiet_until"]) > now
    assert answer["crm"]["quiet_until"] is None
    assert json.loads(bridge("status", "-c", seeded, "--json").out)["sinks"]


def test_wrong_quiet_times_name_file_line_and_key(bridge, seeded) -> None:
    text = seeded.read_text()
    for wrong, error in (
        ("quiet: '22:00-07:00'", "sinks.ops.quiet: '22:00-07:00' names no time zone; write 22:00-07:00 Europe/Paris"),
        ("max_age: 6", "sinks.ops.max_age: 6 is not a duration"),
        ("expired: summary", "sinks.ops.expired: needs max_age"),
        ("quiet_except: {exact: {data.status: failed}}", "sinks.ops.quiet_except: needs quiet"),
    ):
        seeded.write_text(text.replace("ordered: true", wrong))
        done = bridge("check", "-c", seeded)
        assert done.code == 3
        assert error in " ".join(done.err.split())
