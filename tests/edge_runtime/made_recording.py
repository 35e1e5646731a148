"""Recordings of a made pump: its load changes every hour, its temperature follows the day."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

NAMES = ("speed", "flow", "pressure", "current", "temperature", "vibration")
PERIOD, DAY = 10.0, 8640
START = 1_777_593_600.0  # 2026-05-01


def pump(rows: int, seed: int) -> Float64:
    """A healthy machine: [rows, channels]."""
    rng = np.random.default_rng(seed)
    target = np.repeat(rng.choice([0.4, 0.6, 0.8, 0.9], rows // 360 + 1), 360)[:rows]
    load = _following(target, 0.05) + _following(rng.normal(0, 0.08, rows), 0.05)
    ambient = 20 + 5 * np.sin(2 * np.pi * np.arange(rows) / DAY)
    temperature = _following(ambient + 35 * load, 0.01) + rng.normal(0, 0.02, rows)
    noise = rng.normal(size=(rows, 4)) * (6, 0.3, 0.03, 0.08)
    vibration = 1.2 + 1.5 * load + abs(rng.normal(0, 0.12, rows))
    driven = np.stack([1450 * load, 36 * load, 1 + 4.2 * load**2, 3 + 8 * load], axis=1) + noise
    return np.column_stack([driven, temperature, vibration])


def worn(values: Float64, start: int, stop: int) -> Float64:
    """The same with a worn bearing: more current and vibration, and slowly more heat."""
    wear = np.zeros(len(values))
    wear[start:stop] = 1.0
    return (
        values
        + np.outer(wear, (0, 0, 0, 1.2, 0, 0.8))
        + np.outer(_following(wear, 0.01), (0, 0, 0, 0, 6, 0))
    )


def faulty(values: Float64, kind: str, channel: int, start: int, stop: int, seed: int) -> Float64:
    """The same with a fault of one sensor."""
    values = values.copy()
    part, size = values[start:stop, channel], values[:, channel].std()
    match kind:
        case "step":
            part += size
        case "drift":
            part += np.linspace(0, 2 * size, len(part))
        case "noise":
            part += np.random.default_rng(seed).normal(0, size, len(part))
        case "stuck":
            part[:] = part[0]
    return values


def write_csv(path: Path, values: Float64, dates: bool = True) -> Path:
    """A file as a logger writes it."""
    times = START * dates + PERIOD * np.arange(len(values))
    stamps = np.datetime_as_string((times * 1e3).astype("datetime64[ms]"), "s") if dates else times
    rows = [
        ",".join([str(stamp), *(f"{value:.3f}" for value in row)])
        for stamp, row in zip(stamps, values, strict=True)
    ]
    path.write_text("\n".join([",".join(["time", *NAMES]), *rows, ""]))
    return path


def _following(target: Float64, rate: float) -> Float64:
    """What follows `target` with a lag."""
    found = np.empty(len(target))
    value = float(target[0])
    for row, goal in enumerate(target.tolist()):
        value += rate * (goal - value)
        found[row] = value
    return found


if __name__ == "__main__":
    import sys

    write_csv(Path(sys.argv[1]), worn(pump(2 * DAY, 0), 1500, 4500))
