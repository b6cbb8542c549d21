"""URLs of stores and brokers: one set of options, the same meaning for both, and every mistake is named offline."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.kombu.url import parse_broker_url
from bridge.adapters.redis.store import RedisStore
from bridge.adapters.url_options import AMQP, AMQP_TLS, KOMBU_REDIS, REDIS, REDIS_TLS, SENTINEL
from bridge.cli import main
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError
from bridge.domain.urls import node_urls, password_problem
from bridge.testing.free_port import free_port
from bridge.testing.servers import RedisServer, wait_for

CANARY = "c4n4ry"


def store(url: str) -> RedisStore:
    return RedisStore(url, clock=Clock())


def broker(url: str) -> KombuBroker:
    return KombuBroker(url, exchange="bridge.events", clock=Clock())


BOTH = pytest.mark.parametrize("build", [store, broker])
Build = Callable[[str], RedisStore | KombuBroker]

GOOD = [
    "redis://h", "redis://h:1/3", "redis://:p%40ss@h/0", "redis://u:p@ss@h/0", "redis://h?db=3", "redis://h?password=x",
    "rediss://h?ssl_cert_reqs=none", "rediss://h?ssl_cert_reqs=CERT_NONE", "rediss://h?ssl_cert_reqs=None",
    "rediss://h?ssl_cert_reqs=Required", "rediss://h?ssl_cert_reqs=CERT_OPTIONAL", "rediss://h?ssl_check_hostname=false",
    "rediss://h?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem", "rediss://h?ssl_min_version=TLSv1.3",
    "redis://h?socket_timeout=2.5&socket_connect_timeout=1&health_check_interval=30&socket_keepalive=yes",
    "unix:///run/redis.sock?db=1", "redis+sentinel://u:p@h:1,i/main/3?sentinel_password=x&sentinel_username=y",
    "rediss+sentinel://h/main?ssl_ca_certs=/ca.pem", "rediss://h?ssl_ca_path=/ca&ssl_ciphers=AES128&client_name=me",
]  # fmt: skip
BAD = [
    ("rediss://h?ssl_cert_reqs=c4n4ry", "ssl_cert_reqs, which has to be required, optional or none"),
    ("rediss://h?ssl_cert_reqs=", "ssl_cert_reqs, which has to be required"),
    ("rediss://h?ssl_cert_req=none", "'ssl_cert_req', which is not known; did you mean 'ssl_cert_reqs'"),
    ("rediss://h?cacertfile=/c4n4ry", "did you mean 'ssl_ca_certs'"),
    ("rediss://h?ssl_check_hostname=c4n4ry", "has to be true or false"),
    ("rediss://h?ssl_min_version=c4n4ry", "has to be TLSv1.2 or TLSv1.3"),
    ("rediss://h?ssl_ca_certs=", "ssl_ca_certs, which is empty"),
    ("redis://h?ssl_ca_certs=/c4n4ry", "ssl_ca_certs, which is for rediss://"),
    ("redis+sentinel://h/main?ssl_cert_reqs=none", "is for rediss://"),
    ("redis://h?socket_timeout=c4n4ry", "socket_timeout, which has to be a number of seconds"),
    ("redis://h?socket_timeout=5s", "has to be a number of seconds"),
    ("redis://h?socket_timeout=-1", "has to be a number of seconds"),
    ("redis://h?db=c4n4ry", "db, which has to be a whole number"),
    ("redis://h?c4n4ry=1", "has an option that is not known; known here: "),
    ("redis://h?sentinel_password=c4n4ry", "is for redis+sentinel://"),
    ("redis://:c4n/4ry@h/0", "write %2F there; percent-encode"),
    ("redis://:c4n?4ry@h/0", "write %3F there; percent-encode"),
    ("redis://:c4n#4ry@h/0", "write %23 there; percent-encode"),
    ("redis://h:c4n4ry/0", "percent-encode"),
    ("redis+sentinel://h:1", "names no primary; write redis+sentinel://"),
    ("redis+sentinel://,h/main", "lacks a host"),
    ("redis+cluster://h/1", "only database 0"),
]


@BOTH
@pytest.mark.parametrize("url", GOOD)
async def test_store_and_broker_take_the_same_urls(build: Build, url: str) -> None:
    part = build(url)
    if isinstance(part, KombuBroker):
        for address in parse_broker_url(url):
            address.connection()
    else:
        assert part._link.client is not None
    await part.close()


@BOTH
@pytest.mark.parametrize(("url", "says"), BAD)
def test_wrong_redis_url_is_named_with_the_remedy(build: Build, url: str, says: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        build(url)
    assert says in str(caught.value)
    assert "c4n" not in str(caught.value)
    assert "4ry" not in str(caught.value)


@BOTH
@pytest.mark.parametrize(
    ("word", "means"),
    [("none", ssl.CERT_NONE), ("CERT_NONE", ssl.CERT_NONE), ("None", ssl.CERT_NONE), ("Optional", ssl.CERT_OPTIONAL),
     ("CERT_REQUIRED", ssl.CERT_REQUIRED), ("", ssl.CERT_REQUIRED)],
)  # fmt: skip
def test_certificate_checks_mean_the_same_everywhere(build: Build, word: str, means: ssl.VerifyMode) -> None:
    url = f"rediss://h?ssl_cert_reqs={word}" if word else "rediss://h"
    part = build(url)
    if isinstance(part, KombuBroker):
        tls = parse_broker_url(url)[0].tls
        assert tls is not None
        assert tls["ssl_cert_reqs"] is means
    else:
        pool = part._link.client.connection_pool
        connection = pool.connection_class(**pool.connection_kwargs)
        assert connection.ssl_context.cert_reqs is means
        assert connection.ssl_context.check_hostname == (means is not ssl.CERT_NONE)


WRONG_BROKERS = [
    ("amqps://h?ssl_cert_reqs=c4n4ry", "ssl_cert_reqs, which has to be required"),
    ("amqps://h?cacertfile=/c4n4ry", "did you mean 'ssl_ca_certs'"),
    ("amqps://h?ssl_check_hostname=false", "which is not known"),
    ("amqp://h?ssl_ca_certs=/c4n4ry", "is for amqps://"),
    ("amqp://h?heartbeat=c4n4ry", "heartbeat, which has to be a whole number"),
    ("redis://h?master_name=main", "is for sentinel://; write redis+sentinel://"),
    ("unix:///s?virtual_host=1", "write unix://PATH?db=NUMBER"),
    ("amqp://h?hartbeat=3", "did you mean 'heartbeat'"),
    ("amqp://u:c4n/4ry@h//", "write %2F there"),
    ("amqp://u:c4n#4ry@h//", "write %23 there"),
    ("redis+cluster://h", "names a cluster, which cannot be the broker"),
    ("sentinel://h:1", "add ?master_name=NAME"),
    ("redis://h?visibility_timeout=c4n4ry", "has to be a whole number"),
]


@pytest.mark.parametrize(("url", "says"), WRONG_BROKERS)
def test_wrong_broker_url_is_named_with_the_remedy(url: str, says: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        broker(url)
    assert says in str(caught.value)
    assert "c4n" not in str(caught.value)


def test_a_cluster_takes_every_option_of_the_store() -> None:
    link = store("rediss+cluster://u:p@h:1,i?ssl_ca_path=/ca&ssl_cert_reqs=none&client_name=me&socket_keepalive=true"
                 "&health_check_interval=3&ssl_ciphers=A&ssl_min_version=TLSv1.2&ssl_check_hostname=false")._link  # fmt: skip
    for node in link.client.startup_nodes:
        connection = node.acquire_connection()
        assert (connection.username, connection.ssl_context.ca_path) == ("u", "/ca")


def test_option_of_the_broker_is_refused_for_a_store() -> None:
    broker("redis://h?global_keyprefix=a:")
    with pytest.raises(ValueError, match="global_keyprefix, which is for a broker alone"):
        store("redis://h?global_keyprefix=a:")


@pytest.mark.parametrize(
    ("page", "options"),
    [("set-up-redis", {**REDIS, **REDIS_TLS, **SENTINEL, **KOMBU_REDIS}), ("set-up-rabbitmq", {**AMQP, **AMQP_TLS})],
)
def test_every_option_of_a_url_is_explained(page: str, options: dict[str, object]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "how-to" / f"{page}.md").read_text()
    rows = [line.partition(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert options.keys() <= explained


def test_second_address_may_have_a_password_of_its_own() -> None:
    url = "amqp://first//;amqps://u:p@second:1//vhost"
    assert password_problem(url) is None
    assert [address.label for address in parse_broker_url(url)] == ["amqp://first", "amqps://second:1"]


# --- the file ---------------------------------------------------------------------------------------------------------

FILE = [
    ("store", "rediss://h?ssl_cert_reqs=c4n4ry", "has to be required, optional or none"),
    ("broker", "rediss://h?ssl_cert_reqs=c4n4ry", "has to be required, optional or none"),
    ("store", "redis://:c4n/4ry@h/0", "%2F"),
    ("broker", "amqp://u:c4n?4ry@h//", "%3F"),
    ("broker", "'amqp://u:c4n#4ry@h//'", "%23"),
    ("broker", "amqp://u:c4n@4ry@h:port//", "percent-encode what is special in the password"),
    ("broker", "rabbit://h", "did you mean 'amqp'?"),
    ("broker", "rabbitmq://h", "did you mean 'amqp'?"),
    ("broker", "librabbitmq://h", "did you mean 'amqp'?"),
    ("broker", "valkey://h", "did you mean 'redis'?"),
    ("store", "valkey://h", "did you mean 'redis'?"),
    ("store", "rabbit://h", "write one such as redis://"),
    ("broker", "redis+cluster://h", "cannot be the broker"),
]


@pytest.mark.parametrize(("key", "url", "says"), FILE)
def test_check_offline_names_what_is_wrong_with_a_url(
    key: str, url: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text(
        f"state: {tmp_path}\nsources: {{a: {{type: spacivox, url: 'https://h', token: t, team: 1}}}}\n{key}: {url}\n"
    )
    (line,) = problems(file, capsys)
    assert line.startswith(f"error: {file}:3: {key}: ")
    assert says in line
    assert "c4n" not in line


def problems(file: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what `bridgectl check --offline` says is wrong with a file."""
    with pytest.raises(SystemExit) as ended:
        main(["check", "--offline", "-c", str(file)])
    assert ended.value.code == 3
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()


