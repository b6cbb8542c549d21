"""The vocabulary of a definition: what a file that describes a provider may say, each key once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from bridge.domain import topics
from bridge.domain.settings import Duration, Rate, Settings
from bridge.http.client import Origin
from bridge.providers.paths import JsonPath
from bridge.providers.requests import AuthSpec, ListSpec, LookupSpec, Scalar, TimeParameter
from bridge.providers.times import TimeFormat, Zone


def _word(value: str) -> str:
    if not topics.is_word(value):
        raise ValueError(f"{value!r} cannot stand in a topic; use lower-case letters, digits and _")
    return value


Word = Annotated[str, AfterValidator(_word)]


class SettingSpec(Settings):
    """One thing that the configuration gives: an account, a secret, a choice."""

    type: Literal["text", "secret", "number", "choice"] = "text"
    """A `secret` may also be given as a file; a `choice` is one of `choices`."""
    about: str = Field(min_length=1)
    """What it is and where the provider shows it; the explanation in `bridgectl providers show`."""
    choices: list[str] = Field(default_factory=list)
    """The values of a `choice`."""
    pattern: str | None = None
    """A regular expression that the whole value has to match."""
    example: str | None = None
    """A value that looks right; needed with `pattern`. The simulated provider has it."""
    default: Scalar | None = None
    """The value if the configuration gives none; without a default, the setting is required."""
    account: bool = False
    """Whether it tells the account from others: then new credentials are still the same account."""


class BudgetSpec(Settings):
    """What the provider allows and what it costs."""

    rate: Rate = 4.0
    """Requests a second; the default of the source's own `rate`."""
    concurrency: int = Field(default=1, ge=1, le=64)
    """How many resources are looked up at once."""
    cost: float | None = Field(default=None, gt=0)
    """What a thousand records cost, in `currency`; `bridgectl check` says it."""
    currency: str = Field(default="EUR", pattern=r"[A-Z]{3}")
    """The currency of `cost`."""


class UndatedSpec(Settings):
    """Records that have no time yet by which a window could find them: the list without its window shows these."""

    since: Duration = Field(gt=0)
    """How long a record may stay without a time; the list is read back as far as that."""
    every: Duration = Field(default=300.0, gt=0)
    """How often it is read back so far; at each poll, only what is new since the last one."""


class WindowSpec(Settings):
    """The records of a trailing stretch of time, read again and again and compared by their ids."""

    start: TimeParameter
    """The parameter with the first moment of the stretch."""
    end: TimeParameter
    """The parameter with its last moment."""
    zone: Zone = "UTC"
    """The zone of times that are written without an offset."""
    by: JsonPath | None = None
    """Where an item has the time by which the window finds it, if that is not `times.created`."""
    lookback: Duration = Field(default=72 * 3600.0, gt=0)
    """For how long after its time a record may still change, or appear."""
    slice: Duration = Field(default=86400.0, ge=60)
    """For how much time a request asks; less if the provider refuses so much."""
    overlap: Duration = Field(default=1.0, ge=0)
    """How far neighbouring requests overlap; more than the provider's clock differs from its records."""
    reread_every: Duration = Field(default=600.0, gt=0)
    """How often, at the least, all of `lookback` is read; young records are read more often."""
    retention: Duration | None = Field(default=None, gt=0)
    """How long the provider keeps records; nothing older is asked for."""
    undated: UndatedSpec | None = None
    """How records are found that have no time by which the window finds them."""


class FollowSpec(Settings):
    """Looking at known resources until their status is final."""

    lookup: LookupSpec
    """The request for one resource, or for several at once."""
    give_up: Duration = Field(default=72 * 3600.0, gt=0)
    """For how long a resource without a final status is looked at: the provider's own validity, and some more."""
    every: Duration = Field(default=600.0, gt=0)
    """How often, at the least, a resource is looked at; young ones are looked at more often."""


