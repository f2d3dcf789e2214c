"""The words of live jobs' prompts, and what a person searches for as a query of them (SQLite's FTS5)."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from zsky_box.db import Tx

WORDS_MAX: Final = 12
TEXT_MAX: Final = 200
_WITHOUT_SPACES: Final = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")
"""Han and kana, which are written without spaces: each sign is kept as a word, and some of them sought as a phrase."""


def keep(tx: Tx, job_id: str, prompt: str) -> None:
    """Index a job's prompt, in the transaction that the job comes in; a test job is in no library."""
    tx.execute(
        "INSERT INTO prompt_words (rowid, account, prompt)"
        " SELECT seq, substr(account_id, 5), ? FROM job WHERE id = ? AND test = 0",
        (_spaced(prompt), job_id),
    )


def match(account_id: str, text: str) -> str | None:
    """What a person searches for as an FTS5 query of one's own prompts (of everybody's where the id is empty).

    Every word must be there, the last one may be the beginning of one. Whatever is written is quoted: nothing of it is
    syntax. None where there is no word in it. Of the id, what follows its prefix is one word to the tokeniser.
    """
    plain = "".join(" " if unicodedata.category(each).startswith("C") else each for each in text[:TEXT_MAX])
    words = [word for word in plain.split() if any(each.isalnum() for each in word)][:WORDS_MAX]
    if not words:
        return None
    prompt = f"prompt : ({' AND '.join(map(_quoted, words))} *)"
    return f'account : "{account_id[4:]}" AND {prompt}' if account_id else prompt


def _quoted(word: str) -> str:
    doubled = word.replace('"', '""')
    return f'"{_spaced(doubled)}"'


def _spaced(text: str) -> str:
    return _WITHOUT_SPACES.sub(r" \1 ", text)
