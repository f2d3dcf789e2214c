"""The box's sentences as a page shows them: what stands between backticks as code, a time as one that a browser makes
the reader's own. Everything else is text, escaped.
"""

from __future__ import annotations

import re
from typing import Final

from markupsafe import Markup, escape

_PART: Final = re.compile(r"`([^`]+)`|(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)")


def marked(text: str) -> Markup:
    """The sentence with its code and times marked up; the filter `marked` of the templates."""
    out, end = Markup(""), 0
    for found in _PART.finditer(text):
        code, time = found.groups()
        out += escape(text[end : found.start()])
        shape = "<code>{0}</code>" if code else '<time datetime="{0}">{0}</time>'
        out += Markup(shape).format(code or time)  # noqa: S704
        end = found.end()
    return out + escape(text[end:])
