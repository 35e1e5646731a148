"""Pack a bundle for a firmware: its blob, the spare, and vectors for the self-test."""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_runtime.bundle.flatbuffer import NO_GRAPH
from edge_runtime.bundle.manifest import SCHEMA, Forecast, Threshold
from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.golden import ROWS, THRESHOLD, Golden, before_missing
from edge_runtime.detector.kernels import CORE_KERNEL_ID, HOST_KERNEL_ID
from edge_runtime.detector.thresholds import threshold_of
from edge_runtime.errors import GruardError
from edge_runtime.native.blob import pack, program_of
from edge_runtime.native.program import Program
from edge_runtime.record import Float32
from firmware_harness.boards import PORTABLE, Board, Kernel

GOLDEN_ROWS = 32
# The state after the vectors, in the order in which selftest.c adds it to its checksum.
LEFT_BEHIND = ("forecast", "gate", "state", "parts")


@dataclass(frozen=True)
class Packed:
    """kernel: of the blob. blob, spare: for gruard_open(). golden: raw rows. checksum: of the state
    after them."""

    bundle: Bundle
    threshold: Threshold
    kernel: Kernel
    blob: bytes
    spare: bytes
    golden: Float32
    checksum: int


def packed(path: Path, board: Board | None = None, allow_failed: bool = False) -> Packed:
    """Pack the bundle at `path` for the best kernel of `board`, or for any processor.

    Raises GruardError when the bundle is refused, or the core cannot run it.
    """
    return packed_for(board, read_bundle(path, allow_failed))


def packed_for(board: Board | None, bundle: Bundle) -> Packed:
    """Pack a bundle that was already read."""
    kernel, program = _suited(board.kernels if board else (PORTABLE,), bundle)
    threshold = threshold_of(bundle, CORE_KERNEL_ID)
    golden = golden_of(bundle)
    left = [np.asarray(golden.answers[name][GOLDEN_ROWS - 1], np.float32) for name in LEFT_BEHIND]
    return Packed(
        bundle,
        threshold,
        kernel,
        pack(bundle, threshold, program),
        _spare(bundle, threshold, kernel),
        golden.rows[:GOLDEN_ROWS],
        # Adding zero turns -0.0 into 0.0, which counts as equal.
        zlib.crc32(b"".join((part + np.float32(0)).tobytes() for part in left)),
    )


def golden_of(bundle: Bundle) -> Golden:
    """Return the golden vectors of `bundle`; of an older schema only the part that still applies.

    Raises GruardError when that part is too short for a self-test.
    """
    arrays = bundle.arrays("golden.npz")
    answers = {name: arrays[name] for name in arrays if name not in (ROWS, THRESHOLD)}
    golden = Golden(arrays[ROWS], np.asarray(arrays[THRESHOLD], np.float64), answers)
    try:
        return before_missing(golden) if bundle.manifest.schema < SCHEMA else golden
    except ValueError as error:
        raise GruardError(f"{bundle.path}: golden vectors do not fit the model: {error}") from None


def _suited(kernels: tuple[Kernel, ...], bundle: Bundle) -> tuple[Kernel, Program]:
    """Return the first kernel that can run the bundle; raise the last one's error if none can."""
    *faster, last = kernels
    for kernel in faster:
        try:
            return kernel, program_of(bundle, kernel.layout)
        except GruardError:
            continue
    return last, program_of(bundle, last.layout)


def _spare(bundle: Bundle, threshold: Threshold, kernel: Kernel) -> bytes:
    """Pack the fallback of the same machine, with the smallest model that the core accepts."""
    manifest = replace(
        bundle.manifest,
        inputs={},
        outputs={},
        diagnosis=None,
        forecast=Forecast(
            bundle.manifest.forecast.highway[:1],
            (),
            bundle.manifest.forecast.innovation_scale,
            own=(),
            ahead=(),
            horizon=0,
        ),
        thresholds={HOST_KERNEL_ID: threshold},
    )
    spare = replace(bundle, manifest=manifest, model=b"", graph=NO_GRAPH)
    return pack(spare, threshold, program_of(spare, kernel.layout))
