"""Runs the benchmarks and prints one table; `python -m benchmarks --help` says what can be chosen."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import (
    digest,
    embedded,
    ingest,
    latency,
    many,
    peers,
    resident,
    scan,
    scheduling,
    startup,
    topics,
    tracked,
    webhooks,
)
from benchmarks.report import Goal, Row, as_json, rate, ratio, table
from benchmarks.rig import Rig, Scale
from bridge.observability.logging import configure_logging

MIB = 1024 * 1024


def of_ingest(rig: Rig) -> Iterator[Row]:
    """Ours, the bare loop and the peers, in one run."""
    found = ingest.measure(rig)
    ours = found.rate("ours")
    yield ratio(
        "ingest, Redis and RabbitMQ quorum queue", ours, found.rate("bare"), "kombu, batch confirms", Goal("≥", 0.6),
        found.spread(),
    )  # fmt: skip
    for name, peer, goal in (
        ("Redpanda Connect", peers.connect, Goal("≥", 1.5)),
        ("the Celery script", peers.script, Goal("≥", 8)),
    ):
        cannot = "; ".join(peers.CANNOT[name])
        try:
            other = peer(rig, rig.scale.of(20_000 if peer is peers.connect else 4_000, 1_600))
        except (peers.PeerMissingError, TimeoutError) as error:
            yield Row(f"ingest ÷ {name}", rate(ours), f"not measured: {error}", goal=goal)
        else:
            yield ratio(f"ingest ÷ {name}", ours, other, name, goal, f"it cannot do as much: {cannot}")


def of_scan(rig: Rig) -> Iterator[Row]:
    """What has not changed."""
    found = scan.measure(rig)
    yield ratio(
        "unchanged recipients scanned", found.rate("ours"), found.rate("bare"), "aiohttp, json.loads", Goal("≥", 0.7),
        found.spread(),
    )  # fmt: skip
    yield ratio(
        "the same, one change on each page", found.rate("ours, stirred"), found.rate("bare"), "aiohttp, json.loads"
    )


def of_topics(rig: Rig) -> Iterator[Row]:
    """Redis as broker."""
    found = topics.measure(rig)
    yield ratio(
        "Redis topics", found.rate("ours"), found.rate("bare"), "Producer.batch()", Goal("≥", 1.5), found.spread()
    )


def of_webhooks(rig: Rig) -> Iterator[Row]:
    """Delivery."""
    found = webhooks.measure(rig)
    yield ratio(
        "signed webhooks delivered and settled", found.rate("ours"), found.rate("bare"), "aiohttp POST loop",
        Goal("≥", 0.5), found.spread(),
    )  # fmt: skip


def of_tracked(rig: Rig) -> Iterator[Row]:
    """The ledger's size and growth."""
    found = tracked.measure(rig)
    yield Row(
        f"Redis for each of {found.recipients:,} tracked", f"{found.bytes_each:.1f} bytes", "", found.bytes_each,
        Goal("≤", 20, "bytes"), f"filled at {1e6 / found.filled_each:,.0f} recipients/s",
    )  # fmt: skip
    few, many_ = found.seconds_few * 1000, found.seconds_many * 1000
    yield Row(
        f"a page at {found.recipients:,} tracked", f"{many_:.2f} ms", f"at 10,000 tracked {few:.2f} ms", many_ / few,
        Goal("≤", 1.2),
    )  # fmt: skip


def of_resident(rig: Rig) -> Iterator[Row]:
    """The process's memory."""
    found = resident.measure(rig)
    grown = (found.late - found.early) / MIB
    yield Row(
        f"memory after {found.events:,} events", f"{found.late / MIB:.1f} MiB",
        f"after 10,000 {found.early / MIB:.1f} MiB", grown, Goal("≤", 10, "MiB more"),
        f"peak {found.peak / MIB:.1f} MiB; {rate(found.rate)} through poll, relay and sink in one process",
    )  # fmt: skip


