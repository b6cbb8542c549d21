"""Which sources and sinks are installed: found by entry point, imported only when a configuration names them."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Literal, overload

from bridge.domain.errors import ConfigError, ConfigProblem
from bridge.protocols.sink import SinkPlugin
from bridge.protocols.source import SourcePlugin

Kind = Literal["source", "sink"]
KINDS: tuple[Kind, ...] = ("source", "sink")
_GROUPS = {"source": "bridge.sources", "sink": "bridge.sinks"}
_CLASSES = {"source": SourcePlugin, "sink": SinkPlugin}


class PluginError(ConfigError):
    """A plugin that was named cannot be used; `reason` names its distribution and what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__([ConfigProblem("installed plugins", None, "", reason)])
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Installed:
    """One plugin as its distribution's metadata announces it; nothing of it was imported."""

    kind: Kind
    name: str
    distribution: str
    version: str
    value: str
    """The entry point's object reference: `package.module:object`."""
    conflicts: tuple[str, ...] = ()
    """Other distributions that announce a plugin of the same kind and name; with any, the name cannot be used."""


def installed(kind: Kind, points: Iterable[EntryPoint] | None = None) -> dict[str, Installed]:
    """Return the installed plugins of one kind by name, in alphabetical order, without importing any.

    A distribution that is found twice (an editable install and its build) counts once.
    """
    announcements: dict[str, dict[str, Installed]] = {}
    for point in entry_points(group=_GROUPS[kind]) if points is None else points:
        distribution = point.dist.name if point.dist else "an unnamed distribution"
        version = point.dist.version if point.dist else "?"
        announced = Installed(kind, point.name, distribution, version, point.value)
        announcements.setdefault(point.name, {}).setdefault(_normal(distribution), announced)
    return {
        name: _with_conflicts(sorted(by_distribution.values(), key=lambda plugin: plugin.distribution))
        for name, by_distribution in sorted(announcements.items())
    }


def _normal(distribution: str) -> str:
    return distribution.lower().replace("_", "-").replace(".", "-")


def _with_conflicts(conflicts: Sequence[Installed]) -> Installed:
    first, *others = conflicts
    labels = tuple(f"{other.distribution} {other.version}" for other in others)
    return Installed(first.kind, first.name, first.distribution, first.version, first.value, labels)


@lru_cache(maxsize=8)
def _known(kind: Kind, path: tuple[str, ...], points: Callable[..., Iterable[EntryPoint]]) -> dict[str, Installed]:
    """Return what is installed, looked up once for a path: that opens the metadata of each distribution there is."""
    del path
    return installed(kind, points(group=_GROUPS[kind]))


def find(kind: Kind, name: str) -> Installed:
    """Return the installed plugin of that name; raises `PluginError` when there is none, or more than one."""
    known = _known(kind, tuple(sys.path), entry_points)
    if name not in known:
        raise PluginError(f"no {kind} {name!r} is installed; {_suggestion(name, known)}")
    plugin = known[name]
    if plugin.conflicts:
        both = " and ".join((f"{plugin.distribution} {plugin.version}", *plugin.conflicts))
        raise PluginError(f"the {kind} {name!r} is announced by {both}; uninstall all but one of them")
    return plugin


def _suggestion(name: str, known: Iterable[str]) -> str:
    names = list(known)
    if not names:
        return "none is installed at all: install the distribution that has it"
    near = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}installed: {', '.join(names)}"


@overload
def load(kind: Literal["source"], name: str) -> SourcePlugin: ...
@overload
def load(kind: Literal["sink"], name: str) -> SinkPlugin: ...
@overload
def load(kind: Kind, name: str) -> SourcePlugin | SinkPlugin: ...
def load(kind: Kind, name: str) -> SourcePlugin | SinkPlugin:
    """Import one plugin, and no other; raises `PluginError` that names the distribution that has to be fixed."""
    plugin = find(kind, name)
    by = f"the {kind} {name!r} of {plugin.distribution} {plugin.version}"
    try:
        loaded = EntryPoint(name, plugin.value, _GROUPS[kind]).load()
    except Exception as error:
        raise PluginError(
            f"{by} cannot be imported from {plugin.value}: {type(error).__name__}: {_first_line(error)}; "
            f"reinstall or upgrade {plugin.distribution}"
        ) from error
    wanted = _CLASSES[kind]
    if not isinstance(loaded, SourcePlugin | SinkPlugin) or not isinstance(loaded, wanted):
        raise PluginError(
            f"{by} is a {type(loaded).__name__}, not a {wanted.__name__}; "
            f"{plugin.value} has to name a bridge.{kind}.{wanted.__name__}"
        )
    return loaded


def load_source(name: str) -> SourcePlugin:
    """Import the source `name`; raises `PluginError`."""
    return load("source", name)


def load_sink(name: str) -> SinkPlugin:
    """Import the sink `name`; raises `PluginError`."""
    return load("sink", name)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no further reason given")
