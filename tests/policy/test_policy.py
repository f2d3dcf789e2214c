from __future__ import annotations

import time

import pytest

from zsky_box.errors import PromptBlocked, SettingsError
from zsky_box.policy import MINORS, PromptPolicy
from zsky_box.policy.lexicon import LEXICON
from zsky_box.policy.minors import listed
from zsky_box.schemas import PROMPT_MAX
from zsky_box.settings_rules import RULES_MAX, TERMS_MAX

POLICY = PromptPolicy(
    {"brands": ("Acme", "Acme Studio*", "globex"), "gore": ("gore", "decapitat*"), "acme films": ("acme",)}
)


def rule(prompt: str) -> str | None:
    refusal = POLICY.refusal(prompt)
    return None if refusal is None else refusal.rule


def test_it_works() -> None:
    refusal = POLICY.refusal("an ACME rocket, low angle")
    assert isinstance(refusal, PromptBlocked)
    assert (refusal.status, refusal.code, refusal.field) == (422, "prompt_blocked", "prompt")
    assert "rule 'brands'" in refusal.detail
    assert "rocket" not in refusal.detail
    assert refusal.errors[0].message == refusal.detail


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a.c.m.e rocket", "brands"),
        ("4cme", "brands"),
        ("two acme studios", "brands"),
        ("a decapitated statue", "gore"),
        ("gore, by globex", "brands"),  # the first rule of the owner's file
        ("Acmeist poetry, gorey illustrations, a gorge", None),
        ("a lighthouse", None),
        ("", None),
    ],
)
def test_the_rule_that_refuses_is_named(prompt: str, expected: str | None) -> None:
    assert rule(prompt) == expected


def test_a_box_without_rules_has_the_one_that_cannot_be_switched_off() -> None:
    policy = PromptPolicy({})
    child, nude = (listed(getattr(LEXICON["en"], kind))[0] for kind in ("child", "sexual"))
    refusal = policy.refusal(f"a {child}, {nude}")
    assert refusal is not None
    assert refusal.rule == MINORS
    assert "no box makes that" in refusal.detail
    assert policy.refusal("acme gore") is None


def test_it_stands_before_the_owners_rules() -> None:
    child, nude = (listed(getattr(LEXICON["en"], kind))[0] for kind in ("child", "sexual"))
    assert rule(f"acme, a {child}, {nude}") == MINORS


@pytest.mark.parametrize("term", ["***", "?!", " ".join(["long"] * 17)])
def test_a_term_that_finds_nothing_is_named_with_its_rule(term: str) -> None:
    with pytest.raises(SettingsError, match=r"^blocked_terms, rule 'mine': "):
        PromptPolicy({"mine": ("fine", term)})


def test_a_long_prompt_against_all_rules_is_read_in_a_moment() -> None:
    """About 3 ms where nothing else runs; the bound leaves room for a busy machine."""
    policy = PromptPolicy(
        {
            f"rule {n}": tuple(f"term{n}x{m} of many words" for m in range(TERMS_MAX // RULES_MAX))
            for n in range(RULES_MAX)
        }
    )
    prompt = ("a wide shot of a neon night market in the rain, ambient crowd sound, term7x7 of any words, " * 100)[
        :PROMPT_MAX
    ]
    began = time.process_time()
    for _ in range(10):
        assert policy.refusal(prompt) is None
    assert (time.process_time() - began) / 10 < 0.02
