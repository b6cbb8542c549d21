"""Processes, sources and sinks of an overview, as plain values for JSON and as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bridge.cli.support.output import ago
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.protocols.roster import Pause, Presence
from bridge.runtime.overview import Overview, SinkView, SourceView, StatusFinding, from_epoch, process_name

PROCESS_HEADERS = ("process", "roles", "polls", "generation", "version", "since", "state", "share")
SOURCE_HEADERS = ("source", "state", "since", "last poll", "next poll", "lag", "held by", "error")
SINK_HEADERS = ("sink", "state", "since", "waiting", "dead", "oldest", "delivered", "last delivered", "last error")
PROCESSES_GIVE_WAY = ("version", "generation", "share")
SOURCES_GIVE_WAY = ("held by", "since", "next poll")
SINKS_GIVE_WAY = ("delivered", "since", "last delivered", "oldest")


def time_text(moment: datetime | None) -> str | None:
    """Return a time as RFC 3339 with at most milliseconds."""
    return None if moment is None else rfc3339(truncate_to_millis(moment))


def plain_pause(pause: Pause | None) -> dict[str, str | None] | None:
    """Return a pause for JSON."""
    if pause is None:
        return None
    return {"since": time_text(from_epoch(pause.since)), "by": pause.by, "reason": pause.reason or None}


# --- processes ----------------------------------------------------------------------------------------------------


def plain_process(presence: Presence, sources: Sequence[SourceView]) -> dict[str, Any]:
    """Return a process for JSON; `sources` are those of all processes."""
    member = presence.member
    return {
        "name": process_name(presence),
        "owner": member.owner,
        "host": member.host,
        "pid": member.pid,
        "roles": list(member.roles),
        "version": member.version,
        "generation": member.generation,
        "since": time_text(from_epoch(member.since)),
        "state": _process_state(presence),
        "announced_seconds_ago": round(presence.age, 1),
        "problems": dict(member.problems),
        "polls": _held(presence, sources),
        "accounts": None if member.accounts is None else list(member.accounts),
        "share": list(member.share),
        "share_reason": member.share_reason or None,
    }


def _held(presence: Presence, sources: Sequence[SourceView]) -> list[str]:
    """Return the names of the sources that a process polls now."""
    return [source.name for source in sources if source.holder == presence.member.owner]


def _process_state(presence: Presence) -> str:
    if presence.gone:
        return "gone"
    return "not ready" if presence.member.problems else "ok"


def process_row(presence: Presence, overview: Overview) -> list[Any]:
    """Return the row of a process; its share is told where several processes have one."""
    member, state = presence.member, _process_state(presence)
    roles, polls = ", ".join(member.roles), "poll" in member.roles and not presence.gone
    is_shared = sum(bool(other.member.accounts) and not other.gone for other in overview.processes) > 1
    return [
        process_name(presence), roles,
        f"{len(_held(presence, overview.sources))} of {len(overview.sources)}" if polls else None,
        member.generation, member.version, ago(from_epoch(member.since), overview.at),
        f"{state} ({int(presence.age)}s)" if presence.gone else state,
        member.share_reason if is_shared and polls else None,
    ]  # fmt: skip


# --- sources ------------------------------------------------------------------------------------------------------


def plain_source(source: SourceView) -> dict[str, Any]:
    """Return a source for JSON."""
    return {
        "name": source.name,
        "type": source.type,
        "state": source.state,
        "since": time_text(source.since),
        "reported": source.reported or None,
        "paused": plain_pause(source.pause),
        "last_poll": time_text(source.last_poll),
        "last_ok": time_text(source.last_ok),
        "next_poll": time_text(source.next_poll),
        "failures": source.failures,
        "failing_since": time_text(source.failing_since),
        "error": source.error,
        "cursor": source.cursor,
        "watched": source.watched,
        "committed": source.committed,
        "confirmed": source.confirmed,
        "lag": source.lag,
        "kept": source.kept,
        "unroutable": source.unroutable,
        "unroutable_at": time_text(source.unroutable_at),
        "holder": source.holder,
        "quiet_since": time_text(source.quiet_since),
        "awaiting_final": source.awaiting_final,
    }


def state_of_source(source: SourceView) -> str:
    """Return the state in words, with the failures in a row, or with what was reported before nobody polled it."""
    if source.state in ("not polled", "late") and source.reported:
        return f"{source.state} (was {source.reported})"
    if source.quiet_since is not None and source.state == "ok":
        return "ok (quiet)"
    return f"{source.state} ({source.failures})" if source.failures else source.state


def next_poll(source: SourceView, now: datetime) -> str | None:
    """Return in how long a poll is due; `due` if its time has come, and nothing if nobody polls."""
    if source.next_poll is None or source.state in ("not polled", "paused"):
        return None
    return ago(source.next_poll, now) if source.next_poll > now else "due"


def age(moment: datetime | None, now: datetime) -> str | None:
    """Return how long ago something was; None if it never was."""
    return None if moment is None else ago(moment, now)


def source_row(source: SourceView, now: datetime) -> list[Any]:
    """Return the row of a source."""
    holder = source.holder and ":".join(source.holder.split(":")[:2])
    return [
        source.name, state_of_source(source), age(source.since, now), age(source.last_poll, now),
        next_poll(source, now), source.lag, holder, source.error,
    ]  # fmt: skip


# --- sinks --------------------------------------------------------------------------------------------------------


def plain_sink(sink: SinkView) -> dict[str, Any]:
    """Return a sink for JSON."""
    return {
        "name": sink.name,
        "type": sink.type,
        "state": sink.state,
        "since": time_text(sink.since),
        "reason": sink.reason,
        "paused": plain_pause(sink.pause),
        "delivered": sink.delivered,
        "waiting": sink.waiting,
        "dead": sink.dead,
        "discarded": sink.discarded,
        "filtered": sink.filtered,
        "oldest": time_text(sink.oldest),
        "last_delivered": time_text(sink.last_delivered),
        "last_error": sink.last_error,
        "last_error_at": time_text(sink.last_error_at),
    }


def sink_row(sink: SinkView, now: datetime) -> list[Any]:
    """Return the row of a sink."""
    error = sink.last_error and f"{age(sink.last_error_at, now)}: {sink.last_error}"
    return [
        sink.name, sink.state, age(sink.since, now), sink.waiting, sink.dead, age(sink.oldest, now), sink.delivered,
        age(sink.last_delivered, now), error,
    ]  # fmt: skip


def sink_totals(sinks: Sequence[SinkView]) -> dict[str, int]:
    """Return the books of all sinks together."""
    names = ("delivered", "waiting", "dead", "discarded", "filtered")
    return {name: sum(getattr(sink, name) for sink in sinks) for name in names}


# --- all of it ----------------------------------------------------------------------------------------------------


def plain_finding(finding: StatusFinding) -> dict[str, Any]:
    """Return a finding for JSON."""
    return {"code": finding.code, "part": finding.part, "text": finding.text}


def plain_overview(overview: Overview) -> dict[str, Any]:
    """Return an overview for JSON."""
    problems = [finding for finding in overview.findings if finding.is_problem]
    remarks = [finding for finding in overview.findings if not finding.is_problem]
    processes = [plain_process(item, overview.sources) for item in overview.processes]
    return {
        "at": time_text(overview.at),
        "well": overview.is_well,
        "problems": [plain_finding(finding) for finding in problems],
        "remarks": [plain_finding(finding) for finding in remarks],
        "store": _server(overview.store, overview.store_problem),
        "broker": _server(overview.broker, overview.broker_problem),
        "processes": None if overview.store_problem else processes,
        "sources": [plain_source(source) for source in overview.sources],
        "sinks": [plain_sink(sink) for sink in overview.sinks],
    }


def _server(place: str, problem: str | None) -> Mapping[str, Any]:
    return {"place": place, "reachable": problem is None, "problem": problem}
