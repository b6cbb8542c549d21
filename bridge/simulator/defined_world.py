"""The resources of a provider that a definition describes: they come, and go along their statuses."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from random import Random

from bridge.domain.lifecycle import Lifecycle
from bridge.providers.events import lifecycle
from bridge.providers.models import Definition
from bridge.simulator.clock import WorldClock
from bridge.simulator.histories import phone
from bridge.simulator.settings import SimulatorSettings

_FIRST_KEY_NUMBER = 10_000_001
"""The number of the first resource; ids are such numbers, or end with one."""
_STEP_SECONDS = 20.0
_MAX_STEPS = 12
_LATE_SECONDS = 3600.0


@dataclass(slots=True)
class DefinedStep:
    """A resource entered a status."""

    at: float
    """Seconds since 1970."""
    raw: str
    """The provider's own value."""
    number: int
    """The number of the occurrence among all of the provider."""


@dataclass(slots=True)
class DefinedResource:
    """A resource, and what happens to it."""

    key: str
    phone: str
    steps: list[DefinedStep] = field(default_factory=list)

    @property
    def born(self) -> float:
        """Return when it came into being, in seconds since 1970."""
        return self.steps[0].at

    def present(self, now: float) -> DefinedStep:
        """Return the step that it is in."""
        return self.steps[max(0, bisect_right(self.steps, now, key=lambda step: step.at) - 1)]


class DefinedWorld:
    """All resources of one provider; each is shown as it is at the time of the clock."""

    def __init__(self, definition: Definition, settings: SimulatorSettings, clock: WorldClock) -> None:
        self._definition = definition
        self._settings = settings
        self._clock = clock
        self._table: Lifecycle = lifecycle(definition)
        self._raw_of: dict[str, str] = {}
        for raw, word in self._table.status_by_value.items():
            self._raw_of.setdefault(word, raw)
        self._occurrences = 0
        self._begin = clock.now()
        self._arrivals = self._arrival_times()
        self._next_arrival = next(self._arrivals, None)
        self.resources: list[DefinedResource] = []
        """In order of creation."""
        self._by_key: dict[str, DefinedResource] = {}

    @property
    def starts(self) -> list[str]:
        """Return the statuses that follow no other, and that others follow."""
        later = set(chain.from_iterable(self._table.follows.values()))
        first = [word for word in self._table.statuses if word not in later and self._table.follows.get(word)]
        return first or self._table.statuses[:1]

    def now(self) -> float:
        """Return the time, after everything that was to be born until then was born."""
        now = self._clock.now()
        while self._next_arrival is not None and self._next_arrival <= now:
            self._live(self._place(self._next_arrival))
            self._next_arrival = next(self._arrivals, None)
        return now

    def _arrival_times(self) -> Iterator[float]:
        settings = self._settings
        rate = settings.drops_per_minute * settings.speed / 60
        random = Random(f"{settings.seed}/arrivals/defined")
        at = self._begin - settings.backlog / settings.speed
        while rate > 0:
            at += random.expovariate(rate)
            yield at

    def _place(self, at: float) -> DefinedResource:
        number = _FIRST_KEY_NUMBER + len(self.resources)
        random = Random(f"{self._settings.seed}/defined/{number}")
        numbered = self._definition.identity.block is not None
        resource = DefinedResource(
            str(number) if numbered else f"R{random.getrandbits(32):08x}-{number}", phone(number)
        )
        self._enter(resource, random.choice(self.starts), at)
        self.resources.append(resource)
        self._by_key[resource.key] = resource
        del self.resources[: -self._settings.keep_records]
        return resource

    def _enter(self, resource: DefinedResource, word: str, at: float) -> None:
        self._occurrences += 1
        resource.steps.append(DefinedStep(at, self._raw_of[word], self._occurrences))

    def _live(self, resource: DefinedResource) -> None:
        """Plan the whole life of a resource; a few change once more, late."""
        random = Random(f"{self._settings.seed}/life/{resource.key}")
        at, speed = resource.born, self._settings.speed
        for _ in range(_MAX_STEPS):
            word = self._table.status_by_value[resource.steps[-1].raw]
            later = self._table.follows.get(word, ())
            late = word in self._table.finals
            if not later or (late and random.random() >= self._settings.late_share):
                return
            at += random.expovariate(1 / (_LATE_SECONDS if late else _STEP_SECONDS)) / speed
            self._enter(resource, random.choice(list(later)), at)

    # --- by hand ------------------------------------------------------------------------------------------------------

    def add(self, phone_number: str | None = None) -> DefinedResource:
        """Place a resource, born now, that stays as it is until it is moved."""
        resource = self._place(self.now())
        resource.phone = phone_number or resource.phone
        return resource

    def move(self, key: str, word: str | None = None) -> None:
        """Move a resource into a status, or on to one that follows; raises `KeyError` if there is none."""
        resource = self._by_key[key]
        present = self._table.status_by_value[resource.steps[-1].raw]
        # Where nothing follows, as in a list of what has ended, a record is corrected.
        others = [status for status in self._table.statuses if status != present]
        later = list(self._table.follows.get(present, ())) or others
        lasting = [status for status in later if status not in self._table.finals]
        self._enter(resource, word or (lasting or later)[-1], self.now())

    def find(self, key: str) -> DefinedResource | None:
        """Return a resource; None if there is none."""
        self.now()
        return self._by_key.get(key)

    def happened(self) -> list[tuple[DefinedResource, DefinedStep]]:
        """Return every step that was made until now, in order."""
        now = self.now()
        steps = [(resource, step) for resource in self.resources for step in resource.steps if step.at <= now]
        return sorted(steps, key=lambda pair: (pair[1].at, pair[1].number))

    def is_dated(self, resource: DefinedResource, now: float) -> bool:
        """Say whether a window finds a resource: some wait first, and what fails while it waits is never found."""
        if not self.is_undated_first:
            return True
        made = [step for step in resource.steps if step.at <= now]
        if len(made) < 2:  # noqa: PLR2004 - the first step is its creation
            return False
        return self._table.status_by_value[made[1].raw] not in self._table.finals

    def dated_at(self, resource: DefinedResource) -> float:
        """Return when a resource got the time by which a window finds it, in seconds since 1970."""
        return resource.steps[1].at if self.is_undated_first else resource.born

    @property
    def is_undated_first(self) -> bool:
        """Whether resources have at first no time by which a window finds them."""
        window = self._definition.window
        return window is not None and window.undated is not None
