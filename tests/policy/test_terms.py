from __future__ import annotations

import pytest

from zsky_box.policy.reading import read
from zsky_box.policy.terms import WORDS_MAX, Terms


def found(text: str, *terms: str) -> set[str]:
    """Which terms are found in a text; each is its own mark."""
    return Terms([(term, term) for term in terms]).found(read(text))


def test_a_term_is_a_whole_word() -> None:
    assert found("an ass in a meadow", "ass") == {"ass"}
    assert found("an assassin in Scunthorpe, a mass of grass", "ass", "hor") == set()


def test_a_star_stands_for_any_ending() -> None:
    assert found("two lanterns", "lantern*") == {"lantern*"}
    assert found("a lantern", "lantern*") == {"lantern*"}
    assert found("a lamp and a lant", "lantern*") == set()
    assert found("magiclantern", "lantern*") == set()


def test_of_two_beginnings_the_shorter_finds_for_both() -> None:
    assert found("lanterns", "lantern*", "lan*") == {"lan*"}
    assert found("land", "lantern*", "lan*") == {"lan*"}


def test_a_phrase_is_found_with_whatever_stands_between_its_words() -> None:
    for text in ("Acme Studio", "the ACME-studio.", "acme  studio", "acme\nstudio", "acme/studio"):
        assert found(text, "acme studio") == {"acme studio"}, text
    for text in ("acme", "acme film studio", "studio acme", "acme studios"):
        assert found(text, "acme studio") == set(), text


def test_a_phrase_may_end_in_a_star() -> None:
    assert found("two acme studios", "acme stud*") == {"acme stud*"}


def test_terms_of_scripts_without_spaces_are_found_anywhere() -> None:
    assert found("夜のネオン市場", "市場", "ネオン", "時計") == {"市場", "ネオン"}


@pytest.mark.parametrize("text", ["p r i m e r", "\u043fp\u0438\u043cep", "-".join("пример"), "ПРИМЕР"])
def test_a_term_of_another_alphabet_is_found_in_disguise(text: str) -> None:
    term = "primer" if text.isascii() else "пример"
    assert found(f"x {text} x", term) == {term}


def test_spelt_letter_by_letter_a_term_is_found_within_the_run() -> None:
    assert found("m y l a n t e r n", "lantern", "lan*") == {"lantern", "lan*"}
    assert found("a i m", "ai") == set(), "too short to tell"


def test_the_first_of_equal_terms_counts() -> None:
    assert Terms([("Lantern", 1), ("lantern", 2)]).found(read("lantern")) == {1}


def test_a_harmless_phrase_hides_the_terms_within_and_no_others() -> None:
    terms = Terms([("flame", "bad"), ("naked flame*", "good")])
    assert terms.found(read("a naked flame"), harmless="good") == set()
    assert terms.found(read("a naked flame and a flame"), harmless="good") == {"bad"}


def test_numbers_under_eighteen_in_figures_and_words() -> None:
    terms = Terms([("# crowns", 1)], numbers=frozenset({"seven"}))
    for text in ("7 crowns", "17 crowns", "0 crowns", "seven crowns", "7-crowns"):
        assert terms.found(read(text)) == {1}, text
    for text in ("18 crowns", "70 crowns", "007 crowns", "eight crowns", "crowns", "1917 crowns"):
        assert terms.found(read(text)) == set(), text


@pytest.mark.parametrize("term", ["", "  ", "***", "!?", " ".join(["a"] * (WORDS_MAX + 1))])
def test_a_term_without_a_word_or_with_too_many_is_refused(term: str) -> None:
    with pytest.raises(ValueError, match=f"1 to {WORDS_MAX} words"):
        Terms([(term, 1)])
