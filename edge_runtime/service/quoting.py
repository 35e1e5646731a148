"""Words as systemd reads them back, whatever is in them (systemd.syntax(7), systemd.unit(5)).

Environment variables are not expanded in a command line that starts with `:`, so `$` needs nothing.
"""

import re
from collections.abc import Sequence

from edge_runtime.errors import GruardError

_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")
_NAMED = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def command_line(words: Sequence[str]) -> str:
    """The value of ExecStart= that runs exactly `words`; the first is an absolute path."""
    return ":" + " ".join(quoted(word) for word in words)


def quoted(word: str) -> str:
    """One word of a command line or of a list of paths. Raises GruardError if it is not text."""
    if not word.isprintable() and any(
        0xD800 <= ord(mark) < 0xE000 or mark == "\0" for mark in word
    ):
        raise GruardError(f"{word!r}: is not text, and a unit file is; rename it")
    if _PLAIN.fullmatch(word):
        return word
    return '"' + plain("".join(_escaped(mark) for mark in word)) + '"'


def plain(text: str) -> str:
    """Text that systemd takes as it is but for its specifiers (`%n`)."""
    return text.replace("%", "%%")


def _escaped(mark: str) -> str:
    if mark in _NAMED:
        return _NAMED[mark]
    if mark.isprintable():
        return mark
    return "".join(f"\\x{byte:02x}" for byte in mark.encode())
