"""The reader of packed bundles trusts nothing: truncated, flipped or forged, it refuses or runs.

Under AddressSanitizer and UndefinedBehaviorSanitizer, in which a read outside the blob or a sum
that overflows ends the process with a report.
"""

import platform
import random
import re
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native_models import HASTY, changed, faulty_rows, linear, modal

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.errors import GruardError
from edge_runtime.native.blob import COUNTS, HEAD, pack, program_of
from edge_runtime.native.engine import RECORD, NativeDetector
from edge_runtime.native.layout import ROWS, X86, Layout
from edge_runtime.native.program import KINDS
from tests.core_build import CORE, HOST, SANITISED, blob_of, compiled

HEADER = 4 * (len(HEAD) + len(COUNTS))
REASONS = {"not aligned": 1, "foreign": 2, "truncated": 3, "damaged": 4, "impossible": 5}
MUTANTS = 8000
Once = Callable[[str, Callable[[Path], object]], Path]


def sanitised(once: Once, name: str, *flags: str, **more: Any) -> Path:
    """The core as a program with its sanitisers, built once for all processes of a test run."""

    def make(folder: Path) -> None:
        compiled("gcc", "gcc libc6-dev", folder / name, [*SANITISED, *flags], **more)

    return once(f"sanitised-{name}", make) / name


@pytest.fixture(scope="session")
def driver(once: Once) -> Path:
    """The core as a program, sanitised."""
    return sanitised(once, "driver")


