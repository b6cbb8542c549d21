"""`bridgectl trace`: one resource's life."""

from __future__ import annotations

from datetime import datetime

import pytest
from rigs.cli import EVENTS, ONE, TWO

from bridge.cli.support.options import Exit


def test_a_trace_tells_each_change_and_what_each_sink_did(bridge, seeded) -> None:
    first, second = bridge("trace", ONE, "-c", seeded, "--json").json
    assert [first["topic"], second["topic"]] == ["voice.recipient.sending", "voice.recipient.failed.busy"]
    assert (second["previous"], second["transition"], second["confirmed"]) == ("sending", "advance", True)
    after, by = (datetime.fromisoformat(second["observed"][edge]) for edge in ("after", "by"))
    assert after < by
    assert {sink["sink"]: sink["state"] for sink in first["sinks"]} == {"crm": "taken", "ops": "filtered"}
    assert {sink["sink"]: sink["state"] for sink in second["sinks"]} == {"crm": "dead", "ops": "before"}
    out = bridge("trace", ONE, "-c", seeded).out
    assert "-> crm: dead letter, permanent, after 1 try\n" in out
    assert "permanent: HTTP 400" in out
    assert "line …1000 busy" in out
    assert "-> ops: not sent: its topics are *.recipient.failed.#" in out


def test_trace_says_delivered_unless_an_operator_may_have_discarded(bridge, seeded) -> None:
    def crm() -> tuple[str, str]:
        sinks = bridge("trace", ONE, "-c", seeded, "--json").json[0]["sinks"]
        return next((sink["state"], sink["said"]) for sink in sinks if sink["sink"] == "crm")

    assert crm() == ("taken", "taken")
    bridge("deliveries", "discard", "crm", "lamps:2", "--yes", "-c", seeded)
    assert crm() == ("settled", "delivered, or discarded by an operator")


@pytest.mark.parametrize(
    ("resource", "states"),
    [
        (TWO, ["waiting", "queued"]),
        (EVENTS[3].id, ["waiting", "queued"]),
        (ONE + "0", ["queued"]),
        (ONE + "1", ["unpublished"]),
    ],
)
def test_trace_says_why_a_sink_still_waits(bridge, seeded, resource, states) -> None:
    events = bridge("trace", resource, "-c", seeded, "--json").json
    assert [event["sinks"][0]["state"] for event in events] == states
    assert bridge("trace", resource, "-c", seeded).code == Exit.DONE


@pytest.mark.parametrize("resource", ["/messages/voice/1", "10507", "0" * 32, "lamps:77"])
def test_a_trace_of_nothing_says_what_that_means(bridge, seeded, resource) -> None:
    done = bridge("trace", resource, "-c", seeded)
    assert done.code == Exit.FAILED
    assert "168h ago (journal.keep)" in done.err
