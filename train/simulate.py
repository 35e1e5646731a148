"""Simulate a small motor-driven pump, healthy or with labelled faults.

Ten samples a second of eight channels that depend on each other. A set-point steps between load
levels at random times, plus a duty cycle of about 4 s. The speed follows with a lag, the current
follows the torque, flow and pressure follow the speed, and winding and oil warm up slowly.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml
from scipy.signal import lfilter

from edge_runtime.errors import GruardError
from edge_runtime.learning.faults import Fault, inject
from edge_runtime.learning.prepare import fit_scaler
from edge_runtime.learning.recording import Recording, write_recording
from edge_runtime.record import Float32

Float64 = npt.NDArray[np.float64]

PERIOD = 0.1
SETTINGS: dict[str, dict[str, str | float | bool]] = {
    "set_point": {"unit": "%", "low": 0, "high": 100, "exogenous": True},
    "speed": {"unit": "rpm", "low": 0, "high": 2500, "stuck_after": 20},
    "current": {"unit": "A", "low": 0, "high": 60, "stuck_after": 20},
    "temperature": {"unit": "degC", "low": -20, "high": 160, "max_rate": 50, "stuck_after": 20},
    "vibration": {"unit": "mm/s", "low": 0, "high": 30, "stuck_after": 20},
    "flow": {"unit": "l/min", "low": 0, "high": 100, "stuck_after": 20},
    "pressure": {"unit": "bar", "low": 0, "high": 25, "stuck_after": 20},
    "oil_temperature": {"unit": "degC", "low": -20, "high": 140, "max_rate": 50, "stuck_after": 20},
}
CHANNELS = tuple(SETTINGS)
SENSOR_KINDS = tuple(kind.name.lower() for kind in Fault)
# Machine faults, and the channels that show them.
MACHINE_KINDS: dict[str, tuple[str, ...]] = {
    "bearing_wear": ("vibration", "current", "temperature"),
    "leak": ("flow", "pressure"),
    "blocked_filter": ("flow", "pressure"),
    "cooling_loss": ("temperature", "oil_temperature"),
}
ALL_KINDS = (*SENSOR_KINDS, *MACHINE_KINDS)
LEVELS = (20.0, 35.0, 50.0, 65.0, 80.0)  # % of load
DWELL = (60, 400)
VISIBLE = 0.25


@dataclass(frozen=True)
class SimulatedFault:
    """A fault in the rows from start up to, not including, stop, and the channels that show it."""

    kind: str
    start: int
    stop: int
    channels: tuple[str, ...]


@dataclass(frozen=True)
class Simulation:
    """A labelled recording and its faults; the labels are 1 inside every event."""

    recording: Recording
    events: tuple[SimulatedFault, ...]


def simulate(rows: int, seed: int) -> Recording:
    """Simulate the healthy machine for `rows` samples, at least 2, reproducibly from `seed`."""
    return _recording(_machine(rows, seed, {}))


def simulate_faults(
    rows: int, seed: int, kinds: Sequence[str] = ALL_KINDS, every: int = 2000
) -> Simulation:
    """Simulate the machine of `simulate` with one fault per `every` rows, none in the first ones.

    The kinds (of `ALL_KINDS`) take turns. A sensor fault lasts 2 to 10 s with a size of 0.3 to 1.5
    standard deviations of its channel. A machine fault grows, stays and ends; its label ends when
    every channel is within a quarter of a standard deviation of the healthy machine.
    Raises ValueError for an unknown kind or fewer than 400 rows per fault.
    """
    unknown = set(kinds) - set(ALL_KINDS)
    if unknown or not kinds or every < 400:
        raise ValueError(f"kinds must be of {ALL_KINDS} and every >= 400: {unknown or every}")
    rng = np.random.default_rng([seed, 1])
    slots = list(_slots(rows, kinds, every))
    healthy = simulate(rows, seed)
    scale = fit_scaler([healthy]).scale
    values = _machine(rows, seed, _severities(rows, slots, rng))
    differs = (np.abs(values - healthy.values) > VISIBLE * scale).any(axis=1)
    labels = np.zeros(rows, np.int8)
    events = []
    for kind, start, stop in slots:
        if kind in MACHINE_KINDS:
            seen = start + np.flatnonzero(differs[start:stop])
            if not len(seen):
                continue
            event = SimulatedFault(kind, int(seen[0]), int(seen[-1]) + 1, MACHINE_KINDS[kind])
        else:
            event = _sensor_fault(kind, values[start:stop], start, scale, rng)
        events.append(event)
        labels[event.start : event.stop] = 1
    return Simulation(replace(_recording(values), labels=labels), tuple(events))


def write_settings(path: Path) -> None:
    """Write the settings file of the simulated machine, as YAML."""
    content = {"period": PERIOD, "channels": SETTINGS}
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def write_folder(folder: Path, healthy: Recording, faults: Simulation) -> None:
    """Write healthy.csv, faults.csv (with labels) and channels.yaml into a new folder, atomically.

    Raises GruardError when the folder already exists or cannot be written.
    """
    if folder.exists():
        raise GruardError(f"{folder}: is there already; remove it or name another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".simulate-") as scratch:
            target = Path(scratch) / folder.name
            target.mkdir()
            write_recording(target / "healthy.csv", healthy)
            write_recording(target / "faults.csv", faults.recording)
            write_settings(target / "channels.yaml")
            target.rename(folder)
    except OSError as error:
        raise GruardError(f"{folder}: cannot be written ({error.strerror})") from None


def _recording(values: Float32) -> Recording:
    times = np.arange(len(values)) / round(1 / PERIOD)  # exact tenths, unlike a product
    return Recording("simulated", CHANNELS, times, values, None, PERIOD)


def _slots(rows: int, kinds: Sequence[str], every: int) -> Iterator[tuple[str, int, int]]:
    for index, start in enumerate(range(every, rows - every + 1, every)):
        yield kinds[index % len(kinds)], start, start + every


def _severities(
    rows: int, slots: Sequence[tuple[str, int, int]], rng: np.random.Generator
) -> dict[str, Float64]:
    severity = {kind: np.zeros(rows) for kind in MACHINE_KINDS}
    for kind, start, stop in slots:
        if kind in severity:
            room = stop - start
            onset = start + int(rng.integers(room // 8))
            length = int(rng.integers(room // 4, room // 2))
            shape = np.minimum(np.linspace(0, 3, length), 1)
            severity[kind][onset : onset + length] = shape * rng.uniform(0.5, 1.0)
    return severity


def _sensor_fault(
    kind: str, window: Float32, offset: int, scale: Float32, rng: np.random.Generator
) -> SimulatedFault:
    exogenous = np.array(["exogenous" in SETTINGS[name] for name in CHANNELS])
    injection = inject(
        window,
        rng,
        kinds=[Fault[kind.upper()]],
        events=(1, 1),
        sizes=(0.3, 1.5),
        scale=scale,
        lengths=(20, 100),
        exogenous=exogenous,
        first=1 + int(rng.integers(len(window) // 4)),
        spaced=True,
    )
    window[:] = np.where(injection.mask > 0, injection.values, np.nan)
    event = injection.events[0]
    names = tuple(CHANNELS[channel] for channel in event.channels)
    return SimulatedFault(kind, offset + event.start, offset + event.stop, names)


def _machine(rows: int, seed: int, severity: Mapping[str, Float64]) -> Float32:
    # The random draws do not depend on the severities, so the healthy and the faulty machine of one
    # seed differ only by the faults.
    rng = np.random.default_rng([seed, 0])
    wear, leak, block, heat = (severity.get(kind, np.zeros(rows)) for kind in MACHINE_KINDS)
    load = _load(rows, rng)
    time = np.arange(rows)
    phase = np.cumsum(2 * np.pi / (40 + 4 * np.sin(time / 900))) + rng.uniform(0, 2 * np.pi)
    duty = 6 * np.sin(phase) + 2 * np.sin(2 * phase + 1)
    ambient = 22 + _noise(rows, 0.999, 0.02, rng)

    speed = 300 + 14 * _lag(load + duty, 5) + _noise(rows, 0.7, 5, rng)
    torque = 0.02 * load * speed / 1000 * (1 - 0.1 * leak + 0.1 * block) + 0.25 * wear
    current = 4 + 10 * torque + 0.02 * np.gradient(speed) + rng.normal(0, 0.15, rows)
    loss = 0.06 * current**1.5 + 2 * wear
    cooling = 1 - 0.5 * heat
    temperature = _lag(ambient + 5 * loss / cooling, 120) + rng.normal(0, 0.1, rows)
    rumble = np.abs(_noise(rows, 0.5, 0.12, rng))
    vibration = 0.5 + 1.5 * (speed / 1000) ** 2 * (1 + wear) + 0.3 * np.abs(np.sin(phase / 2))
    flow = _lag(0.04 * speed, 8) * (1 + 0.25 * leak - 0.25 * block) + rng.normal(0, 0.25, rows)
    resistance = 1 - 0.5 * leak + 1.5 * block
    pressure = 1 + 0.0025 * np.square(flow) * resistance + rng.normal(0, 0.04, rows)
    oil = _lag(0.7 * temperature + 10 * speed / 1000 + 6 * heat, 300) + rng.normal(0, 0.08, rows)
    channels = [load, speed, current, temperature, vibration + rumble, flow, pressure, oil]
    values: Float32 = np.stack(channels, axis=1).astype(np.float32)
    return values


def _load(rows: int, rng: np.random.Generator) -> Float64:
    steps = rows // DWELL[0] + 1
    lengths = rng.integers(*DWELL, size=steps, endpoint=True)
    loads = rng.choice(LEVELS, size=steps) + np.round(rng.normal(0, 2, steps), 1)
    return np.repeat(loads, lengths)[:rows]


def _lag(signal: Float64, rows: float) -> Float64:
    """Apply a first-order lag with a time constant in rows, starting at rest."""
    keep = np.exp(-1 / rows)
    filtered: Float64 = lfilter([1 - keep], [1, -keep], signal, zi=[keep * signal[0]])[0]
    return filtered


def _noise(rows: int, correlation: float, sigma: float, rng: np.random.Generator) -> Float64:
    """Draw noise with the given row-to-row correlation, driven by white noise of sigma."""
    filtered: Float64 = lfilter([1.0], [1, -correlation], rng.normal(0, sigma, rows))
    return filtered
