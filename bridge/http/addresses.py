"""Which addresses are public: the guard against requests to internal networks (SSRF)."""

from __future__ import annotations

import ipaddress

_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers (RFC 6598); some clouds keep their metadata here
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host agent: public by number, private by use
        "169.254.0.0/16",  # link-local, and the metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")  # all that was ever given out for unicast
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4 = ipaddress.IPv6Network("2002::/16")


def is_public(address: str) -> bool:
    """Say whether `address` (a literal) is a unicast address of the public Internet.

    An IPv4 address inside an IPv6 one (mapped, 6to4, NAT64) is judged as itself. An address that cannot be read
    is not public.
    """
    try:
        literal = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(literal, ipaddress.IPv6Address):
        return _is_public_v6(literal)
    return not any(literal in network for network in _REFUSED_V4)


def _is_public_v6(address: ipaddress.IPv6Address) -> bool:
    bare = ipaddress.IPv6Address(int(address))  # without the zone of fe80::1%eth0
    number = int(bare)
    if bare in _MAPPED or bare in _NAT64:
        return is_public(str(ipaddress.IPv4Address(number & 0xFFFFFFFF)))
    if bare in _6TO4:
        return is_public(str(ipaddress.IPv4Address(number >> 80 & 0xFFFFFFFF)))
    return bare in _GLOBAL_V6 and not any(bare in network for network in _REFUSED_V6)


class RefusedAddressError(OSError):
    """The address must not be connected to.

    All have the same text, so that a race over several addresses raises one of them as it is.
    """

    def __init__(self) -> None:
        super().__init__("the address is not public")
