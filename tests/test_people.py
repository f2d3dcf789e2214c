from __future__ import annotations

from pathlib import Path

from tests.stores import START_US, Rooms, add_account, opened
from zsky_box import accounts, people, sessions


def names(rooms_or_store: people.Page) -> list[str]:
    return [account.name for account in rooms_or_store.people]


def test_the_owner_comes_first_and_names_are_found_whatever_their_case(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number, name in enumerate(("Ada", "ben", "Ägir")):
            add_account(store, name, now=START_US + number)
        store.write(lambda tx: accounts.create_owner(tx, "studio", START_US + 9))
        with store.snapshot() as rows:
            assert names(people.page(rows, "", 0)) == ["studio", "Ada", "ben", "Ägir"]
            assert names(people.page(rows, "ADA", 0)) == ["Ada"]
            assert names(people.page(rows, "äGIR", 0)) == ["Ägir"]
            assert people.page(rows, "nobody", 0) == people.Page([], 0)


def test_a_page_holds_a_hundred(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in range(people.PAGE + 3):
            add_account(store, f"p{number:03}", now=START_US + number)
        with store.snapshot() as rows:
            first, second = people.page(rows, "", 0), people.page(rows, "", people.PAGE)
    assert (len(first.people), first.matching, names(second)) == (100, 103, ["p100", "p101", "p102"])


def test_somebody_was_last_here_by_a_browser_or_by_a_key(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path)
    never, owner = add_account(rooms.store, "never"), rooms.owner

    def seen() -> dict[str, int]:
        with rooms.store.snapshot() as rows:
            return people.last_seen(rows, [never.id, owner.account.id])

    assert seen() == {}
    rooms.store.write(lambda tx: tx.execute("UPDATE api_key SET last_used_at = 5 WHERE id = ?", (owner.key.id,)))
    assert seen() == {owner.account.id: 5}
    rooms.store.write(lambda tx: sessions.begin(tx, owner.account.id, now=START_US, address="here", agent=""))
    assert seen() == {owner.account.id: START_US}
    rooms.close()