class PushSpec(Settings):
    """The provider's pushes: each says only what to look at, and the look says what happened."""

    verify: Literal["path", "basic", "bearer", "twilio", "plivo_v2", "plivo_v3", "telnyx", "vonage"]
    """What proves that a push is the provider's: a secret at the end of the address (`path`), HTTP Basic, a bearer
    token, or the provider's own signature."""
    id: JsonPath | None = None
    """Where a push has the id of its resource: in JSON a path, in a form the field's name, such as $.MessageSid."""
    then: Literal["look", "poll"] = "look"
    """`look` asks for that resource alone; `poll` reads the newest of the list."""
    lookup: LookupSpec | None = None
    """The request for that resource; with `follow`, it is the one that stands there."""


class FeedSpec(Settings):
    """Events in the provider's own order, followed by a cursor that never goes back."""

    param: str
    """The parameter with the position from which to read on."""
    format: TimeFormat | Literal["number"]
    """`number` for a position that is a number; else how a position that is a time is written."""
    position: JsonPath
    """Where an item has its position."""
    answer: JsonPath | None = None
    """Where an answer states the next position, if it does; only for numbers."""
    settle: Duration = Field(default=0.0, ge=0)
    """For how long events may still appear before others; so much is read again. Only for times."""
    retention: Duration | None = Field(default=None, gt=0)
    """How long the provider keeps events; required for times."""


class IdentitySpec(Settings):
    """What tells a resource from others; the bridge makes scope and ids of it."""

    key: JsonPath
    """The provider's id of the resource; it never changes."""
    within: JsonPath | None = None
    """What tells parts of it apart, such as the recipient of a message to several."""
    subject: str | None = None
    """The path in events, with `{id}`; by default the list's path and the id."""
    block: int | None = Field(default=None, ge=100, le=1_000_000)
    """Ids are numbers given in order, and so many are kept together; an id that is none is kept by its day."""
    mark: JsonPath | None = None
    """The provider's own id of the occurrence: then each mark is an event, whatever the status was before."""


class StatusSpec(Settings):
    """The provider's statuses, what they are called in topics, and how they follow each other."""

    path: JsonPath | None = None
    """Where an item has its status."""
    always: Word | None = None
    """The status of all items, for a list that shows only what has ended."""
    map: dict[str, Word] = Field(default_factory=dict)
    """The provider's value, and the word in the topic. Any other value becomes `UnknownStatus`."""
    ignore_case: bool = False
    """Whether `delivered` and `DELIVERED` are one value."""
    about: dict[Word, str] = Field(default_factory=dict)
    """What a status means, in a sentence; the explanation of its event."""
    follows: dict[Word, list[Word]] = Field(default_factory=dict)
    """Which statuses come directly after a status."""
    finals: list[Word] = Field(min_length=1)
    """The statuses after which nothing is expected; a change out of one is a reopening."""


class TimeSpec(Settings):
    """A time of an item."""

    path: JsonPath
    """Where an item has it."""
    format: TimeFormat | list[TimeFormat] = "iso"
    """How it is written, or the formats to try."""
    zone: Zone = "UTC"
    """The zone of times that are written without an offset."""


class TimesSpec(Settings):
    """The provider's own times."""

    created: TimeSpec | None = None
    """When the resource came into being; it never changes."""
    changed: TimeSpec | None = None
    """When its status changed last."""


class FieldSpec(Settings):
    """A further fact that events carry."""

    path: JsonPath
    """Where an item has it."""
    type: Literal["text", "number", "code", "time"] = "text"
    """What it is; a `code` is a whole number if it is one, and else a text."""
    format: TimeFormat | list[TimeFormat] = "iso"
    """Of a time: how it is written."""
    zone: Zone = "UTC"
    """Of a time without an offset: its zone."""
    about: str = Field(min_length=1)
    """What it is, in a sentence."""
    privacy: Literal["none", "phone", "key"] = "none"
    """`phone` for a phone or an address, `key` for a key of a person: masked as a whole for sinks with `privacy`."""


