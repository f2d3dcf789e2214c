"""What each setting does, in the words of docs/settings.md: one source for whoever reads there and here.

Code is shown as code, links as their words.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from markupsafe import Markup
from msgspec import Struct

from zsky_box.pages.marked import marked
from zsky_box.settings import CHECKOUT

PATH: Final = CHECKOUT / "docs" / "settings.md"
_SECTION: Final = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_ROW: Final = re.compile(r"^\| `(\w+)` \| .+? \| (.+?) \|$", re.MULTILINE)
_LINK: Final = re.compile(r"\[([^\]]+)\]\([^)]+\)")


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
        Section(title, {name: marked(_LINK.sub(r"\1", words)) for name, words in _ROW.findall(body)})
        for title, body in _SECTION.findall(text)
    ]
    return [section for section in sections if section.words]
