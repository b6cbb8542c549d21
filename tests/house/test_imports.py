"""Imports run downhill between folders: they are read from the tree, not run, and a circle or an uphill one fails."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRIVERS = {"amqp", "kombu", "redis", "sqlite3"}
DRIVER_ROOMS = ("bridge.adapters.", "bridge.testing.servers")
# What the rooms that many others stand on may import of `bridge`, beside themselves. All other arrows are free as long
# as they make no circle.
SEES = {
    "domain": set(),
    "concurrency": {"domain"},
    "protocols": {"domain"},
    "coordination": {"domain", "protocols"},
    "http": {"concurrency", "domain", "protocols"},
    "adapters": {"concurrency", "domain", "protocols"},
    "client": {"adapters", "domain", "protocols"},
    "hooks": {"domain", "protocols"},
    "sources": {"concurrency", "domain", "hooks", "http", "protocols", "providers"},
    "sinks": {"concurrency", "domain", "forms", "http", "protocols"},
    "forms": {"config", "domain", "http"},
    "simulator": {"domain", "http", "providers"},
    "providers": {"config", "domain", "http"},
    "ingest": {"concurrency", "coordination", "domain", "protocols"},
    "relay": {"concurrency", "coordination", "domain", "protocols"},
    "delivery": {"concurrency", "coordination", "domain", "protocols"},
}
PLUGINS_SEE = {"bridge.plugin", "bridge.testing"}


@dataclass(frozen=True)
class Import:
    """One import statement's target, as far as it is written."""

    module: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def modules(top: Path) -> dict[str, Path]:
    paths = {}
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top.parent).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


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
IMPORTS = [statement for module, path in BRIDGE.items() for statement in imports(module, path, set(BRIDGE))]


def folder(module: str) -> str:
    """Return the folder of a module below `bridge/`, as a dotted path; a module of `bridge/` itself is its own room."""
    path = BRIDGE.get(module)
    if path is None:
        return module
    parts = path.relative_to(ROOT / "bridge").parts[:-1]
    return ".".join(parts) if parts else module


def room(module: str) -> str:
    """Return the folder directly below `bridge/` in which a module lies."""
    return folder(module).partition(".")[0]


def is_ours(target: str) -> bool:
    return target.partition(".")[0] == "bridge"


def circles(edges: dict[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def test_the_package_holds_folders_and_three_modules() -> None:
    assert {path.name for path in (ROOT / "bridge").glob("*.py")} == {"__init__.py", "__main__.py", "plugin.py"}
    assert (ROOT / "bridge" / "py.typed").exists()


def test_imports_between_folders_make_no_circle() -> None:
    edges: dict[str, set[str]] = {folder(module): set() for module in BRIDGE}
    for statement in IMPORTS:
        source, target = folder(statement.module), folder(statement.target)
        if is_ours(statement.target) and source != target:
            edges[source].add(target)
    assert circles(edges) == []


def test_imports_between_modules_make_no_circle() -> None:
    edges: dict[str, set[str]] = {module: set() for module in BRIDGE}
    for statement in IMPORTS:
        if is_ours(statement.target) and statement.target != statement.module:
            edges[statement.module].add(statement.target)
    assert circles(edges) == []


def test_a_circle_is_reported() -> None:
    assert circles({"a": {"b"}, "b": {"a"}}) != []


@pytest.mark.parametrize("name", SEES)
def test_a_foundation_imports_only_what_lies_below_it(name: str) -> None:
    uphill = [
        str(statement)
        for statement in IMPORTS
        if room(statement.module) == name
        and is_ours(statement.target)
        and statement.target != "bridge"
        and room(statement.target) not in SEES[name] | {name}
    ]
    assert uphill == []


def test_only_adapters_import_a_driver() -> None:
    undefined = [
        str(statement)
        for statement in IMPORTS
        if statement.target.partition(".")[0] in DRIVERS and not f"{statement.module}.".startswith(DRIVER_ROOMS)
    ]
    assert undefined == []


def test_the_bridge_does_not_name_its_plugins() -> None:
    names = {part for path in (ROOT / "plugins").iterdir() for part in (path.name, path.name.replace("-", "_"))}
    assert names
    knowing = [
        f"{module} names {name}" for module, path in BRIDGE.items() for name in names if name in path.read_text()
    ]
    assert knowing == []


def test_plugins_import_only_the_public_module() -> None:
    packages = [path for path in (ROOT / "plugins").glob("*/bridge_*") if path.is_dir()]
    assert packages
    private = [
        str(statement)
        for package in packages
        for module, path in modules(package).items()
        for statement in imports(module, path, set(BRIDGE))
        if is_ours(statement.target) and not statement.target.startswith(tuple(PLUGINS_SEE))
    ]
    assert private == []