def test_check_offline_names_both_urls_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text("sources: {a: {type: spacivox, url: 'https://h', token: t, team: 1}}\nstore: redis://h?db=1&sep=x\n"
                    "broker: amqp://h?hartbeat=3\n")  # fmt: skip
    assert [line.split(": ")[2] for line in problems(file, capsys)] == ["store", "broker"]


# --- real servers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(folder / "server.key"), "-out", str(folder / "server.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def sentinel(authority: Path) -> Iterator[dict[str, str]]:
    """Give the hosts of a Sentinel that watches a server, by scheme: in the clear, and with TLS alone."""
    program, hosts, processes = str(shutil.which("redis-server")), {}, []
    with RedisServer() as plain:
        tls_port = free_port()
        files = [f"tls-{name} {authority / file}" for name, file in
                 (("cert-file", "server.pem"), ("key-file", "server.key"), ("ca-cert-file", "server.pem"))]  # fmt: skip
        secure = ["tls-auth-clients no", "tls-replication yes", *files]
        configurations = {
            "server": [f"tls-port {tls_port}", "port 0", "save ''", *secure],
            "redis": [f"port {free_port()}", f"sentinel monitor main 127.0.0.1 {plain.port} 1"],
            "rediss": [f"tls-port {free_port()}", "port 0", f"sentinel monitor main 127.0.0.1 {tls_port} 1", *secure],
        }
        try:
            for name, lines in configurations.items():
                file = authority / f"{name}.conf"
                file.write_text("\n".join([*lines, "bind 127.0.0.1", f"dir {authority}", ""]))
                arguments = [program, str(file), *(["--sentinel"] if name != "server" else [])]
                processes.append(subprocess.Popen(arguments, stdout=subprocess.DEVNULL))
                port = int(lines[0].split()[1])
                hosts[name] = f"localhost:{port}"
                client = redis.Redis("localhost", port, ssl=name != "redis", ssl_ca_certs=str(authority / "server.pem"))
                wait_for(lambda client=client: answers(client), f"{name} answers")
                client.close()
            yield hosts
        finally:
            for process in processes:
                process.kill()
                process.wait()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@BOTH
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_sentinels_lead_store_and_broker_to_the_primary(
    build: Build, scheme: str, sentinel: dict[str, str], authority: Path
) -> None:
    options = f"?ssl_ca_certs={authority / 'server.pem'}" if scheme == "rediss" else ""
    part = build(f"{scheme}+sentinel://{sentinel[scheme]},localhost:{free_port()}/main/2{options}")
    await ready(part)
    if isinstance(part, KombuBroker):
        await part.declare("bridge.sink.crm", ["#"])
        await part.check_rights(["bridge.sink.crm"])
    else:
        await part.check_rights(["city"], ["crm"])
    await part.close()


