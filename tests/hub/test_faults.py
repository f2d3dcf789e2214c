"""A hub that fails in every way that one can, seen by the person who installs."""

from __future__ import annotations

from collections import Counter
from email.utils import formatdate
from time import time
from typing import Any

import pytest
from msgspec.structs import replace

from tests.doubles.hub import HubDouble, a_hub
from tests.hub.checkpoint import NEEDED, REPOSITORY, SPEC, checkpoint, safetensors
from tests.hub.conftest import Studio
from zsky_box.errors import InstallError
from zsky_box.install.hub import Hub
from zsky_box.install.installing import Wish

LARGE = "transformer/diffusion_pytorch_model.safetensors"
SMALL = "vae/config.json"
TOKEN = "hf_secretsecretsecret"


def refused(studio: Studio, told: str, **arguments: Any) -> str:
    """The sentence of an installation that fails, and leaves nothing in the catalogue."""
    with pytest.raises(InstallError, match=told) as caught:
        studio.install(**arguments)
    assert studio.catalog.installed(SPEC) is None
    assert TOKEN not in str(caught.value)
    assert "s3cr3t" not in str(caught.value), "a signed address is a secret"
    return str(caught.value)


def went_well(studio: Studio, hub: HubDouble) -> bool:
    return studio.full == {path: hub.files[path] for path in NEEDED} and studio.faults() == []


def test_a_hub_that_is_down_for_a_moment_is_asked_again(studio: Studio, hub: HubDouble) -> None:
    hub.faults.down = 3
    studio.install()
    assert studio.waits == [1.0, 2.0, 4.0]
    assert went_well(studio, hub)


def test_a_hub_that_stays_down_is_given_up(studio: Studio, hub: HubDouble) -> None:
    hub.faults.down = -1
    refused(studio, r"has trouble of its own \(503\) \(4 tries in a row\)")
    assert len(hub.asked) == 4


def test_a_hub_that_is_not_there_is_given_up(studio: Studio, hub: HubDouble) -> None:
    hub.close()
    refused(studio, r"cannot be reached .* \(4 tries in a row\)")


def test_a_hub_goes_down_in_the_middle_and_the_next_run_goes_on(studio: Studio, hub: HubDouble) -> None:
    hub.faults.truncate[LARGE] = -1
    refused(studio, "ended|broke off")
    hub.faults.truncate.clear()
    assert hub.bytes < sum(len(hub.files[path]) for path in NEEDED)
    studio.install()
    assert hub.bytes == sum(len(hub.files[path]) for path in NEEDED)
    assert went_well(studio, hub)


def test_a_revision_that_is_not_there(studio: Studio) -> None:
    refused(studio, r"no such revision of studio/small \(404\)", wish=Wish(requested="no/such"))


def test_a_repository_that_is_not_there(studio: Studio) -> None:
    studio.spec = replace(SPEC, repository="a/b")
    refused(studio, r"no repository a/b \(404\)")


@pytest.mark.parametrize("path", [LARGE, SMALL])
def test_a_body_that_is_corrupted_once_is_fetched_again(studio: Studio, hub: HubDouble, path: str) -> None:
    hub.faults.corrupt[path] = 1
    studio.install()
    assert hub.served[path] == 2 * len(hub.files[path])
    assert went_well(studio, hub)


@pytest.mark.parametrize("path", [LARGE, SMALL])
def test_a_body_that_is_always_corrupted_is_given_up(studio: Studio, hub: HubDouble, path: str) -> None:
    hub.faults.corrupt[path] = -1
    refused(studio, rf"{path} arrived 3 times with other content than its hash says")
    assert hub.served[path] == 3 * len(hub.files[path])


@pytest.mark.parametrize("path", [LARGE, "text_encoder/config.json"])
def test_a_truncated_body_goes_on_where_it_ended(studio: Studio, hub: HubDouble, path: str) -> None:
    hub.faults.truncate[path] = 3
    studio.install()
    assert hub.served[path] == len(hub.files[path])
    assert went_well(studio, hub)


def test_more_than_announced_is_never_taken(studio: Studio, hub: HubDouble) -> None:
    hub.faults.too_much[LARGE] = 1
    studio.install()
    assert went_well(studio, hub)


