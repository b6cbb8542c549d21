"""Broker URLs: where, with which options, over TLS or not, and what of it may be shown."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from kombu.connection import Connection
from kombu.transport import TRANSPORT_ALIASES

from bridge.adapters.redis_url import RedisUrl, parse_redis_url
from bridge.adapters.url_options import AMQP, AMQP_TLS, UrlProblem, read_freely, read_options
from bridge.domain.urls import PERCENT_ENCODE, node_urls, password_problem

CONNECT_SECONDS = 5.0
"""For a connection to one address."""

_AMQP = {"amqp": "pyamqp", "pyamqp": "pyamqp", "amqps": "amqps"}
_REDIS = frozenset({"redis", "rediss", "unix"})
_Connection: Any = Connection  # its annotations are only begun


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """One address of a broker, read from its URL.

    Options follow a question mark: those that begin with `ssl_` belong to TLS, the others to kombu's transport.
    """

    url: str
    """Without options, for kombu."""
    label: str
    """Fit for a log: without credentials."""
    family: str
    """`amqp`, `redis`, or `other` for what only kombu knows."""
    tls: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    database: str | None = None
    """Of a socket, whose URL has no place for it."""
    endpoint: tuple[str, int] | None = None
    """Host and port of a Redis that is reached directly, without TLS."""

    @property
    def place(self) -> str:
        """Where the queues are, without credentials: the label, and the virtual host or database of a known family."""
        path = urlsplit(self.url.partition(";")[0]).path + (f"?db={self.database}" if self.database else "")
        return f"{self.label}{path}" if self.family != "other" and path.strip("/") else self.label

    def connection(self, **options: Any) -> Any:
        """Return kombu's connection for this address, not connected yet; what the URL says wins over `options`."""
        return _Connection(
            self.url,
            virtual_host=self.database,
            ssl=dict(self.tls) if self.tls is not None else False,
            connect_timeout=CONNECT_SECONDS,
            heartbeat=float(self.options.get("heartbeat", options.pop("heartbeat", 0))),
            transport_options={**options, **self.options},
        )


def parse_broker_url(url: str) -> list[BrokerAddress]:
    """Read a URL, or several with `;` between them: kombu's way to name the nodes that may stand in for each other.

    RabbitMQ's nodes may also stand in one URL, with `,` between them: amqp://user:password@one,two:5673/vhost.

    Raises `ValueError` that quotes no value.
    """
    scheme = url.partition("://")[0]
    if "://" not in url or (scheme.partition("+")[0] not in TRANSPORT_ALIASES and scheme != "unix"):
        raise ValueError(
            "the broker's URL has to begin with amqp://, amqps://, redis://, rediss:// or another of kombu's"
        )
    try:
        return _addresses(url, scheme)
    except UrlProblem as error:
        raise ValueError(f"the broker's URL {error}") from None
    except (ValueError, KeyError):
        raise ValueError(
            f"the broker's URL cannot be read; write {scheme}://user:password@host:port/name?option=value, "
            f"and {PERCENT_ENCODE}"
        ) from None


def _addresses(url: str, scheme: str) -> list[BrokerAddress]:
    parts = [part for part in url.split(";") if part]
    if scheme == "sentinel":  # here the others are more sentinels, not more brokers
        return [_redis(_sentinel_url(parts), scheme)]
    urls = [part if "://" in part else f"{scheme}://{part}" for part in parts]
    return [_address(node) for url in urls for node in (node_urls(url) if scheme in _AMQP else [url])]


def _address(url: str) -> BrokerAddress:
    if problem := password_problem(url):
        raise UrlProblem(f"{problem}; {PERCENT_ENCODE}")
    scheme = url.partition("://")[0]
    if scheme in _AMQP:
        return _amqp(url)
    if scheme == "redis+socket":  # kombu's word for it
        return _redis(f"unix{url.removeprefix(scheme)}".replace("virtual_host=", "db="), scheme)
    if scheme.partition("+")[0] in _REDIS:
        return _redis(url, scheme)
    return BrokerAddress(*_plain(url), "other", None, read_freely(urlsplit(url).query))


