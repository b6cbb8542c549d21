"""Types of settings: sizes, listen addresses, store and broker URLs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    WithJsonSchema,
)

from bridge.config.showing import mask_url
from bridge.domain.secret_text import unseen_character
from bridge.domain.settings import MASK, Secret
from bridge.domain.urls import PERCENT_ENCODE, password_problem

_SIZES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SIZE = re.compile(r"(\d+)\s*([kKMGT]i?)?B", re.ASCII)
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]*)):(?P<port>\d{1,5})", re.ASCII)
_EXCHANGE = re.compile(r"[A-Za-z0-9._:-]{1,127}")
STORES = ("redis", "rediss", "unix", "sqlite")
BROKERS = (
    "amqp", "amqps", "pyamqp", "redis", "rediss", "sentinel", "unix", "memory", "filesystem", "sqs", "sqlalchemy",
    "sqla", "mongodb", "kafka", "confluentkafka", "zookeeper", "consul", "etcd", "pgmq", "gcpubsub",
    "azureservicebus", "azurestoragequeues", "slmq", "pyro",
)  # fmt: skip
_MEANT = {
    "amq": "amqp", "librabbitmq": "amqp", "rabbit": "amqp", "rabbitmq": "amqp", "rmq": "amqp", "keydb": "redis",
    "valkey": "redis", "valkeys": "rediss", "redis-sentinel": "redis+sentinel", "rediscluster": "redis+cluster",
}  # fmt: skip
"""What servers are called elsewhere, and the scheme that reaches them here."""
EMBEDDED = "embedded"


# --- the words ----------------------------------------------------------------------------------------------------


class _Bytes(int):
    """A size that was read already."""


def _size(value: Any) -> _Bytes:
    if isinstance(value, _Bytes):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a size; write a number and a unit, such as 500MB, 1GB or 2GiB")
    unit = match[2] or ""
    return _Bytes(int(match[1]) * _SIZES["k" if unit == "K" else unit])


def _format_size(size: int) -> str:
    units = sorted(_SIZES.items(), key=lambda item: -item[1])
    unit, factor = next(
        (unit, factor) for unit, factor in units if factor == 1 or (size >= factor and size % factor == 0)
    )
    return f"{size // factor}{unit}B"


Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(_format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+\s*([kKMGT]i?)?B$", "examples": ["500MB", "1GB", "2GiB"]}),
]


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a server listens; an empty host is every address of the machine."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _listen(value: Any) -> Any:
    if isinstance(value, Listen) or value is None:
        return value
    match = _HOST.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or int(match["port"]) > 65535:  # noqa: PLR2004 - the highest port there is
        raise ValueError("is not HOST:PORT; write such as 127.0.0.1:8080, [::1]:8080, or :8080 for every address")
    return Listen(match["six"] or match["host"], int(match["port"]))


Address = Annotated[
    Listen,
    BeforeValidator(_listen),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["127.0.0.1:8080"]}),
]


def _shown_url(secret: Secret | None) -> str | None:
    return None if secret is None else MASK if secret.path else mask_url(secret.reveal())


def _url(known: tuple[str, ...], example: str) -> Callable[[Secret], Secret]:
    def check(secret: Secret) -> Secret:
        url = secret.reveal()
        if name := unseen_character(unquote(url, errors="ignore")):
            raise ValueError(
                f"has {name} in it, percent-encoded, which no password has; write the URL anew, without it"
            )
        scheme, mark, _ = url.partition("://")
        if not mark:
            raise ValueError(f"is not a URL; write one such as {example}")
        base = scheme.partition("+")[0].lower()
        if base not in known:
            meant = _MEANT.get(base)
            near = (
                [meant] if meant and meant.partition("+")[0] in known else difflib.get_close_matches(base, known, n=1)
            )
            meant = f"did you mean {near[0]!r}?" if near else f"write one such as {example}"
            shown = f"the scheme {base!r}" if re.fullmatch(r"[a-z][a-z0-9.-]{0,19}", base) else "its scheme"
            raise ValueError(f"{shown} is not known; {meant}")
        if base != "sqlite" and (problem := password_problem(url)):
            raise ValueError(f"{problem}; {PERCENT_ENCODE}")
        try:
            _ = base != "sqlite" and not re.search("[;,]", url) and urlsplit(url).port
        except ValueError:
            raise ValueError(
                f"its host or port cannot be read; write one such as {example}, and {PERCENT_ENCODE}"
            ) from None
        if base == "sqlite" and not sqlite_path(url):
            raise ValueError("names no file; write one after it, with four slashes where its path is absolute")
        if not all(map(_has_database, url.split(";"))):
            raise ValueError("names a database that is no number; Redis has numbers, such as redis://localhost:6379/0")
        return secret

    return check


_DATABASE = {
    r"(redis|rediss|sentinel)": r"/*\d*/*",
    r"rediss?\+sentinel": r"[^/]*(/\d*)?",
    r"rediss?\+cluster": r"0?",
}
"""What the path of a Redis URL may be, by scheme; its libraries take a word for database 0, or fail later."""


def _has_database(url: str) -> bool:
    scheme, _, rest = url.partition("://")
    plain, _, query = rest.partition("?")
    path = plain.partition("/")[2]
    form = next((form for schemes, form in _DATABASE.items() if re.fullmatch(schemes, scheme.lower())), None)
    if form is not None and not re.fullmatch(form, path, re.ASCII):
        return False
    of_redis = form is not None or scheme.lower() == "unix"
    return not of_redis or all(number.isdecimal() for number in parse_qs(query).get("db", ()))


def sqlite_path(url: str) -> str:
    """Return the file of a `sqlite:///PATH` URL: as elsewhere in Python, a fourth slash makes the path absolute."""
    rest = url.partition("://")[2]
    return rest.removeprefix("/") if rest.startswith("/") else ""


StoreUrl = Annotated[
    Secret,
    AfterValidator(_url(STORES, "redis://localhost:6379/0 or sqlite:///bridge.db")),
    PlainSerializer(_shown_url, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["redis://localhost:6379/0", "sqlite:////var/lib/bridge/bridge.db"]}),
]
_check_broker = _url(BROKERS, "amqp://guest:guest@localhost:5672// or redis://localhost:6379/1")
BrokerUrl = Annotated[
    Secret,
    AfterValidator(lambda secret: secret if secret.reveal() == EMBEDDED else _check_broker(secret)),
    PlainSerializer(_shown_url, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["amqp://guest:guest@localhost:5672//", EMBEDDED]}),
]


def check_exchange(value: str) -> str:
    """Return the name of an exchange; raises `ValueError` that says which names are allowed."""
    if not _EXCHANGE.fullmatch(value) or value.startswith("amq."):
        raise ValueError("must be 1 to 127 letters, digits, '.', '_', ':' or '-', not beginning with amq.")
    return value


def check_hooks_url(value: str) -> str:
    """Return the address to which providers push, without a / at its end; raises `ValueError`."""
    try:
        parts = urlsplit(value)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host or parts.scheme not in ("https", "http") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be an address without a query, such as https://hooks.example.com")
    return value.rstrip("/")
