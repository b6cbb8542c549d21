"""The brokers as others see them: foreign clients, foreign messages, URLs, threads, and files."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aio_pika
import amqp
import kombu
import pytest
import redis
import structlog
from hypothesis import given
from hypothesis import strategies as st

from bridge.adapters import message, taps
from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.kombu.url import parse_broker_url
from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.concurrency.thread_worker import ThreadWorker, wait_readable
from bridge.domain.clock import Clock
from bridge.domain.errors import AccessRefused, Unavailable
from bridge.domain.event import Position
from bridge.domain.namespace import DEFAULT
from bridge.protocols.broker import Broker
from bridge.testing.broker_suite import QUEUE, collect, entry, ids, nothing_more
from bridge.testing.free_port import free_port
from bridge.testing.servers import RabbitMQServer
from bridge.testing.tcp_proxy import TcpProxy

EXCHANGE = "bridge.events"


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., KombuBroker]]:
    brokers = []

    def build(url: str, **options: Any) -> KombuBroker:
        broker = KombuBroker(url, exchange=EXCHANGE, clock=Clock(), **options)
        brokers.append(broker)
        return broker

    yield build
    for broker in brokers:
        await broker.close()


def bridge_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bridge-")]


# --- other clients read what we publish -------------------------------------------------------------------------------


async def test_another_amqp_client_reads_our_messages(rabbitmq_url: str, make: Callable[..., KombuBroker]) -> None:
    await make(rabbitmq_url).declare(QUEUE, ["#"])
    sent = entry(5, "voice.recipient.failed.no_answer")
    await make(rabbitmq_url).publish([sent])
    async with await aio_pika.connect(rabbitmq_url) as connection:
        queue = await (await connection.channel()).get_queue(QUEUE)
        got = await queue.get(timeout=60)
        await got.ack()
    assert got.body == sent.event.body
    assert got.exchange == EXCHANGE
    assert got.routing_key == "voice.recipient.failed.no_answer"
    assert got.message_id == "event-5"
    assert got.type == "bridge.voice.recipient.failed"
    assert got.timestamp is not None
    assert int(got.timestamp.timestamp()) == sent.event.time
    assert got.content_type == "application/cloudevents+json"
    assert got.content_encoding == "utf-8"
    assert got.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert got.headers["bridge-position"] == "city:5"


async def test_a_plain_kombu_consumer_on_redis_reads_our_messages(
    redis_url: str, make: Callable[..., KombuBroker]
) -> None:
    """Queues of its own, bound in its own way: `a.#` has `a` too, and acknowledging one copy leaves the other's alone."""
    got: dict[str, list[kombu.Message]] = {"theirs": [], "more": []}
    exchange = kombu.Exchange(EXCHANGE, "topic", durable=True)
    publisher = make(redis_url)
    with kombu.Connection(redis_url) as connection:
        channel = connection.channel()
        queues = [kombu.Queue(name, exchange, routing_key="voice.recipient.#") for name in got]
        for queue in queues:
            queue.bind(channel).declare()
        sent = [entry(1, "voice.recipient"), entry(2, "voice.recipient.sent.human"), entry(3, "sms.recipient.sent")]
        assert await publisher.publish(sent) == 1
        consumers = [
            kombu.Consumer(channel, [queue], on_message=got[queue.name].append, accept=["application/cloudevents+json"])
            for queue in queues
        ]
        for consumer in consumers:
            consumer.consume()
        while min(map(len, got.values())) < 2:
            await asyncio.to_thread(connection.drain_events, timeout=60)
        for delivered in got["theirs"]:
            delivered.ack()
        with redis.Redis.from_url(redis_url) as client:
            assert client.hlen("unacked") == 2
    for delivered in got.values():
        assert [delivery.properties["message_id"] for delivery in delivered] == ["event-1", "event-2"]
        first = delivered[0]
        body = first.body.encode() if isinstance(first.body, str) else first.body
        assert body == sent[0].event.body
        assert first.delivery_info == {"exchange": EXCHANGE, "routing_key": "voice.recipient"}
        assert first.content_type == "application/cloudevents+json"
        assert first.content_encoding == "utf-8"
        assert first.headers == {"bridge-position": "city:1"}
        assert first.properties["type"] == "bridge.voice.recipient"
        assert first.properties["timestamp"] == sent[0].event.time
        assert first.properties["delivery_mode"] == 2


