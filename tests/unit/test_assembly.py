from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from bridge.config import registry
from bridge.config.model import Config
from bridge.domain.catalogue import INTERNAL_EVENTS, SourceStalled
from bridge.domain.clock import Clock
from bridge.domain.errors import ConfigError, Permanent, Unavailable
from bridge.domain.event import Event
from bridge.domain.settings import Secret
from bridge.protocols.sink import SinkPlugin, SinkSettings
from bridge.protocols.source import SourcePlugin, SourceSettings
from bridge.runtime.assembly import Assembly


class LampFlickered(Event):
    """A lamp flickered."""

    status = "flickered"


def source_of(name, settings, clock):
    del clock
    if settings.rate > 10:
        raise ValueError("too\nfast")
    if settings.rate > 5:
        TypeAdapter(int).validate_python("x")
    return f"source {name}"


def sink_of(name, settings, clock):
    del clock
    if settings.ordered:
        raise Permanent("cannot keep order")
    return f"sink {name}"


@pytest.fixture(autouse=True)
def lamp_and_alarm(monkeypatch) -> None:
    source = SourcePlugin(SourceSettings, source_of, events=(LampFlickered, SourceStalled))
    monkeypatch.setattr(registry, "load_source", lambda _: source)
    monkeypatch.setattr(registry, "load_sink", lambda _: SinkPlugin(SinkSettings, sink_of))


def assembly(state: Path, **more) -> Assembly:
    source = SourceSettings(type="lamp", **more.pop("source", {}))
    sink = SinkSettings(type="bell", topics=["#"], **more.pop("sink", {}))
    return Assembly(Config(state=state, sources={"a": source}, sinks={"b": sink}, **more))


def test_parts_are_built_without_touching_the_world(tmp_path) -> None:
    parts = assembly(tmp_path / "state")
    assert parts.sources() == {"a": "source a"}
    assert parts.sinks() == {"b": "sink b"}
    parts.store()
    parts.broker()
    assert not (tmp_path / "state").exists()


def test_what_is_configured_is_what_is_built(tmp_path) -> None:
    assert type(assembly(tmp_path).store()).__name__ == "SqliteStore"
    assert type(assembly(tmp_path).broker()).__name__ == "SqliteBroker"
    far = assembly(tmp_path, store="redis://127.0.0.1:1/0", broker="amqp://127.0.0.1:1//")
    assert type(far.store()).__name__ == "RedisStore"
    assert type(far.broker()).__name__ == "KombuBroker"


def test_late_settings_refusal_by_plugin_is_a_configuration_error(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"<configuration>: sources\.a: too fast"):
        assembly(tmp_path, source={"rate": "11/s"}).sources()
    with pytest.raises(ConfigError, match=r"sources\.a: the plugin's own settings do not fit: Input should be"):
        assembly(tmp_path, source={"rate": "6/s"}).sources()
    with pytest.raises(ConfigError, match=r"sinks\.b: cannot keep order"):
        assembly(tmp_path, sink={"ordered": True}).sinks()


def test_the_catalogue_has_the_events_of_the_configured_sources(tmp_path) -> None:
    types = assembly(tmp_path).catalogue().types
    assert types == tuple(dict.fromkeys((LampFlickered, SourceStalled, *INTERNAL_EVENTS)))


async def test_embedded_store_and_broker_open_in_a_private_directory(tmp_path) -> None:
    parts = assembly(tmp_path / "x" / "state")
    async with parts.opened_store() as store, parts.opened_broker() as broker:
        await store.ping()
        await broker.ping()
    assert stat.S_IMODE((tmp_path / "x" / "state").stat().st_mode) == 0o700
    assert {"bridge.db", "broker.db"} <= {path.name for path in (tmp_path / "x" / "state").iterdir()}


async def test_no_directory_is_made_where_none_is_needed(tmp_path, redis_url) -> None:
    parts = assembly(tmp_path / "state", store=redis_url, broker=redis_url)
    async with parts.opened_store() as store:
        await store.ping()
    assert not (tmp_path / "state").exists()


async def test_uncreatable_state_directory_says_what_to_do(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"cannot be made: Not a directory; set `state:`"):
        async with assembly(tmp_path / "file" / "state").opened_store():
            pass


async def test_token_key_is_created_once_and_shared(tmp_path) -> None:
    parts = assembly(tmp_path)
    async with parts.opened_store() as store, assembly(tmp_path).opened_store() as other:
        key = await parts.privacy_key(store)
        assert len(key) == 32
        assert await parts.privacy_key(other) == key


async def test_second_process_waits_for_the_first_ones_key(tmp_path) -> None:
    waited = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        await store.set_status("secret/privacy", {"key": "ab" * 32})

    async with assembly(tmp_path).opened_store() as store:
        await store.acquire("secret/privacy", "somebody else", 60.0)
        parts = Assembly(assembly(tmp_path).config, Clock(sleep=sleep))
        assert await parts.privacy_key(store) == bytes.fromhex("ab" * 32)
        assert waited


async def test_a_configured_key_is_used_as_it_is(tmp_path) -> None:
    parts = assembly(tmp_path, privacy_key=Secret("mine"))
    async with parts.opened_store() as store:
        assert await parts.privacy_key(store) == b"mine"
        assert not await store.statuses("secret/")


def test_only_the_adapters_that_are_configured_are_imported(tmp_path) -> None:
    code = (
        "import sys; from pathlib import Path; from bridge.runtime.assembly import Assembly; from bridge.config.model import Config\n"
        f"parts = Assembly(Config(state=Path({str(tmp_path)!r}))); parts.store(); parts.broker()\n"
        "print([name for name in ('kombu', 'redis', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
