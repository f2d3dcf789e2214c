from __future__ import annotations

from pathlib import Path

from tests.stores import PEPPER, START_US, add_account, opened
from zsky_box import access, keys
from zsky_box.db import Tx


def test_a_key_that_a_list_would_not_show_any_more_is_ended_too(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        ann = add_account(store, "ann")

        def issue(tx: Tx, at: int) -> str:
            return keys.issue(tx, PEPPER, ann.id, now=at, actor="ann")[0].id

        oldest = store.write(lambda tx: issue(tx, START_US))

        def many(tx: Tx) -> None:
            for later in range(1, 1_001):
                keys.revoke(tx, ann.id, issue(tx, START_US + later), now=START_US + later, actor="ann")

        store.write(many)
        assert oldest not in {key.id for key in keys.listed(store, ann.id)}
        closed = store.write(lambda tx: access.close(tx, ann, now=START_US + 2_000, actor="owner"))
        assert closed.keys == 1
        row = store.one("SELECT revoked_at FROM api_key WHERE id = ?", (oldest,))
        assert row is not None
        assert row["revoked_at"] == START_US + 2_000
