"""JSON that would take memory, time or two meanings is refused before it is used."""

import time

import pytest

from edge_runtime.plain import MOST_DIGITS, MOST_ENTRIES, parse_json


def test_plain_json_is_what_it_is() -> None:
    assert parse_json('{"a": [1, -2.5, null, true, "µ"], "b": {}}'.encode()) == {
        "a": [1, -2.5, None, True, "µ"],
        "b": {},
    }
    largest = "9" * MOST_DIGITS
    assert parse_json(largest.encode()) == int(largest)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[" + b"[]," * MOST_ENTRIES + b"0]", "entries, at most"),
        (b"[" + b"0," * MOST_ENTRIES + b"0]", "entries, at most"),
        (b"[" + b"{}," * MOST_ENTRIES + b"0]", "entries, at most"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"9" * (4 << 20), "an integer of 4194304 digits"),
        (b"-" + b"9" * 5000, "an integer of 5001 digits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "a repeated key in one object"),
        (b'"\xff"', "invalid start byte"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"", "Expecting value"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_is_refused_at_once(text: bytes, told: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match=told):
        parse_json(text)
    assert time.process_time() - started < 5  # quadratic reading of digits takes minutes
