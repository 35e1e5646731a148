"""Bytes as constant tables in C."""

import struct

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


def _lines(numbers: list[str]) -> str:
    starts = range(0, len(numbers), _IN_A_LINE)
    return "".join(f"    {', '.join(numbers[i : i + _IN_A_LINE])},\n" for i in starts)
