from __future__ import annotations

from pathlib import Path

import pytest

from tests.stores import START_US, opened
from zsky_box import accounts, audit, keys
from zsky_box.errors import StoreError
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


def test_a_new_account_is_one_audit_row(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        owner = store.write(lambda tx: accounts.create_owner(tx, "Ann", START_US))
        (row,) = store.all("SELECT * FROM audit")
        assert (row["action"], row["subject"], row["actor"]) == ("account.created", owner.id, "terminal")
        assert audit.first_broken_row(store) is None


def test_a_setup_token_works_until_the_next_is_made_and_is_stored_as_its_hash(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert not accounts.is_setup_token(store, "")
        first = accounts.new_setup_token(store, START_US)
        second = accounts.new_setup_token(store, START_US)
        assert accounts.is_setup_token(store, second)
        assert not accounts.is_setup_token(store, first)
        assert not accounts.is_setup_token(store, "")
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert second.encode() not in written


def test_what_a_plan_includes_follows_the_settings_for_max_only() -> None:
    settings = Settings(included_videos=7, included_images=8)
    included = {
        (plan, kind): accounts.included_units(plan, kind, settings)
        for plan in ("max", "free")
        for kind in ("video", "image")
    }
    assert included == {("max", "video"): 7, ("max", "image"): 8, ("free", "video"): 10, ("free", "image"): 50}