async def ready(part: RedisStore | KombuBroker) -> None:
    """Return once the Sentinel has seen its server: right after its start it says that there is none."""
    for _ in range(100):
        try:
            await part.ping()
        except BridgeError:
            await asyncio.sleep(0.05)
        else:
            return
    await part.ping()


@BOTH
async def test_a_socket_and_its_database_are_reached(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with RedisServer(options=("--unixsocket", str(path))) as server:
        part = build(f"unix://{path}?db=3")
        if isinstance(part, KombuBroker):
            await part.declare("bridge.sink.crm", ["#"])
        else:
            await part.ping()
        await part.close()
        with redis.Redis(port=server.port) as client:
            assert client.info("keyspace").keys() == {"db3"}


@pytest.mark.parametrize(
    ("url", "nodes"),
    [
        ("amqp://u:p@one,two:5673/v?a=1,2", ["amqp://u:p@one/v?a=1,2", "amqp://u:p@two:5673/v?a=1,2"]),
        ("amqp://u:p@[::1]:1,[::2]/v", ["amqp://u:p@[::1]:1/v", "amqp://u:p@[::2]/v"]),
        ("amqp://one,,two,", ["amqp://one", "amqp://two"]),
        ("amqp://u:p,w@one/v", ["amqp://u:p,w@one/v"]),
        ("amqp://one/a,b", ["amqp://one/a,b"]),
        ("amqp://", ["amqp://"]),
        ("embedded", ["embedded"]),
    ],
)
def test_each_node_of_a_cluster_has_its_own_url(url: str, nodes: list[str]) -> None:
    assert node_urls(url) == nodes
