"""The prompt policy: what this box does not make, refused at submit and free: the owner's own terms, and one rule that
cannot be switched off. Pure; whoever takes a job asks it.

It reads the prompt only: a negative prompt names what is not wanted, and may name anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from zsky_box.errors import PromptBlocked, SettingsError
from zsky_box.policy.minors import concerns_minors
from zsky_box.policy.reading import read
from zsky_box.policy.terms import Terms

MINORS: Final = "minors"
_MINORS_TOLD: Final = (
    "prompt: it asks for sexual content with a minor, or reads as if it did, and no box makes that."
    " Where adults are meant, say so without words for children."
)


class PromptPolicy:
    """`blocked_terms` are the owner's: rules by name, each with its terms. Raises SettingsError for one of no words."""

    def __init__(self, blocked_terms: Mapping[str, Sequence[str]]) -> None:
        self._order = list(blocked_terms)
        self._terms = Terms(_checked(blocked_terms))

    def refusal(self, prompt: str) -> PromptBlocked | None:
        """Why a prompt is not taken; None where it is."""
        text = read(prompt)
        if concerns_minors(text):
            return PromptBlocked(MINORS, _MINORS_TOLD)
        rules = self._terms.found(text)
        if not rules:
            return None
        rule = min(rules, key=self._order.index)
        told = (
            f"prompt: the owner of this box refuses what it asks for (rule {rule!r}); leave that out, or ask the owner."
        )
        return PromptBlocked(rule, told)


def _checked(blocked_terms: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Each term with its rule."""
    for rule, terms in blocked_terms.items():
        for term in terms:
            try:
                Terms([(term, rule)])
            except ValueError as reason:
                raise SettingsError(f"blocked_terms, rule {rule!r}: {reason}") from reason
            yield term, rule
