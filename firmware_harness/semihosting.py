"""Run a recording on an emulated board through files: fast, without watchdog and UART."""

import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runtime.bundle.manifest import PARTS, Manifest
from edge_runtime.errors import GruardError
from edge_runtime.native.blob import not_above
from edge_runtime.native.engine import RECORD
from edge_runtime.record import Float32
from firmware_harness.building import Built
from firmware_harness.core_records import Array
from firmware_harness.protocol import REFUSALS
from firmware_harness.toolchain import run_to_end

SLOWEST = 100  # steps per second
PATIENCE = 60.0  # seconds in addition to the steps
REFUSED = 64  # and above: the core's error, see app/replay.c


@dataclass(frozen=True)
class Replayed:
    """records: [rows] of `native.engine.RECORD`. traces: [rows, …] each, None if not requested."""

    records: Array
    traces: dict[str, Float32] | None


def replay(
    built: Built, rows: Float32, threshold: tuple[float, float], traces: bool = False
) -> Replayed:
    """Run raw `rows` [n, channels] from a fresh state and return their records.

    threshold: value and clear of the alarm. traces: also return the internal values of each step.
    Raises GruardError when the board refuses the bundle, or does not finish.
    """
    with tempfile.TemporaryDirectory(prefix="gruard-") as name:
        folder = Path(name)
        head = struct.pack("<ffI", *map(not_above, threshold), traces)
        (folder / "rows.bin").write_bytes(head + np.asarray(rows, "<f4").tobytes())
        limit = PATIENCE + len(rows) / SLOWEST
        arguments = ["-serial", "none", "-semihosting-config", "enable=on,target=native"]
        code = run_to_end(built.board, built.replay.resolve(), arguments, folder, limit)
        if code:
            raise GruardError(f"{built.board.name}: {_reason(code)}")
        records = np.fromfile(folder / "records.bin", RECORD)
        inside = np.fromfile(folder / "traces.bin", "<f4") if traces else None
    if len(records) != len(rows):
        raise GruardError(f"{built.board.name}: {len(records)} records for {len(rows)} rows")
    if inside is None:
        return Replayed(records, None)
    table = inside.reshape(len(rows), -1)
    return Replayed(records, split_traces(table, built.packed.bundle.manifest))


def split_traces(table: Float32, manifest: Manifest) -> dict[str, Float32]:
    """Split traces [rows, …], as app/replay.c writes them, by name."""
    channels, parts = len(manifest.channels), len(PARTS) * len(manifest.score.memories)
    states = table.shape[1] - 3 * channels - parts - 2
    places = np.cumsum([channels, channels, channels, states, parts])
    names = ("mask", "forecast", "gate", "state", "parts", "fallback")
    return dict(zip(names, np.split(table, places, axis=1), strict=True))


def _reason(code: int) -> str:
    if code - REFUSED in REFUSALS:
        return f"the bundle is refused: {REFUSALS[code - REFUSED]}"
    return f"the replay ended with code {code}"
