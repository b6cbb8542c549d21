"""Whether all is well: processes, sources, sinks, store and broker as they are now, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bridge.domain.quiet_times import QuietTime
from bridge.protocols.roster import Mute, OpenCircuit, Pause, Presence

ROLES = ("poll", "relay", "sink")
_UNROUTABLE_SECONDS = 3600.0
"""Seconds without any event that a queue wanted, after which nobody seems to receive what a source publishes."""
_REMARK_SECONDS = 86400.0
"""Seconds for which events that no queue wanted are worth a remark."""


@dataclass(frozen=True, slots=True)
class StatusFinding:
    """One thing that an operator should know."""

    code: str
    """What it is, in a word for scripts: `process-gone`, `source-stalled`, …"""
    part: str
    """What it concerns: `store`, `broker`, `process HOST:PID`, `source NAME`, `sink NAME`, or `service`."""
    text: str
    is_problem: bool = True
    """Whether something is wrong; otherwise it is a remark."""


@dataclass(frozen=True, slots=True)
class SourceView:
    """One source."""

    name: str
    type: str
    state: str
    """`never polled`, `ok`, `failing`, `stalled`, `held`, `paused`, `not polled` or `late`."""
    since: datetime | None = None
    """Since when it is in this state, as far as that is known."""
    reported: str = ""
    """The state that a process reported last."""
    last_poll: datetime | None = None
    last_ok: datetime | None = None
    next_poll: datetime | None = None
    failures: int = 0
    failing_since: datetime | None = None
    error: str | None = None
    cursor: int = 0
    """Entries of its cursor."""
    watched: int = 0
    committed: int = 0
    confirmed: int = 0
    kept: int = 0
    unroutable: int = 0
    """How many of its events no queue wanted, ever."""
    unroutable_at: datetime | None = None
    """When that happened last, to within a few seconds."""
    routed_at: datetime | None = None
    """When a queue last wanted an event, at about the same time or later; None if it never did since."""
    holder: str | None = None
    pause: Pause | None = None
    quiet_since: datetime | None = None
    """Since when nothing new was found, if that is too long."""
    awaiting_final: int | None = None
    """How many resources wait for a final status; None if none is expected."""

    @property
    def lag(self) -> int:
        """Events that are committed and not yet confirmed."""
        return self.committed - self.confirmed


@dataclass(frozen=True, slots=True)
class SinkView:
    """One sink, or the relay as the sink `@relay`."""

    name: str
    type: str
    state: str
    """`ok`, `paused`, `quiet`, `circuit open`, `disabled`, `not delivering` or `unknown`."""
    since: datetime | None = None
    reason: str | None = None
    """Why it is not `ok`."""
    delivered: int = 0
    waiting: int = 0
    dead: int = 0
    discarded: int = 0
    filtered: int = 0
    """Events of its topics that its filter did not select, or that an operator had muted."""
    expired: int = 0
    """Events that were older than its `max_age`, and were not sent."""
    oldest: datetime | None = None
    """When the oldest event was recorded that waits."""
    last_error: str | None = None
    last_error_at: datetime | None = None
    last_delivered: datetime | None = None
    pause: Pause | None = None
    quiet: QuietTime | None = None
    """The quiet time that it is in."""
    mutes: Sequence[Mute] = ()
    """Those that have not ended."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What is known at one moment. Without the store, the parts are those of the configuration, in state `unknown`."""

    at: datetime
    store: str
    """Where it is, without secrets."""
    broker: str
    store_problem: str | None = None
    broker_problem: str | None = None
    processes: Sequence[Presence] = ()
    sources: Sequence[SourceView] = ()
    sinks: Sequence[SinkView] = ()
    findings: Sequence[StatusFinding] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.is_problem for finding in self.findings)


# --- states -------------------------------------------------------------------------------------------------------


def moment(text: str | None) -> datetime | None:
    """Read a time of a note; None where there is none."""
    return datetime.fromisoformat(text) if text else None


