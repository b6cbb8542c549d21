"""What a simulated world is made of: how much happens, how fast, and who may ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One fault switched on: how often it applies, and where."""

    name: str
    share: float = 1.0
    """The share of the matching requests that it changes, 0 to 1."""
    limit: int | None = None
    """How many times it applies at most; None means no limit."""
    path: str = ""
    """A regular expression that is searched in `path?query`; empty matches all that the fault applies to."""
    value: Any = None
    """What the fault takes: seconds, bytes or a URL; None is its default."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"{self.name}: a share lies between 0 and 1")
        if self.limit is not None and self.limit < 0:
            raise ValueError(f"{self.name}: a limit is not negative")

    @classmethod
    def parse(cls, text: str, *, share: float = 1.0) -> FaultRule:
        """Read `NAME` or `NAME:share=0.1,limit=3,path=REGEX,value=5`; raises `ValueError` that says what is wrong."""
        name, _, rest = text.partition(":")
        options: dict[str, Any] = {"share": share}
        for part in filter(None, rest.split(",")):
            key, equals, value = part.partition("=")
            if not equals or key not in {"share", "limit", "path", "value"}:
                raise ValueError(f"{text!r}: {part!r} is not one of share=, limit=, path=, value=")
            read: dict[str, Callable[[str], Any]] = {"share": float, "limit": int, "path": str, "value": _value}
            try:
                options[key] = read[key](value)
            except ValueError:
                raise ValueError(f"{text!r}: {value!r} is not a number") from None
        return cls(name, **options)


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """Everything that decides a simulated world. Rates and delays are in simulated time, timestamps in real time."""

    seed: int = 1
    """Worlds of one seed, begun at one moment, are the same in every id, phone, status and time."""
    speed: float = 60.0
    """Simulated seconds in a real second: lives go so much faster, and so much more is born."""
    messages_per_minute: float = 2.0
    """GovDelivery messages, in a simulated minute."""
    recipients_per_message: float = 12.0
    """The median; a few messages have many more."""
    max_recipients: int = 2000
    """The most recipients a message has."""
    voice_share: float = 0.5
    """The share of messages that are calls."""
    drops_per_minute: float = 10.0
    """Spacivox voicemail drops, in a simulated minute."""
    texts_per_minute: float = 1.0
    """Spacivox text records, in a simulated minute."""
    emails_per_minute: float = 1.0
    """Spacivox e-mail records, in a simulated minute."""
    sends_per_minute: float = 4.0
    """Marketing Cloud SMS notSent events, in a simulated minute."""
    email_sends_per_minute: float = 1.0
    """Marketing Cloud e-mail notSent events, in a simulated minute."""
    backlog: float = 600.0
    """Simulated seconds of history that the world begins with."""
    failed_share: float = 0.08
    """The share of recipients and records that fail."""
    inconclusive_share: float = 0.02
    """The share of recipients that are inconclusive for a while."""
    blacklisted_share: float = 0.01
    """The share of recipients that are blacklisted."""
    canceled_share: float = 0.01
    """The share of messages that are canceled half-way."""
    late_share: float = 0.01
    """The share of final statuses that change once more, long after completion."""
    teams: int = 2
    """Spacivox teams 1 to this."""
    keep_messages: int = 1000
    """How many messages of a channel are kept: older ones are forgotten, as providers do."""
    keep_records: int = 20_000
    """How many records of a kind, and events of a feed, are kept."""
    page_size: int = 50
    """Recipients and messages on a GovDelivery page, and events on a page of Marketing Cloud by default."""
    builds_for: float = 0.0
    """Real seconds after a message's creation in which its recipient listings answer 202."""
    govdelivery_token: str = "simulated-govdelivery-token"  # noqa: S105 - it opens a simulation
    spacivox_token: str = "simulated-spacivox-token"  # noqa: S105 - it opens a simulation
    client_id: str = "simulated-client"
    client_secret: str = "simulated-client-secret"  # noqa: S105 - it opens a simulation
    account_id: str = "1234567"
    token_lifetime: float = 1079.0
    """Real seconds for which a Marketing Cloud token is good."""
    idle_close: float = 5.0
    """Real seconds after which an idle connection is closed."""
    manual_clock: bool = False
    """Time stands still until it is advanced."""
    begins_ago: float = 0.0
    """Real seconds before now at which the world's calendar begins, so that advancing stays in the past."""
    separate_ports: bool = False
    """One port for each provider, instead of one for all three."""
    faults: tuple[FaultRule, ...] = ()

    def __post_init__(self) -> None:
        if self.speed <= 0:
            raise ValueError("the speed is greater than 0")

    @classmethod
    def still(cls, **settings: Any) -> Self:
        """Return the settings of a world in which nothing happens but by hand, at the real pace of time."""
        nothing: dict[str, Any] = {
            "speed": 1.0,
            "messages_per_minute": 0.0,
            "drops_per_minute": 0.0,
            "texts_per_minute": 0.0,
            "emails_per_minute": 0.0,
            "sends_per_minute": 0.0,
            "email_sends_per_minute": 0.0,
            "backlog": 0.0,
        }
        return cls(**{**nothing, **settings})


def demo_settings(*, seed: int = 33) -> SimulatorSettings:
    """Return a small lively world: something happens every second, and within five of them somebody was not reached."""
    return SimulatorSettings(
        seed=seed,
        speed=30.0,
        messages_per_minute=0.7,
        recipients_per_message=5.0,
        max_recipients=12,
        drops_per_minute=1.0,
        texts_per_minute=0.0,
        emails_per_minute=0.0,
        sends_per_minute=0.7,
        email_sends_per_minute=0.0,
        backlog=180.0,
        failed_share=0.2,
        inconclusive_share=0.05,
        blacklisted_share=0.02,
        late_share=0.03,
        teams=1,
    )
