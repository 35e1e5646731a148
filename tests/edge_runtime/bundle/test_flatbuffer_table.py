"""Each check on the way to a number bites, on tables made by hand."""

import struct

import pytest

from edge_runtime.bundle.flatbuffer import MOST_ENTRIES, BoundedBytes, FlatTable, MalformedError

# A vtable of 3 fields at 0, the table at 12, a text at 32 and a vector of 2 int32 at 44.
VTABLE = struct.pack("<HHHHHH", 10, 16, 4, 8, 12, 0)
TABLE = struct.pack("<iIII", 12, 32 - 16, 44 - 20, 7)
TEXT = struct.pack("<I", 5) + b"hello" + b"\0\0\0"
VECTOR = struct.pack("<Iii", 2, -1, 5)
DATA = VTABLE + TABLE + bytes(4) + TEXT + VECTOR


def table(data: bytes = DATA) -> FlatTable:
    return FlatTable(BoundedBytes(data), 12)


def patched(position: int, form: str, value: int) -> bytes:
    data = bytearray(DATA)
    struct.pack_into("<" + form, data, position, value)
    return bytes(data)


def test_a_sound_table_is_read() -> None:
    found = table()
    assert list(found.present()) == [0, 1, 2]
    assert (found.string(0), found.vector(1, "i"), found.scalar(2, "I")) == ("hello", (-1, 5), 7)
    assert found.vector(1, "i", at_most=1) == ()
    assert (found.scalar(9, "i", 3), found.string(9), found.vector(9, "i")) == (3, "", ())
    assert found.table(9) is None and found.tables(9) == [] and found.length(9) == 0


@pytest.mark.parametrize("size", [0, 2, 3, 5, 7, 9, 0xFFFF, 0xFFFE])
def test_a_vtable_of_impossible_size_is_damage(size: int) -> None:
    with pytest.raises(MalformedError):
        table(patched(0, "H", size))


@pytest.mark.parametrize("offset", [13, 1000, -(2**31), 2**31 - 1])
def test_a_vtable_outside_the_file_or_not_aligned_is_damage(offset: int) -> None:
    with pytest.raises(MalformedError):
        table(patched(12, "i", offset))


def test_a_number_that_is_not_aligned_is_damage() -> None:
    with pytest.raises(MalformedError, match="not aligned"):
        table(patched(8, "H", 13)).scalar(2, "I")


def test_a_text_needs_its_end() -> None:
    for length in (4, 2**32 - 1, 2**31):
        with pytest.raises(MalformedError, match="a text without its end"):
            table(patched(32, "I", length)).string(0)


def test_a_vector_stays_within_the_file() -> None:
    for length in (3, 2**32 - 1):
        with pytest.raises(MalformedError, match="outside the file"):
            table(patched(44, "I", length)).vector(1, "i")


def test_an_offset_of_0_leads_nowhere() -> None:
    with pytest.raises(MalformedError, match="leads nowhere"):
        table(patched(16, "I", 0)).string(0)


def test_one_small_table_named_many_times_is_too_much() -> None:
    """Vtables before the tables, as they may lie: a vector of offsets to one empty table."""
    count = MOST_ENTRIES
    head = struct.pack("<HHHH", 6, 8, 4, 0) + struct.pack("<iI", 8, 4)  # one field: the vector
    start = len(head) + 4
    end = start + 4 * count
    offsets = [end + 4 - (start + 4 * i) for i in range(count)]
    data = head + struct.pack(f"<I{count}I", count, *offsets) + struct.pack("<HHi", 4, 4, 4)
    small = head + struct.pack("<II", 1, 8) + struct.pack("<HHi", 4, 4, 4)
    assert len(FlatTable(BoundedBytes(small), 8).tables(0)) == 1
    with pytest.raises(MalformedError, match=f"more than {MOST_ENTRIES} entries"):
        FlatTable(BoundedBytes(data), 8).tables(0)