class FactsSpec(Settings):
    """What events say beyond their status."""

    phone: JsonPath | None = None
    """The recipient's phone or address; masked as the sink's `privacy` says."""
    error: JsonPath | None = None
    """What the provider says went wrong."""
    error_code: JsonPath | None = None
    """The provider's code of what went wrong."""
    fields: dict[Word, FieldSpec] = Field(default_factory=dict)
    """Further facts, by their names in the event's data."""
    leave_out: list[str] = Field(default_factory=list)
    """Keys of an item that no event carries, such as the text of a message. All others that are not read elsewhere go
    to `provider`."""


class ErrorRule(Settings):
    """What an answer means that is no success, or that only looks like one; the first rule that fits counts."""

    status: int | list[int] | None = None
    """The HTTP status, or several."""
    body: dict[str, Scalar] = Field(default_factory=dict)
    """Paths into the body, and the values that stand there."""
    then: Literal["retry", "credentials", "not_ready", "gone", "narrow", "too_old", "empty"]
    """`retry` later, `credentials` are refused, `not_ready` yet, the resource is `gone`, ask for less (`narrow`), the
    provider keeps nothing so old (`too_old`), or there is nothing (`empty`)."""
    pause: Duration | None = Field(default=None, gt=0)
    """With `retry`: how long to ask nothing at all, if the answer does not say."""


class ExpectedEvent(Settings):
    """What a sample's item becomes."""

    topic: str
    """The event's topic."""
    key: str
    """The resource's id."""


class SampleSpec(Settings):
    """A recorded answer, and the events that a first look at it makes."""

    answer: Any
    """The answer's body."""
    expect: list[ExpectedEvent]
    """The events, in order."""


class EventsSpec(Settings):
    """The three words of the topics, and the name before the events' classes."""

    provider: Word
    """The provider's name; with the entity, the first words of the classes: `twilio` `message` is `TwilioMessage…`."""
    channel: Word
    """The first word of the topics, such as `sms`."""
    entity: Word = "message"
    """The second word of the topics."""
    version: int = Field(default=1, ge=1)
    """The version of the data's schema; a change that a consumer would notice needs a new one."""


class Definition(Settings):
    """A provider, as a file describes it."""

    definition: Literal[1]
    """The version of this vocabulary."""
    title: str = Field(min_length=1)
    """What it reads, in a few words."""
    docs: list[str] = Field(min_length=1)
    """The provider's pages from which the facts come."""
    unsure: list[str] = Field(default_factory=list)
    """Facts that no page gives, a sentence each; `bridgectl providers show` prints them."""
    url: Origin | None = None
    """Where the API is; without it, the configuration has to say so."""
    settings: dict[Word, SettingSpec] = Field(default_factory=dict)
    """What the configuration gives in addition to what every source has."""
    auth: AuthSpec
    """How requests prove who asks."""
    budget: BudgetSpec = BudgetSpec()
    """What the provider allows and what it costs."""
    listing: ListSpec
    """The request that lists resources, and how its answer is read."""
    window: WindowSpec | None = None
    """For a list that can be asked for a stretch of time."""
    feed: FeedSpec | None = None
    """For a list that goes on from a position; instead of `window`."""
    follow: FollowSpec | None = None
    """For resources that are looked at until their status is final, in addition to `window` or `feed`."""
    push: PushSpec | None = None
    """For a provider that pushes."""
    identity: IdentitySpec
    """What tells a resource from others."""
    status: StatusSpec
    """The statuses and their order."""
    times: TimesSpec = TimesSpec()
    """The provider's own times."""
    facts: FactsSpec = FactsSpec()
    """What events say beyond their status."""
    errors: list[ErrorRule] = Field(default_factory=list)
    """What errors mean, beyond HTTP's own meaning of their statuses."""
    events: EventsSpec
    """The words of the topics and classes."""
    samples: list[SampleSpec] = Field(default_factory=list)
    """Recorded answers, and what they become; `bridgectl providers check` runs them."""

    @property
    def lookup(self) -> LookupSpec | None:
        """Return the request for single resources, if there is one."""
        if self.follow is not None:
            return self.follow.lookup
        return None if self.push is None else self.push.lookup
