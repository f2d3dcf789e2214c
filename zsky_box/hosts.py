"""Which `Host` a request may name: only what is this box's own name. No name is looked up.

A page of a stranger can have its own name resolve to this machine (DNS rebinding); its requests then come from the
browser of somebody here, but the stranger's name still stands in their `Host`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from zsky_box.settings import Settings

_HEADER_MAX: Final = 300
_HEADER: Final = re.compile(
    r"(?P<host>\[[0-9a-fA-F]{0,4}:[0-9a-fA-F:.]{1,45}\]|[A-Za-z0-9._-]{1,254})(?::(?P<port>[0-9]{1,5}))?"
)
_PORT_MAX: Final = 65_535

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Hosts:
    """The names and addresses of one box: loopback, `public_url`, `allowed_hosts`, and the machine's own `names`.

    Of each of `names` (such as `socket.gethostname()` says), the name, its first part and that with `.local` are ours.
    """

    def __init__(self, settings: Settings, *names: str) -> None:
        listed = [*settings.allowed_hosts.split(","), urlsplit(settings.public_url).hostname or "", "localhost"]
        for name in names:
            first = name.partition(".")[0]
            listed += [name, *([first, f"{first}.local"] if first else [])]
        self._names: set[str] = set()
        self._addresses: set[Address] = set()
        for each in listed:
            plain = _plain(each.strip())
            address = _address(plain.strip("[]"))
            if address is not None:
                self._addresses.add(address)
            elif plain:
                self._names.add(plain)

    def is_ours(self, host_header: str, server_address: str | None) -> bool:
        """Whether the header names this box. `server_address` is that of the socket which the request came in by.

        The port is not compared: a tunnel or a proxy has another.
        """
        host = _host(host_header)
        if not host:
            return False
        address = _address(host.strip("[]")) if host.startswith("[") or host[-1].isdigit() else None
        if address is None:
            return _plain(host) in self._names
        own = _address(server_address or "")
        return address.is_loopback or address in self._addresses or (address == own and not address.is_unspecified)


def is_wellformed(host_header: str) -> bool:
    """Whether a `Host` header is a host with or without a port, of this box or of any other."""
    return bool(_host(host_header))


def _host(header: str) -> str:
    """The host that a header names, an IPv6 address with its brackets; "" where it names none, or no possible port."""
    found = _HEADER.fullmatch(header) if len(header) <= _HEADER_MAX else None
    if found is None or int(found["port"] or 1) not in range(1, _PORT_MAX + 1):
        return ""
    host = found["host"]
    return "" if host.startswith("[") and _address(host[1:-1]) is None else host


def _plain(name: str) -> str:
    """As names are compared: lower case, in ASCII, without the dot that says that a name is complete."""
    try:
        ascii_name = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        return ""
    return ascii_name.lower().removesuffix(".")


def _address(text: str) -> Address | None:
    """An address in its plain form; None for anything else, so for the forms as well that only some programs read."""
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return parsed if parsed.version == 4 else parsed.ipv4_mapped or parsed
