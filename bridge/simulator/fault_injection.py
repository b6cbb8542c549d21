"""Which faults are on, which of them apply to a request, and how often each was applied."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any

from bridge.simulator.provider_api import SimRequest, SimResponse
from bridge.simulator.raw_response import Wire
from bridge.simulator.settings import FaultRule
from bridge.simulator.world import World


class Stage(Enum):
    """When a fault takes effect, in this order."""

    WORLD = "something happens in the world, or to the question, before it is answered"
    INSTEAD = "another answer is given instead of the true one"
    CONTENT = "the answer says something else"
    BYTES = "the answer is written differently"
    WIRE = "the answer does not arrive as it should"


@dataclass(slots=True)
class FaultContext:
    """One fault that is about to change one request."""

    ask: SimRequest
    answer: SimResponse
    value: Any
    random: Random
    world: World
    memory: dict[str, Any]
    """What the fault remembers from one application to the next."""
    expire_tokens: Callable[[], None]
    refuse: Callable[[float], None]
    """Close the doors for so many seconds."""


Effect = Callable[[FaultContext], bool]
"""Changes the question, the world or the answer, and says whether there was something to change."""
Delivery = Callable[[Wire, FaultContext], Awaitable[bool]]
"""Sends an answer in its own way, and says whether a client could read it whole."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A behaviour that can be switched on."""

    name: str
    summary: str
    stage: Stage
    effect: Effect | None = None
    delivery: Delivery | None = None
    views: tuple[str, ...] = ()
    """The kinds of questions it applies to; none is all."""
    reads: bool = True
    """Whether an able client reads the answer's statuses all the same; else they do not count as shown."""
    value: Any = None
    """The default of what it takes."""

    def applies(self, view: str) -> bool:
        """Whether it applies to a kind of question: `recipients` stands for its sub-collections too."""
        return not self.views or view in self.views or view.partition(".")[0] in self.views


@dataclass(slots=True)
class Active:
    """A fault that is on."""

    fault: Fault
    rule: FaultRule
    random: Random
    applied: int = 0
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> Any:
        """What it was given, or its default."""
        return self.fault.value if self.rule.value is None else self.rule.value


class FaultRegistry:
    """Switches faults on and off, chooses those that apply, and counts."""

    def __init__(self, table: Mapping[str, Fault], seed: int) -> None:
        self._table = table
        self._seed = seed
        self.active: list[Active] = []
        self.applied: Counter[str] = Counter()
        """How often each fault was applied since the beginning, those switched off included."""

    def switch_on(self, rule: FaultRule | str, **options: Any) -> Active:
        """Switch a fault on, by its rule or by name and options; raises `ValueError` for an unknown name."""
        rule = FaultRule(rule, **options) if isinstance(rule, str) else rule
        fault = self._table.get(rule.name)
        if fault is None:
            raise ValueError(f"{rule.name!r} is not a fault; `bridgectl simulate --list-faults` names them all")
        try:
            re.compile(rule.path)
        except re.error as error:
            raise ValueError(f"{rule.name}: {rule.path!r} is not a regular expression: {error}") from None
        active = Active(fault, rule, Random(f"{self._seed}/fault/{rule.name}"))
        self.active.append(active)
        return active

    def switch_off(self, name: str | None = None) -> None:
        """Switch one fault off, or all."""
        self.active = [active for active in self.active if name is not None and active.rule.name != name]

    def choose(self, ask: SimRequest) -> list[Active]:
        """Return the faults that apply to a request, in the order in which they take effect."""
        if not self.active:
            return []
        chosen = [
            candidate
            for candidate in self.active
            if candidate.fault.applies(ask.view)
            and (candidate.rule.limit is None or candidate.applied < candidate.rule.limit)
            and re.search(candidate.rule.path, ask.target)
            and (candidate.rule.share >= 1 or candidate.random.random() < candidate.rule.share)
        ]
        order = list(Stage)
        return sorted(chosen, key=lambda candidate: order.index(candidate.fault.stage))

    def count(self, active: Active) -> None:
        """Count one application of a fault."""
        active.applied += 1
        self.applied[active.rule.name] += 1

    def report(self) -> dict[str, Any]:
        """Return which faults are on and how often each was applied, as `/_simulator/faults` shows it."""
        return {
            "active": [
                {
                    "name": fault.rule.name,
                    "share": fault.rule.share,
                    "limit": fault.rule.limit,
                    "path": fault.rule.path,
                    "value": fault.value,
                    "struck": fault.applied,
                }
                for fault in self.active
            ],
            "struck": dict(sorted(self.applied.items())),
        }
