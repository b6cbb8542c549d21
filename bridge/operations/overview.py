"""Processes, sources and sinks of an overview as plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.protocols.roster import Mute, Pause, Presence
from bridge.runtime.overview import Overview, SinkView, SourceView, StatusFinding, from_epoch, process_name


def time_text(moment: datetime | None) -> str | None:
    """Return a time as RFC 3339 with at most milliseconds."""
    return None if moment is None else rfc3339(truncate_to_millis(moment))


def plain_pause(pause: Pause | None) -> dict[str, str | None] | None:
    """Return a pause for JSON."""
    if pause is None:
        return None
    return {"since": time_text(from_epoch(pause.since)), "by": pause.by, "reason": pause.reason or None}


def plain_mute(mute: Mute) -> dict[str, Any]:
    """Return a mute for JSON."""
    return {
        "id": mute.id,
        "sink": mute.sink,
        "since": time_text(from_epoch(mute.since)),
        "until": time_text(from_epoch(mute.until)),
        "by": mute.by,
        "reason": mute.reason or None,
        "where": mute.where,
    }


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
        "state": process_state(presence),
        "announced_seconds_ago": round(presence.age, 1),
        "problems": dict(member.problems),
        "polls": polled(presence, sources),
        "accounts": None if member.accounts is None else list(member.accounts),
        "share": list(member.share),
        "share_reason": member.share_reason or None,
    }


def polled(presence: Presence, sources: Sequence[SourceView]) -> list[str]:
    """Return the names of the sources that a process polls now."""
    return [source.name for source in sources if source.holder == presence.member.owner]


def process_state(presence: Presence) -> str:
    """Return the state of a process in words."""
    if presence.gone:
        return "gone"
    return "not ready" if presence.member.problems else "ok"


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


def plain_sink(sink: SinkView) -> dict[str, Any]:
    """Return a sink for JSON."""
    return {
        "name": sink.name,
        "type": sink.type,
        "state": sink.state,
        "since": time_text(sink.since),
        "reason": sink.reason,
        "paused": plain_pause(sink.pause),
        "quiet_until": None if sink.quiet is None else time_text(sink.quiet.end),
        "mutes": [plain_mute(mute) for mute in sink.mutes],
        "delivered": sink.delivered,
        "waiting": sink.waiting,
        "dead": sink.dead,
        "discarded": sink.discarded,
        "filtered": sink.filtered,
        "expired": sink.expired,
        "oldest": time_text(sink.oldest),
        "last_delivered": time_text(sink.last_delivered),
        "last_error": sink.last_error,
        "last_error_at": time_text(sink.last_error_at),
    }


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
