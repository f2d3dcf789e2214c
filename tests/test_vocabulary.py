from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsky_box.manifest import Vocabulary
from zsky_box.vocabulary import LETTERS_MAX, NAMED_MAX, notes_on, words_of

SMALL = Vocabulary(
    knows={"object": ("ball", "star"), "colour": ("red",)},
    passes_over=("a", "the", "on"),
    examples=("a red ball", "a star"),
    words_read=12,
)
TRY = "It knows a small world; try “a red ball” or “a star”."


def noted(prompt: str) -> list[str]:
    return notes_on(prompt, "mini", SMALL)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A red ball", ["a", "red", "ball"]),
        ("It's the dog\u2019s, well-made!", ["it's", "the", "dog\u2019s", "well-made"]),
        ("snake_case -- 3 4.5", ["snake", "case", "3", "4", "5"]),
        ("Straße 音", ["straße", "音"]),
        ("🎬 …", []),
    ],
)
def test_words_are_letters_and_digits_that_hang_together(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_a_prompt_that_is_understood_needs_no_note() -> None:
    assert noted("A RED ball, on the star.") == []


def test_unknown_words_are_named_once_in_their_order() -> None:
    assert noted("the rusty red ball, rusty and old") == [
        f"mini does not know “rusty”, “and” and “old”: it leaves that out. {TRY}"
    ]
    assert noted("a grey ball")[0].startswith("mini does not know “grey”:")


@pytest.mark.parametrize("prompt", ["thunder rolling", "a the on", "🎬", ""])
def test_a_prompt_without_anything_to_go_by_says_so(prompt: str) -> None:
    assert noted(prompt) == [f"mini knows none of these words: what it makes is its own idea. {TRY}"]


def test_many_words_and_long_ones_are_told_in_short() -> None:
    (note,) = noted("ball " + " ".join(f"w{number}" for number in range(NAMED_MAX + 2)))
    assert f"“w{NAMED_MAX - 1}” and 2 more:" in note
    (note,) = noted("ball " + "x" * 500)
    assert f"“{'x' * (LETTERS_MAX - 1)}…”" in note


def test_words_that_are_not_read_are_not_called_unknown() -> None:
    assert noted("red " * SMALL.words_read + "thunder") == ["mini reads the first 12 words of a prompt."]


@given(st.text(max_size=300))
def test_notes_are_few_short_and_one_line_each(prompt: str) -> None:
    notes = noted(prompt)
    assert len(notes) <= 2
    assert all(note.isprintable() and len(note) < 500 for note in notes)
