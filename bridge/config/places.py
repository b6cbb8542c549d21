"""The usual places of the configuration file, for commands that were not told which one to read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bridge.domain.errors import ConfigError, ConfigProblem

FILE = "bridge.yaml"
SYSTEM = Path("/etc/bridge")


def places(environ: Mapping[str, str]) -> Sequence[Path]:
    """Return the files that are looked for, in this order: the working folder's, the user's, the system's."""
    own = environ.get("XDG_CONFIG_HOME") or (f"{environ['HOME']}/.config" if environ.get("HOME") else None)
    users = [Path(own) / "bridge" / FILE] if own else []
    return [Path(FILE), *users, SYSTEM / FILE]


def choose(environ: Mapping[str, str]) -> Path:
    """Return the first of the places that has a file; raises `ConfigError` that lists them if none has."""
    known = places(environ)
    for path in known:
        if os.path.exists(path):  # noqa: PTH110 - a folder that may not be looked into is no error here
            return path
    searched = ", ".join(["-c FILE", "BRIDGE_CONFIG", f"./{known[0]}", *map(str, known[1:])])
    what = f"no file is named, and none is in a usual place; searched: {searched}; `bridgectl init` writes one"
    raise ConfigError([ConfigProblem("configuration", None, "", what)])
