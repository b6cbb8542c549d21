"""Fixtures of the commands' tests."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from rigs.cli import CONFIG, EVENTS, NOW, PLUGINS, POINTS, Done, at

from bridge.cli import main
from bridge.config.loading import load
from bridge.protocols.deliveries import Attempt, NewDelivery
from bridge.protocols.ledger import Commit
from bridge.runtime.assembly import Assembly


@pytest.fixture(autouse=True)
def quiet_world(monkeypatch) -> Iterator[None]:
    """Undo what a command sets for its whole process."""
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)
    handlers = list(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "site"
    info = folder / "acme_lamps-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-lamps\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(POINTS)
    (folder / "acme_cli.py").write_text(PLUGINS)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("acme_cli", None)
    return folder


@pytest.fixture
def file(tmp_path, site) -> Path:
    path = tmp_path / "bridge.yaml"
    path.write_text(f"{CONFIG}\nstate: {tmp_path / 'state'}\n")
    return path


@pytest.fixture
def bridge(capsys):
    def call(*arguments) -> Done:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Done(int(ended.value.code), said.out, said.err)

    return call


@pytest.fixture
def seeded(file) -> Path:
    """Give a configuration whose store has six events, five of them confirmed, and deliveries in every state."""

    async def seed() -> None:
        async with Assembly(load(file)).opened_store() as store:
            store._begin = 0  # plain numbers
            lease = await store.acquire("source/lamps", "host-1", 60.0)
            cursor = {"page": "7", "~started": "2026-01-01T00:00:00Z"}
            await store.commit(lease, Commit("lamps", events=[event.to_wire() for event in EVENTS], cursor=cursor))
            relay = await store.acquire("relay/lamps", "host-1", 60.0)
            await store.confirm(relay, "lamps", 5)
            now = datetime.now(UTC)
            times = {"last_poll": now, "last_ok": now, "next_poll": now + timedelta(minutes=5)}
            notes = {name: value.isoformat() for name, value in times.items()}
            await store.set_status(
                "source/lamps", {**notes, "state": "failing", "failures": "3", "error": "lamp is away"}
            )
            await store.accept("crm", [NewDelivery(at(1)), NewDelivery(at(2)), NewDelivery(at(3))], NOW.timestamp())
            await store.settle("crm", [at(1)])
            try_ = Attempt(NOW.timestamp(), "HTTP 503")
            await store.postpone("crm", at(2), NOW.timestamp() + 600, try_)
            await store.dead_letter("crm", at(3), "permanent", Attempt(NOW.timestamp(), "HTTP 400", "permanent"))
            await store.raise_low_watermark("ops", "lamps", 4)
            await store.accept("gone", [NewDelivery(at(1))], NOW.timestamp())

    asyncio.run(seed())
    return file
