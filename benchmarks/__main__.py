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
    subscribers,
    topics,
    tracked,
    webhooks,
    windows,
)
from benchmarks.report import Goal, Row, as_json, rate, ratio, table
from benchmarks.rig import Rig, Scale
from bridge.observability.logging import configure_logging

MIB = 1024 * 1024


def of_ingest(rig: Rig) -> Iterator[Row]:
    """Ours, the bare loop and the peers, in one run."""
    result = ingest.measure(rig)
    ours = result.rate("ours")
    yield ratio(
        "ingest, Redis and RabbitMQ quorum queue", ours, result.rate("bare"), "kombu, batch confirms", Goal("≥", 0.6),
        result.spread(),
    )  # fmt: skip
    for name, peer, goal in (
        ("Redpanda Connect", peers.connect, Goal("≥", 1.5)),
        ("the Celery script", peers.script, Goal("≥", 8)),
    ):
        cannot = "; ".join(peers.CANNOT[name])
        try:
            other = peer(rig, rig.scale.of(20_000 if peer is peers.connect else 4_000, 1_600))
        except (peers.PeerMissingError, TimeoutError) as error:
            yield Row(f"ingest ÷ {name}", rate(ours), f"not result: {error}", goal=goal)
        else:
            yield ratio(f"ingest ÷ {name}", ours, other, name, goal, f"it cannot do as much: {cannot}")


def of_scan(rig: Rig) -> Iterator[Row]:
    """What has not changed."""
    result = scan.measure(rig)
    yield ratio(
        "unchanged recipients scanned", result.rate("ours"), result.rate("bare"), "aiohttp, json.loads", Goal("≥", 0.7),
        result.spread(),
    )  # fmt: skip
    yield ratio(
        "the same, one change on each page",
        result.rate("ours, stirred"),
        result.rate("bare"),
        "aiohttp, json.loads",
    )


def of_windows(rig: Rig) -> Iterator[Row]:
    """What a window reads again."""
    result = windows.measure(rig)
    for name in ("rest", "spacivox"):
        yield ratio(
            f"window read again, {name}", result.rate(name), result.rate("bare"), "aiohttp, json.loads",
            Goal("≥", 0.6), result.spread(),
        )  # fmt: skip
        stirred = result.rate(f"{name}, stirred")
        yield ratio("the same, one change in each slice", stirred, result.rate("bare"), "aiohttp, json.loads")


def of_topics(rig: Rig) -> Iterator[Row]:
    """Redis as broker."""
    result = topics.measure(rig)
    yield ratio(
        "Redis topics",
        result.rate("ours"),
        result.rate("bare"),
        "Producer.batch()",
        Goal("≥", 1.5),
        result.spread(),
    )


def of_subscribers(rig: Rig) -> Iterator[Row]:
    """Events at a service."""
    for name, result in subscribers.measure(rig).items():
        yield ratio(
            f"events at a `bridge.client` loop, {name}", result.rate("ours"), result.rate("bare"), "kombu consumer",
            Goal("≥", 0.5), result.spread(),
        )  # fmt: skip


def of_webhooks(rig: Rig) -> Iterator[Row]:
    """Delivery."""
    result = webhooks.measure(rig)
    yield ratio(
        "signed webhooks delivered and settled", result.rate("ours"), result.rate("bare"), "aiohttp POST loop",
        Goal("≥", 0.5), result.spread(),
    )  # fmt: skip


def of_tracked(rig: Rig) -> Iterator[Row]:
    """The ledger's size and growth."""
    result = tracked.measure(rig)
    yield Row(
        f"Redis for each of {result.recipients:,} tracked", f"{result.bytes_each:.1f} bytes", "", result.bytes_each,
        Goal("≤", 20, "bytes"), f"filled at {1e6 / result.filled_each:,.0f} recipients/s",
    )  # fmt: skip
    few, many_ = result.seconds_few * 1000, result.seconds_many * 1000
    yield Row(
        f"a page at {result.recipients:,} tracked", f"{many_:.2f} ms", f"at 10,000 tracked {few:.2f} ms", many_ / few,
        Goal("≤", 1.2),
    )  # fmt: skip


