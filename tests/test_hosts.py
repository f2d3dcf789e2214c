from __future__ import annotations

import pytest

from zsky_box.hosts import Hosts
from zsky_box.settings import Settings

OURS = Hosts(
    Settings(public_url="https://Box.Studio.Example:8443", allowed_hosts="render.lan, 10.1.1.1,fd00::7"),
    "workstation.studio.example",
)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8420",
        "localhost.",
        "localhost.:8420",
        "127.0.0.1",
        "127.0.0.1:8420",
        "127.8.9.1",
        "[::1]",
        "[::1]:8420",
        "[0:0:0:0:0:0:0:1]:1",
        "[::ffff:127.0.0.1]",
        "box.studio.example",
        "box.studio.example:8443",
        "BOX.studio.EXAMPLE.:65535",
        "render.lan",
        "10.1.1.1:80",
        "[fd00::7]:8420",
        "[FD00:0::7]",
        "workstation",
        "workstation.local:8420",
        "workstation.studio.example",
    ],
)
def test_our_own_names_are_ours_whatever_the_socket(host: str) -> None:
    assert OURS.is_ours(host, None)
    assert OURS.is_ours(host, "192.168.1.5")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.168.1.5", "192.168.1.5"),
        ("192.168.1.5:8420", "192.168.1.5"),
        ("192.168.1.5", "::ffff:192.168.1.5"),
        ("[2001:DB8::5]:8420", "2001:db8:0::5"),
        ("[fe80::5]", "fe80::5%eth0"),
    ],
)
def test_the_address_that_the_request_came_in_by_is_ours(host: str, address: str) -> None:
    assert OURS.is_ours(host, address)
    assert not OURS.is_ours(host, "192.168.1.6")
    assert not OURS.is_ours(host, None)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8420",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "box.studio.example.evil.example",
        "evil.box.studio.example",
        "xbox.studio.example",
        "studio.example",
        "workstation.evil.example",
        "workstation.localdomain",
        "evil.localhost",
        "8.8.8.8",
        "0.0.0.0",  # noqa: S104 - never the box's own address
        "[::]",
        "[::ffff:8.8.8.8]",
        "2130706433",
        "0x7f.0.0.1",
        "0x7f000001",
        "127.1",
        "0177.0.0.1",
        "127.0.0.01",
        "\u0661\u0662\u0667.0.0.1",
        "*",
    ],
)
def test_another_name_is_not_ours_whatever_it_resolves_to(host: str) -> None:
    assert not OURS.is_ours(host, None)
    assert not OURS.is_ours(host, "192.168.1.5")
    assert not OURS.is_ours(host, "0.0.0.0")  # noqa: S104 - never the box's own address
    assert not OURS.is_ours(host, "::")


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        " localhost",
        "localhost ",
        "localhost\n",
        "localhost\x00",
        "localhost..",
        ".localhost",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:99999999",
        "localhost:-1",
        "localhost:80:80",
        "localhost:+80",
        "localhost:\u0668\u0660",
        "localhost:8420@evil.example",
        "user@localhost",
        "user:secret@localhost",
        "localhost@evil.example",
        "localhost/",
        "localhost/evil.example",
        "localhost#evil.example",
        "localhost?x",
        "localhost,evil.example",
        "http://localhost",
        "local%68ost",
        "::1",
        "[::1",
        "::1]",
        "[::1]x",
        "[[::1]]",
        "[::1%eth0]",
        "[127.0.0.1]",
        "[localhost]",
        "[]",
        "\uff4cocalhost",
        "localhost" * 100,
    ],
)
def test_what_is_no_host_is_not_ours(host: str) -> None:
    assert not OURS.is_ours(host, "127.0.0.1")
    assert not OURS.is_ours(host, host)


def test_nothing_is_ours_but_loopback_where_nothing_is_set() -> None:
    bare = Hosts(Settings())
    assert bare.is_ours("localhost:8420", None)
    for host in ("", "workstation", ".local", "local", "None"):
        assert not bare.is_ours(host, None)
    assert not Hosts(Settings(), "").is_ours(".local", None)


def test_a_name_of_other_letters_is_called_by_its_ascii_form() -> None:
    assert Hosts(Settings(public_url="https://büro.example")).is_ours("xn--bro-hoa.example", None)
