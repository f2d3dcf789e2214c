from __future__ import annotations

import ipaddress

import pytest

from zsky_box.proxies import NETWORKS_MAX, networks


def trusts(text: str, address: str) -> bool:
    peer = ipaddress.ip_address(address)
    return any(peer in ipaddress.ip_network(network) for network in networks(text))


def test_it_works() -> None:
    assert networks("") == networks("  ") == []
    assert networks("fd00::7") == ["fd00::7/128"]
    assert networks("10.1.0.0/24") == ["10.1.0.0/24", "::ffff:a01:0/120"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "10.1.0.9", "::ffff:10.1.0.9", "fd00::1:5"])
def test_a_proxy_is_known_in_either_form_of_its_address(address: str) -> None:
    assert trusts("127.0.0.1, 10.1.0.0/24,fd00::/64", address)


@pytest.mark.parametrize("address", ["127.0.0.2", "10.1.1.9", "::ffff:10.1.1.9", "fd00:0:0:1::5", "::1", "203.0.113.9"])
def test_nobody_else_is(address: str) -> None:
    assert not trusts("127.0.0.1, 10.1.0.0/24,fd00::/64", address)


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "everybody",
        "proxy.studio.example",
        "10.0.0.1,",
        "10.0.0.1 10.0.0.2",
        "10.0.0.1/24",
        "10.0.0.0/33",
        "0.0.0.0/0",
        "::/0",
        "::ffff:0:0/96",
        "::/1",
        "fe80::1%eth0",
        "127.1",
        "0x7f.0.0.1",
        "10.0.0.1:80",
        ",".join(["10.0.0.1"] * (NETWORKS_MAX + 1)),
    ],
)
def test_what_is_no_proxy_or_is_everybody_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        networks(text)