def of_resident(rig: Rig) -> Iterator[Row]:
    """The process's memory."""
    result = resident.measure(rig)
    grown = (result.late - result.early) / MIB
    yield Row(
        f"memory after {result.events:,} events", f"{result.late / MIB:.1f} MiB",
        f"after 10,000 {result.early / MIB:.1f} MiB", grown, Goal("≤", 10, "MiB more"),
        f"peak {result.peak / MIB:.1f} MiB; {rate(result.rate)} through poll, relay and sink in one process",
    )  # fmt: skip


def of_latency(rig: Rig) -> Iterator[Row]:
    """Commit to socket."""
    for share, latencies in zip(("a quarter", "half", "three quarters"), latency.measure(rig), strict=True):
        p50, p99 = latencies.ours
        yield Row(
            f"commit to socket at {share} of full load", f"p99 {p99:.0f} ms (p50 {p50:.0f})",
            f"the broker's own p99 {latencies.broker[1]:.0f} ms (p50 {latencies.broker[0]:.0f})",
            p99 - latencies.broker[1],
            Goal("≤", 50, "ms more") if share == "half" else None, f"{latencies.rate:,.0f} events/s",
        )  # fmt: skip


def of_startup(rig: Rig) -> Iterator[Row]:
    """Commands and service."""
    result = startup.measure(rig)
    yield Row(
        "bridgectl --help", f"{result.help * 1000:.0f} ms", f"python -c pass {result.python * 1000:.0f} ms",
        result.help / result.python, Goal("≤", 8),
    )  # fmt: skip
    yield Row("start to first poll committed", f"{result.first_poll * 1000:.0f} ms")


def of_embedded(rig: Rig) -> Iterator[Row]:
    """No servers."""
    result = embedded.measure(rig)
    yield ratio(
        "embedded, polled to settled", result.rate("ours"), result.rate("bare"), "two SQLite files, batch commits",
        note=result.spread(),
    )  # fmt: skip


def of_digest(rig: Rig) -> Iterator[Row]:
    """Slack."""
    result = digest.measure(rig)
    yield Row(
        f"Slack: {result.events:,} failures at once",
        f"{result.posts} posts, {result.seconds:.0f} s",
        "a post each",
    )


def of_many(rig: Rig) -> Iterator[Row]:
    """Sources and sinks."""
    of_sources, of_sinks = many.measure(rig)
    for what, spreads in (("sources", of_sources), ("sinks", of_sinks)):
        single = spreads[0]
        for spread in spreads[1:]:
            yield Row(
                f"{spread.parts} {what} in one process", rate(spread.rate), f"one {rate(single.rate)}",
                spread.rate / single.rate,
                note=f"{spread.memory / MIB:.0f} MiB, with one {single.memory / MIB:.0f} MiB",
            )  # fmt: skip


def of_scheduling(rig: Rig) -> Iterator[Row]:
    """Detection delay on a virtual clock."""
    for scenario in (scheduling.QUICK,) if rig.scale.quick else scheduling.SCENARIOS:
        comparison = scheduling.compare(scenario)
        requests_per_change = comparison.ours.requests / max(1, comparison.changes)
        yield Row(
            f"mean detection delay, {scenario.name}", f"{comparison.ours.mean:.1f} s",
            f"fixed interval {comparison.fixed.mean:.1f} s", comparison.ratio, Goal("≥", 2),
            f"{requests_per_change:.2f} requests for each change; p95 {comparison.ratio_p95:.1f} times",
        )  # fmt: skip


GROUPS: Mapping[str, Callable[[Rig], Iterator[Row]]] = {
    "ingest": of_ingest,
    "scan": of_scan,
    "windows": of_windows,
    "topics": of_topics,
    "subscribers": of_subscribers,
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
            group_rows = list(GROUPS[name](rig))
            rows += group_rows
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
