"""The configuration file of a process: what of it runs, and reading it again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bridge.config.difference import ConfigDifference, ReadConfig
from bridge.config.file_identity import FileIdentity, file_identity
from bridge.config.loading import load
from bridge.config.model import Config
from bridge.runtime.assembly import Assembly


@dataclass(frozen=True, slots=True)
class ReadFile:
    """What was read from the file at one time, and whether it was that file that lay there."""

    read: ReadConfig
    assembly: Assembly
    difference: ConfigDifference


class ConfigFile:
    """The file that a process was started with. `load` reads it first, `assemble_by` says how its parts are made."""

    def __init__(self, path: Path, read: Callable[[Path], Config] = load) -> None:
        """Note which file lies there now; `read` reads and checks it."""
        self.path = path
        self.last_read: FileIdentity | None = file_identity(path)
        """Which file was read last, whether it was good or not."""
        self._load = read
        self._assemble: Callable[[Config], Assembly] = Assembly
        self._running: ReadConfig | None = None

    def load(self) -> Config:
        """Read the file for the first time; raises `ConfigError`."""
        self._running = self._read()
        return self._running.config

    def assemble_by(self, assemble: Callable[[Config], Assembly]) -> Assembly:
        """Return the parts of the configuration that runs; those of later ones are made in the same way."""
        self._assemble = assemble
        return assemble(self.config)

    @property
    def config(self) -> Config:
        """The configuration that runs."""
        assert self._running is not None  # noqa: S101 - `load` comes first
        return self._running.config

    async def identity(self) -> FileIdentity | None:
        """Return which file lies there now; a slow file system holds nothing up."""
        return await asyncio.to_thread(file_identity, self.path)

    async def read(self) -> ReadFile:
        """Read the file again; raises `ConfigError` with all that is wrong with it, or that needs a restart."""
        read = await asyncio.to_thread(self._read)
        assert self._running is not None  # noqa: S101 - `load` comes first
        return ReadFile(read, self._assemble(read.config), self._running.difference(read))

    def accept(self, read: ReadFile) -> None:
        """Note that this is what runs now."""
        self._running = read.read

    def _read(self) -> ReadConfig:
        self.last_read = file_identity(self.path)
        return ReadConfig.of(self._load(self.path))
