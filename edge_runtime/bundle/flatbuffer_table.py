"""FlatBuffers tables read by plain offsets, every one of them checked before it is followed.

Layout: FlatBuffers internals (root offset, vtables). Anything impossible raises DamagedError; the
checks are those of FlatBuffers' own verifier, without which the interpreter trusts every offset.
"""

import struct
from collections.abc import Iterator

# A step of gruard has some 2,000 entries. A small file can name one table, or one long vector, a
# million times, so what is read is bounded and not only the file.
MOST_ENTRIES = 1 << 16
_ENDING = b"\0"  # strings are handed on as C strings
_VTABLE_HEAD = 4  # bytes: its own size, then the table's
_WIDTHS = {form: struct.calcsize("<" + form) for form in "bBhHiIqQf"}


class DamagedError(Exception):
    """The file can't be what it claims to be; the text says what is wrong."""


class Source:
    """The bytes of a file and how many more of its entries may be read."""

    def __init__(self, data: bytes) -> None:
        self.data, self._left = data, MOST_ENTRIES

    def numbers(self, position: int, form: str, count: int = 1) -> tuple[int, ...]:
        """`count` aligned little-endian numbers of the struct format `form`."""
        width = _WIDTHS[form]
        if position < 0 or position + count * width > len(self.data):
            raise DamagedError("offset outside the file")
        if position % width:
            raise DamagedError("a number that is not aligned")
        return struct.unpack_from(f"<{count}{form}", self.data, position)

    def number(self, position: int, form: str) -> int:
        """One number, as `numbers` reads it."""
        return self.numbers(position, form)[0]

    def spend(self, count: int) -> None:
        """Count entries that are about to be read."""
        self._left -= count
        if self._left < 0:
            raise DamagedError(f"more than {MOST_ENTRIES} entries, larger than any gruard step")


class Table:
    """A table at an absolute position of `source`; a field that is left out reads as its default.

    Every method raises DamagedError when an offset leads out of the file.
    """

    def __init__(self, source: Source, position: int) -> None:
        source.spend(1)
        self._source, self._position = source, position
        self._vtable = position - source.number(position, "i")
        size = source.number(self._vtable, "H")
        if size < _VTABLE_HEAD or size % 2:
            raise DamagedError("a vtable of impossible size")
        count = (size - _VTABLE_HEAD) // 2
        source.spend(count)
        self._offsets = source.numbers(self._vtable + _VTABLE_HEAD, "H", count)

    def present(self) -> Iterator[int]:
        """Numbers of the fields that are there."""
        return (field for field, offset in enumerate(self._offsets) if offset)

    def scalar(self, field: int, form: str, default: int = 0) -> int:
        """The number of the struct format `form`."""
        position = self._field(field)
        return self._source.number(position, form) if position else default

    def table(self, field: int) -> "Table | None":
        """The table it leads to, None when it is left out."""
        target = self._target(field)
        return Table(self._source, target) if target else None

    def string(self, field: int) -> str:
        """The text; characters that can't be printed are replaced."""
        target = self._target(field)
        if not target:
            return ""
        data, length = self._source.data, self._source.number(target, "I")
        start, end = target + 4, target + 4 + length
        if data[end : end + 1] != _ENDING:
            raise DamagedError("a text without its end, or an offset outside the file")
        self._source.spend(length // 8)
        try:
            text = data[start:end].decode("utf-8")
        except UnicodeDecodeError:
            raise DamagedError("a text that is not UTF-8") from None
        return "".join(c if c.isprintable() else "\ufffd" for c in text)

    def length(self, field: int, form: str = "B") -> int:
        """Number of entries of the vector, all of which are within the file."""
        target = self._target(field)
        if not target:
            return 0
        count = self._source.number(target, "I")
        if target + 4 + count * _WIDTHS[form] > len(self._source.data):
            raise DamagedError("offset outside the file")
        return count

    def vector(self, field: int, form: str, at_most: int | None = None) -> tuple[int, ...]:
        """The numbers of the vector; nothing when there are more than `at_most`."""
        count = self.length(field, form)
        if at_most is not None and count > at_most:
            return ()
        self._source.spend(count)
        return self._source.numbers(self._target(field) + 4, form, count) if count else ()

    def content(self, field: int, at_most: int) -> bytes:
        """The vector of bytes, nothing when there are more than `at_most`."""
        return bytes(self.vector(field, "B", at_most))

    def raw(self, field: int) -> bytes:
        """All bytes of the vector, however many they are."""
        target, count = self._target(field), self.length(field)
        return self._source.data[target + 4 : target + 4 + count]

    def tables(self, field: int) -> list["Table"]:
        """The tables of the vector."""
        offsets, start = self.vector(field, "I"), self._target(field) + 4
        return [Table(self._source, start + 4 * i + offset) for i, offset in enumerate(offsets)]

    def _field(self, field: int) -> int:
        offset = self._offsets[field] if field < len(self._offsets) else 0
        return self._position + offset if offset else 0

    def _target(self, field: int) -> int:
        position = self._field(field)
        if not position:
            return 0
        offset = self._source.number(position, "I")
        if not offset:
            raise DamagedError("an offset that leads nowhere")
        return position + offset