@pytest.mark.parametrize("binding", ["a.#.z", "#.z", "*.#", "a.*.z"])
async def test_foreign_redis_binding_means_the_same_as_on_rabbitmq(
    rabbitmq_url: str, redis_url: str, make: Callable[..., KombuBroker], binding: str
) -> None:
    topics = ["a", "z", "a.z", "a.b.z", "a.b.c.z", "a.b", "z.a"]
    routed = []
    for url in (rabbitmq_url, redis_url):
        broker = make(url)
        await broker.declare(QUEUE, ["nothing"])
        with kombu.Connection(url) as connection:
            channel = connection.channel()
            kombu.Queue("theirs", kombu.Exchange(EXCHANGE, "topic"), routing_key=binding).bind(channel).declare()
            routed.append([topic for topic in topics if await broker.publish([entry(1, topic)]) == 0])
    assert routed[0] == routed[1]
    assert routed[0]


# --- we read what others publish --------------------------------------------------------------------------------------


async def test_foreign_amqp_messages_are_read_where_possible(
    rabbitmq_url: str, make: Callable[..., KombuBroker]
) -> None:
    broker = make(rabbitmq_url)
    await broker.declare(QUEUE, ["#"])
    with kombu.Connection(rabbitmq_url) as connection:
        channel = connection.channel()
        odd = {"bridge-position": 17, "x": [1, {"y": None}], "z": b"\xff"}
        for foreign in (
            amqp.Message(b'{"id": "theirs", "time": "2013-03-15T21:11:02Z"}'),
            amqp.Message(b'{"no": "id"}'),
            amqp.Message(b"not json", message_id="m-3", application_headers={"bridge-position": "nonsense"}),
            amqp.Message(b"{}", message_id="m-4", application_headers=odd),
        ):
            channel.basic_publish(foreign, EXCHANGE, "their.topic")
        channel.close()
    async with broker.inbox(QUEUE) as inbox:
        got = await collect(inbox, 4)
        await inbox.ack(got)
    assert [message.event.id for message in got][::2] == ["theirs", "m-3"]
    assert got[0].event.time == 1_363_381_862
    assert [message.problem for message in got] == [
        None,
        "the message has no id",
        "the body is not a JSON object",
        None,
    ]
    assert all(message.position is None for message in got)
    assert {message.event.topic for message in got} == {"their.topic"}


async def test_property_that_is_not_text_does_not_stop_the_queue(
    rabbitmq_url: str, make: Callable[..., KombuBroker]
) -> None:
    broker = make(rabbitmq_url)
    await broker.declare(QUEUE, ["#"])
    with kombu.Connection(rabbitmq_url) as connection:
        channel = connection.channel()
        poison = amqp.Message(b'{"id": "inside"}', message_id="m")
        serialized = poison._serialize_properties()
        poison._serialize_properties = lambda: serialized.replace(b"\x01m", b"\x01\xff")
        channel.basic_publish(poison, EXCHANGE, "their.topic")
        channel.basic_publish(amqp.Message(b'{"id": "next"}'), EXCHANGE, "their.topic")
        channel.close()
    async with broker.inbox(QUEUE) as inbox:
        got = await collect(inbox, 2)
        await inbox.ack(got)
        assert await nothing_more(inbox)
    assert ids(got) == ["inside", "next"]


