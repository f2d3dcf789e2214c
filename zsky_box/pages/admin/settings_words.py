"""What each setting does, in the words of docs/settings.md: one source for whoever reads there and here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from markupsafe import Markup, escape
from msgspec import Struct

from zsky_box.settings import CHECKOUT

PATH: Final = CHECKOUT / "docs" / "settings.md"
_SECTION: Final = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_ROW: Final = re.compile(r"^\| `(\w+)` \| .+? \| (.+?) \|$", re.MULTILINE)
_LINK: Final = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_CODE: Final = re.compile(r"`([^`]+)`")


class Section(Struct, frozen=True):
    """A section of the document: its title, and what it says of each setting."""

    title: str
    words: dict[str, Markup]


def read(path: Path = PATH) -> list[Section]:
    """The sections that have settings; none where the document is not there."""
    try:
        text = path.read_text("utf-8")
    except OSError:
        return []
    sections = [
        Section(title, {name: _marked_up(words) for name, words in _ROW.findall(body)})
        for title, body in _SECTION.findall(text)
    ]
    return [section for section in sections if section.words]


def _marked_up(words: str) -> Markup:
    """Code as code, links as their words; whatever else stands there is text."""
    plain = _LINK.sub(r"\1", words)
    parts = _CODE.split(plain)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )
