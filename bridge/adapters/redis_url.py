"""The URL of a Redis, read in one way for the store and for the broker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from bridge.adapters.url_options import KOMBU_REDIS, REDIS, REDIS_TLS, SENTINEL, Reader, UrlProblem, read_options
from bridge.domain.urls import PERCENT_ENCODE, password_problem

FORMS = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
_SCHEMES = re.compile(r"(?:(redis)(s?)(\+sentinel|\+cluster)?|(unix))://(.*)", re.DOTALL)
_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}
_NEEDS_TLS = "is for rediss://, which speaks TLS"
_NOT_A_STORES = "is for a broker alone"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """One Redis, however it is reached."""

    kind: str
    """`single`, `unix`, `sentinel` or `cluster`."""
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    """The server, the Sentinels, or nodes of the cluster; none for `unix`."""
    path: str
    """The socket of `unix`, or the name of the primary that Sentinels watch."""
    database: int
    username: str | None
    password: str | None = field(repr=False)
    server: Mapping[str, Any] = field(repr=False)
    """Options of a connection to a server, with those of TLS."""
    sentinel: Mapping[str, Any] = field(repr=False)
    """`username` and `password` for the Sentinels themselves."""
    kombu: Mapping[str, Any]
    """Options of the broker's layout."""

    @property
    def secure(self) -> dict[str, Any]:
        """Options of TLS alone."""
        return {name: value for name, value in self.server.items() if name.startswith("ssl_")}


def parse_redis_url(url: str, *, broker: bool = False) -> RedisUrl:
    """Read a URL; raises `UrlProblem` that says what is wrong and what to do, and quotes no value."""
    match = _SCHEMES.fullmatch(url)
    if match is None:
        raise UrlProblem(f"is not a Redis URL; it starts with {FORMS}")
    if problem := password_problem(url):
        raise UrlProblem(f"{problem}; {PERCENT_ENCODE}")
    kind = "unix" if match[4] else (match[3] or "+single")[1:]
    plain, _, query = match[5].partition("?")
    tls = match[2] == "s"
    options = read_options(query, _known(kind, tls=tls, broker=broker), elsewhere=_elsewhere(tls=tls, broker=broker))
    try:
        return _read(kind, plain, options, tls=tls)
    except ValueError as error:
        if isinstance(error, UrlProblem):
            raise
        raise UrlProblem(f"cannot be read as a URL; {PERCENT_ENCODE}") from None


def _known(kind: str, *, tls: bool, broker: bool) -> dict[str, Reader]:
    return {
        **REDIS,
        **(REDIS_TLS if tls else {}),
        **(SENTINEL if kind == "sentinel" else {}),
        **(KOMBU_REDIS if broker else {}),
    }


def _elsewhere(*, tls: bool, broker: bool) -> dict[str, str]:
    return {
        **({} if tls else dict.fromkeys(REDIS_TLS, _NEEDS_TLS)),
        **({} if broker else dict.fromkeys(KOMBU_REDIS, _NOT_A_STORES)),
        **dict.fromkeys(SENTINEL, "is for redis+sentinel://"),
        "master_name": "is for sentinel://; write redis+sentinel://HOST:PORT/PRIMARY/DB",
        "virtual_host": "is for redis+socket://; write unix://PATH?db=NUMBER",
    }


def _read(kind: str, plain: str, options: dict[str, Any], *, tls: bool) -> RedisUrl:
    netloc, _, path = plain.partition("/")
    credentials, _, hosts = netloc.rpartition("@")
    user, colon, password = credentials.partition(":")
    database = 0
    if kind == "unix":
        path = "/" + path
    elif kind == "sentinel":
        path, _, number = path.partition("/")
        database = int(number or 0)
        if not path:
            raise UrlProblem("names no primary; write redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY/DB")
    else:
        database = int(path.strip("/") or 0)
    if kind == "cluster" and (database or options.get("db")):
        raise UrlProblem("names a database; a cluster has only database 0")
    own = {name.removeprefix("sentinel_"): options.pop(name) for name in SENTINEL if name in options}
    kombu = {name: options.pop(name) for name in KOMBU_REDIS if name in options}
    username = options.pop("username", None) or unquote(user if colon or user else "") or None
    secret = options.pop("password", None) or unquote(password) or None
    return RedisUrl(
        kind,
        tls,
        () if kind == "unix" else tuple(_hosts(hosts, _PORTS[kind], single=kind == "single")),
        unquote(path) if kind in {"unix", "sentinel"} else "",
        int(options.pop("db", database)),
        username,
        secret,
        options,
        own,
        kombu,
    )


def _hosts(text: str, port: int, *, single: bool) -> list[tuple[str, int]]:
    if single and not text:
        return [("localhost", port)]
    pairs = []
    for host in [text] if single else text.split(","):
        parts = urlsplit(f"//{host}")
        if not parts.hostname:
            raise UrlProblem("lacks a host")
        pairs.append((unquote(parts.hostname), parts.port or port))
    return pairs