async def test_foreign_redis_messages_are_read_where_possible(redis_url: str, make: Callable[..., KombuBroker]) -> None:
    """What kombu's own producer sent, with any priority; and what is no envelope at all."""
    broker = make(redis_url)
    await broker.declare(QUEUE, ["their.#"])
    with kombu.Connection(redis_url) as connection:
        producer = connection.Producer(exchange=kombu.Exchange(EXCHANGE, "topic", durable=True))
        producer.publish({"id": "low"}, routing_key="their", serializer="json")
        producer.publish({"id": "high"}, routing_key="their.topic", serializer="json", priority=9)
    with redis.Redis.from_url(redis_url) as client:
        for garbage in (
            b"\xff\x00",
            b"[]",
            b"{}",
            json.dumps({"properties": {}, "body": 3}),
            '{"properties": [], "body": ""}',
        ):
            client.lpush(QUEUE, garbage)
    async with broker.inbox(QUEUE) as inbox:
        got = await collect(inbox, 7)
        await inbox.ack(got)
        assert await nothing_more(inbox)
    known = {message.event.id: message for message in got if message.problem is None}
    assert {name: value.event.topic for name, value in known.items()} == {"low": "their", "high": "their.topic"}
    assert sum(message.problem is not None for message in got) == 5
    assert await broker.depth(QUEUE) == 0


@given(
    body=st.one_of(st.binary(), st.text(), st.none(), st.integers()),
    properties=st.dictionaries(
        st.sampled_from(["message_id", "timestamp"]), st.one_of(st.text(), st.integers(), st.none(), st.binary())
    ),
    headers=st.one_of(
        st.none(),
        st.text(),
        st.dictionaries(st.just("bridge-position"), st.one_of(st.text(), st.integers(), st.none())),
    ),
)
def test_no_message_is_so_odd_that_reading_it_fails(body: object, properties: dict[str, Any], headers: object) -> None:
    received = message.received("t", body, properties, headers, 1)
    other = message.received("t", body, properties, headers, 2)
    assert received.event == other.event
    assert received.event.id


@given(st.text(min_size=1), st.integers(min_value=1))
def test_a_position_survives_its_header(source: str, seq: int) -> None:
    got = message.received("t", b'{"id": "x"}', {}, {"bridge-position": str(Position(source, seq))}, 1)
    assert got.position == (source, seq)


@pytest.mark.parametrize("text", ["yesterday", 7, None, "9999-12-31T23:59:59-23:59"])
def test_a_time_that_cannot_be_read_is_no_problem(text: object) -> None:
    got = message.received("t", json.dumps({"id": "x", "time": text}).encode(), {}, {}, 1)
    assert (got.event.time, got.problem) == (0, None) or got.event.time > 0


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "label", "family"),
    [
        ("amqp://user:pass-word@mq.example:5672//", "amqp://mq.example:5672", "amqp"),
        ("amqps://user:pass-word@mq.example/vhost", "amqps://mq.example", "amqp"),
        ("redis://:pass-word@cache.example:6379/3", "redis://cache.example:6379", "redis"),
        ("rediss://:pass-word@cache.example:6379/3", "rediss://cache.example:6379", "redis"),
        ("sentinel://:pass-word@one:26379;sentinel://two:26379?x=1", "sentinel://one:26379", "redis"),
        ("redis+socket:///run/redis.sock", "redis+socket://", "redis"),
        ("memory://", "memory://", "other"),
    ],
)
def test_a_url_is_shown_without_its_credentials(url: str, label: str, family: str) -> None:
    first = parse_broker_url(url)[0]
    assert (first.label, first.family) == (label, family)
    first.connection()


@pytest.mark.parametrize(
    "url", ["", "localhost", "gopher://pass-word@x", "amqp://u:pass-word@h:port/", "rediss://h?ssl_cert_reqs=pass-word"]
)
def test_unusable_broker_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as error:
        KombuBroker(url, exchange=EXCHANGE, clock=Clock())
    assert "pass-word" not in str(error.value)


def test_failover_nodes_are_separate_addresses() -> None:
    addresses = parse_broker_url("amqp://a:1;amqps://b:2;c:3")
    assert [address.label for address in addresses] == ["amqp://a:1", "amqps://b:2", "amqp://c:3"]
    assert [address.tls is not None for address in addresses] == [False, True, False]


def test_options_follow_a_question_mark() -> None:
    (address,) = parse_broker_url(
        "sentinel://s:26379/0?master_name=main&visibility_timeout=60&ssl_ca_certs=/ca.pem&x=true"
    )
    assert address.options == {"master_name": "main", "visibility_timeout": 60, "x": True}
    assert address.connection(lease=1).transport_options == {"lease": 1, **address.options}
    assert parse_broker_url("amqp://h?heartbeat=7")[0].connection(heartbeat=30).heartbeat == 7