def from_epoch(seconds: float) -> datetime:
    """Return a time from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def source_state(
    note: Mapping[str, str], holder: str | None, pause: Pause | None, now: datetime, late_after: float
) -> tuple[str, datetime | None]:
    """Return the state of a source and since when, by what was reported and by who polls it now.

    A poll that has not ended `late_after` seconds after it was due makes the source `late`.
    """
    reported, last = note.get("state", ""), moment(note.get("last_poll"))
    if pause is not None:
        return "paused", from_epoch(pause.since)
    if not reported:
        return "never polled", None
    if holder is None:
        return "not polled", last
    due = moment(note.get("next_poll"))
    if reported in ("ok", "failing") and due is not None and now - due > timedelta(seconds=late_after):
        return "late", due
    return reported, moment(note.get("state_since")) or last


def sink_state(
    note: Mapping[str, str],
    circuits: Sequence[OpenCircuit],
    pause: Pause | None,
    quiet: QuietTime | None = None,
    *,
    is_served: bool,
) -> tuple[str, datetime | None, str | None]:
    """Return the state of a sink, since when, and why; what an operator ordered or has to do comes first."""
    if note.get("disabled"):
        return "disabled", moment(note.get("disabled_at")), note["disabled"]
    if pause is not None:
        return "paused", from_epoch(pause.since), str(pause)
    if not is_served:
        return "not delivering", None, "no process delivers"
    if circuits:
        first = min(circuits, key=lambda circuit: circuit.since)
        return "circuit open", from_epoch(first.since), first.reason
    if quiet is not None:
        return "quiet", quiet.begin, f"quiet until {quiet.said_end}"
    return "ok", None, None


def replaced(presences: Sequence[Presence]) -> set[str]:
    """Return the owners of gone processes that a later one of the same roles has replaced, each by one."""
    running = [presence.member for presence in presences if not presence.gone]
    owners = set()
    for presence in presences:
        if not presence.gone:
            continue
        roles, announced = presence.member.roles, presence.announced
        successor = next((member for member in running if member.roles == roles and member.since > announced), None)
        if successor is not None:
            running.remove(successor)
            owners.add(presence.member.owner)
    return owners


def is_served(presences: Sequence[Presence], sources: Sequence[SourceView]) -> bool:
    """Return whether a process delivers to the sinks, as far as that is known.

    Of processes of a version that does not announce itself, only the sources that they hold are seen.
    """
    roles = {role for presence in presences if not presence.gone for role in presence.member.roles}
    return "sink" in roles or (not roles and _has_other_holder(presences, sources))


def _has_other_holder(presences: Sequence[Presence], sources: Sequence[SourceView]) -> bool:
    """Return whether a process holds a source that has never announced itself."""
    owners = {presence.member.owner for presence in presences}
    return any(source.holder is not None and source.holder not in owners for source in sources)


# --- what is wrong ------------------------------------------------------------------------------------------------


def findings_of(overview: Overview) -> list[StatusFinding]:
    """Return all that an operator should know, what is wrong first."""
    findings = [*_servers(overview)]
    if overview.store_problem is None:
        findings += [*_processes(overview)]
        polls, delivers = _has_role(overview, "poll"), is_served(overview.processes, overview.sources)
        for source in overview.sources:
            findings += _source(source, overview.at, is_polled=polls, has_sinks=any(_configured(overview.sinks)))
        for sink in overview.sinks:
            findings += _sink(sink, overview.at, is_served=delivers)
    return sorted(findings, key=lambda finding: not finding.is_problem)


def _configured(sinks: Sequence[SinkView]) -> Iterator[SinkView]:
    return (sink for sink in sinks if not sink.name.startswith("@"))


def _has_role(overview: Overview, role: str) -> bool:
    return any(role in presence.member.roles for presence in overview.processes if not presence.gone)


def _servers(overview: Overview) -> Iterator[StatusFinding]:
    if overview.store_problem is not None:
        yield StatusFinding("store-unreachable", "store", overview.store_problem)
    if overview.broker_problem is not None:
        yield StatusFinding("broker-unreachable", "broker", overview.broker_problem)


def _processes(overview: Overview) -> Iterator[StatusFinding]:
    gone = [presence for presence in overview.processes if presence.gone]
    running = [presence.member for presence in overview.processes if not presence.gone]
    if not running and _has_other_holder(overview.processes, overview.sources):
        text = "processes of an earlier version run: they hold sources, and do not announce themselves"
        yield StatusFinding("earlier-version", "service", text, is_problem=False)
    elif not running:
        yield StatusFinding("no-process", "service", "no process runs: start it with `bridgectl run`")
    followed = replaced(overview.processes)
    for presence in gone:
        if presence.member.owner not in followed:
            text = f"ended without a word; it was last heard of {_span(presence.age)} ago"
            yield StatusFinding("process-gone", f"process {process_name(presence)}", text)
    for role in ROLES if running else ():
        if not _has_role(overview, role):
            yield StatusFinding("role-missing", "service", f"no process has the role {role}")
    known = {f"source/{source.name}" for source in overview.sources if source.state in ("stalled", "held")}
    for presence in overview.processes:
        problems = {part: reason for part, reason in presence.member.problems.items() if part not in known}
        if problems and not presence.gone:
            part, reason = next(iter(problems.items()))
            more = len(problems) - 1
            text = f"is not ready: {part}: {reason}" + (f", and {more} more" if more else "")
            yield StatusFinding("process-not-ready", f"process {process_name(presence)}", text)
    if len({member.generation for member in running}) > 1:
        text = "processes run with different settings; see the column generation"
        yield StatusFinding("generations-differ", "service", text, is_problem=False)


def process_name(presence: Presence) -> str:
    """Return the host and the number of a process."""
    return f"{presence.member.host}:{presence.member.pid}"


def _source(source: SourceView, now: datetime, *, is_polled: bool, has_sinks: bool) -> Iterator[StatusFinding]:
    part, since = f"source {source.name}", _since(source.since, now)
    match source.state:
        case "paused":
            yield StatusFinding("source-paused", part, _paused(source.pause, since, source.name))
        case "stalled" | "held":
            yield StatusFinding(
                f"source-{source.state}", part, f"{source.state}{since}: {source.error or 'no reason given'}"
            )
        case "late":
            yield StatusFinding("source-late", part, f"a poll was due {_span(now - _or(source.since, now))} ago")
        case "failing":
            yield StatusFinding("source-failing", part, f"failing{since}: {source.error}", is_problem=False)
        case "not polled" | "never polled" if is_polled:
            last = f"; the last poll was {_span(now - source.since)} ago" if source.since else ""
            yield StatusFinding("source-not-polled", part, f"no process polls it{last}")
    if source.quiet_since is not None:
        text = f"nothing new for {_span(now - source.quiet_since)}, and the polls go well; see expect.activity_within"
        yield StatusFinding("source-quiet", part, text)
    yield from _unroutable(source, now, has_sinks=has_sinks)


def _unroutable(source: SourceView, now: datetime, *, has_sinks: bool) -> Iterator[StatusFinding]:
    at = source.unroutable_at
    if not source.unroutable or at is None or now - at > timedelta(seconds=_REMARK_SECONDS):
        return
    text = f"{counted(source.unroutable, 'event')} found no queue, the last {_span(now - at)} ago"
    routed = source.routed_at
    nobody = routed is None or at - routed > timedelta(seconds=_UNROUTABLE_SECONDS)
    if nobody and not has_sinks:
        text += ": nobody receives what it publishes; bind a queue, or configure a sink"
    yield StatusFinding("unroutable", f"source {source.name}", text, is_problem=nobody and not has_sinks)


def _sink(sink: SinkView, now: datetime, *, is_served: bool) -> Iterator[StatusFinding]:
    part, since = f"sink {sink.name}", _since(sink.since, now)
    match sink.state:
        case "paused":
            yield StatusFinding("sink-paused", part, _paused(sink.pause, since, sink.name))
        case "disabled":
            text = f"disabled{since}: {sink.reason}; `bridgectl deliveries redrive {sink.name} --all` enables it"
            yield StatusFinding("sink-disabled", part, text)
        case "circuit open":
            yield StatusFinding("sink-circuit-open", part, f"paused by its circuit{since}: {sink.reason}")
        case "quiet":
            yield StatusFinding("sink-quiet", part, f"{sink.reason}; its events wait", is_problem=False)
        case "not delivering" if is_served:
            yield StatusFinding("sink-not-delivering", part, "no process delivers to it")
    for mute in sink.mutes:
        text = f"{mute}; `bridgectl unmute {sink.name} {mute.id}` ends it"
        yield StatusFinding("sink-muted", part, text, is_problem=False)
    if sink.dead:
        text = f"{counted(sink.dead, 'dead letter')}: `bridgectl deliveries list {sink.name} --dead`"
        yield StatusFinding("dead-letters", part, text)


def _paused(pause: Pause | None, since: str, name: str) -> str:
    words = "" if pause is None else f" by {pause.by}" + (f": {pause.reason}" if pause.reason else "")
    return f"paused{since}{words}; `bridgectl resume {name}` ends it"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 event`, `2 events`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _or(value: datetime | None, otherwise: datetime) -> datetime:
    return otherwise if value is None else value


def _since(since: datetime | None, now: datetime) -> str:
    return "" if since is None else f" for {_span(now - since)}"


def _span(time: timedelta | float) -> str:
    """Return a length of time in one unit: `12s`, `3m`."""
    seconds = time.total_seconds() if isinstance(time, timedelta) else time
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds / size)}{unit}"
    return f"{max(0, int(seconds))}s"
