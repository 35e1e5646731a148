"""Text on a terminal: how many cells it takes, and what of it may be shown at all."""

import unicodedata

_ELLIPSIS = "…"


def printable(text: str) -> str:
    """`text` with a question mark for whatever could steer a terminal or move what follows."""
    return "".join(c if c.isprintable() and _width_of(c) else "?" for c in text)


def width(text: str) -> int:
    """Cells that printable text takes; letters of East Asia take two."""
    return len(text) if text.isascii() else sum(map(_width_of, text))


def fit(text: str, cells: int) -> str:
    """`text`, made printable and shortened to `cells` at most."""
    text = printable(text)
    if width(text) <= cells:
        return text
    while text and width(text) + 1 > cells:
        text = text[:-1]
    return text + _ELLIPSIS if cells > 0 else ""


def padded(text: str, cells: int) -> str:
    """`text` in exactly so many cells."""
    text = fit(text, cells)
    return text + " " * (cells - width(text))


def _width_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
