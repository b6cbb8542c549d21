"""All metrics of one process, for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from bridge import __version__
from bridge.domain.answers import PROVIDER_ANSWERS
from bridge.observability.logging import lost_lines

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_AGES = (0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 900, 3600, 4 * 3600, 24 * 3600)
FAILURE_REASONS = ("credentials", "throttled", "account", "provider", "defect")
"""Why a poll may fail."""


class Metrics:
    """All figures of one process. Labels are bounded: sources, sinks, types and results, never a resource."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.info = Gauge("bridge_build_info", "The version that runs.", ["version"], registry=registry)
        self.info.labels(__version__).set(1)
        ProcessCollector(registry=registry)
        self.role = Gauge("bridge_role", "1 if this process has the role.", ["role"], registry=registry)
        self.problem = Gauge(
            "bridge_problem", "1 while `/readyz` of this process names the part.", ["part"], registry=registry
        )
        for part in ("store", "broker"):
            self.problem.labels(part).set(0)
        self.lease_held = Gauge(
            "bridge_lease_held", "1 if this process holds the lease: it polls, or relays.", ["kind", "name"],
            registry=registry,
        )  # fmt: skip
        self.polls = Counter(
            "bridge_polls", "Polls of a source by result: ok, failed, partial.", ["source", "result"], registry=registry
        )
        self.poll_seconds = Histogram(
            "bridge_poll_seconds", "How long a poll took.", ["source"], buckets=_SECONDS, registry=registry
        )
        self.poll_failures = Counter(
            "bridge_poll_failures", "Polls that failed, by reason.", ["source", "reason"], registry=registry
        )
        self.last_ok = Gauge(
            "bridge_source_last_ok_timestamp_seconds",
            "When the last poll that went well ended, in Unix seconds; no series before the first one.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.interval = Gauge(
            "bridge_source_interval_seconds", "The longest time between two polls: `interval` times `idle_slowdown`.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.rate = Gauge("bridge_source_rate", "Requests a second that `rate` allows.", ["source"], registry=registry)
        self.provider_answers = Counter(
            "bridge_provider_answers", "Answers of the provider by class, one for each request.", ["source", "answer"],
            registry=registry,
        )  # fmt: skip
        self.books_differences = Gauge(
            "bridge_books_differences",
            "Resources of which the provider's account differed from ours at two comparisons in a row.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.observations = Counter("bridge_observations", "Resources looked at.", ["source"], registry=registry)
        self.events = Counter("bridge_events", "Events committed.", ["source", "type"], registry=registry)
        self.observed_lag = Histogram(
            "bridge_observed_after_seconds",
            "From the provider's own time of a transition to its observation.",
            ["source"], buckets=_AGES, registry=registry,
        )  # fmt: skip
        self.pushes = Counter(
            "bridge_pushes", "Providers' pushes by result: ok, refused, unreadable, too_many, failed.",
            ["source", "result"], registry=registry,
        )  # fmt: skip
        self.push_seconds = Histogram(
            "bridge_push_looked_after_seconds", "From the first push about a thing to the end of the look at it.",
            ["source"], buckets=_AGES, registry=registry,
        )  # fmt: skip
        self.confirmed = Counter("bridge_confirmed", "Events that the broker confirmed.", ["source"], registry=registry)
        self.confirm_seconds = Histogram(
            "bridge_confirm_seconds", "From the wake-up of the relay to the broker's confirmation of all there was.",
            ["source"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.unroutable = Counter(
            "bridge_unroutable", "Confirmed events that no queue wanted; the journal has them.", ["source"],
            registry=registry,
        )  # fmt: skip
        self.backlog = Gauge(
            "bridge_journal_backlog", "Events committed and not yet confirmed.", ["source"], registry=registry
        )
        self.journal_bytes = Gauge(
            "bridge_journal_bytes", "Roughly what the kept events take.", ["source"], registry=registry
        )
        self.journal_max_bytes = Gauge(
            "bridge_journal_max_bytes", "The bound of each journal, `journal.max_bytes`.", registry=registry
        )
        self.oldest_unconfirmed = Gauge(
            "bridge_journal_oldest_unconfirmed_seconds",
            "For how long the oldest event waits for the broker's confirmation; 0 if none waits.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.source_state = Gauge(
            "bridge_source_state", "1 for the state a source is in.", ["source", "state"], registry=registry
        )
        self.source_quiet = Gauge(
            "bridge_source_quiet", "1 while a source has found nothing new for `expect.activity_within`.", ["source"],
            registry=registry,
        )  # fmt: skip
        self.awaiting_final = Gauge(
            "bridge_source_awaiting_final", "Resources that wait for a final status within `expect.final_within`.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.accounts = Gauge(
            "bridge_accounts", "Accounts that this process should poll (`share`), and that it could poll (`all`).",
            ["kind"], registry=registry,
        )  # fmt: skip
        self.account_moves = Counter(
            "bridge_account_moves", "Accounts that came to this process or went to another: gained, handed_over.",
            ["direction"], registry=registry,
        )  # fmt: skip
        self.paused = Gauge(
            "bridge_paused", "1 while an operator has paused a source or a sink.", ["kind", "name"], registry=registry
        )
        self.deliveries = Counter(
            "bridge_deliveries",
            "Tries by result: `taken`, waits, dead, disabled.",
            ["sink", "result"],
            registry=registry,
        )
        self.delivery_seconds = Histogram(
            "bridge_delivery_seconds", "How long the endpoint took.", ["sink"], buckets=_SECONDS, registry=registry
        )
        self.sink_answers = Counter(
            "bridge_sink_answers", "Answers of the endpoint by class, one for each try.", ["sink", "answer"],
            registry=registry,
        )  # fmt: skip
        self.sink_state = Gauge(
            "bridge_sink_state", "1 for the state a sink is in.", ["sink", "state"], registry=registry
        )
        self.oldest_waiting = Gauge(
            "bridge_sink_oldest_waiting_seconds",
            "For how long the oldest event waits that the sink has accepted and its endpoint has not; 0 if none waits.",
            ["sink"], registry=registry,
        )  # fmt: skip
        self.waiting = Gauge("bridge_sink_waiting", "Deliveries waiting.", ["sink"], registry=registry)
        self.dead = Gauge("bridge_sink_dead", "Dead letters.", ["sink"], registry=registry)
        self.offered = Counter(
            "bridge_sink_offered_again", "Events that the broker lost and the journal still had.", ["sink"],
            registry=registry,
        )  # fmt: skip
        self.filtered = Counter(
            "bridge_sink_filtered",
            "Events of a sink's topics that its filter did not select, or that an operator had muted.",
            ["sink"], registry=registry,
        )  # fmt: skip
        self.expired = Counter(
            "bridge_sink_expired", "Events that were older than the sink's `max_age`, and were not sent.", ["sink"],
            registry=registry,
        )  # fmt: skip
        self.restarts = Counter(
            "bridge_part_restarts", "Parts that failed unexpectedly and were started again.", ["part"],
            registry=registry,
        )  # fmt: skip
        self.log_lines_lost = Counter(
            "bridge_log_lines_lost", "Log lines that could not be written to stderr.", registry=registry
        )
        self._lost_before = lost_lines()
        self._problems: set[str] = set()

    def show_source(self, source: str, rate: float, interval: float) -> None:
        """Show the bounds of a source that this process polls: requests a second, and seconds between two polls."""
        self.rate.labels(source).set(rate)
        self.interval.labels(source).set(interval)
        self.books_differences.labels(source).set(0)
        for answer in PROVIDER_ANSWERS:
            self.provider_answers.labels(source, answer)
        for reason in FAILURE_REASONS:
            self.poll_failures.labels(source, reason)

    def forget_books(self, source: str) -> None:
        """Show no differences of a source: another process compares its books."""
        with suppress(KeyError):
            self.books_differences.remove(source)

    def forget_silence(self, source: str) -> None:
        """Show nothing of what is expected of a source: another process waits for it."""
        for gauge in (self.source_quiet, self.awaiting_final):
            with suppress(KeyError):
                gauge.remove(source)

    def show_problems(self, problems: Mapping[str, str]) -> None:
        """Show which parts `/readyz` names."""
        for part in problems.keys() - self._problems:
            self.problem.labels(part).set(1)
        for part in self._problems - problems.keys():
            self.problem.labels(part).set(0)
        self._problems = set(problems)

    def text(self) -> bytes:
        """Return all figures in Prometheus' text form."""
        lost = lost_lines()
        self.log_lines_lost.inc(max(0, lost - self._lost_before))
        self._lost_before = lost
        return generate_latest(self.registry)
