"""Networks that a sink may reach although their addresses are not public."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import AfterValidator


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text.strip()))
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError("is not a network; write 10.2.0.0/16 or fd00:2::/32") from None
    raise ValueError(f"is an address and not a network; write {meant}")


Network = Annotated[str, AfterValidator(_network)]
"""A setting: a network of IP addresses, written as `10.2.0.0/16`."""


def is_within(networks: Sequence[str]) -> Callable[[str], bool]:
    """Return the check whether an address (a literal) is in one of these networks.

    An IPv4 address that is mapped into an IPv6 one is judged as itself. An address that cannot be read is in none.
    """
    read = tuple(ipaddress.ip_network(network) for network in networks)

    def check(address: str) -> bool:
        try:
            literal = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(literal, ipaddress.IPv6Address):
            literal = literal.ipv4_mapped or ipaddress.IPv6Address(int(literal))  # without the zone of fe80::1%eth0
        return any(literal in network for network in read)

    return check