@pytest.mark.parametrize("off_by", [-1, 1, 10**6])
def test_a_length_that_is_a_lie_is_given_up(studio: Studio, hub: HubDouble, off_by: int) -> None:
    hub.faults.sizes[LARGE] = len(hub.files[LARGE]) + off_by
    refused(studio, "more of|ended|no such range")
    largest = max((path.stat().st_size for path in studio.staging.rglob("*.part")), default=0)
    assert largest <= hub.faults.sizes[LARGE]


@pytest.mark.parametrize("size", [-1, 2**60])
def test_a_length_that_cannot_be_is_refused(studio: Studio, hub: HubDouble, size: int) -> None:
    hub.faults.sizes[LARGE] = size
    refused(studio, "a length of")


def test_large_files_come_from_another_host_and_the_token_stays(studio: Studio, hub: HubDouble) -> None:
    hub.token = TOKEN
    studio.install(token=TOKEN)
    elsewhere = [asked for asked in hub.asked if asked.port == hub.content_port]
    assert len(elsewhere) == 4
    assert not any("Authorization" in asked.headers for asked in elsewhere)
    assert all(asked.headers["Authorization"] == f"Bearer {TOKEN}" for asked in hub.asked if asked not in elsewhere)


def test_redirects_on_the_same_host_are_followed_within_a_bound(studio: Studio, hub: HubDouble) -> None:
    hub.faults.redirects = 5
    studio.install()
    hub.faults.redirects = -1
    with pytest.raises(InstallError, match="more than 5 times"):
        studio.install(Wish(again=True))


@pytest.mark.parametrize("to", ["ftp://127.0.0.1/x", "file:///etc/passwd", "//["])
def test_a_redirect_to_no_web_address_is_not_followed(studio: Studio, hub: HubDouble, to: str) -> None:
    hub.faults.redirects, hub.faults.redirect_to = -1, to
    refused(studio, "not encrypted|is none|cannot be reached")


def test_the_list_of_files_does_not_go_on_elsewhere(studio: Studio, hub: HubDouble) -> None:
    hub.faults.next_page_at = f"http://127.0.0.1:{hub.content_port}"
    refused(studio, "continues its list")


def test_a_signed_address_that_ran_out_is_asked_for_anew(studio: Studio, hub: HubDouble) -> None:
    hub.faults.expired = 2
    studio.install()
    assert went_well(studio, hub)


@pytest.fixture
def gated(hub: HubDouble) -> HubDouble:
    hub.token = TOKEN
    return hub


def test_a_gated_repository_without_a_token_says_what_to_do(studio: Studio, gated: HubDouble) -> None:
    told = refused(studio, r"\(401\)")
    assert "HF_TOKEN" in told
    assert "hub_token_file" in told
    assert f"{gated.url}/{REPOSITORY}" in told
    assert len(gated.asked) == 1, "asking again would not help"


def test_a_token_that_has_not_accepted_the_licence_says_where_to(studio: Studio, gated: HubDouble) -> None:
    gated.faults.closed_to = ("hf_other",)
    told = refused(studio, r"\(403\)", token="hf_other")
    assert "accept the licence" in told
    assert "hf_other" not in told


def test_a_gated_repository_opens_to_its_token(studio: Studio, gated: HubDouble) -> None:
    studio.install(token=TOKEN)
    assert went_well(studio, gated)


def test_a_token_is_not_sent_over_an_open_line() -> None:
    with pytest.raises(InstallError, match="not encrypted") as caught:
        Hub("http://hub.example.org", TOKEN)
    assert TOKEN not in str(caught.value)


def test_429_is_waited_for_as_long_as_it_says(studio: Studio, hub: HubDouble) -> None:
    hub.faults.too_many = ["7", formatdate(time() + 100, usegmt=True), "nonsense"]
    studio.install()
    assert studio.waits[0] == 7.0
    assert 90 <= studio.waits[1] <= 100
    assert studio.waits[2] == 4.0
    assert went_well(studio, hub)


