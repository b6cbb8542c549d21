"""Broker URLs: where, with which options, over TLS or not, and what of it may be shown."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kombu.connection import Connection
from kombu.transport import TRANSPORT_ALIASES

CONNECT_SECONDS = 5.0
"""For a connection to one address."""

_AMQP = {"amqp": "pyamqp", "pyamqp": "pyamqp", "amqps": "amqps"}
_REDIS = ("redis", "rediss", "sentinel")
_Connection: Any = Connection  # its annotations are only begun
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


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

    @property
    def place(self) -> str:
        """Where the queues are, without credentials: the label, and the virtual host or database of a known family."""
        path = urlsplit(self.url.partition(";")[0]).path
        return f"{self.label}{path}" if self.family != "other" and path.strip("/") else self.label

    def connection(self, **options: Any) -> Any:
        """Return kombu's connection for this address, not connected yet; what the URL says wins over `options`."""
        return _Connection(
            self.url,
            ssl=dict(self.tls) if self.tls is not None else False,
            connect_timeout=CONNECT_SECONDS,
            heartbeat=float(self.options.get("heartbeat", options.pop("heartbeat", 0))),
            transport_options={**options, **self.options},
        )


def parse_broker_url(url: str) -> list[BrokerAddress]:
    """Read a URL, or several with `;` between them: kombu's way to name the nodes that may stand in for each other.

    Raises `ValueError` that quotes nothing but the scheme.
    """
    scheme = url.partition("://")[0]
    if "://" not in url or scheme.partition("+")[0] not in TRANSPORT_ALIASES:
        raise ValueError(
            "the broker's URL has to begin with amqp://, amqps://, redis://, rediss:// or another of kombu's"
        )
    try:
        return _addresses(url, scheme)
    except (ValueError, KeyError):
        raise ValueError(
            f"the broker's URL cannot be read; write {scheme}://user:password@host:port/name?option=value, "
            "and percent-encode what is special in the password"
        ) from None


def _addresses(url: str, scheme: str) -> list[BrokerAddress]:
    parts = [part for part in url.split(";") if part]
    if parts[0].startswith("sentinel:"):  # here the others are more sentinels, not more brokers
        first = _address(parts[0])
        return [BrokerAddress(";".join([first.url, *parts[1:]]), first.label, first.family, first.tls, first.options)]
    return [_address(part if "://" in part else f"{scheme}://{part}") for part in parts]


def _address(url: str) -> BrokerAddress:
    parts = urlsplit(url)
    scheme = parts.scheme.partition("+")[0]
    family = "amqp" if scheme in _AMQP else "redis" if scheme in _REDIS else "other"
    query = {name: _value(name, text) for name, text in parse_qsl(parts.query)}
    options = {name: value for name, value in query.items() if not name.startswith("ssl_")}
    chosen = {name: value for name, value in query.items() if name.startswith("ssl_")}
    where = f"{parts.scheme}://{parts.hostname or ''}" + (f":{parts.port}" if parts.port else "")
    bare = _AMQP.get(parts.scheme, parts.scheme) + url.partition("?")[0].removeprefix(parts.scheme)
    return BrokerAddress(bare, where, family, _tls(parts.scheme, chosen), options)


def _tls(scheme: str, chosen: Mapping[str, Any]) -> Mapping[str, Any] | None:
    # Both libraries leave the certificate or the host's name unchecked unless they are told.
    match scheme:
        case "amqps":
            return {"server_hostname": None, **{name.removeprefix("ssl_"): value for name, value in chosen.items()}}
        case "rediss":
            return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, **chosen}
    return None


def _value(name: str, text: str) -> Any:
    if name == "ssl_cert_reqs":
        return _VERIFY[text.lower().removeprefix("cert_")]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return int(text) if text.isdigit() else text
