"""All metrics of one process, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bridge import __version__
from bridge.observability.logging import lost_lines

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_AGES = (0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 900, 3600, 4 * 3600, 24 * 3600)


class Metrics:
    """All figures of one process. Labels are bounded: sources, sinks, types and results, never a resource."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.info = Gauge("bridge_build_info", "The version that runs.", ["version"], registry=registry)
        self.info.labels(__version__).set(1)
        self.polls = Counter(
            "bridge_polls", "Polls of a source by result: ok, failed, partial.", ["source", "result"], registry=registry
        )
        self.poll_seconds = Histogram(
            "bridge_poll_seconds", "How long a poll took.", ["source"], buckets=_SECONDS, registry=registry
        )
        self.observations = Counter("bridge_observations", "Resources looked at.", ["source"], registry=registry)
        self.events = Counter("bridge_events", "Events committed.", ["source", "type"], registry=registry)
        self.observed_lag = Histogram(
            "bridge_observed_after_seconds",
            "From the provider's own time of a transition to its observation.",
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
        self.source_state = Gauge(
            "bridge_source_state", "1 for the state a source is in.", ["source", "state"], registry=registry
        )
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
        self.waiting = Gauge("bridge_sink_waiting", "Deliveries waiting.", ["sink"], registry=registry)
        self.dead = Gauge("bridge_sink_dead", "Dead letters.", ["sink"], registry=registry)
        self.offered = Counter(
            "bridge_sink_offered_again", "Events that the broker had lost and the journal had not.", ["sink"],
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

    def text(self) -> bytes:
        """Return all figures in Prometheus' text form."""
        lost = lost_lines()
        self.log_lines_lost.inc(max(0, lost - self._lost_before))
        self._lost_before = lost
        return generate_latest(self.registry)
