"""Lua scripts for Redis, read from a package's folder `scripts`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script with the digest by which a server knows it."""

    text: bytes
    sha: str


def load(package: str, *names: str, folder: str = "scripts") -> Script:
    """Return the script of the named files of a package's folder, joined in order."""
    place = resources.files(package) / folder
    text = b"\n".join((place / f"{name}.lua").read_bytes() for name in names)
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


def load_all(package: str) -> list[Script]:
    """Return every script of a package's folder `scripts`, each by itself."""
    folder = resources.files(package) / "scripts"
    return [load(package, path.name.removesuffix(".lua")) for path in folder.iterdir() if path.name.endswith(".lua")]
