"""Status histories: the whole history of a resource, drawn from a seed when the resource arrives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from bridge.simulator.settings import SimulatorSettings


class State(NamedTuple):
    """What a recipient, message or record is at a time."""

    status: str
    detail: str | None = None
    """Of a call: `human`, `machine`, `busy`, `no_answer`, `could_not_connect`."""
    error: str | None = None


class Step(NamedTuple):
    """From `at` on (seconds since 1970) the resource is in `state`."""

    at: float
    state: State


NEW = State("new")
SENDING = State("sending")
INCONCLUSIVE = State("inconclusive")
BLACKLISTED = State("blacklisted")
CANCELED = State("canceled")
FINALS = frozenset({"sent", "failed", "blacklisted", "canceled"})

SMS_FAILURES = tuple(
    State("failed", None, error)
    for error in (
        "The destination number is not a valid mobile number.",
        "The handset is unreachable.",
        "The carrier rejected the message as spam.",
        "The message expired before it could be delivered.",
        "Unknown subscriber \u2013 the number is not in service.",
        None,
    )
)
EMAIL_FAILURES = (
    State("failed", None, "550 5.1.1 The mailbox does not exist."),
    State("failed", None, "452 Mailbox full."),
)
CALL_FAILURES = (State("failed", "busy"), State("failed", "no_answer"), State("failed", "could_not_connect", "SIP 503"))
CALLS = (State("sent", "human"), State("sent", "machine"))
SENT = State("sent")

# The reasons of the vendor's table of send error codes, and how often a simulated send meets them.
REASONS: dict[int, tuple[str, int]] = {
    1: ("Unsubscribed", 4),
    2: ("Held", 6),
    5: ("InvalidEmailAddress", 1),
    15: ("UnspecifiedError", 1),
    16: ("InvalidAttributeValue", 2),
    24: ("ListDetectiveExclusion", 10),
    25: ("SubscriberBlackedOut", 8),
    33: ("AccountLevelOptOut", 3),
    37: ("QueuedTransactionDeleted", 1),
    42: ("RestrictedForProcessing", 1),
    43: ("SubscriberRequestExpired", 2),
    44: ("UnprovisionedCountry", 3),
    45: ("InvalidMobileNumber", 12),
    46: ("MessageRenderFailure", 2),
    47: ("AddressNotFound", 2),
    48: ("SendFailure", 3),
    49: ("MessageExpired", 3),
    51: ("MessageTooLong", 1),
    54: ("ValidationError", 2),
    118: ("GlobalUnsub", 2),
    139: ("TimedoutInQueue", 1),
}
_CODES = tuple(REASONS)
_WEIGHTS = tuple(weight for _, weight in REASONS.values())

VOICEMAIL_STATES = ("0", "1", "2", "3")
_HOURS_LATER = (8.3, 1.0)  # the median of a late change is about an hour


@dataclass(frozen=True, slots=True)
class HistoryGenerator:
    """Draws histories: delays are in simulated seconds, times in real ones."""

    settings: SimulatorSettings

    def _delay(self, random: Random, mu: float, sigma: float) -> float:
        return random.lognormvariate(mu, sigma) / self.settings.speed

    def arrival_times(self, random: Random, per_minute: float, begin: float) -> Iterator[float]:
        """Yield the arrival times from `begin` on, without end; at a rate of 0 nothing arrives."""
        if per_minute <= 0:
            return
        at = begin
        while True:
            at += random.expovariate(per_minute / 60 * self.settings.speed)
            yield at

    def recipients(self, random: Random) -> int:
        """Return how many recipients a message has: few mostly, and now and then very many."""
        median = self.settings.recipients_per_message
        return max(1, min(self.settings.max_recipients, round(median * random.lognormvariate(0.0, 0.9))))

    def message(
        self, random: Random, channel: str, born: float, recipients: int
    ) -> tuple[list[Step], list[tuple[float, int, State]]]:
        """Return the steps of a message after `new`, and those of its recipients by number."""
        second = 1 / self.settings.speed
        queued = born + self._delay(random, 0.7, 0.5)
        sending = queued + self._delay(random, 1.6, 0.7)
        canceled = random.random() < self.settings.canceled_share
        cut = sending + recipients * second / 40 if canceled else float("inf")
        steps: list[tuple[float, int, State]] = []
        completed = sending
        for index in range(recipients):
            accepted = sending + index * second / 20
            if accepted >= cut:
                steps.append((cut, index, CANCELED))
                completed = max(completed, cut)
                continue
            life = self._recipient(random, channel, accepted)
            steps.extend((at, index, state) for at, state in life)
            first_final = next(at for at, state in life if state.status != "sending")
            completed = max(completed, first_final)
        end = Step(completed, CANCELED if canceled else State("completed"))
        return [Step(queued, State("queued")), Step(sending, SENDING), end], steps

    def _recipient(self, random: Random, channel: str, accepted: float) -> list[Step]:
        rng = random.random()
        if rng < self.settings.blacklisted_share:
            return [Step(accepted, BLACKLISTED)]
        at = accepted + (self._delay(random, 3.8, 0.9) if channel == "voice" else self._delay(random, 2.1, 1.2))
        life = [Step(accepted, SENDING)]
        if rng > 1 - self.settings.inconclusive_share:
            life.append(Step(at, INCONCLUSIVE))
            at += self._delay(random, 6.0, 1.2)
        failed = random.random() < self.settings.failed_share
        life.append(Step(at, self.end(random, channel, failed=failed)))
        if not failed and random.random() < self.settings.late_share:
            at += self._delay(random, *_HOURS_LATER)
            life.append(Step(at, self.end(random, channel, failed=True)))
        return life

    def end(self, random: Random, channel: str, *, failed: bool) -> State:
        """Return a final state of a recipient."""
        if channel == "voice":
            return random.choice(CALL_FAILURES if failed else CALLS)
        if not failed:
            return SENT
        return random.choice(EMAIL_FAILURES if channel == "email" else SMS_FAILURES)

    def record(self, random: Random, born: float) -> list[Step]:
        """Return the steps of a Spacivox record after state 0: delivered, failed or rejected, up to hours later."""
        at = born + self._delay(random, 4.5, 1.8)
        rng = random.random()
        failed = self.settings.failed_share
        state = "3" if rng < failed / 3 else "2" if rng < failed else "1"
        life = [Step(at, State(state))]
        if state == "1" and random.random() < self.settings.late_share:
            life.append(Step(at + self._delay(random, *_HOURS_LATER), State("2")))
        return life

    def reason(self, random: Random) -> int:
        """Return a code of Marketing Cloud's table."""
        return random.choices(_CODES, _WEIGHTS)[0]


def phone(number: int) -> str:
    """Return the E.164 of a person in a story: North American 555-01XX, which is reserved for fiction."""
    return f"+1{201 + number // 100 % 799}55501{number % 100:02d}"


def mobile(number: int) -> str:
    """Return a French mobile number of the range that the regulator keeps for fiction: 06 39 98 XX XX."""
    return f"+3363998{number % 10000:04d}"


def pick(random: Random, options: Sequence[str]) -> str:
    """Return one of `options`."""
    return options[random.randrange(len(options))]