def of_latency(rig: Rig) -> Iterator[Row]:
    """Commit to socket."""
    for share, found in zip(("a quarter", "half", "three quarters"), latency.measure(rig), strict=True):
        p50, p99 = found.ours
        yield Row(
            f"commit to socket at {share} of full load", f"p99 {p99:.0f} ms (p50 {p50:.0f})",
            f"the broker's own p99 {found.broker[1]:.0f} ms (p50 {found.broker[0]:.0f})", p99 - found.broker[1],
            Goal("≤", 50, "ms more") if share == "half" else None, f"{found.rate:,.0f} events/s",
        )  # fmt: skip


def of_startup(rig: Rig) -> Iterator[Row]:
    """Commands and service."""
    found = startup.measure(rig)
    yield Row(
        "bridge --help", f"{found.help * 1000:.0f} ms", f"python -c pass {found.python * 1000:.0f} ms",
        found.help / found.python, Goal("≤", 8),
    )  # fmt: skip
    yield Row("start to first poll committed", f"{found.first_poll * 1000:.0f} ms")


def of_embedded(rig: Rig) -> Iterator[Row]:
    """No servers."""
    found = embedded.measure(rig)
    yield ratio(
        "embedded, polled to settled", found.rate("ours"), found.rate("bare"), "two SQLite files, batch commits",
        note=found.spread(),
    )  # fmt: skip


def of_digest(rig: Rig) -> Iterator[Row]:
    """Slack."""
    found = digest.measure(rig)
    yield Row(f"Slack: {found.events:,} failures at once", f"{found.posts} posts, {found.seconds:.0f} s", "a post each")


def of_many(rig: Rig) -> Iterator[Row]:
    """Sources and sinks."""
    of_sources, of_sinks = many.measure(rig)
    for what, spreads in (("sources", of_sources), ("sinks", of_sinks)):
        one = spreads[0]
        for found in spreads[1:]:
            yield Row(
                f"{found.parts} {what} in one process", rate(found.rate), f"one {rate(one.rate)}",
                found.rate / one.rate, note=f"{found.memory / MIB:.0f} MiB, with one {one.memory / MIB:.0f} MiB",
            )  # fmt: skip


def of_scheduling(rig: Rig) -> Iterator[Row]:
    """Detection delay on a virtual clock."""
    for scenario in (scheduling.QUICK,) if rig.scale.quick else scheduling.SCENARIOS:
        found = scheduling.compare(scenario)
        each = found.ours.requests / max(1, found.changes)
        yield Row(
            f"mean detection delay, {scenario.name}", f"{found.ours.mean:.1f} s",
            f"fixed interval {found.fixed.mean:.1f} s", found.ratio, Goal("≥", 2),
            f"{each:.2f} requests for each change; p95 {found.ratio_p95:.1f} times",
        )  # fmt: skip


GROUPS: Mapping[str, Callable[[Rig], Iterator[Row]]] = {
    "ingest": of_ingest,
    "scan": of_scan,
    "topics": of_topics,
    "webhooks": of_webhooks,
    "latency": of_latency,
    "startup": of_startup,
    "embedded": of_embedded,
    "digest": of_digest,
    "many": of_many,
    "tracked": of_tracked,
    "resident": of_resident,
    "scheduling": of_scheduling,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was chosen; the exit code is 1 where a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small figures, to see that everything works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows for a program, too")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.groups) - GROUPS.keys():
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    configure_logging("error", "json")
    rows: list[Row] = []
    began = time.monotonic()
    with Rig(Scale(chosen.quick)) as rig:
        for name in chosen.groups or GROUPS:
            started = time.monotonic()
            found = list(GROUPS[name](rig))
            rows += found
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    print(table(rows))
    print(
        f"\n{seconds:.0f} s, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
    if chosen.json is not None:
        chosen.json.write_text(as_json(rows, seconds=seconds, cores=os.cpu_count(), python=platform.python_version()))
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
