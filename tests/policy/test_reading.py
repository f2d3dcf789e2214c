from __future__ import annotations

import time

import pytest

from zsky_box.policy.reading import SPELLED_MIN, folded, read


def words(text: str) -> set[str]:
    """Every word that is read in a text, in one way or another."""
    reading = read(text)
    return {*reading.words, *reading.spelled} | {word for more in reading.others.values() for word, _ in more}


@pytest.mark.parametrize(
    "disguise",
    [
        "lantern",
        "LANTERN",
        "Lantern!",
        "(lantern)",
        '"lantern",',
        "\uff4c\uff41\uff4e\uff54\uff45\uff52\uff4e",
        "\U0001d425\U0001d41a\U0001d427\U0001d42d\U0001d41e\U0001d42b\U0001d427",
        "\u24db\u24d0\u24dd\u24e3\u24d4\u24e1\u24dd",
        "lántérn",
        "la\u200bnt\u00adern",
        "l\u0336a\u0336n\u0336t\u0336e\u0336r\u0336n",
        "l" + "\u0301\u0316" * 20 + "antern",
        "l\u0430nt\u0435rn",  # Cyrillic
        "l4nt3rn",
        "1antern",
        "lan+ern",
        "|antern",
        "l@ntern",
        "l.a.n.t.e.r.n",
        "l-a-n-t-e-r-n",
        "lan-tern",
        "lan_tern",
        "l a n t e r n",
        "l  a  n  t  3  r  n",
        "laaaantern",
        "lanternnnnn",
    ],
)
def test_a_word_is_read_however_it_is_spelt(disguise: str) -> None:
    assert "lantern" in words(f"a paper {disguise} by the river")


@pytest.mark.parametrize("other", ["lanterns", "magiclantern", "lan tern", "lantérnă", "l a n"])
def test_another_word_is_not_read_as_it(other: str) -> None:
    assert "lantern" not in words(f"a paper {other} by the river")


def test_plain_text_has_one_reading() -> None:
    reading = read("A neon night market, in the rain; 3 cats.")
    assert reading.words == ["a", "neon", "night", "market", "in", "the", "rain", "3", "cats"]
    assert (reading.others, reading.spelled) == ({}, [])


def test_a_tilde_makes_another_letter_and_an_accent_does_not() -> None:
    assert folded("café Niña NIÑA n\u0303") == "cafe niña niña ñ"
    assert words("niña") == {"niña", "nina"}


def test_scripts_without_spaces_are_read_letter_by_letter() -> None:
    assert read("夜の市場 ネオン 시장").words == list("夜の市場ネオン시장")


def test_figures_and_letters_are_words_of_their_own() -> None:
    assert read("12yo").words == ["12", "yo"]


def test_single_letters_in_a_row_are_one_word_too() -> None:
    assert read("u s a").spelled == ["usa"]
    assert len("u s") == SPELLED_MIN
    assert read("u s of").spelled == []


@pytest.mark.parametrize(
    "piece",
    [
        "a wide shot of a harbour, ",
        "l4n-t3rn ",
        "a b c ",
        "лантерн ",
        "夜の市場、",
        "\u05b0\u0591",
        "\ufdfa",
        "\u3316",
        "aaab1",
    ],
)
def test_time_grows_with_the_length_only(piece: str) -> None:
    """Four times the text takes about four times the time, and never sixteen times."""

    def seconds(length: int) -> float:
        text = (piece * length)[:length]
        best = 10.0
        for _ in range(5):
            began = time.process_time()
            read(text)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(8_000) < 8 * seconds(2_000) + 0.001
