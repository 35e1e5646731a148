"""Recordings of many simulated pumps: healthy ones, and later ones of which some have faults."""

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_runtime.errors import GruardError
from edge_runtime.learning.prepare import FittedScaler, fit_scaler
from edge_runtime.learning.recording import Recording, write_recording
from train.simulate import (
    CHANNELS,
    MACHINE_KINDS,
    SETTINGS,
    simulate,
    simulate_faults,
    write_settings,
)

FAULTY_EVERY = 10  # pumps
FAULT_ROWS = 400  # for one fault, at least
OFFSET, GAIN = 0.3, 0.1
"""How much pumps differ: deviation of the level in channel scales, and of the logarithm of the
spread."""
USUAL_ROWS = 10_000  # of the pump that the others differ from


def write_pumps(folder: Path, assets: int, rows: int, seed: int) -> None:
    """Write healthy/ and later/ with a recording for each pump into a new folder, atomically.

    Next to each folder is a table of its assets, all of the type pump.

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
                names = (_name(number) for number in range(1, assets + 1))
                lines = [f"{name},{part}/{name}.csv,pump\n" for name in names]
                (target / f"{part}.csv").write_text("".join(["asset,data,type\n", *lines]))
            for number in range(1, assets + 1):
                _write_pump(target, number, rows, seed)
            target.rename(folder)
    except OSError as error:
        raise GruardError(f"{folder}: cannot be written ({error.strerror})") from None


def _write_pump(target: Path, number: int, rows: int, seed: int) -> None:
    """Write both recordings of one pump: one run of the machine, cut in two."""
    whole = simulate(2 * rows, seed + number)
    later = whole.cut(rows, 2 * rows)
    if number % FAULTY_EVERY == 0:
        every = max(rows // 2, FAULT_ROWS)
        found = simulate_faults(2 * rows, seed + number, tuple(MACHINE_KINDS), every)
        later = found.recording.cut(rows, 2 * rows)
    for part, recording in (("healthy", whole.cut(0, rows)), ("later", later)):
        write_recording(target / part / f"{_name(number)}.csv", differing(recording, seed + number))


def differing(recording: Recording, seed: int) -> Recording:
    """Return a `recording` of the usual pump as one with other sensors would have shown it.

    Level and spread of each channel differ by chance, reproducibly from `seed`; settings do not.
    """
    usual, rng = _usual(), np.random.default_rng([seed, 2])
    offset = OFFSET * rng.standard_normal(len(CHANNELS)) * usual.scale
    gain = np.exp(GAIN * rng.standard_normal(len(CHANNELS)))
    settings = np.array(["exogenous" in SETTINGS[name] for name in CHANNELS])
    moved = (recording.values - usual.center) * gain + usual.center + offset
    values = np.where(settings, recording.values, moved).astype(np.float32)
    return replace(recording, values=values)


@functools.cache
def _usual() -> FittedScaler:
    return fit_scaler([simulate(USUAL_ROWS, 0)])


def _name(number: int) -> str:
    return f"pump-{number:04}"
