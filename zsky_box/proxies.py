"""The owner's own reverse proxies: from their headers, and nobody else's, come a client's address and scheme."""

from __future__ import annotations

import ipaddress
from typing import Final

NETWORKS_MAX: Final = 100
FORWARDING: Final = ("forwarded", "x-forwarded-for", "x-real-ip")
"""Headers that a proxy adds: behind one of them who asks is not who is connected, and so not on this machine."""

_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


def networks(text: str) -> list[str]:
    """The networks of a list of addresses and networks with commas between, as the server compares peers with them.

    A socket for IPv6 shows an IPv4 peer as `::ffff:…`, so that each IPv4 network is there in that form as well. Raises
    ValueError for anything else, for host bits behind a network's own, and for a network of everybody.
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if len(parts) > NETWORKS_MAX:
        raise ValueError(f"more than {NETWORKS_MAX} networks")
    found: list[str] = []
    for part in parts:
        network = ipaddress.ip_network(part)
        mapped = _mapped(network) if network.version == 4 else network
        if "%" in part or _MAPPED.subnet_of(mapped):
            raise ValueError(f"{part} is not a network of proxies")
        found += [str(network)] if mapped == network else [str(network), str(mapped)]
    return found


def _mapped(network: ipaddress.IPv4Network) -> ipaddress.IPv6Network:
    first = int(_MAPPED.network_address) + int(network.network_address)
    return ipaddress.IPv6Network((first, _MAPPED.prefixlen + network.prefixlen))
