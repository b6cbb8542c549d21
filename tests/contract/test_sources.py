"""The sources that come with the bridge, held against the promises of every source."""

from __future__ import annotations

from typing import Any

from bridge.config import registry
from bridge.domain.clock import Clock
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.testing.simulated_account import SimulatedAccount
from bridge.testing.source_suite import PHONE, Account, SourceSuite

SETTINGS = SimulatorSettings.still()


class Simulated(SimulatedAccount):
    """An account of a simulated provider."""

    provider = ""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, Simulator(SETTINGS, Clock(now=clock.now, monotonic=clock.monotonic)))

    @property
    def url(self) -> str:
        return self.simulator.urls[self.provider]


class SimulatedSuite(SourceSuite):
    name = ""

    def values(self, url: str) -> dict[str, Any]:
        urls = dict.fromkeys(("govdelivery", "spacivox", "marketingcloud"), url)
        return sources(urls, SETTINGS)[self.name]


class City(Simulated):
    provider = "govdelivery"

    def add(self) -> str:
        world = self.simulator.world
        channel = ("sms", "voice")[sum(map(len, world.messages.values())) % 2]
        message = world.add_message(channel, [PHONE], status="sending", recipient_status="sending")
        return message.recipient(0)

    def move(self, subject: str) -> None:
        self.simulator.world.move(subject, "failed", error=f"nobody at {PHONE}")


class TestGovDelivery(SimulatedSuite):
    name = "city"
    plugin = registry.load_source("govdelivery")
    secrets = (SETTINGS.govdelivery_token,)
    several = 30

    def account(self, clock: Clock) -> Account:
        return City(clock)


class Drops(Simulated):
    provider = "spacivox"

    def add(self) -> str:
        return self.simulator.world.add_drop().path

    def move(self, subject: str) -> None:
        records = self.simulator.world.records["voicemail_drop"]
        self.simulator.world.move_drop(next(record for record in records if record.path == subject), 3)


class TestSpacivox(SimulatedSuite):
    name = "drops"
    plugin = registry.load_source("spacivox")
    secrets = (SETTINGS.spacivox_token,)

    def account(self, clock: Clock) -> Account:
        return Drops(clock)


class Journeys(Simulated):
    provider = "marketingcloud"

    def add(self) -> str:
        return self.simulator.world.add_send_event().path

    def move(self, subject: str) -> None:
        self.simulator.world.add_send_event(message_key=subject.rpartition("/")[2])


class TestMarketingCloud(SimulatedSuite):
    name = "journeys"
    plugin = registry.load_source("marketingcloud")
    secrets = (SETTINGS.client_secret, "simulated-access")

    def values(self, url: str) -> dict[str, Any]:
        return {**super().values(url), "rest_url": url}

    def account(self, clock: Clock) -> Account:
        return Journeys(clock)
