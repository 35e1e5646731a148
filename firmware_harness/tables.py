"""Bytes as constant tables in C."""

import struct
from collections.abc import Iterable

_IN_A_LINE = 8


def words(name: str, data: bytes) -> str:
    """`data`, filled up to whole words, as `const uint32_t name[]`."""
    padded = data + bytes(-len(data) % 4)
    numbers = [f"0x{word:08x}" for (word,) in struct.iter_unpack("<I", padded)]
    return f"__attribute__((aligned(16))) const uint32_t {name}[] = {{\n{_lines(numbers)}}};\n"


def octets(name: str, data: bytes) -> str:
    """`data` as `const unsigned char name[]`."""
    numbers = [f"0x{byte:02x}" for byte in data]
    return f"__attribute__((aligned(16))) const unsigned char {name}[] = {{\n{_lines(numbers)}}};\n"


def texts(name: str, values: Iterable[str]) -> str:
    """`values` as `const char *const name[]`, in UTF-8."""
    lines = "".join(f'    "{_escaped(value)}",\n' for value in values)
    return f"const char *const {name}[] = {{\n{lines}}};\n"


def _escaped(value: str) -> str:
    """With three octal digits for all that means something to a compiler, or is not ASCII."""
    plain = [chr(byte).isalnum() or chr(byte) in " _-./()[]+*%#:" for byte in range(128)]
    octets = value.encode("utf-8")
    return "".join(chr(b) if b < 128 and plain[b] else f"\\{b:03o}" for b in octets)


def _lines(numbers: list[str]) -> str:
    starts = range(0, len(numbers), _IN_A_LINE)
    return "".join(f"    {', '.join(numbers[i : i + _IN_A_LINE])},\n" for i in starts)
