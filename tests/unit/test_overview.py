"""What an overview finds wrong, from what processes and parts have reported: pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import click
import pytest

from bridge.cli.support.overview_rows import plain_overview
from bridge.cli.support.screen import screen
from bridge.protocols.roster import Member, OpenCircuit, Pause, Presence
from bridge.runtime.overview import (
    Overview,
    SinkView,
    SourceView,
    findings_of,
    is_served,
    replaced,
    sink_state,
    source_state,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALL_ROLES = ("poll", "relay", "sink")
PAUSE = Pause((NOW - timedelta(minutes=5)).timestamp(), "ann@desk", "maintenance")


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def presence(owner: str, since: float, announced: float, *, gone: bool = False, **values: object) -> Presence:
    """Return a process; times are seconds from now."""
    member = Member(owner, "box", 7, ALL_ROLES, "1", "0badcafe", at(since).timestamp())
    return Presence(replace(member, **values), at(announced).timestamp(), -announced, gone)  # type: ignore[arg-type]  # values fit by name


RUNNING = presence("one", -600, -1)


def overview(**values: object) -> Overview:
    made = Overview(NOW, "redis://store", "amqp://broker", processes=[RUNNING])
    made = replace(made, **values)  # type: ignore[arg-type]  # values fit by name
    return replace(made, findings=findings_of(made))


def codes(**values: object) -> list[str]:
    return [finding.code for finding in overview(**values).findings if finding.is_problem]


# --- states -----------------------------------------------------------------------------------------------------------

NOTE = {
    "state": "ok", "state_since": "2026-03-01T11:00:00Z", "last_poll": "2026-03-01T11:59:50Z",
    "next_poll": "2026-03-01T12:00:20Z",
}  # fmt: skip


@pytest.mark.parametrize(
    ("note", "holder", "pause", "expected"),
    [
        (NOTE, "one", None, ("ok", datetime(2026, 3, 1, 11, tzinfo=UTC))),
        ({**NOTE, "state": "stalled"}, "one", None, ("stalled", datetime(2026, 3, 1, 11, tzinfo=UTC))),
        (NOTE, None, None, ("not polled", at(-10))),
        (NOTE, "one", PAUSE, ("paused", at(-300))),
        ({}, None, None, ("never polled", None)),
        ({**NOTE, "next_poll": "2026-03-01T11:50:00Z"}, "one", None, ("late", at(-600))),
        ({**NOTE, "next_poll": "2026-03-01T11:56:00Z"}, "one", None, ("ok", datetime(2026, 3, 1, 11, tzinfo=UTC))),
        ({"state": "ok", "last_poll": NOTE["last_poll"]}, "one", None, ("ok", at(-10))),  # of a former version
    ],
)
def test_source_state_tells_whether_anybody_polls(
    note: dict[str, str], holder: str | None, pause: Pause | None, expected: tuple[str, datetime | None]
) -> None:
    assert source_state(note, holder, pause, NOW, 300.0) == expected


CIRCUITS = [OpenCircuit(at(-5).timestamp(), "later"), OpenCircuit(at(-60).timestamp(), "answered 503")]


@pytest.mark.parametrize(
    ("note", "circuits", "pause", "served", "expected"),
    [
        ({}, [], None, True, ("ok", None, None)),
        ({}, CIRCUITS, None, True, ("circuit open", at(-60), "answered 503")),
        ({}, CIRCUITS, PAUSE, True, ("paused", at(-300), "paused by ann@desk: maintenance")),
        (
            {"disabled": "410", "disabled_at": "2026-03-01T11:59:00Z"},
            CIRCUITS,
            PAUSE,
            True,
            ("disabled", at(-60), "410"),
        ),
        ({}, [], None, False, ("not delivering", None, "no process delivers")),
    ],
)
def test_sink_state_names_what_an_operator_can_do(
    note: dict[str, str], circuits: list[OpenCircuit], pause: Pause | None, served: bool, expected: tuple[object, ...]
) -> None:
    assert sink_state(note, circuits, pause, is_served=served) == expected


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("presences", "owners"),
    [
        ([presence("a", -600, -60, gone=True), presence("b", -600, -1)], set()),
        ([presence("a", -600, -60, gone=True), presence("b", -600, -1), presence("c", -30, -1)], {"a"}),
        ([presence("a", -600, -60, gone=True), presence("b", -500, -60, gone=True), presence("c", -30, -1)], {"a"}),
        ([presence("a", -600, -60, gone=True), presence("c", -30, -1, roles=("poll",))], set()),
    ],
)
def test_gone_process_counts_until_another_replaces_it(presences: list[Presence], owners: set[str]) -> None:
    assert replaced(presences) == owners


def test_healthy_installation_has_no_findings() -> None:
    assert overview(sources=[SourceView("city", "govdelivery", "ok")], sinks=[SinkView("crm", "webhook", "ok")]).is_well


def test_stopped_service_is_one_finding() -> None:
    sources, sinks = [SourceView("city", "x", "not polled")], [SinkView("crm", "x", "not delivering")]
    assert codes(processes=[], sources=sources, sinks=sinks) == ["no-process"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"processes": [RUNNING, presence("two", -600, -30, gone=True)]}, ["process-gone"]),
        ({"processes": [presence("one", -600, -1, roles=("poll", "relay"))]}, ["role-missing"]),
        ({"processes": [presence("one", -600, -1, problems={"relay/city": "refused"})]}, ["process-not-ready"]),
        ({"store_problem": "connection refused"}, ["store-unreachable"]),
        ({"broker_problem": "connection refused"}, ["broker-unreachable"]),
        ({"sources": [SourceView("city", "x", "stalled", error="HTTP 500")]}, ["source-stalled"]),
        ({"sources": [SourceView("city", "x", "held")]}, ["source-held"]),
        (
            {
                "processes": [presence("one", -600, -1, problems={"source/city": "stalled: HTTP 500"})],
                "sources": [SourceView("city", "x", "stalled", error="HTTP 500")],
            },
            ["source-stalled"],  # once, though two say so
        ),
        ({"sources": [SourceView("city", "x", "paused", pause=PAUSE)]}, ["source-paused"]),
        ({"sources": [SourceView("city", "x", "not polled", since=at(-900))]}, ["source-not-polled"]),
        ({"sources": [SourceView("city", "x", "late", since=at(-900))]}, ["source-late"]),
        ({"sources": [SourceView("city", "x", "failing", error="HTTP 500")]}, []),
        ({"sinks": [SinkView("crm", "x", "paused", pause=PAUSE)]}, ["sink-paused"]),
        ({"sinks": [SinkView("crm", "x", "circuit open", reason="503")]}, ["sink-circuit-open"]),
        ({"sinks": [SinkView("crm", "x", "disabled", reason="410")]}, ["sink-disabled"]),
        ({"sinks": [SinkView("crm", "x", "ok", dead=2)]}, ["dead-letters"]),
    ],
)
def test_each_fault_has_a_code_of_its_own(values: dict[str, object], expected: list[str]) -> None:
    assert codes(**values) == expected


LOST = SourceView("city", "x", "ok", unroutable=9, unroutable_at=at(-5))


@pytest.mark.parametrize(
    ("source", "sinks", "problem"),
    [
        (LOST, [], True),
        (LOST, [SinkView("crm", "x", "ok")], False),
        (replace(LOST, routed_at=at(-60)), [], False),
        (replace(LOST, routed_at=at(-7200)), [], True),
    ],
)
def test_unroutable_events_are_wrong_if_nobody_receives_any(
    source: SourceView, sinks: list[SinkView], problem: bool
) -> None:
    (finding,) = overview(sources=[source], sinks=sinks).findings
    assert (finding.code, finding.is_problem) == ("unroutable", problem)
    assert "9 events found no queue, the last 5s ago" in finding.text


def test_different_settings_are_worth_a_remark() -> None:
    made = overview(processes=[RUNNING, presence("two", -60, -1, generation="deadbeef")])
    assert [finding.code for finding in made.findings] == ["generations-differ"]
    assert made.is_well


def test_process_that_refused_its_file_is_named_with_its_generation() -> None:
    refused = presence(
        "two", -60, -1, reload_problem="bridge.yaml:3: sinks: is wrong", reload_problem_since=at(-90).timestamp()
    )
    made = overview(processes=[RUNNING, refused, replace(refused, gone=True)])
    (finding,) = [finding for finding in made.findings if finding.code == "reload-failed"]
    assert (finding.part, finding.is_problem) == ("process box:7", True)
    assert finding.text == (
        "its configuration file is not in effect for 1m, generation 0badcafe runs on: bridge.yaml:3: sinks: is wrong"
    )
    shown = plain_overview(made)["processes"]
    assert shown[0]["reload_problem"] is None
    assert shown[1]["reload_problem_since"] == "2026-03-01T11:58:30Z"


def test_processes_that_announce_nothing_are_no_stopped_service() -> None:
    made = overview(processes=[], sources=[SourceView("city", "x", "ok", holder="old:1:abc")])
    assert [(finding.code, finding.is_problem) for finding in made.findings] == [("earlier-version", False)]
    assert is_served([], made.sources)
    assert not is_served([], [SourceView("city", "x", "not polled")])
    assert not is_served([presence("one", -60, -1, roles=("poll",))], made.sources)
    killed = presence("old:1:abc", -60, -12, gone=True)
    assert codes(processes=[killed], sources=made.sources) == ["no-process", "process-gone"]
    assert not is_served([killed], made.sources)


# --- the screen -------------------------------------------------------------------------------------------------------

BAD_DAY = overview(
    processes=[RUNNING, presence("two", -600, -30, gone=True)],
    sources=[
        SourceView(
            "city", "govdelivery", "stalled", since=at(-400), error="HTTP 500 " * 20, holder="box:7:abc", failures=9
        ),
        SourceView("drops", "spacivox", "paused", since=at(-300), pause=PAUSE),
    ],
    sinks=[
        SinkView("crm", "webhook", "circuit open", since=at(-60), reason="answered 503", waiting=12, oldest=at(-90))
    ],
    broker_problem="cannot be reached: connection refused",
)


@pytest.mark.parametrize("width", [80, 120])
def test_screen_fits_the_terminal(width: int) -> None:
    lines = [click.unstyle(line) for line in screen(BAD_DAY, width)]
    tables = [line for line in lines if not line.startswith("  ! ")]
    assert max(map(len, tables)) <= width
    text = "\n".join(lines)
    for said in (
        "5 problems",
        "ended without a word",
        "paused for 5m by ann@desk: maintenance",
        "circuit open",
        "unreachable",
    ):
        assert said in text
    assert ("HTTP 500 " * 20).strip() in text  # what is wrong stands in full among the findings


def test_screen_without_a_store_shows_the_parts() -> None:
    made = overview(store_problem="refused", processes=[], sources=[SourceView("city", "x", "unknown")])
    text = click.unstyle("\n".join(screen(made, None)))
    assert "what the processes do is not known without the store" in text
    assert "city" in text


def test_json_has_problems_and_remarks_apart() -> None:
    plain = plain_overview(overview(sources=[SourceView("city", "x", "failing", error="HTTP 500")]))
    assert (plain["well"], plain["problems"]) == (True, [])
    assert [remark["code"] for remark in plain["remarks"]] == ["source-failing"]
    assert plain["processes"][0]["announced_seconds_ago"] == 1


def test_processes_say_who_polls_what_and_why() -> None:
    shares = {"accounts": ("source/city", "source/drops"), "share_reason": "1 of 2 accounts among 2 processes"}
    two = [
        presence("one", -600, -1, share=("source/city",), **shares),
        presence("two", -500, -1, share=("source/drops",), **shares),
        presence("old", -900, -1, accounts=None),
        presence("gone", -900, -99, gone=True),
    ]
    sources = [SourceView("city", "x", "ok", holder="one"), SourceView("drops", "x", "ok", holder="two")]
    made = overview(processes=two, sources=sources)
    plain = plain_overview(made)["processes"]
    assert [process["polls"] for process in plain] == [["city"], ["drops"], [], []]
    assert [process["share"] for process in plain] == [["source/city"], ["source/drops"], [], []]
    assert [process["accounts"] for process in plain[1:3]] == [["source/city", "source/drops"], None]
    text = click.unstyle("\n".join(screen(made, None)))
    assert text.count("1 of 2 accounts among 2 processes") == 2
    assert "0 of 2" in text
    alone = click.unstyle("\n".join(screen(overview(processes=two[:1], sources=sources), None)))
    assert "1 of 2 accounts" not in alone
