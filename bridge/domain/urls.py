"""A server's URL before a library reads it: a password that ends its host too early, and the nodes of a cluster."""

from __future__ import annotations

import re

_AUTHORITY = re.compile(r"[^/?#]*")
_ENCODED = {"#": "%23", "/": "%2F", "?": "%3F"}
PERCENT_ENCODE = "percent-encode what is special in the password: # is %23, / is %2F, ? is %3F, @ is %40, ; is %3B"


def password_problem(url: str) -> str | None:
    """Say whether a character of the password seems to end the host, and which; the text quotes nothing else.

    Of `scheme://user:pa/ss@host`, every library reads `user` as the host, and some of them `ss@host` as the path.
    """
    _, mark, rest = url.partition(";")[0].partition("://")  # behind it may be a second address
    authority = _AUTHORITY.match(rest)
    if not mark or authority is None or not authority[0] or "@" in authority[0]:
        return None
    after = rest[authority.end() :]
    # An option may hold an @ as it is: `?sentinel_password=p@ss`.
    if re.match(r"[/?#][^&=]*@", after) is None:
        return None
    return (
        f"has {after[0]!r} where its host should end, as if it were in the password: write {_ENCODED[after[0]]} there"
    )


def node_urls(url: str) -> list[str]:
    """Return a URL for each node of a cluster: of `amqp://user:password@one:5672,two:5672/vhost`, two.

    Python's own reader refuses several hosts where one of them is an IPv6 address, or reads them as one host.
    """
    scheme, mark, rest = url.partition("://")
    authority = _AUTHORITY.match(rest)
    credentials, at, hosts = (authority[0] if authority else "").rpartition("@")
    if "," not in hosts:
        return [url]
    after = rest[len(credentials + at + hosts) :]
    return [f"{scheme}{mark}{credentials}{at}{host}{after}" for host in hosts.split(",") if host]
