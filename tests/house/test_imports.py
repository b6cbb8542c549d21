"""The road has one direction: imports are read, not run, and an uphill one or a circle fails."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each room and the modules in it; a module that no room claims fails, so that a new one is placed on purpose.
ROOMS = {
    "vocabulary": {
        "",
        "clock",
        "errors",
        "event",
        "lifecycle",
        "mould",
        "patience",
        "retry",
        "circuit",
        "settings",
        "threads",
        "topics",
    },
    "protocols": {"broker", "ledger", "settlement", "sink", "source"},
    "observe": {"observe"},
    "steps": {
        "ahead",
        "audit",
        "backfill",
        "bookkeeping",
        "comparison",
        "delivery",
        "fresh",
        "holding",
        "intake",
        "meanwhile",
        "polling",
        "privacy",
        "reconcile",
        "relay",
        "sharing",
    },
    "outbound": {"outbound"},
    "adapters": {"adapters"},
    "providers": {"providers"},
    "sinks": {"sinks"},
    "simulator": {"simulator"},
    "testing": {"testing"},
    "assembly": {"assembly", "config", "document", "plugins", "validation"},
    "tape": {"tape"},
    "service": {"service"},
    "cli": {"__main__", "cli"},
}
_LOWEST = {"vocabulary", "protocols"}
# What each room may look down on, beside itself.
SEES = {
    "vocabulary": set(),
    "protocols": {"vocabulary"},
    "observe": _LOWEST,
    "steps": {*_LOWEST, "observe"},
    "outbound": _LOWEST,
    "adapters": _LOWEST,
    "providers": _LOWEST,
    "sinks": {*_LOWEST, "outbound"},
    "simulator": {"vocabulary"},
    "testing": {*_LOWEST, "adapters", "simulator", "steps"},
    "assembly": {*_LOWEST, "adapters", "observe", "outbound", "steps"},
    "tape": {*_LOWEST, "adapters", "assembly", "providers", "steps"},
    "service": {*_LOWEST, "assembly", "observe", "steps"},
    "cli": set(ROOMS) - {"cli", "testing"},
}
DRIVERS = {"amqp", "kombu", "redis", "sqlite3"}
DRIVER_ROOMS = ("bridge.adapters.", "bridge.testing.servers")
PLUGINS_SEE = {"vocabulary", "protocols", "outbound"}


@dataclass(frozen=True)
class Import:
    """One import statement's target, as far as it is written."""

    module: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def modules(top: Path) -> dict[str, Path]:
    found = {}
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path, known: set[str]) -> Iterator[Import]:
    """Read all imports of a file, also those inside functions: a detour is still a road."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            origin = ".".join(filter(None, (base if node.level else "", node.module)))
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                yield Import(module, inner if inner in known else origin, node.lineno)


BRIDGE = modules(ROOT / "bridge")
IMPORTS = [found for module, path in BRIDGE.items() for found in imports(module, path, set(BRIDGE))]


def room(module: str) -> str:
    part = module.partition(".")[2].partition(".")[0]
    rooms = [name for name, parts in ROOMS.items() if part in parts]
    assert rooms, f"{module} is in no room: say in ROOMS where it belongs"
    return rooms[0]


def ours(target: str) -> bool:
    return target.partition(".")[0] == "bridge"


def test_every_module_has_a_room() -> None:
    assert len(BRIDGE) > 10
    for module in BRIDGE:
        room(module)


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_only_what_lies_below_it(name: str) -> None:
    uphill = [
        str(found)
        for found in IMPORTS
        if room(found.module) == name and ours(found.target) and room(found.target) not in SEES[name] | {name}
    ]
    assert uphill == []


def test_what_a_room_sees_never_sees_the_room() -> None:
    graphlib.TopologicalSorter(SEES).prepare()


def test_no_module_imports_itself_over_others() -> None:
    graph: dict[str, set[str]] = {module: set() for module in BRIDGE}
    for found in IMPORTS:
        if ours(found.target) and found.target != found.module:
            graph[found.module].add(found.target)
    graphlib.TopologicalSorter(graph).prepare()


def test_only_adapters_know_a_driver() -> None:
    strangers = [
        str(found)
        for found in IMPORTS
        if found.target.partition(".")[0] in DRIVERS and not f"{found.module}.".startswith(DRIVER_ROOMS)
    ]
    assert strangers == []


def test_the_bridge_does_not_know_its_plugins_by_name() -> None:
    names = {part for path in (ROOT / "plugins").iterdir() for part in (path.name, path.name.replace("-", "_"))}
    assert names
    knowing = [
        f"{module} names {name}" for module, path in BRIDGE.items() for name in names if name in path.read_text()
    ]
    assert knowing == []


def test_a_plugin_sees_what_every_third_party_may_see() -> None:
    packages = [path for path in (ROOT / "plugins").glob("*/bridge_*") if path.is_dir()]
    assert packages
    uphill = [
        str(found)
        for package in packages
        for module, path in modules(package).items()
        for found in imports(module, path, set(BRIDGE))
        if ours(found.target) and room(found.target) not in PLUGINS_SEE
    ]
    assert uphill == []
