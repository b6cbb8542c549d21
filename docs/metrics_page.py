"""The page of all metrics: names, kinds, labels and meanings come from the code, what to watch for from here."""

# ruff: noqa: INP001 - a module next to the pages, and no package

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from bridge.domain.answers import PROVIDER_ANSWERS, SINK_ANSWERS
from bridge.observability.metrics import FAILURE_REASONS, Metrics
from bridge.runtime.overview import ROLES
from bridge.runtime.sink_runner import SINK_STATES

_INTRODUCTION = """`GET /metrics` on `http.listen` answers in Prometheus' text form. Labels are names of your
configuration, event types and fixed words. No label is a resource or a phone. The alerts and the dashboard that come
with the bridge use them: [watch with Prometheus and Grafana](../how-to/watch-with-prometheus-and-grafana.md).

"""
_END = """
A counter belongs to one process: add the replicas. The gauges of sinks and journals, and the last good poll, come from
the store. All processes with that role show the same: use the maximum. The gauges are updated every five seconds; what
other processes have polled, every 15 seconds. The more deliveries wait, the less often the oldest is searched for: of
100,000 every 50 seconds.

## Words of the labels

| label | in | words |
| --- | --- | --- |
"""
WATCH_FOR = {
    "bridge_build_info": "two versions for longer than a rollout",
    "process_virtual_memory_bytes": "",
    "process_resident_memory_bytes": "steady growth over days",
    "process_start_time_seconds": "changes that nobody made: the process is killed",
    "process_cpu_seconds_total": "a rate near 1: one process has one core",
    "process_open_fds": "near `process_max_fds`",
    "process_max_fds": "",
    "bridge_role": "a role that no process has",
    "bridge_problem": "1 for minutes. [Health pages](health-pages.md#what-readyz-names) explains the parts",
    "bridge_lease_held": "no process with 1: nobody polls or relays it",
    "bridge_polls_total": "`failed` growing. The [results](states.md#results-of-a-poll)",
    "bridge_poll_seconds": "more than the interval: raise `rate` or the interval",
    "bridge_poll_failures_total": "`credentials`: replace them. `account`: another account answers. "
    "`defect`: report it",
    "bridge_source_last_ok_timestamp_seconds": "older than a few intervals",
    "bridge_source_interval_seconds": "",
    "bridge_source_rate": "",
    "bridge_provider_answers_total": "`throttled`; a rate near `bridge_source_rate`",
    "bridge_books_differences": "above 0",
    "bridge_observations_total": "no growth while a source is `ok` and busy",
    "bridge_events_total": "",
    "bridge_observed_after_seconds": "the delay that you promised to others",
    "bridge_pushes_total": "`refused` growing: a wrong secret, or somebody who guesses. "
    "The [results](states.md#results-of-a-push)",
    "bridge_push_looked_after_seconds": "more than a second or two: pushes cost more than half of `rate`",
    "bridge_confirmed_total": "",
    "bridge_confirm_seconds": "",
    "bridge_unroutable_total": "growth, if somebody should have subscribed",
    "bridge_journal_backlog": "growth; at 50,000 the source is held",
    "bridge_journal_bytes": "near `bridge_journal_max_bytes`: at the bound the source is held",
    "bridge_journal_max_bytes": "",
    "bridge_journal_oldest_unconfirmed_seconds": "minutes: the relay or the broker does not work",
    "bridge_source_state": "`stalled` or `held` is 1. The [states](states.md#states-of-a-source)",
    "bridge_source_quiet": "1: nothing is sent, or the provider tells nothing",
    "bridge_source_awaiting_final": "growth while a source is `ok`: final statuses do not come",
    "bridge_accounts": "`share` at 0 for long on one of several processes",
    "bridge_account_moves_total": "steady growth: processes come and go",
    "bridge_paused": "1 for longer than you meant",
    "bridge_deliveries_total": "`dead` growing; `waits` without `taken`. "
    "The [results](states.md#results-of-an-attempt)",
    "bridge_delivery_seconds": "near `send_timeout`",
    "bridge_sink_answers_total": "`credentials`; `5xx` and `no_answer` without `accepted`",
    "bridge_sink_state": "`disabled` or `circuit open` is 1. The [states](states.md#states-of-a-sink)",
    "bridge_sink_oldest_waiting_seconds": "longer than your receivers can wait",
    "bridge_sink_waiting": "growth",
    "bridge_sink_dead": "above 0",
    "bridge_sink_offered_again_total": "above 0",
    "bridge_sink_filtered_total": "all events of a sink",
    "bridge_sink_expired_total": "growth, if there was no outage: `max_age` is too short",
    "bridge_part_restarts_total": "above 0",
    "bridge_log_lines_lost_total": "growth: nobody reads the log, or its disk is full",
}
"""For each metric, what an operator should watch for."""
_WORDS = (
    ("role", "bridge_role", ROLES),
    ("kind", "bridge_lease_held", ("source", "account", "relay")),
    ("kind", "bridge_paused", ("source", "sink")),
    ("reason", "bridge_poll_failures_total", FAILURE_REASONS),
    ("answer", "bridge_provider_answers_total", PROVIDER_ANSWERS),
    ("answer", "bridge_sink_answers_total", SINK_ANSWERS),
    ("state", "bridge_sink_state", SINK_STATES),
)


def metrics(made: str) -> str:
    """Return the page; raises `KeyError` for a metric of which `WATCH_FOR` says nothing."""
    shown = Metrics()
    labels = {
        metric._name: metric._labelnames  # noqa: SLF001 - the library has no public way to ask for labels without values
        for metric in vars(shown).values()
        if isinstance(metric, MetricWrapperBase)
    }
    rows = [
        f"| `{name}` | {family.type} | {', '.join(labels.get(family.name, ()))} | {_meaning(family)} "
        f"| {WATCH_FOR[name]} |\n"
        for name, family in _families(shown)
    ]
    words = [f"| {label} | {name.removesuffix('_total')} | {_listed(values)} |\n" for label, name, values in _WORDS]
    head = "| metric | kind | labels | meaning | watch for |\n| --- | --- | --- | --- | --- |\n"
    return "".join(["# Metrics\n\n", made, _INTRODUCTION, head, *rows, _END, *words])


def _families(shown: Metrics) -> Iterator[tuple[str, Metric]]:
    for family in shown.registry.collect():
        yield family.name + ("_total" if family.type == "counter" else ""), family


def _meaning(family: Metric) -> str:
    return family.documentation[:1].lower() + family.documentation[1:].removesuffix(".")


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)
