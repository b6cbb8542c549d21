"""The sinks that call no URL, held against the promises of every sink."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rigs.smtp import PASSWORD, MailServerProcess

from bridge.domain.clock import Clock
from bridge.protocols.sink import Sink
from bridge.sinks.stdout import Stdout, StdoutSettings
from bridge.testing.sink_basics_suite import SinkBasicsSuite
from bridge_archive import Archive, ArchiveSettings
from bridge_email import Email, EmailSettings


@asynccontextmanager
async def without_folder(folder: Path) -> AsyncIterator[None]:
    kept = folder.rename(folder.with_name("kept"))
    yield
    kept.rename(folder)


class TestStdoutFile(SinkBasicsSuite):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "state" / "events"
        self.path.parent.mkdir()

    def make(self) -> Sink:
        settings = StdoutSettings.model_validate({"type": "stdout", "topics": ["#"], "path": str(self.path)})
        return Stdout("out", settings, Clock())

    def delivered(self) -> Sequence[str]:
        return [json.loads(line)["id"] for line in self.path.read_bytes().splitlines()] if self.path.exists() else []

    @asynccontextmanager
    async def broken(self) -> AsyncIterator[None]:
        async with without_folder(self.path.parent):
            yield


class TestArchive(SinkBasicsSuite):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "state" / "archive"
        self.path.parent.mkdir()

    def make(self) -> Sink:
        values = {"type": "archive", "topics": ["#"], "path": str(self.path), "max_size": "2kB", "gzip": False}
        return Archive("archive", ArchiveSettings.model_validate(values), Clock())

    def delivered(self) -> Sequence[str]:
        files = sorted(self.path.glob("*.jsonl*")) if self.path.is_dir() else []
        bodies = {path.name.removesuffix(".gz"): path.read_bytes() for path in files}
        whole = b"".join(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body for body in bodies.values())
        return [json.loads(line)["id"] for line in whole.splitlines()]

    @asynccontextmanager
    async def broken(self) -> AsyncIterator[None]:
        async with without_folder(self.path.parent):
            yield


class TestEmail(SinkBasicsSuite):
    secrets = (PASSWORD, "ops@example.com")

    @pytest.fixture(autouse=True)
    async def place(self) -> AsyncIterator[None]:
        async with MailServerProcess() as self.server:
            yield

    def make(self) -> Sink:
        return Email("ops-mail", EmailSettings.model_validate(self.server.settings()), Clock())

    def delivered(self) -> Sequence[str]:
        return [message["Message-ID"][1:33] for message in self.server.postmaster.messages]

    @asynccontextmanager
    async def broken(self) -> AsyncIterator[None]:
        await self.server.stop()
        yield
        await self.server.start()
