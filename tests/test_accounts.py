from __future__ import annotations

from pathlib import Path

import pytest

from tests.stores import START_US, opened
from zsky_box import accounts, audit, keys
from zsky_box.accounts import Account, Plan, Renewal
from zsky_box.db import Store
from zsky_box.errors import Refusal, StoreError
from zsky_box.settings import Settings


def test_a_box_has_one_owner_on_the_plan_max(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert accounts.owner(store) is None
        owner = store.write(lambda tx: accounts.create_owner(tx, "Ann", START_US))
        assert accounts.owner(store) == owner
        assert (owner.name, owner.role, owner.plan) == ("Ann", "owner", "max")
        with pytest.raises(StoreError, match="has an owner already"):
            store.write(lambda tx: accounts.create_owner(tx, "Bob", START_US))
        assert accounts.owner(store) == owner


def test_the_owner_at_the_terminal_may_do_everything(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert keys.caller_of_owner(store) is None
        owner = store.write(lambda tx: accounts.create_owner(tx, "Ann", START_US))
        caller = keys.caller_of_owner(store)
        assert caller is not None
        assert (caller.account, caller.key.scopes, caller.key.test) == (owner, keys.SCOPES, False)


@pytest.mark.parametrize("name", ["ann", "ANN", "Zoe\u0308", "ZOË", "\uff21nn"])
def test_a_name_that_a_person_would_take_for_anothers_is_taken(tmp_path: Path, name: str) -> None:
    with opened(tmp_path) as store:
        store.write(lambda tx: accounts.create_owner(tx, "Ann", START_US))
        zoe = member(store, "Zoë")
        with pytest.raises(Refusal, match="already"):
            member(store, name)
        with store.snapshot() as rows:
            assert len(accounts.everybody(rows)) == 2
        renamed = store.write(lambda tx: accounts.rename(tx, zoe, "ZOE\u0308", now=START_US))
        assert renamed.name == "ZO\u00cb", "one's own name is no other's, and is kept in one form"
        with store.snapshot() as rows:
            assert accounts.named(rows, "ZOE\u0308") == renamed


def test_a_new_account_is_one_audit_row(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        owner = store.write(lambda tx: accounts.create_owner(tx, "Ann", START_US))
        (row,) = store.all("SELECT * FROM audit")
        assert (row["action"], row["subject"], row["actor"]) == ("account.created", owner.id, "terminal")
        assert audit.first_broken_row(store) is None


# Members


def member(store: Store, name: str, plan: Plan = "max", *, annual: bool = False) -> Account:
    return store.write(lambda tx: accounts.add_member(tx, name, plan, annual=annual, now=START_US))


@pytest.mark.parametrize(
    ("plan", "annual", "renews"), [("max", False, "monthly"), ("max", True, "annual"), ("free", False, "monthly")]
)
def test_a_member_begins_as_it_was_asked_for_with_overage_off_and_the_least_cap(
    tmp_path: Path, plan: Plan, annual: bool, renews: str
) -> None:
    with opened(tmp_path) as store:
        made = member(store, "Bob", plan, annual=annual)
        with store.snapshot() as rows:
            assert accounts.get(rows, made.id) == made
        assert (made.role, made.plan, made.annual, made.renews) == ("member", plan, annual, renews)
        assert (made.overage, made.cap_micros, made.ceiling_micros, made.replenish) == (False, 5_000_000, None, None)
        assert (made.paid_until, made.limit_micros) == ("", 5_000_000)


@pytest.mark.parametrize("name", ["", "  ", "a" * 101, "two\nlines", "a\u200bb\x00"])
def test_a_name_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with opened(tmp_path) as store:
        with pytest.raises(Refusal) as refused:
            member(store, name)
        assert (refused.value.status, refused.value.code, refused.value.field) == (422, "invalid_field", "name")
        assert store.all("SELECT * FROM account") == []


def test_a_name_is_one_accounts_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        member(store, "a" * 100)
        with pytest.raises(Refusal, match="There is an account named"):
            member(store, "a" * 100)
        assert len(store.all("SELECT * FROM account")) == 1


def test_a_box_has_a_most_of_accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "ACCOUNTS_MAX", 2)
    with opened(tmp_path) as store:
        member(store, "ann")
        member(store, "bob")
        with pytest.raises(Refusal) as refused:
            member(store, "cleo")
        assert (refused.value.status, refused.value.code) == (409, "too_many_accounts")


def test_an_account_is_found_by_its_name_and_by_its_id_which_no_name_can_look_like(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        ann = member(store, "ann")
        with pytest.raises(Refusal, match="acc_"):
            member(store, ann.id)
        with store.snapshot() as rows:
            assert accounts.named(rows, "ann") == ann
            assert accounts.named(rows, ann.id) == ann
            for unknown in ("Ann", "", "ann%"):
                with pytest.raises(Refusal, match="There is no account") as refused:
                    accounts.named(rows, unknown)
                assert refused.value.status == 404


def test_everybody_is_listed_the_owner_first(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        ann = member(store, "ann")
        owner = store.write(lambda tx: accounts.create_owner(tx, "studio", START_US + 1))
        assert accounts.everybody(store) == [owner, ann]


# What counts


@pytest.mark.parametrize(
    ("plan", "renews", "paid_until", "counts"),
    [
        ("max", "monthly", "2026-11", "max"),
        ("max", "no", "2026-12", "max"),
        ("max", "no", "2026-11", "free"),
        ("max", "no", "2026-10", "free"),
        ("max", "no", "", "max"),
        ("free", "monthly", "2026-12", "free"),
    ],
)
def test_a_cancelled_plan_counts_until_its_paid_term_has_ended(
    plan: Plan, renews: Renewal, paid_until: str, counts: str
) -> None:
    account = Account(id="acc", name="a", role="member", plan=plan, created_at=0, renews=renews, paid_until=paid_until)
    assert account.plan_in("2026-11") == counts


@pytest.mark.parametrize(("ceiling", "limit"), [(None, 7), (6, 6), (7, 7), (8, 7), (0, 0)])
def test_the_limit_is_the_users_cap_within_the_owners_ceiling(ceiling: int | None, limit: int) -> None:
    account = Account(id="acc", name="a", role="member", plan="max", created_at=0, cap_micros=7, ceiling_micros=ceiling)
    assert account.limit_micros == limit


def test_what_a_plan_includes_follows_the_settings_for_max_only() -> None:
    settings = Settings(included_videos=7, included_images=8)
    included = {
        (plan, kind): accounts.included_units(plan, kind, settings)
        for plan in ("max", "free")
        for kind in ("video", "image")
    }
    assert included == {("max", "video"): 7, ("max", "image"): 8, ("free", "video"): 10, ("free", "image"): 50}
