"""What may follow the question mark of a store's or a broker's URL: the same options with the same meaning for both."""

from __future__ import annotations

import difflib
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

Reader = Callable[[str], Any]


class UrlProblem(ValueError):
    """What is wrong with a URL, as what follows "the URL …"; it quotes no value."""


_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_VERSIONS = {"tlsv1.2": ssl.TLSVersion.TLSv1_2, "tlsv1.3": ssl.TLSVersion.TLSv1_3}


def _bool(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError("has to be true or false")
    return text.lower() in _TRUE


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ValueError("has to be a whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError("has to be a number of seconds above 0, without a unit")
    return seconds


def _verify(text: str) -> ssl.VerifyMode:
    word = text.lower().removeprefix("cert_")
    if word not in _VERIFY:
        raise ValueError("has to be required, optional or none")
    return _VERIFY[word]


def _version(text: str) -> ssl.TLSVersion:
    word = text.lower().replace("_", ".")
    if word not in _VERSIONS:
        raise ValueError("has to be TLSv1.2 or TLSv1.3")
    return _VERSIONS[word]


def _text(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


TLS: Mapping[str, Reader] = {
    "ssl_cert_reqs": _verify, "ssl_ca_certs": _text, "ssl_certfile": _text, "ssl_keyfile": _text, "ssl_ciphers": _text,
}  # fmt: skip
"""Options of TLS for every kind of server."""
REDIS: Mapping[str, Reader] = {
    "client_name": _text, "db": _whole, "health_check_interval": _seconds, "password": _text,
    "socket_connect_timeout": _seconds, "socket_keepalive": _bool, "socket_timeout": _seconds, "username": _text,
}  # fmt: skip
REDIS_TLS: Mapping[str, Reader] = {
    **TLS, "ssl_ca_path": _text, "ssl_check_hostname": _bool, "ssl_min_version": _version,
}  # fmt: skip
SENTINEL: Mapping[str, Reader] = {"sentinel_password": _text, "sentinel_username": _text}
KOMBU_REDIS: Mapping[str, Reader] = {
    "fanout_patterns": _bool, "fanout_prefix": _text, "global_keyprefix": _text,
    "queue_order_strategy": _text, "sep": _text, "visibility_timeout": _whole,
}  # fmt: skip
"""Options of kombu's for the messages that it keeps in Redis; a store has none of these."""
AMQP: Mapping[str, Reader] = {
    "channel_max": _whole, "frame_max": _whole, "heartbeat": _whole, "login_method": _text, "read_timeout": _seconds,
    "write_timeout": _seconds,
}  # fmt: skip
AMQP_TLS: Mapping[str, Reader] = {**TLS, "ssl_server_hostname": _text}
_MEANT = {
    "cacertfile": "ssl_ca_certs", "certfile": "ssl_certfile", "keyfile": "ssl_keyfile", "ssl_ca_file": "ssl_ca_certs",
    "verify": "ssl_cert_reqs", "server_name_indication": "ssl_server_hostname", "timeout": "socket_timeout",
    "auth_mechanism": "login_method", "database": "db", "user": "username",
}  # fmt: skip
"""What other programs call the same."""


def read_freely(query: str) -> dict[str, Any]:
    """Read options that nobody here knows, for one of kombu's other transports: numbers and booleans as such."""
    return {name: _guessed(text) for name, text in parse_qsl(query)}


def _guessed(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return int(text) if text.isdecimal() else text


def read_options(
    query: str, known: Mapping[str, Reader], *, elsewhere: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Read `name=value&…`; raises `UrlProblem` that names the option and the remedy, and quotes no value.

    `elsewhere` are options that belong to another kind of URL, with what to do instead.
    """
    options: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise UrlProblem(_unknown(name, known, elsewhere or {}))
        try:
            options[name] = known[name](text)
        except ValueError as error:
            raise UrlProblem(f"has the option {name}, which {error}") from None
    return options


def _unknown(name: str, known: Mapping[str, Reader], elsewhere: Mapping[str, str]) -> str:
    if name in elsewhere:
        return f"has the option {name}, which {elsewhere[name]}"
    meant = _MEANT.get(name.lower())
    near = [meant] if meant in known else difflib.get_close_matches(name.lower(), known, n=1)
    if near:  # a name that is near to no option could be a piece of a password
        return f"has the option {name!r}, which is not known; did you mean {near[0]!r}?"
    return f"has an option that is not known; known here: {', '.join(sorted(known))}"
