"""Recordings of many simulated pumps: healthy ones, and later ones of which some have faults."""

import tempfile
from pathlib import Path

from edge_runtime.errors import GruardError
from edge_runtime.learning.recording import write_recording
from train.simulate import MACHINE_KINDS, simulate, simulate_faults, write_settings

FAULTY_EVERY = 10  # pumps
FAULT_ROWS = 400  # for one fault, at least


def write_pumps(folder: Path, assets: int, rows: int, seed: int) -> None:
    """Write healthy/ and later/ with a recording for each pump into a new folder, atomically.

    Raises GruardError when the folder exists or cannot be written.
    """
    if folder.exists():
        raise GruardError(f"{folder}: is there already; remove it or name another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".simulate-") as scratch:
            target = Path(scratch) / folder.name
            for part in ("healthy", "later"):
                (target / part).mkdir(parents=True)
                write_settings(target / part / "channels.yaml")
            for number in range(1, assets + 1):
                _write_pump(target, number, rows, seed)
            target.rename(folder)
    except OSError as error:
        raise GruardError(f"{folder}: cannot be written ({error.strerror})") from None


def _write_pump(target: Path, number: int, rows: int, seed: int) -> None:
    """Write both recordings of one pump: one run of the machine, cut in two."""
    name = f"pump-{number:04}.csv"
    whole = simulate(2 * rows, seed + number)
    later = whole.cut(rows, 2 * rows)
    if number % FAULTY_EVERY == 0:
        every = max(rows // 2, FAULT_ROWS)
        found = simulate_faults(2 * rows, seed + number, tuple(MACHINE_KINDS), every)
        later = found.recording.cut(rows, 2 * rows)
    write_recording(target / "healthy" / name, whole.cut(0, rows))
    write_recording(target / "later" / name, later)
