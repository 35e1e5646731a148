"""An archive is measured before it is unpacked; what is not plain arrays is refused."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from edge_runtime.bundle.reader import MOST_ARRAYS, read_arrays

LIMIT = 1 << 20
PEAK = 4 << 20  # bytes


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def header(text: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode() + data


def packed(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_as_numpy_saved_them(order: str) -> None:
    arrays = {
        "rows": np.asarray(np.arange(6, dtype=np.float32).reshape(2, 3), order=order),  # type: ignore[call-overload]
        "codes/logit": np.array([[-128, 127]], np.int8),
        "mask": np.array([True, False]),
        "threshold": np.array([1.5, 0.5]),
        "none": np.zeros((0, 3), np.float32),
        "scalar": np.float32(3),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    found = read_arrays(buffer.getvalue(), LIMIT)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and found[name].flags.writeable


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (packed(("a.npy", npy(np.zeros(LIMIT, np.int8)))), "bytes unpacked, at most"),
        (packed(("a.npy", npy(np.zeros(3)) + b"more")), "bytes for an array of 24"),
        (packed(("a.npy", npy(np.zeros(3))[:-1])), "23 bytes for an array of 24"),
        (packed(("a.npy", npy(np.array([None])))), "not an array of numbers"),
        (packed(("a.npy", npy(np.array(["text"])))), "not an array of numbers"),
        (packed(("a.npy", npy(np.zeros(2, [("x", "i4")])))), "not an array of numbers"),
        (packed(("a.npy", npy(np.zeros(2)).replace(b"NUMPY\x01", b"NUMPY\x03"))), "unusual format"),
        (packed(("a.npy", npy(np.zeros(3))), method=zipfile.ZIP_BZIP2), "unusual compression"),
        (packed(("a.npy", npy(np.zeros(3))), method=zipfile.ZIP_LZMA), "unusual compression"),
        (b"PK\x01\x02" * (MOST_ARRAYS + 1), f"{MOST_ARRAYS + 1} arrays"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_plain_arrays_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_arrays(data, LIMIT)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused() -> None:
    data = packed(("a.npy", npy(np.zeros(3))), ("a.npy", npy(np.ones(3))))
    with pytest.raises(ValueError, match="two arrays of one name"):
        read_arrays(data, LIMIT)


def test_a_header_that_names_more_than_there_is_takes_no_memory() -> None:
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000,), }\n"
    data = packed(("a.npy", header(text, bytes(64))))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="64 bytes for an array of 8000000000"):
            read_arrays(data, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < PEAK
    finally:
        tracemalloc.stop()


def test_a_size_that_is_a_lie_is_found_by_the_checksum() -> None:
    content = npy(np.zeros(1 << 16, np.int8))
    lie = npy(np.zeros(1 << 10, np.int8))
    data = packed(("a.npy", lie[:128] + content[128:]))
    real, told = (struct.pack("<I", len(each)) for each in (content, lie))
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        read_arrays(data.replace(real, told), LIMIT)