def _plain(url: str) -> tuple[str, str]:
    """Return the URL without options, and what may be shown of it."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return url.partition("?")[0], f"{parts.scheme}://{parts.hostname or ''}{port}"


def _amqp(url: str) -> BrokerAddress:
    scheme = url.partition("://")[0]
    secure = scheme == "amqps"
    elsewhere = {} if secure else dict.fromkeys(AMQP_TLS, "is for amqps://, which speaks TLS")
    query = url.partition("?")[2]
    options = read_options(query, {**AMQP, **(AMQP_TLS if secure else {})}, elsewhere=elsewhere)
    tls = {name.removeprefix("ssl_"): options.pop(name) for name in AMQP_TLS if name in options}
    bare, label = _plain(url)
    # The library leaves the certificate or the host's name unchecked unless it is told.
    return BrokerAddress(
        _AMQP[scheme] + bare.removeprefix(scheme),
        label,
        "amqp",
        {"server_hostname": None, **tls} if secure else None,
        options,
    )


def _redis(url: str, scheme: str) -> BrokerAddress:
    read = parse_redis_url(url, broker=True)
    options = {**read.kombu, **{name: value for name, value in read.server.items() if not name.startswith("ssl_")}}
    # The library leaves the certificate or the host's name unchecked unless it is told.
    tls = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, **read.secure} if read.tls else None
    shown = ":".join(map(str, read.hosts[0])) if read.hosts else ""
    match read.kind:
        case "cluster":
            raise UrlProblem(
                "names a cluster, which cannot be the broker: the queues of one exchange would lie on different nodes; "
                "use one server, or Sentinels with redis+sentinel://"
            )
        case "sentinel":
            kombu_url, options = _sentinels(read), {**options, **_primary(read, tls)}
        case "unix":
            kombu_url = f"redis+socket://{_credentials(read)}{read.path}"
        case _:
            kombu_url = f"{'rediss' if read.tls else 'redis'}://{_credentials(read)}{shown}/{read.database}"
    database = str(read.database) if read.kind == "unix" else None
    endpoint = read.hosts[0] if read.kind == "single" and not read.tls else None
    return BrokerAddress(kombu_url, f"{scheme}://{shown}", "redis", tls, options, database, endpoint)


def _credentials(read: RedisUrl) -> str:
    if read.username is None and read.password is None:
        return ""
    return f"{quote(read.username or '', safe='')}:{quote(read.password or '', safe='')}@"


def _sentinels(read: RedisUrl) -> str:
    """Return kombu's form: a URL for each Sentinel, the first one with what is meant for the server."""
    (host, port), *others = read.hosts
    first = f"sentinel://{_credentials(read)}{host}:{port}/{read.database}"
    return ";".join([first, *(f"sentinel://{host}:{port}" for host, port in others)])


def _primary(read: RedisUrl, tls: Mapping[str, Any] | None) -> dict[str, Any]:
    secure = {"ssl": True, **tls} if tls is not None else {}
    return {"master_name": read.path, "sentinel_kwargs": {**read.sentinel, **secure}}


def _sentinel_url(parts: list[str]) -> str:
    """Return the URL of kombu's form as the one that the store has, too."""
    plain, queries = zip(*(part.removeprefix("sentinel://").partition("?")[::2] for part in parts), strict=True)
    query = "&".join(filter(None, queries))
    first, _, database = plain[0].partition("/")
    hosts = ",".join([first, *(other.partition("/")[0].rpartition("@")[2] for other in plain[1:])])
    options = parse_qsl(query)
    primary = dict(options).get("master_name")
    if not primary:
        raise UrlProblem("names no primary; add ?master_name=NAME, or write redis+sentinel://HOST:PORT/PRIMARY/DB")
    rest = urlencode([(name, value) for name, value in options if name != "master_name"])
    return f"redis+sentinel://{hosts}/{quote(primary, safe='')}/{database}?{rest}"
