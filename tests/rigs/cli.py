"""An installed plugin, a configuration and a seeded store for commands that run in the tests' process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bridge.domain.event import Event, Position, Transition, event_id
from bridge.domain.events.govdelivery import RecipientData, RecipientFailed, RecipientSending, RecipientSent

PLUGINS = '''
from pydantic import Field, model_validator
from bridge.domain.errors import Permanent, Transient, Unauthorized
from bridge.domain.settings import Secret
from bridge.protocols.sink import SinkPlugin, SinkSettings
from bridge.protocols.source import Probe, SourcePlugin, SourceSettings

ERRORS = {"away": Transient("lamp.example is away"), "wrong": Unauthorized("the token was refused"),
          "never": Permanent("no such account"), "defect": KeyError("secret"), "dear": "dear", "": None}


class LampSettings(SourceSettings):
    """A lamp."""

    token: Secret
    """Opens the lamp."""
    fault: str = ""
    channels: int = 1


class Lamp:
    retention = 60.0

    def __init__(self, fault, channels=1):
        self.fault = ERRORS[fault]
        self.channels = channels
        self.problems = []

    def resource(self, text):
        if text.isdigit() and self.channels > 1:
            raise ValueError(f"{text!r} may be of several channels; give its path")
        if text.isdigit():
            return f"/messages/voice/{text}"
        if text.startswith("/messages/"):
            return text
        raise ValueError(f"{text!r} is no message; write an id or a path")

    async def probe(self):
        if self.fault == "dear":
            return Probe("shines", 17280.0, "an idle year costs 315% of the allowance: make interval longer")
        if self.fault:
            raise self.fault
        return Probe("shines", 2880.0)

    async def close(self):
        pass


class Bell:
    def __init__(self, fault):
        self.fault = ERRORS[fault]

    async def open(self):
        pass

    async def probe(self):
        if self.fault:
            raise self.fault
        return "rings"

    async def close(self):
        pass


class BellSettings(SinkSettings):
    """A bell."""

    fault: str = ""


class TorchSettings(SourceSettings):
    """A torch, opened by one of two secrets."""

    url: str = Field(examples=["https://torch.example"])
    place: str
    shade: LampSettings | None = None
    token: Secret | None = None
    key: Secret | None = None

    @model_validator(mode="after")
    def _one_secret(self):
        if not (self.token or self.key):
            raise ValueError("give token or key")
        return self


torch = SourcePlugin(TorchSettings, lambda name, settings, clock: Lamp(""))
lamp = SourcePlugin(LampSettings, lambda name, settings, clock: Lamp(settings.fault, settings.channels))
bell = SinkPlugin(BellSettings, lambda name, settings, clock: Bell(settings.fault))
'''
POINTS = "[bridge.sources]\nlamp = acme_cli:lamp\ntorch = acme_cli:torch\n[bridge.sinks]\nbell = acme_cli:bell\n"
CONFIG = """
sources: {lamps: {type: lamp, token: canary}}
sinks:
  crm: {type: bell, topics: ["voice.#"]}
  ops: {type: bell, topics: ["*.recipient.failed.#"], ordered: true}
"""
NOW = datetime.now(UTC).replace(microsecond=0)
"""When the tests were collected; the first test that uses it may run many minutes later."""


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


ONE, TWO = "/messages/voice/10507/recipients/1", "/messages/voice/10507/recipients/2"


def event(cls: type[Event], subject: str, minutes_ago: float, *, previous: str | None = None, **more) -> Event:
    at = NOW - timedelta(minutes=minutes_ago)
    transition = Transition.ADVANCE if previous else Transition.FIRST
    data = RecipientData(
        channel="voice", status=cls.status, previous=previous, transition=transition, message="/messages/voice/10507",
        observed={"after": at - timedelta(seconds=30), "by": at}, phone="+16515551000", **more,
    )  # fmt: skip
    number = event_id("/lamp/lamps", subject, cls.status, 0)
    return cls.of(id=number, source="/lamp/lamps", subject=subject, time=at, recordedtime=at, data=data)


EVENTS = [
    event(RecipientSending, ONE, 90),
    event(RecipientSending, TWO, 80),
    event(RecipientFailed, ONE, 60, previous="sending", detail="busy", error="line +1 651 555 1000 busy"),
    event(RecipientSent, TWO, 30, previous="sending", detail="human"),
    event(RecipientFailed, ONE + "0", 20, detail="no_answer"),
    event(RecipientFailed, ONE + "1", 10, detail="no_answer"),
]


def at(seq: int) -> Position:
    return Position("lamps", seq)


def minutes_ago(minutes: float) -> str:
    """Return a time before NOW as an option of a command: it means the same however late a test runs."""
    return (NOW - timedelta(minutes=minutes)).isoformat()
