"""A namespace goes into every name that an installation has on a server; without one, names are what they always were."""

from __future__ import annotations

import fnmatch
import re
from itertools import permutations
from pathlib import Path

import pytest
import redis

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.redis.keys import Keys
from bridge.adapters.redis.store import RedisStore
from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.domain.errors import ConfigError
from bridge.domain.namespace import Namespace
from bridge.protocols.deliveries import NewDelivery
from bridge.protocols.ledger import Commit, Key
from bridge.runtime.assembly import Assembly
from bridge.testing.broker_suite import collect, entry
from bridge.testing.ledger_suite import change, events

FILE = "sources: {city: {type: govdelivery, token: t}}\n"


def config(tmp_path: Path, text: str = ""):
    path = tmp_path / "bridge.yaml"
    path.write_text(f"{FILE}{text}")
    return load(path, environ={"HOME": str(tmp_path)})


def test_without_a_namespace_all_names_stay_as_they_were(tmp_path):
    plain = config(tmp_path)
    assert plain.exchange == "bridge.events"
    assert (plain.names.sink_queue("crm"), plain.names.tap_prefix) == ("bridge.sink.crm", "bridge.tap.")
    assert plain.store_url == f"sqlite:///{tmp_path}/.local/state/bridge/bridge.db"
    assert plain.broker_file == tmp_path / ".local/state/bridge/broker.db"
    keys = Keys(plain.names.stem)
    assert (keys.source("city"), keys.sink("crm"), keys.common("notes")) == (
        "{bridge:src:city}", "{bridge:sink:crm}", "bridge:notes",
    )  # fmt: skip


def test_a_namespace_goes_into_every_name(tmp_path):
    named = config(tmp_path, "namespace: staging\n")
    assert named.exchange == "bridge-staging.events"
    assert named.names.sink_queue("crm") == "bridge-staging.sink.crm"
    assert named.store_url.endswith("/bridge-staging.db")
    assert named.broker_file.name == "broker-staging.db"
    assert Keys(named.names.stem).source("city") == "{bridge-staging:src:city}"
    assembly = Assembly(named)
    assert assembly.broker().sink_queue("crm") == "bridge-staging.sink.crm"
    assert assembly.store().place.endswith("/bridge-staging.db")


def test_an_exchange_that_is_named_keeps_its_name(tmp_path):
    assert config(tmp_path, "namespace: staging\nexchange: events\n").exchange == "events"


@pytest.mark.parametrize("name", ["Staging", "a.b", "a:b", "{a}", "-a", "a" * 31, "a b", "a*"])
def test_a_name_that_patterns_could_misread_is_refused(tmp_path, name):
    with pytest.raises(ConfigError) as refused:
        config(tmp_path, f"namespace: '{name}'\n")
    (problem,) = refused.value.problems
    assert (problem.line, problem.key) == (2, "namespace")


def test_no_namespace_is_matched_by_the_patterns_of_another():
    names = [Namespace(name) for name in ("", "a", "a-b", "a_b", "b", "sink", "events")]
    for own, other in permutations(names, 2):
        assert not re.match(rf"^{re.escape(own.stem)}\.", other.sink_queue("crm"))
        assert not re.match(rf"^{re.escape(own.stem)}\.", other.exchange)
        keys = Keys(other.stem)
        for key in (keys.source("x"), keys.sink("x"), keys.common("x"), keys.lease("x")):
            assert not any(fnmatch.fnmatchcase(key, f"{front}{own.stem}:*") for front in ("", "{"))


async def test_every_key_in_redis_begins_with_the_stem(redis_url):
    """Store and broker of a namespace leave nothing outside of the patterns that the documentation gives."""
    names = Namespace("staging")
    store = RedisStore(redis_url, clock=Clock(), namespace=names)
    position = entry(1).position
    await store.commit(None, Commit("city", statuses=[change("1", None, "n")], events=events(1), cursor={"a": "b"}))
    await store.last_seen("city", [Key("/messages/sms/1", "1")], 60.0)
    await store.acquire("source/city", "me", 10.0)
    await store.acquire("account/city", "me", 10.0)
    await store.enqueue("crm", [NewDelivery(position)], 0.0)
    await store.set_status("source/city", {"state": "ok"})
    await store.ping()
    broker = KombuBroker(redis_url, exchange=names.exchange, clock=Clock(), namespace=names)
    queue = broker.sink_queue("crm")
    await broker.declare(queue, ["#"])
    async with broker.inbox(queue) as inbox, broker.tap(["#"]) as tap:
        await broker.publish([entry(1)])
        await collect(tap, 1)
        await collect(inbox, 1)
        with redis.Redis.from_url(redis_url) as client:
            keys = [key.decode() for key in client.scan_iter()]
    await broker.close()
    await store.close()
    patterns = ("bridge-staging[:.]*", "{bridge-staging:*", "_kombu.binding*.bridge-staging.*")
    assert [key for key in keys if not any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)] == []
