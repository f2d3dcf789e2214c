"""What a browser calls itself, in words a person knows: "Firefox on Linux". No list of versions, nothing looked up."""

from __future__ import annotations

from typing import Final

TEXT_MAX: Final = 60

# In this order: most browsers name those before them as well.
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("HeadlessChrome/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Macintosh", "macOS"),
    ("Linux", "Linux"),
)


def in_words(agent: str) -> str:
    """Of a `User-Agent`: browser and system; its own first word where it is no browser we know."""
    browser = next((name for part, name in _BROWSERS if part in agent), "")
    system = next((name for part, name in _SYSTEMS if part in agent), "")
    if browser:
        return f"{browser} on {system}" if system else browser
    plain = "".join(letter for letter in agent if letter.isprintable()).split("/")[0].split(" ")[0]
    return plain[:TEXT_MAX] or "Unknown browser"