@pytest.fixture(scope="session")
def driver_x86(once: Once) -> Path:
    """The same with the host's kernel."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("not an x86-64")
    return sanitised(once, "driver_x86", "-DGRUARD_HOST", kernel="x86")


@pytest.fixture(scope="session")
def many(once: Once) -> Path:
    """The fuzzing target, fed from stdin; it mends magic, size and checksum by itself."""
    main = (HOST / "fuzz_many.c", HOST / "fuzz_core.c")
    return sanitised(once, "many", main=main, without=("crc",))


def run(driver: Path, blob: bytes, rows: np.ndarray, folder: Path) -> np.ndarray:
    """The records of `rows` in a process of their own."""
    (folder / "blob").write_bytes(blob)
    done = subprocess.run([driver, folder / "blob"], input=rows.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr
    return np.frombuffer(done.stdout, RECORD)


def refusal(driver: Path, blob: bytes, folder: Path) -> int:
    (folder / "blob").write_bytes(blob)
    done = subprocess.run([driver, folder / "blob"], stdin=subprocess.DEVNULL, capture_output=True)
    found = re.fullmatch(r"the blob is refused \((\d)\)\n", done.stderr.decode())
    assert done.returncode == 2 and found, done
    return int(found[1])


def mended(blob: bytes | bytearray) -> bytes:
    """With its checksum and its length put right."""
    data = bytearray(blob[: len(blob) // 4 * 4])
    data[8:16] = struct.pack("<2I", len(data), zlib.crc32(data[16:]))
    return bytes(data)


@pytest.fixture(scope="session")
def bundles(tiny_bundle: Path, linear_bundle: Path) -> list[Bundle]:
    made = [linear(5, 5, rules=True, diagnosis=True), linear(1), linear(33, 1, rules=True)]
    return [read_bundle(tiny_bundle), read_bundle(linear_bundle), *made]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "layout"), [("driver", ROWS), pytest.param("driver_x86", X86, marks=pytest.mark.long)]
)
def test_no_report_over_golden_rows_and_the_same_records(
    name: str,
    layout: Layout,
    bundles: list[Bundle],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    program = request.getfixturevalue(name)
    for bundle in bundles:
        for rows in (bundle.arrays("golden.npz")["rows"], faulty_rows(bundle, 900, seed=1)):
            found = run(program, blob_of(bundle, layout), rows, tmp_path)
            assert found.tobytes() == NativeDetector(bundle).run(rows).tobytes()


@pytest.mark.long
def test_a_blob_that_is_cut_anywhere_is_refused(
    driver: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """With its length and checksum mended, so that only what is missing gives it away."""
    blob = blob_of(read_bundle(tiny_bundle))
    assert refusal(driver, b"", tmp_path) == REASONS["truncated"]
    for length in (4, 16, HEADER - 4):
        assert refusal(driver, blob[:length], tmp_path) == REASONS["truncated"]
    for length in range(HEADER, len(blob), 92):
        assert refusal(driver, blob[:length], tmp_path) == REASONS["truncated"]
        assert refusal(driver, mended(blob[:length]), tmp_path) == REASONS["truncated"]
    assert refusal(driver, mended(blob + bytes(4)), tmp_path) == REASONS["truncated"]


def test_every_byte_counts() -> None:
    """Cut at every length, and with every byte changed, by the reader in the native engine."""
    import native_core

    blob = NativeDetector(linear(1))._blob
    native_core.core.Core(blob)
    for length in range(len(blob)):
        with pytest.raises(ValueError, match="refused: truncated"):
            native_core.core.Core(blob[:length])
    for at in range(len(blob)):
        harmed = bytearray(blob)
        harmed[at] ^= 1 << at % 8
        with pytest.raises(ValueError, match="refused"):
            native_core.core.Core(bytes(harmed))


@pytest.mark.parametrize(
    ("word", "value", "reason"),
    [
        (0, 1, "foreign"), (1, 7, "foreign"), (4, 0, "impossible"), (4, 257, "impossible"),
        (5, 65, "impossible"), (6, 17, "impossible"), (7, 2000, "impossible"),
        (8, 1 << 30, "impossible"), (13, 6, "impossible"), (14, 33, "impossible"),
        (16, 1 << 25, "impossible"), (30, 1 << 28, "impossible"), (31, 1 << 27, "impossible"),
        (33, 2, "impossible"), (34, 65, "impossible"), (35, 0, "impossible"),
        (35, 5, "impossible"), (36, 17, "impossible"), (37, 4, "impossible"),
        (36, 2, "truncated"), (37, 1, "truncated"),
        (4, 2, "truncated"), (31, 5, "truncated"), (34, 0, "truncated"),
    ],
)  # fmt: skip
def test_a_forged_header_is_refused(
    driver: Path, tiny_bundle: Path, tmp_path: Path, word: int, value: int, reason: str
) -> None:
    blob = bytearray(blob_of(read_bundle(tiny_bundle)))
    blob[4 * word : 4 * word + 4] = struct.pack("<I", value)
    assert refusal(driver, mended(blob), tmp_path) == REASONS[reason]


@pytest.mark.parametrize(
    ("field", "value"),
    [(2, np.nan), (2, 0.0), (2, -1.0), (3, np.nan), (3, 1e30), (3, 0.5), (3, 128.0), (3, -129.0)],
)
def test_a_scale_or_zero_point_that_no_codes_have_is_refused(
    driver: Path, tiny_bundle: Path, tmp_path: Path, field: int, value: float
) -> None:
    """Found by libFuzzer: a zero point of NaN was made an integer."""
    bundle = read_bundle(tiny_bundle)
    blob = bytearray(blob_of(bundle))
    ends = blob.index(program_of(bundle).operators[0]) - 16 * (8 + 1 + 3 + 2)  # one GRU layer
    assert struct.unpack_from("<I", blob, ends + 4)[0] == len(bundle.manifest.channels)
    struct.pack_into("<f", blob, ends + 4 * field, value)
    assert refusal(driver, mended(blob), tmp_path) == REASONS["impossible"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (2, 1 << 20), (3, 1 << 20), (4, 1 << 20),  # a row outside the arena
        (6, 1 << 28),  # its table outside the blob
        (11, 1 << 24), (11, -(1 << 31)), (12, -(1 << 24)), (13, (1 << 31) - (1 << 21)),  # overflow
        (13, -(1 << 31)),
    ],
)  # fmt: skip
def test_a_linear_sum_that_could_overflow_or_leave_the_blob_is_refused(
    driver: Path, tiny_bundle: Path, tmp_path: Path, field: int, value: int
) -> None:
    program = program_of(read_bundle(tiny_bundle))
    packed = next(o for o in program.operators if o[0] == KINDS.index("LINEAR_TABLE"))
    blob = bytearray(blob_of(read_bundle(tiny_bundle)))
    at = blob.index(packed)
    struct.pack_into("<I", blob, at + 4 * field, value % (1 << 32))
    assert refusal(driver, mended(blob), tmp_path) == REASONS["impossible"]


def test_a_linear_sum_over_its_own_operand_is_refused(
    driver: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    program = program_of(read_bundle(tiny_bundle))
    packed = next(o for o in program.operators if o[0] == KINDS.index("LINEAR"))
    for operand in (3, 4):
        blob = bytearray(blob_of(read_bundle(tiny_bundle)))
        at = blob.index(packed)
        out = struct.unpack_from("<I", blob, at + 8)[0]
        struct.pack_into("<I", blob, at + 4 * operand, out + 1)
        assert refusal(driver, mended(blob), tmp_path) == REASONS["impossible"]


def test_a_blob_for_another_kernel_is_refused(
    driver: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    assert refusal(driver, blob_of(read_bundle(tiny_bundle), X86), tmp_path) == 7


def mutants(blobs: list[bytes], count: int, seed: int) -> bytes:
    """Blobs with some words, bytes or stretches changed, and some cut, each after its length."""
    rng, packed = random.Random(seed), []
    words = [0, 1, 2, 3, 7, 31, 32, 127, 255, 256, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
    for _ in range(count):
        blob = bytearray(rng.choice(blobs))
        for _ in range(rng.choice([1, 1, 2, 4])):
            end = HEADER if rng.random() < 0.4 else len(blob) - 16
            at = rng.randrange(16, max(end, 20)) // 4 * 4
            near = struct.unpack_from("<I", blob, at)[0] + rng.choice([-16, -4, -1, 1, 4, 16])
            value = rng.choice([rng.choice(words), near % (1 << 32), rng.getrandbits(32)])
            struct.pack_into("<I", blob, at, value)
        if rng.random() < 0.1:
            del blob[rng.randrange(len(blob)) :]
        packed.append(struct.pack("<I", len(blob)) + blob)
    return b"".join(packed)


@pytest.mark.slow
def test_thousands_of_forged_blobs_are_refused_or_run(many: Path, bundles: list[Bundle]) -> None:
    hasty = changed(bundles[0], tiers=HASTY)
    blobs = [blob_of(bundle) for bundle in (*bundles[:4], hasty)]
    data = mutants(blobs, MUTANTS, seed=1)
    done = subprocess.run([many], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    ran, taken = map(int, done.stdout.split())
    assert ran == MUTANTS and MUTANTS / 20 < taken < MUTANTS


@pytest.mark.long
def test_the_sanitisers_would_tell(tmp_path: Path, tiny_bundle: Path) -> None:
    """The same core without one of the reader's checks reads beyond the blob, and is told of."""
    source = (CORE / "blob.c").read_text()
    check = "inside(o->bias, gruard_biases(o->count), m->integer_count) &&"
    assert check in source
    (tmp_path / "blob.c").write_text(source.replace(check, ""))
    main = (HOST / "driver.c", tmp_path / "blob.c")
    program = compiled(
        "gcc", "gcc libc6-dev", tmp_path / "driver", SANITISED, main=main, without=("blob",)
    )
    bundle = read_bundle(tiny_bundle)
    blob = bytearray(blob_of(bundle))
    operators = blob.index(program_of(bundle).operators[0])
    bias = next(
        operators + 72 * i + 28
        for i, packed in enumerate(program_of(bundle).operators)
        if packed[:4] == bytes(4)  # FULLY_CONNECTED
    )
    struct.pack_into("<I", blob, bias, 1 << 20)
    (tmp_path / "forged").write_bytes(mended(blob))
    rows = bundle.arrays("golden.npz")["rows"].tobytes()
    done = subprocess.run([program, tmp_path / "forged"], input=rows, capture_output=True)
    assert done.returncode not in (0, 2)
    assert b"AddressSanitizer" in done.stderr


def test_what_the_core_cannot_hold_is_refused_with_the_reason(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = read_bundle(tiny_bundle)
    threshold = next(iter(bundle.manifest.thresholds.values()))
    from edge_runtime.native import engine

    packed = pack(bundle, threshold, program_of(bundle, X86))
    monkeypatch.setattr(engine, "pack", lambda *_: packed[:-4])
    with pytest.raises(GruardError, match=r"the blob is refused: truncated$"):
        NativeDetector(bundle)


def test_a_teller_beyond_the_channels_is_refused(driver: Path, tmp_path: Path) -> None:
    bundle = modal(5, 5)
    blob = bytearray(blob_of(bundle))
    # After the header, four thresholds, two rates and eight vectors.
    at = HEADER + 8 + 4 * (6 + 8 * 5)
    assert struct.unpack_from("<I", blob, at) == (1,)  # the only one
    struct.pack_into("<I", blob, at, 5)
    assert refusal(driver, mended(blob), tmp_path) == REASONS["impossible"]
