"""Quoting for systemd, against its rules as a small reader of our own.

The same words go through a real systemd in tests/service.
"""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import GruardError
from edge_runtime.service.units import command_line, quoted

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def read_back(line: str) -> list[str]:
    """What systemd makes of words that are plain or in double quotes (systemd.syntax(7))."""
    words, at = [], 0
    while at < len(line):
        if line[at] == " ":
            at += 1
            continue
        word = b""
        if line[at] == '"':
            at += 1
            while line[at] != '"':
                if line[at] == "\\":
                    length = 4 if line[at + 1] == "x" else 2
                    word += codecs.escape_decode(line[at : at + length].encode())[0]
                    at += length
                else:
                    word += line[at].encode()
                    at += 1
            at += 1
        else:
            while at < len(line) and line[at] != " ":
                assert line[at] not in "\"'\\;#$"
                word += line[at].encode()
                at += 1
        words.append(unspecified(word.decode()))
    return words


def unspecified(word: str) -> str:
    """Resolve %% and refuse every other specifier."""
    pieces = word.split("%%")
    assert not any("%" in piece for piece in pieces)
    return "%".join(pieces)


@given(words=st.lists(WORDS, max_size=8))
def test_words_come_back(words: list[str]) -> None:
    line = command_line(["/usr/bin/python3", *words])
    assert line.isprintable() and line.startswith(":/")
    assert read_back(line[1:]) == ["/usr/bin/python3", *words]


def test_harmless_words_stay_readable() -> None:
    assert quoted("/dev/ttyUSB0") == "/dev/ttyUSB0"
    assert quoted("serial:/dev/ttyUSB0,baud=9600") == "serial:/dev/ttyUSB0,baud=9600"
    assert quoted("a b") == '"a b"' and quoted("") == '""' and quoted("5%") == '"5%%"'


@pytest.mark.parametrize("word", ["a\0b", "caf\udce9"])
def test_what_is_no_text_is_refused(word: str) -> None:
    with pytest.raises(GruardError, match="is not text"):
        quoted(word)