def test_certificates_are_checked_unless_the_url_says_otherwise() -> None:
    assert parse_broker_url("amqps://h")[0].tls == {"server_hostname": None}
    assert parse_broker_url("rediss://h")[0].tls == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    assert parse_broker_url("rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false")[0].tls == {
        "ssl_cert_reqs": ssl.CERT_NONE,
        "ssl_check_hostname": False,
    }


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(path), "-out", str(path.with_suffix(".crt"))],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


@pytest.mark.parametrize("kind", ["amqps", "rediss"])
async def test_tls_is_spoken_and_the_certificate_is_checked(
    request: pytest.FixtureRequest, certificate: Path, make: Callable[..., KombuBroker], kind: str
) -> None:
    url = request.getfixturevalue("rabbitmq_url" if kind == "amqps" else "redis_url")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with TcpProxy(int(url.rpartition(":")[2].split("/")[0]), tls=context) as relay:
        place = f"{'guest:guest@' if kind == 'amqps' else ''}127.0.0.1:{relay.port}/"
        known = make(f"{kind}://{place}{'/' if kind == 'amqps' else '0'}?ssl_ca_certs={certificate}")
        await known.declare(QUEUE, ["#"])
        await known.publish([entry(seq) for seq in range(1, 301)])
        async with known.inbox(QUEUE, prefetch=1000) as inbox:
            assert len(await collect(inbox, 300)) == 300
        other_user = make(f"{kind}://{place}")
        with pytest.raises(Unavailable):
            await other_user.ping()


# --- being there, and going -------------------------------------------------------------------------------------------


def test_construction_has_no_side_effects(tmp_path: Path) -> None:
    before = bridge_threads()
    KombuBroker("amqp://127.0.0.1:1//", exchange=EXCHANGE, clock=Clock())
    SqliteBroker(tmp_path / "deep" / "broker.db", clock=Clock())
    assert bridge_threads() == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["rabbitmq", "redis", "memory", "embedded"])
