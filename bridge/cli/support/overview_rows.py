"""Processes, sources and sinks of an overview, as rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bridge.cli.support.output import ago
from bridge.operations.overview import polled, process_state
from bridge.protocols.roster import Presence
from bridge.runtime.overview import Overview, SinkView, SourceView, from_epoch, process_name

PROCESS_HEADERS = ("process", "roles", "polls", "generation", "version", "since", "state", "share")
SOURCE_HEADERS = ("source", "state", "since", "last poll", "next poll", "lag", "held by", "error")
SINK_HEADERS = ("sink", "state", "since", "waiting", "dead", "oldest", "delivered", "last delivered", "last error")
PROCESSES_GIVE_WAY = ("version", "generation", "share")
SOURCES_GIVE_WAY = ("held by", "since", "next poll")
SINKS_GIVE_WAY = ("delivered", "since", "last delivered", "oldest")


# --- processes ----------------------------------------------------------------------------------------------------


def process_row(presence: Presence, overview: Overview) -> list[Any]:
    """Return the row of a process; its share is told where several processes have one."""
    member, state = presence.member, process_state(presence)
    roles, polls = ", ".join(member.roles), "poll" in member.roles and not presence.gone
    is_shared = sum(bool(other.member.accounts) and not other.gone for other in overview.processes) > 1
    return [
        process_name(presence), roles,
        f"{len(polled(presence, overview.sources))} of {len(overview.sources)}" if polls else None,
        member.generation, member.version, ago(from_epoch(member.since), overview.at),
        f"{state} ({int(presence.age)}s)" if presence.gone else state,
        member.share_reason if is_shared and polls else None,
    ]  # fmt: skip


# --- sources ------------------------------------------------------------------------------------------------------


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


def sink_row(sink: SinkView, now: datetime) -> list[Any]:
    """Return the row of a sink."""
    error = sink.last_error and f"{age(sink.last_error_at, now)}: {sink.last_error}"
    state = sink.reason if sink.state == "quiet" else sink.state
    return [
        sink.name, f"{state}, muted" if sink.mutes else state, age(sink.since, now), sink.waiting, sink.dead,
        age(sink.oldest, now), sink.delivered, age(sink.last_delivered, now), error,
    ]  # fmt: skip


def sink_totals(sinks: Sequence[SinkView]) -> dict[str, int]:
    """Return the books of all sinks together."""
    names = ("delivered", "waiting", "dead", "discarded", "filtered", "expired")
    return {name: sum(getattr(sink, name) for sink in sinks) for name in names}
