"""The promises of a source, held by a definition: the suite asks the provider that it describes, simulated."""

# ruff: noqa: D102 - the suite's own docstrings say what its parts are

from __future__ import annotations

from typing import Any

from bridge.domain.clock import Clock
from bridge.providers.models import Definition
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.defined_vendor import simulated_values
from bridge.sources.rest import plugin_of
from bridge.testing.simulated_account import SimulatedAccount
from bridge.testing.source_suite import PHONE, Account, SourceSuite


class DefinedAccount(SimulatedAccount):
    """An account of the provider that a definition describes."""

    def __init__(self, definition: Definition, clock: Clock) -> None:
        world_clock = Clock(now=clock.now, monotonic=clock.monotonic)
        super().__init__(clock, Simulator(SimulatorSettings.still(), world_clock, definition))
        vendor = self.simulator.defined
        assert vendor is not None
        self._vendor = vendor
        self._keys: dict[str, str] = {}

    def add(self) -> str:
        resource = self._vendor.world.add(PHONE)
        subject = self._vendor.subject_of(resource)
        self._keys[subject] = resource.key
        return subject

    def move(self, subject: str) -> None:
        self._vendor.world.move(self._keys[subject])


class DefinitionSuite(SourceSuite):
    """Subclass it as `TestMyProvider(DefinitionSuite)`, and set `definition`; or let `suite_of` do so."""

    definition: Definition
    several = 45

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "definition" in vars(cls):
            cls.plugin = plugin_of(cls.definition)
            own = simulated_values(cls.definition)
            cls.secrets = tuple(
                str(own[name]) for name, spec in cls.definition.settings.items() if spec.type == "secret"
            )

    def values(self, url: str) -> dict[str, Any]:
        values = {"type": "rest", "provider": "simulated", "url": url, **simulated_values(self.definition)}
        return values if self.definition.auth.oauth2 is None else {**values, "token_url": f"{url}/_token"}

    def account(self, clock: Clock) -> Account:
        return DefinedAccount(self.definition, clock)


def suite_of(name: str, definition: Definition) -> type[DefinitionSuite]:
    """Return the suite of a definition, as a class that pytest collects under the name `Test…` of your module."""
    words = "".join(word.capitalize() for word in name.replace("_", "-").split("-"))
    return type(f"Test{words}", (DefinitionSuite,), {"definition": definition})
