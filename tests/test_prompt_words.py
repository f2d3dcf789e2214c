from __future__ import annotations

from pathlib import Path

import pytest

from tests.stores import Rooms, add_account, caller_for
from zsky_box import prompt_words
from zsky_box.errors import Refusal
from zsky_box.keys import Caller


def found(rooms: Rooms, text: str, caller: Caller | None = None) -> list[str]:
    """The prompts that the words of an account's search lead to, oldest first."""
    query = prompt_words.match((caller or rooms.owner).account.id, text)
    if query is None:
        return []
    sql = "SELECT job.prompt FROM prompt_words JOIN job ON job.seq = prompt_words.rowid WHERE prompt_words MATCH ?"
    return [row["prompt"] for row in rooms.store.all(f"{sql} ORDER BY job.seq", (query,))]


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    rooms = Rooms(tmp_path)
    for prompt in ("A neon night market", "Neon signs at night", "Café déjà-vu", "the C++ of sound", "東京 の夜"):
        rooms.new_job(prompt=prompt)
    return rooms


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("neon", ["A neon night market", "Neon signs at night"]),
        ("NIGHT neon", ["A neon night market", "Neon signs at night"]),
        ("neon mark", ["A neon night market"]),
        ("mark neon", []),
        ("cafe deja", ["Café déjà-vu"]),
        ("déjà-vu", ["Café déjà-vu"]),
        ("c++", ["Café déjà-vu", "the C++ of sound"]),
        ("東京", ["東京 の夜"]),
        ("京", ["東京 の夜"]),
        ("の夜 東", ["東京 の夜"]),
        ("京東", []),
        ("nothing", []),
        ("  ", []),
        ("!!! --", []),
    ],
)
def test_every_word_is_sought_and_the_last_as_a_beginning(rooms: Rooms, text: str, prompts: list[str]) -> None:
    assert found(rooms, text) == prompts
    rooms.close()


@pytest.mark.parametrize(
    "text",
    [
        'neon"',
        '"neon',
        '""',
        "neon AND",
        "neon OR night",
        "NOT neon",
        "NEAR(neon night)",
        "account : x",
        "prompt:neon",
        "neon*",
        "*",
        "^neon",
        "(neon",
        "{prompt} : neon",
        "neon\0night",
        "a" * 10_000,
        'x" OR account : "' * 50,
        "- neon",
        "neon + night",
        "\ud800",
    ],
)
def test_what_a_person_writes_is_never_syntax(rooms: Rooms, text: str) -> None:
    bob = caller_for(rooms.store, add_account(rooms.store, "bob"))
    rooms.new_job(bob, prompt="neon of bob")
    assert "neon of bob" not in found(rooms, text)
    rooms.close()


def test_an_account_finds_its_own_prompts_and_nobody_those_of_test_keys(rooms: Rooms) -> None:
    bob = caller_for(rooms.store, add_account(rooms.store, "bob"))
    rooms.new_job(bob, prompt="a neon cat")
    rooms.new_job(rooms.tester, prompt="a neon test")
    assert found(rooms, "neon", bob) == ["a neon cat"]
    everybody = prompt_words.match("", "neon")
    rows = rooms.store.all("SELECT rowid FROM prompt_words WHERE prompt_words MATCH ?", (everybody,))
    assert len(rows) == 3
    rooms.close()


def test_a_refused_submit_leaves_no_words(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, included_images=1)
    rooms.new_job(prompt="paid for")
    with pytest.raises(Refusal, match="allowance_exhausted"):
        rooms.new_job(prompt="overspent")
    assert (found(rooms, "paid"), found(rooms, "overspent")) == (["paid for"], [])
    assert rooms.store.all("SELECT count(*) AS n FROM prompt_words")[0]["n"] == 1
    rooms.close()
