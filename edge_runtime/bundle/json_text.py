"""JSON from anybody: bounded before it is parsed, and with one meaning."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# A manifest of 256 channels has 200,000 numbers; "[],[],…" takes thirty times its size in memory.
MOST_ENTRIES = 1 << 18
MOST_DIGITS = 32  # Python takes the square of the number of digits to read an integer


def parse_json(text: bytes) -> Any:
    """What the JSON `text` says. Raises ValueError for anything else than sound UTF-8 JSON.

    Also refused: more than `MOST_ENTRIES` entries, integers of more than `MOST_DIGITS` digits, a
    key that is twice in one object, and nesting beyond Python's own limit.
    """
    entries = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    if entries > MOST_ENTRIES:
        raise ValueError(f"{entries} entries, at most {MOST_ENTRIES} are expected")
    try:
        return json.loads(
            text.decode("utf-8"), parse_int=_integer, object_pairs_hook=_object_of_pairs
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def json_checksum(data: Mapping[str, Any]) -> str:
    """SHA-256 of what `data` says, for a file that carries it beside the other fields."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key that is twice in one object")
    return found