async def test_closed_broker_leaves_no_thread_or_connection(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    broker: KombuBroker | SqliteBroker
    if kind == "embedded":
        broker = SqliteBroker(tmp_path / "broker.db", clock=Clock())
    else:
        url = "memory://" if kind == "memory" else request.getfixturevalue(f"{kind}_url")
        broker = KombuBroker(url, exchange=EXCHANGE, clock=Clock())
    await broker.open()
    await broker.declare(QUEUE, ["#"])
    inside = asyncio.Event()

    async def consume(left: str) -> None:
        async with broker.inbox(QUEUE) as inbox, broker.tap(["#"]) as tap:
            inside.set()
            if left == "cancelled":
                await asyncio.gather(inbox.get(1, 60), tap.get(1, 60))
            raise RuntimeError(left)

    with pytest.raises(RuntimeError, match="by an error"):
        await consume("by an error")
    inside.clear()
    consuming = asyncio.create_task(consume("cancelled"))
    await inside.wait()
    assert bridge_threads()
    consuming.cancel()
    await asyncio.gather(consuming, return_exceptions=True)
    await broker.close()
    await broker.close()
    assert bridge_threads() == []
    with pytest.raises(Unavailable, match="closed"):
        await broker.ping()


async def test_missing_broker_is_unavailable_and_hides_the_password(
    make: Callable[..., KombuBroker],
) -> None:
    for scheme in ("amqp", "redis"):
        broker = make(f"{scheme}://user:pass-word@127.0.0.1:{free_port()}/0")
        for _ in range(2):
            with pytest.raises(Unavailable, match=rf"{scheme}://127\.0\.0\.1:\d+: .*refused") as error:
                await broker.publish([entry(1)])
            assert "pass-word" not in str(error.value)
        with pytest.raises(Unavailable):
            async with broker.inbox(QUEUE):
                pass


async def test_a_broker_whose_client_library_is_missing_names_the_module(
    make: Callable[..., KombuBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymongo", None)
    with pytest.raises(Unavailable, match=r"the Python module pymongo\S* is not installed; kombu's") as error:
        await make("mongodb://user:pass-word@h").ping()
    assert "pass-word" not in str(error.value)


async def test_a_refused_password_is_said_so(
    rabbitmq_server: RabbitMQServer, redis_url: str, make: Callable[..., KombuBroker]
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.acl_setuser("someone", enabled=True, passwords=["+right-word"], commands=["+@all"], keys=["*"])
        for url in (
            f"amqp://guest:wrong-word@127.0.0.1:{rabbitmq_server.port}//",
            redis_url.replace("//", "//someone:wrong-word@"),
        ):
            with pytest.raises(AccessRefused, match="credentials were refused") as error:
                await make(url).ping()
            assert "wrong-word" not in str(error.value)
        client.acl_deluser("someone")


async def test_the_second_address_stands_in_for_the_first(rabbitmq_url: str, make: Callable[..., KombuBroker]) -> None:
    broker = make(f"amqp://guest:guest@127.0.0.1:{free_port()}//;{rabbitmq_url}")
    await broker.declare(QUEUE, ["#"])
    assert await broker.publish([entry(1)]) == 0


async def test_an_unknown_queue_is_unavailable(rabbitmq_url: str, tmp_path: Path, make: Callable[..., Any]) -> None:
    embedded = SqliteBroker(tmp_path / "broker.db", clock=Clock())
    for broker in (make(rabbitmq_url), embedded):
        with pytest.raises(Unavailable, match=r"no (such )?queue"):
            async with broker.inbox("bridge.sink.unknown"):
                pass
    await embedded.close()


async def test_a_queue_of_another_type_is_used_as_it_is(rabbitmq_url: str, make: Callable[..., KombuBroker]) -> None:
    with kombu.Connection(rabbitmq_url) as connection:
        connection.channel().queue_declare(QUEUE, durable=True, auto_delete=False)
    broker = make(rabbitmq_url)
    with structlog.testing.capture_logs() as logs:
        await broker.declare(QUEUE, ["#"])
        await broker.declare(QUEUE, ["#"])
    assert [line["event"] for line in logs] == ["broker.queue_differs"]
    await broker.publish([entry(1)])
    async with broker.inbox(QUEUE) as inbox:
        assert ids(await collect(inbox, 1)) == ["event-1"]


async def test_queues_are_quorum_queues(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str, make: Callable[..., KombuBroker]
) -> None:
    await make(rabbitmq_url).declare(QUEUE, ["#"])
    listed = rabbitmq_server.ctl("list_queues", "name", "type", "durable").splitlines()
    assert f"{QUEUE}\tquorum\ttrue" in listed


async def test_any_other_kombu_transport_works_as_well(tmp_path: Path, make: Callable[..., KombuBroker]) -> None:
    folder, control = tmp_path / "data", tmp_path / "control"
    folder.mkdir()
    options = f"data_folder_in={folder}&data_folder_out={folder}&control_folder={control}&processed_folder={folder}"
    broker = make(f"filesystem://?{options}")
    await broker.declare(QUEUE, ["voice.#"])
    assert await broker.publish([entry(1, "voice"), entry(2, "sms.message.new")]) == 1
    async with broker.inbox(QUEUE) as inbox:
        got = await collect(inbox, 1)
        await inbox.ack(got)
    assert got[0].event == entry(1, "voice").event


# --- Redis: taps and consumers that died ------------------------------------------------------------------------------


async def test_a_dead_tap_on_redis_is_cleared_by_a_publisher(redis_url: str, make: Callable[..., KombuBroker]) -> None:
    queue = f"{DEFAULT.tap_prefix}dead"
    with redis.Redis.from_url(redis_url) as client:
        client.sadd(f"_kombu.binding.{EXCHANGE}", f"#\x06\x16^.*?$\x06\x16{queue}")
        client.lpush(queue, "x")
        assert await make(redis_url).publish([entry(1)]) == 1
        assert client.keys("*") == []


async def test_a_slow_tap_keeps_the_newest(
    redis_url: str, tmp_path: Path, make: Callable[..., KombuBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taps, "MAX_MESSAGES", 5)
    embedded = SqliteBroker(tmp_path / "broker.db", clock=Clock())
    for broker in (embedded, make(redis_url)):
        async with broker.tap(["#"]) as tap:
            await broker.publish([entry(seq) for seq in range(1, 21)])
            assert ids(await collect(tap, 5)) == [f"event-{seq}" for seq in range(16, 21)]
            assert await nothing_more(tap)
    await embedded.close()


async def test_redis_consumers_messages_return_when_its_lease_ends(
    redis_url: str, make: Callable[..., KombuBroker]
) -> None:
    """Claimed, and moved but not claimed yet: both, in order, before what came later."""
    broker = make(redis_url, lease=0.6)
    await broker.declare(QUEUE, ["#"])
    await broker.publish([entry(seq) for seq in range(1, 14)])
    with redis.Redis.from_url(redis_url) as client:
        for tag in range(1, 12):  # more than nine: tags are compared as numbers
            client.hset(f"bridge.unacked.{QUEUE}.dead", str(tag), client.rpop(QUEUE))
        client.lmove(QUEUE, f"bridge.arriving.{QUEUE}.dead", "RIGHT", "LEFT")
        client.zadd(f"bridge.consumers.{QUEUE}", {"dead": int(time.time() * 1000)})
        async with broker.inbox(QUEUE) as inbox:
            assert ids(await collect(inbox, 13)) == [f"event-{seq}" for seq in range(1, 14)]
            assert client.zrange(f"bridge.consumers.{QUEUE}", 0, -1) != [b"dead"]
        assert not client.keys("bridge.unacked*")
        assert not client.keys("bridge.consumers*")


async def test_live_redis_consumer_keeps_its_lease(redis_url: str, make: Callable[..., KombuBroker]) -> None:
    """However long it takes over a message, and with its prefetch used up."""
    broker, other = make(redis_url, lease=0.6), make(redis_url, lease=0.6)
    await broker.declare(QUEUE, ["#"])
    await broker.publish([entry(1)])
    async with broker.inbox(QUEUE, prefetch=1) as slow:
        got = await collect(slow, 1)
        async with other.inbox(QUEUE) as eager:
            assert await eager.get(1, 1.5) == []
        await slow.ack(got)
    assert await broker.depth(QUEUE) == 0


# --- the embedded broker's file ---------------------------------------------------------------------------------------


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[SqliteBroker]:
    broker = SqliteBroker(tmp_path / "broker.db", clock=Clock(), lease=0.6)
    yield broker
    await broker.close()


async def test_the_file_is_for_its_owner_only(embedded: SqliteBroker, tmp_path: Path) -> None:
    await embedded.declare(QUEUE, ["#"])
    await embedded.publish([entry(1)])
    modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}  # noqa: PTH116, PTH208 - quick
    assert modes == dict.fromkeys(["broker.db", "broker.db-wal", "broker.db-shm"], 0o600)


async def test_body_is_stored_once_while_any_queue_needs_it(embedded: SqliteBroker, tmp_path: Path) -> None:
    await embedded.declare(QUEUE, ["#"])
    await embedded.declare("bridge.sink.other", ["#"])
    await embedded.publish([entry(1)])
    counts = []
    for queue in (QUEUE, "bridge.sink.other"):
        counts.append(_count(tmp_path, "bodies"))
        async with embedded.inbox(queue) as inbox:
            await inbox.ack(await collect(inbox, 1))
    assert [*counts, _count(tmp_path, "bodies")] == [1, 1, 0]


def _count(folder: Path, table: str) -> int:
    with sqlite3.connect(folder / "broker.db") as db:
        (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - a name of ours
    db.close()
    return int(count)


async def test_dead_process_messages_return_after_a_backward_clock_step(embedded: SqliteBroker, tmp_path: Path) -> None:
    await embedded.declare(QUEUE, ["#"])
    await embedded.publish([entry(1), entry(2)])
    db = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
    db.execute("INSERT INTO consumers SELECT 'dead', id, ? FROM queues", (time.time() + 3 * 3600,))
    db.execute("UPDATE items SET owner = 'dead'")
    db.close()
    async with embedded.inbox(QUEUE) as inbox:
        assert ids(await collect(inbox, 2)) == ["event-1", "event-2"]


async def test_dead_process_messages_return_and_its_taps_go(embedded: SqliteBroker, tmp_path: Path) -> None:
    await embedded.declare(QUEUE, ["#"])
    await embedded.publish([entry(1), entry(2)])
    db = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
    db.execute("INSERT INTO consumers SELECT 'dead', id, ? FROM queues", (time.time() + 0.5,))
    db.execute("UPDATE items SET owner = 'dead'")
    db.execute("INSERT INTO queues (name, tap_until) VALUES ('bridge.tap.dead', ?)", (time.time() - 1,))
    db.execute("INSERT INTO bindings SELECT id, '#' FROM queues WHERE name = 'bridge.tap.dead'")
    db.close()
    async with embedded.inbox(QUEUE) as inbox:
        assert await inbox.get(2, 0.1) == []
        assert ids(await collect(inbox, 2)) == ["event-1", "event-2"]
        await embedded.publish([entry(3)])
    assert _count(tmp_path, "queues") == 1


async def test_a_live_consumer_and_a_live_tap_keep_their_leases(embedded: SqliteBroker, tmp_path: Path) -> None:
    other = SqliteBroker(tmp_path / "broker.db", clock=Clock(), lease=0.6)
    await embedded.declare(QUEUE, ["#"])
    await embedded.publish([entry(1)])
    async with embedded.inbox(QUEUE) as inbox, embedded.tap(["#"]) as tap, other.inbox(QUEUE) as eager:
        got = await collect(inbox, 1)
        assert await eager.get(1, 1.5) == []  # longer than the lease
        await other.publish([entry(2)])
        assert ids(await collect(tap, 1)) == ["event-2"]
        await inbox.ack(got)
    await other.close()


async def test_consumer_wrongly_declared_dead_continues(embedded: SqliteBroker, tmp_path: Path) -> None:
    """As after a suspended laptop: its messages come again, its late acknowledgement harms nobody, its tap is back."""
    await embedded.declare(QUEUE, ["#"])
    await embedded.publish([entry(1)])
    async with embedded.inbox(QUEUE) as inbox, embedded.tap(["#"]) as tap:
        got = await collect(inbox, 1)
        db = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("DELETE FROM consumers")
        db.execute("DELETE FROM queues WHERE tap_until IS NOT NULL")
        db.close()
        await inbox.ack(got)
        assert ids(await collect(inbox, 1)) == ["event-1"]
        async with asyncio.timeout(60):
            seq = 2
            while not await tap.get(1, 0.1):
                await embedded.publish([entry(seq)])
                seq += 1


async def test_missing_queue_is_reported_and_publishing_continues(embedded: SqliteBroker, tmp_path: Path) -> None:
    await embedded.declare(QUEUE, ["#"])
    async with embedded.inbox(QUEUE) as inbox:
        db = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("DELETE FROM queues")
        db.close()
        with pytest.raises(Unavailable, match=r"bridge\.sink\.suite: there is no such queue"):
            await inbox.get(1, 10)
        assert await embedded.publish([entry(1)]) == 1
        await embedded.declare(QUEUE, ["#"])
        await embedded.publish([entry(2)])
        async with asyncio.timeout(60):
            while True:
                try:
                    assert ids(await collect(inbox, 1)) == ["event-2"]
                    break
                except Unavailable:  # until the lease was renewed once more
                    continue


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    path.write_text("this is not a database, but something long enough to be looked at" * 20)
    broker = SqliteBroker(path, clock=Clock())
    with pytest.raises(Unavailable, match=r"broker\.db: file is not a database"):
        await broker.open()
    await broker.close()
    blocked = SqliteBroker(path / "below" / "a-file.db", clock=Clock())
    with pytest.raises(Unavailable, match=r"a-file\.db: "):
        await blocked.ping()
    await blocked.close()


async def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "broker.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    broker = SqliteBroker(tmp_path / "broker.db", clock=Clock())
    with pytest.raises(Unavailable, match="another version"):
        await broker.open()
    await broker.close()


async def test_a_half_written_batch_is_not_there(embedded: SqliteBroker, tmp_path: Path) -> None:
    """As when the disk is full in the middle of it; the next one is whole again."""
    await embedded.declare(QUEUE, ["#"])
    await embedded.publish([entry(1)])
    db = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
    db.execute(
        "CREATE TRIGGER full BEFORE INSERT ON bodies WHEN NEW.event = 'event-4' "
        "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
    )
    with pytest.raises(Unavailable, match=r"broker\.db: database or disk is full"):
        await embedded.publish([entry(seq) for seq in range(2, 7)])
    db.execute("DROP TRIGGER full")
    db.close()
    assert await embedded.depth(QUEUE) == 1
    await embedded.publish([entry(2)])
    assert await embedded.depth(QUEUE) == 2


# --- the worker -------------------------------------------------------------------------------------------------------


def resting(wake: int) -> None:
    wait_readable(wake, seconds=60)


async def test_a_call_that_takes_too_long_is_interrupted() -> None:
    stuck, interrupted = threading.Event(), threading.Event()

    def hang() -> None:
        stuck.set()
        assert interrupted.wait(60)

    worker = ThreadWorker("bridge-test", rest=resting, interrupt=interrupted.set)
    with pytest.raises(Unavailable, match="the far side: no answer within"):
        await worker.call(hang, within=0.5, what="the far side")
    assert stuck.is_set()
    assert await worker.call(lambda: "again", within=5, what="") == "again"
    await worker.close()
    assert bridge_threads() == []


async def test_abandoned_call_is_skipped_if_not_begun() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []
    worker = ThreadWorker("bridge-test", rest=resting)

    def first() -> None:
        begun.set()
        go_on.wait(60)
        done.append("first")

    running = worker.submit(first)
    await asyncio.to_thread(begun.wait, 10)
    waiting = worker.submit(lambda: done.append("second"))
    running.cancel()
    waiting.cancel()
    go_on.set()
    await worker.call(lambda: done.append("third"), within=5, what="")
    await worker.close()
    assert done == ["first", "third"]


async def test_closing_interrupts_what_does_not_end_by_itself() -> None:
    interrupted = threading.Event()
    worker = ThreadWorker("bridge-test", rest=resting, interrupt=interrupted.set)
    hanging = worker.submit(lambda: interrupted.wait(60))
    await worker.close(grace=0.05)
    assert hanging.result() is True
    assert bridge_threads() == []


async def test_uninterruptible_thread_is_abandoned_and_reported() -> None:
    free = threading.Event()
    worker = ThreadWorker("bridge-test", rest=resting)
    worker.submit(lambda: free.wait(60))
    with structlog.testing.capture_logs() as logs:
        await worker.close(grace=0.02)
    assert [line["event"] for line in logs] == ["worker.abandoned"]
    (thread,) = [running for running in threading.enumerate() if running.name == "bridge-test"]
    free.set()
    await asyncio.to_thread(thread.join, 10)


async def test_closing_that_is_cancelled_still_ends_the_thread() -> None:
    interrupted = threading.Event()
    worker = ThreadWorker("bridge-test", rest=resting, interrupt=interrupted.set)
    worker.submit(lambda: interrupted.wait(60))
    (thread,) = [running for running in threading.enumerate() if running.name == "bridge-test"]
    closing = asyncio.create_task(worker.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


def test_a_loop_that_has_gone_does_not_hold_the_thread() -> None:
    released = threading.Event()

    worker = ThreadWorker("bridge-test", rest=resting)

    async def leave() -> None:
        worker.submit(lambda: released.wait(60))

    asyncio.run(leave())
    (thread,) = [running for running in threading.enumerate() if running.name == "bridge-test"]
    assert thread.daemon
    released.set()
    worker._stopping = True
    worker._wake()
    thread.join(60)
    assert not thread.is_alive()


def test_the_adapters_are_brokers(tmp_path: Path) -> None:
    """For the type checker as much as for the reader."""
    brokers: list[Broker] = [
        KombuBroker("memory://", exchange=EXCHANGE, clock=Clock()),
        SqliteBroker(tmp_path / "broker.db", clock=Clock()),
    ]
    assert len(brokers) == 2
