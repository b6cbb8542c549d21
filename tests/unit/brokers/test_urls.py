"""URLs of brokers: read, shown without credentials, and the certificates that they ask for."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.kombu.url import parse_broker_url
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.testing.broker_suite import QUEUE, collect, entry
from bridge.testing.tcp_proxy import TcpProxy

EXCHANGE = "bridge.events"


@pytest.mark.parametrize(
    ("url", "label", "family"),
    [
        ("amqp://user:pass-word@mq.example:5672//", "amqp://mq.example:5672", "amqp"),
        ("amqps://user:pass-word@mq.example/vhost", "amqps://mq.example", "amqp"),
        ("redis://:pass-word@cache.example:6379/3", "redis://cache.example:6379", "redis"),
        ("rediss://:pass-word@cache.example:6379/3", "rediss://cache.example:6379", "redis"),
        ("sentinel://:pass-word@one:26379;sentinel://two:26379?master_name=main", "sentinel://one:26379", "redis"),
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


def test_a_url_names_the_nodes_of_a_rabbitmq_cluster() -> None:
    addresses = parse_broker_url("amqp://user:pass%2Cword@a,b:5673,[::1]:99/vhost?heartbeat=7")
    assert [address.url for address in addresses] == [
        "pyamqp://user:pass%2Cword@a/vhost",
        "pyamqp://user:pass%2Cword@b:5673/vhost",
        "pyamqp://user:pass%2Cword@[::1]:99/vhost",
    ]
    assert {address.options["heartbeat"] for address in addresses} == {7}
    assert [address.url for address in parse_broker_url("amqp://")] == ["pyamqp://"]


def test_options_follow_a_question_mark() -> None:
    (address,) = parse_broker_url("sentinel://s:26379/0?master_name=main&visibility_timeout=60&socket_keepalive=true")
    assert address.options == {
        "master_name": "main", "visibility_timeout": 60, "socket_keepalive": True, "sentinel_kwargs": {},
    }  # fmt: skip
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