def test_429_that_asks_for_too_long_is_told(studio: Studio, hub: HubDouble) -> None:
    hub.faults.too_many = ["3600"]
    refused(studio, r"come back later \(429\), in 3600 s at the earliest")
    assert studio.waits == []


def test_a_hub_that_falls_silent_is_left_and_the_rest_is_asked_for(studio: Studio, hub: HubDouble) -> None:
    hub.faults.hold_after = 40_000

    def go_on() -> None:
        hub.faults.hold_after = None
        hub.released.set()

    studio.on_wait = go_on
    studio.install()
    assert hub.holding.is_set()
    assert hub.bytes == sum(len(hub.files[path]) for path in NEEDED)
    assert went_well(studio, hub)


def test_a_server_that_ignores_range_begins_the_file_again(studio: Studio, hub: HubDouble) -> None:
    hub.faults.truncate[LARGE] = 1
    hub.faults.ignore_range = True
    studio.install()
    assert hub.served[LARGE] == len(hub.files[LARGE]) // 2 + len(hub.files[LARGE])
    assert went_well(studio, hub)


def test_a_changed_etag_begins_the_file_again(studio: Studio, hub: HubDouble) -> None:
    hub.faults.truncate[LARGE] = -1
    refused(studio, "ended|broke off")
    here = hub.served[LARGE]
    hub.faults.truncate.clear()
    hub.faults.tag_salt = "-other"
    studio.install()
    assert hub.served[LARGE] == here + len(hub.files[LARGE])
    assert went_well(studio, hub)


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/cron.d/x.json",
        "/etc/passwd",
        "vae/../../x.json",
        "vae//x.json",
        "vae/./x.json",
        "vae\\..\\x.json",
        "vae/x\x00.json",
        "vae/\x1b[2J.json",
        "vae/" + "x" * 300 + ".json",
        "",
    ],
)
def test_a_file_name_that_leads_out_of_the_folder_is_refused(studio: Studio, hub: HubDouble, path: str) -> None:
    hub.faults.entries = [{"type": "file", "path": path, "size": 2, "oid": "0" * 40}]
    refused(studio, "nothing is taken from it")
    assert hub.bytes == 0
    assert [found.name for found in studio.weights.parent.iterdir()] == ["weights"]


def test_a_file_listed_twice_is_refused(studio: Studio, hub: HubDouble) -> None:
    hub.faults.entries = [{"type": "file", "path": "vae/config.json", "size": 2, "oid": "0" * 40}]
    refused(studio, "lists vae/config.json twice")


def test_a_file_without_a_hash_is_refused(studio: Studio, hub: HubDouble) -> None:
    hub.faults.entries = [{"type": "file", "path": "vae/more.json", "size": 2}]
    refused(studio, "no hash of vae/more.json")


def test_a_list_without_an_end_is_refused(studio: Studio, hub: HubDouble) -> None:
    hub.page_files = 6_000
    hub.faults.entries = [{"type": "file", "path": f"x/{n}", "size": 0, "oid": "0" * 40} for n in range(12_000)]
    refused(studio, "more than 10000 files")


@pytest.mark.parametrize("answer", [b"<html>sign in to the wifi</html>", b"{}", b'{"sha": "../.."}', b"\xff"])
def test_what_is_no_hub_is_told(studio: Studio, hub: HubDouble, answer: bytes) -> None:
    hub.faults.answer = answer
    refused(studio, "makes no sense")


def test_a_pickle_with_the_right_hash_is_still_no_model(studio: Studio, hub: HubDouble) -> None:
    hub.files[LARGE] = b"\x80\x04\x95" + bytes(10_000)
    refused(studio, "not a safetensors file")
    assert not (studio.staging / "tree").exists() or not list((studio.staging / "tree").rglob("diffusion*.safetensors"))


def test_content_other_than_announced_is_never_kept(studio: Studio, hub: HubDouble) -> None:
    hub.faults.contents[LARGE] = safetensors(30_000, fill=66)
    refused(studio, "other content than its hash says")


def test_the_double_hides_nothing_that_is_needed() -> None:
    with a_hub(REPOSITORY, checkpoint()) as double:
        assert double.served == Counter()
        assert set(NEEDED) <= set(double.files)
