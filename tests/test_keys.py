from __future__ import annotations

import string
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.stores import PEPPER, START_US, SetClock, add_account, opened
from zsky_box import audit, key_secrets, keys
from zsky_box.accounts import Account
from zsky_box.db import Store
from zsky_box.errors import Refusal
from zsky_box.keys import KEYS_MAX, OVERLAP_MAX_SECONDS, SCOPES, Caller, Key

BASE62 = set(string.ascii_letters + string.digits)


class Ring:
    """One account's keys, over a store and a clock."""

    def __init__(self, store: Store) -> None:
        self.store, self.clock = store, SetClock()
        self.account: Account = add_account(store, "ann")

    def issue(self, **arguments: object) -> tuple[Key, str]:
        return self.store.write(
            lambda tx: keys.issue(tx, PEPPER, self.account.id, now=self.clock(), actor="ann", **arguments)  # pyright: ignore[reportArgumentType]
        )

    def rotate(self, key_id: str | None = None, overlap_seconds: int = 0) -> tuple[Key, str]:
        return self.store.write(
            lambda tx: keys.rotate(
                tx, PEPPER, self.account.id, key_id, overlap_seconds=overlap_seconds, now=self.clock(), actor="ann"
            )
        )

    def revoke(self, key_id: str) -> Key:
        return self.store.write(lambda tx: keys.revoke(tx, self.account.id, key_id, now=self.clock(), actor="ann"))

    def verify(self, secret: str) -> Caller:
        return keys.verify(self.store, PEPPER, secret, self.clock())

    def refusal(self, secret: str) -> str:
        """The code with which a secret is refused."""
        with pytest.raises(Refusal) as refused:
            self.verify(secret)
        assert refused.value.status == 401
        assert refused.value.headers["WWW-Authenticate"]
        return refused.value.code

    def actions(self) -> list[str]:
        return [
            row["action"] for row in self.store.all("SELECT action FROM audit WHERE action LIKE 'key.%' ORDER BY id")
        ]


@pytest.fixture
def ring(tmp_path: Path) -> Generator[Ring]:
    with opened(tmp_path) as store:
        yield Ring(store)


# Shape


@pytest.mark.parametrize(("test", "prefix"), [(False, "zs_live_"), (True, "zs_test_")])
def test_a_key_says_its_mode_and_is_178_bits_with_a_checksum(ring: Ring, test: bool, prefix: str) -> None:
    key, secret = ring.issue(test=test)
    assert secret.startswith(prefix)
    assert len(secret) == len(prefix) + 36
    assert set(secret[len(prefix) :]) <= BASE62
    assert key_secrets.well_formed(secret)
    assert key.last_four == secret[-4:]
    assert ring.verify(secret).key.test is test


def test_every_mistyped_character_is_noticed_by_the_checksum(ring: Ring) -> None:
    _, secret = ring.issue()
    for place in range(len(secret)):
        other = "A" if secret[place] != "A" else "B"
        assert not key_secrets.well_formed(secret[:place] + other + secret[place + 1 :])


def test_two_neighbours_that_are_swapped_are_noticed(ring: Ring) -> None:
    _, secret = ring.issue()
    for place in range(len(secret) - 1):
        swapped = secret[:place] + secret[place + 1] + secret[place] + secret[place + 2 :]
        assert swapped == secret or not key_secrets.well_formed(swapped)


@pytest.mark.parametrize(
    "secret",
    [
        "zs_live_",
        "zs_live_short",
        "sk-" + "a" * 41,
        "zs_live_" + "é" * 36,
        "\ud800" * 44,
        "zs_live_" + "٣" * 36,
        " " * 44,
    ],
)
def test_what_is_no_key_is_refused_without_a_crash(ring: Ring, secret: str) -> None:
    assert ring.refusal(secret) == "invalid_key"


def test_a_missing_and_an_unknown_key_are_told_apart(ring: Ring, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with opened(elsewhere) as other:
        _, foreign = Ring(other).issue()
    assert ring.refusal("") == "missing_key"
    assert ring.refusal(foreign) == "invalid_key"


def test_a_key_is_worthless_without_the_boxs_pepper(ring: Ring) -> None:
    _, secret = ring.issue()
    with pytest.raises(Refusal, match="invalid_key"):
        keys.verify(ring.store, b"\x01" * 32, secret, START_US)


def test_a_secret_is_in_no_byte_of_the_data_folder(ring: Ring, tmp_path: Path) -> None:
    secrets = [ring.issue(name="studio")[1], ring.rotate()[1], ring.issue(test=True)[1]]
    ring.verify(secrets[1])
    ring.store.close()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"studio" in written
    for secret in secrets:
        assert secret.encode() not in written
        assert secret[8:38].encode() not in written
        assert secret[-4:].encode() in written


# Who it is


def test_verify_finds_the_account_and_the_keys_scopes(ring: Ring) -> None:
    key, secret = ring.issue(name="render farm", scopes=("generate", "read"))
    caller = ring.verify(secret)
    assert (caller.account, caller.key) == (ring.account, key)
    caller.require("generate")
    with pytest.raises(Refusal) as refused:
        caller.require("billing")
    assert (refused.value.status, refused.value.code) == (403, "insufficient_scope")
    assert "'billing'" in refused.value.detail


def test_a_view_shows_a_key_without_its_secret(ring: Ring) -> None:
    key, secret = ring.issue(name="studio")
    ring.clock.advance(90)
    keys.used(ring.store, key, ring.clock())
    ring.store.write(lambda _: None)
    (listed,) = keys.listed(ring.store, ring.account.id)
    assert listed.view() == {
        "id": key.id,
        "name": "studio",
        "test": False,
        "last_four": secret[-4:],
        "scopes": list(SCOPES),
        "cap_usd": None,
        "created_at": "2026-11-22T12:00:00Z",
        "expires_at": None,
        "revoked_at": None,
        "last_used_at": "2026-11-22T12:01:30Z",
    }


def test_the_use_of_a_key_is_written_at_most_once_a_minute(ring: Ring) -> None:
    _, secret = ring.issue()
    seen: list[int | None] = []
    for _ in range(4):
        keys.used(ring.store, ring.verify(secret).key, ring.clock())
        ring.store.write(lambda _: None)
        seen.append(ring.verify(secret).key.last_used_at)
        ring.clock.advance(30)
    assert seen == [START_US, START_US, START_US + 60_000_000, START_US + 60_000_000]


def test_lists_are_newest_first_and_of_one_account(ring: Ring) -> None:
    other = add_account(ring.store, "bob")
    ring.store.write(lambda tx: keys.issue(tx, PEPPER, other.id, now=START_US, actor="bob", name="not mine"))
    for name in ("first", "second"):
        ring.issue(name=name)
        ring.clock.advance(1)
    assert [key.name for key in keys.listed(ring.store, ring.account.id)] == ["second", "first"]


# Rotate and revoke


def test_rotating_ends_the_old_key_at_once_and_keeps_name_mode_and_scopes(ring: Ring) -> None:
    old, old_secret = ring.issue(name="studio", scopes=("generate",))
    new, secret = ring.rotate(old.id)
    assert ring.refusal(old_secret) == "revoked_key"
    assert ring.verify(secret).key == new
    assert (new.name, new.test, new.scopes) == ("studio", False, ("generate",))


def test_with_an_overlap_both_work_until_its_last_moment(ring: Ring) -> None:
    _, old_secret = ring.issue()
    _, secret = ring.rotate(overlap_seconds=3_600)
    ring.clock.advance(3_599.999)
    assert ring.verify(old_secret).account == ring.verify(secret).account
    ring.clock.advance(0.001)
    assert ring.refusal(old_secret) == "revoked_key"
    assert ring.verify(secret)


def test_rotating_an_ending_key_again_does_not_prolong_it(ring: Ring) -> None:
    old, old_secret = ring.issue()
    ring.rotate(old.id, overlap_seconds=60)
    ring.rotate(old.id, overlap_seconds=OVERLAP_MAX_SECONDS)
    ring.clock.advance(60)
    assert ring.refusal(old_secret) == "revoked_key"


def test_rotating_without_a_name_means_the_newest_usable_live_key(ring: Ring) -> None:
    ring.issue(name="older")
    ring.clock.advance(1)
    _, newest_secret = ring.issue(name="newest")
    ring.clock.advance(1)
    _, test_secret = ring.issue(name="test", test=True)
    ended, _ = ring.issue(name="ended")
    ring.revoke(ended.id)
    assert ring.rotate()[0].name == "newest"
    assert ring.refusal(newest_secret) == "revoked_key"
    assert ring.verify(test_secret)


def test_where_no_key_exists_rotate_issues_the_first_with_all_scopes(ring: Ring) -> None:
    key, secret = ring.rotate()
    assert (key.test, key.scopes) == (False, SCOPES)
    assert ring.verify(secret)


def test_an_ended_key_cannot_be_rotated(ring: Ring) -> None:
    revoked, _ = ring.issue()
    ring.revoke(revoked.id)
    expired, _ = ring.issue()
    ring.rotate(expired.id, overlap_seconds=60)
    ring.clock.advance(60)
    for key in (revoked, expired):
        with pytest.raises(Refusal) as refused:
            ring.rotate(key.id)
        assert refused.value.status == 409


@pytest.mark.parametrize("overlap_seconds", [-1, OVERLAP_MAX_SECONDS + 1])
def test_an_overlap_out_of_bounds_changes_nothing(ring: Ring, overlap_seconds: int) -> None:
    _, secret = ring.issue()
    with pytest.raises(Refusal) as refused:
        ring.rotate(overlap_seconds=overlap_seconds)
    assert (refused.value.status, refused.value.field) == (422, "overlap")
    assert ring.verify(secret).key.expires_at is None


def test_revoking_ends_a_key_at_once_and_twice_is_as_once(ring: Ring) -> None:
    key, secret = ring.issue()
    first = ring.revoke(key.id)
    ring.clock.advance(60)
    assert ring.revoke(key.id) == first
    assert ring.refusal(secret) == "revoked_key"
    assert ring.actions().count("key.revoked") == 1


def test_another_accounts_key_is_not_there(ring: Ring) -> None:
    other = add_account(ring.store, "bob")
    foreign, secret = ring.store.write(lambda tx: keys.issue(tx, PEPPER, other.id, now=START_US, actor="bob"))
    for act in (ring.revoke, ring.rotate):
        with pytest.raises(Refusal) as refused:
            act(foreign.id)
        assert refused.value.code == "not_found"
    assert ring.verify(secret).account == other


def test_an_account_has_at_most_twenty_usable_keys(ring: Ring) -> None:
    issued = [ring.issue() for _ in range(KEYS_MAX)]
    with pytest.raises(Refusal) as refused:
        ring.issue()
    assert (refused.value.status, refused.value.code) == (409, "too_many_keys")
    with pytest.raises(Refusal, match="too_many_keys"):
        ring.rotate(issued[0][0].id, overlap_seconds=60)
    assert ring.verify(issued[0][1]).key.expires_at is None
    ring.rotate(issued[0][0].id)
    ring.revoke(issued[1][0].id)
    ring.verify(ring.issue()[1])


def test_each_change_of_a_key_is_one_audit_row_without_its_secret(ring: Ring) -> None:
    key, _ = ring.issue()
    ring.rotate(key.id)
    assert ring.actions() == ["key.issued", "key.rotated", "key.issued"]
    assert audit.first_broken_row(ring.store) is None


def test_the_cap_of_a_key_is_its_lines_and_each_change_is_on_record(ring: Ring) -> None:
    old, _ = ring.issue(cap_micros=20_000_000)
    new, _ = ring.rotate(old.id, overlap_seconds=60)
    assert (new.cap_micros, new.budget_id) == (20_000_000, old.id)
    for cap in (5_000_000, 5_000_000, None):
        ring.store.write(
            lambda tx, cap=cap: keys.limit(tx, ring.account.id, new.id, cap, now=ring.clock(), actor="ann")
        )
        assert {key.cap_micros for key in keys.listed(ring.store, ring.account.id)} == {cap}
    rows = ring.store.all("SELECT before, after FROM audit WHERE action = 'key.cap' ORDER BY id")
    assert [('"20.00"' in row["before"], '"5.00"' in row["after"]) for row in rows] == [(True, True), (False, False)]


def test_another_accounts_key_cannot_be_capped(ring: Ring) -> None:
    other = add_account(ring.store, "bob")
    foreign, _ = ring.store.write(lambda tx: keys.issue(tx, PEPPER, other.id, now=START_US, actor="bob"))
    with pytest.raises(Refusal, match="not_found"):
        ring.store.write(lambda tx: keys.limit(tx, ring.account.id, foreign.id, 1, now=START_US, actor="ann"))


def test_a_free_plan_needs_no_key_until_its_wallet_can_pay(ring: Ring) -> None:
    guest = add_account(ring.store, "guest", "free")
    with ring.store.snapshot() as rows:
        keys.require_api(rows, ring.account, "2026-11")
        with pytest.raises(Refusal) as refused:
            keys.require_api(rows, guest, "2026-11")
    assert (refused.value.status, refused.value.code) == (403, "plan_without_api")


def test_rotating_goes_on_with_a_line_that_is_ending_where_there_is_no_other(ring: Ring) -> None:
    old, _ = ring.issue(scopes=("generate",), cap_micros=1_000_000)
    successor, _ = ring.rotate(old.id, overlap_seconds=3_600)
    ring.revoke(successor.id)
    again, _ = ring.rotate(None)
    assert (again.scopes, again.cap_micros, again.budget_id) == (("generate",), 1_000_000, old.id)
