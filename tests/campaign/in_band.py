"""Faults in the readings: of a sensor, the wiring, the settings, or the machine."""

from collections.abc import Callable
from functools import partial

import numpy as np

from tests.campaign.fault import Fault, Happened, Json, expect, first_marked
from tests.campaign.lab import Lab

START, LENGTH, AFTER = 300, 100, 200
Spoil = Callable[[np.ndarray, Lab], None]


def _spoiled(lab: Lab, spoil: Spoil) -> list[Json]:
    rows = lab.rows[: START + LENGTH + AFTER].copy()
    spoil(rows, lab)
    return lab.replay(rows)


def _noticed(lab: Lab, spoil: Spoil, within: int, named: bool) -> Happened:
    """Check that the fault is marked within `within` samples; if `named`, on its channel."""
    records = _spoiled(lab, spoil)
    channel = lab.channels[lab.victim] if named else None
    delay = first_marked(records, START, channel)
    expect(delay is not None, "never marked")
    assert delay is not None
    expect(delay <= within, f"marked after {delay} samples")
    marks = records[START + delay]
    what = ", ".join(marks["flags"]) or ("ALARM" if marks["alarm"] else "blamed")
    return f"marked after {delay} samples ({what}), {_back(records)}"


def _back(records: list[Json]) -> str:
    """Say when tier 1 answered again after the end of the fault."""
    end = START + LENGTH
    healthy = (r["index"] - end for r in records[end:] if r["tier"] == 1)
    back = next(healthy, None)
    return "not yet back in tier 1" if back is None else f"tier 1 {back} samples after its end"


def _part(rows: np.ndarray, lab: Lab) -> np.ndarray:
    return rows[START : START + LENGTH, lab.victim]


def _spread(lab: Lab) -> float:
    return lab.bundle.manifest.channels[lab.victim].scale


def _set(rows: np.ndarray, lab: Lab, value: float) -> None:
    _part(rows, lab)[:] = value


def _stuck(rows: np.ndarray, lab: Lab) -> None:
    _part(rows, lab)[:] = rows[START, lab.victim]


def _spike(rows: np.ndarray, lab: Lab) -> None:
    rows[START, lab.victim] += 20 * _spread(lab)


def _burst(rows: np.ndarray, lab: Lab) -> None:
    noise = np.random.default_rng(0).standard_normal(LENGTH)
    _part(rows, lab)[:] += (6 * _spread(lab) * noise).astype(np.float32)


def _level(rows: np.ndarray, lab: Lab) -> None:
    _part(rows, lab)[:] += 8 * _spread(lab)


def _drift(rows: np.ndarray, lab: Lab) -> None:
    _part(rows, lab)[:] += (np.arange(LENGTH) * 0.15 * _spread(lab)).astype(np.float32)


def _all_gone(rows: np.ndarray, lab: Lab) -> None:
    rows[START : START + LENGTH] = np.nan


def _half_gone(rows: np.ndarray, lab: Lab) -> None:
    rows[START : START + LENGTH, : (len(lab.channels) + 1) // 2] = np.nan


def _swapped(rows: np.ndarray, lab: Lab) -> None:
    """The victim and the channel whose range is most unlike its own."""
    center = np.array([c.center for c in lab.bundle.manifest.channels])
    other = int(np.argmax(np.abs(center - center[lab.victim])))
    pair = [lab.victim, other]
    rows[START : START + LENGTH, pair] = rows[START : START + LENGTH, pair[::-1]]


def _unit(rows: np.ndarray, lab: Lab) -> None:
    _part(rows, lab)[:] *= 1000


def _sign(rows: np.ndarray, lab: Lab) -> None:
    center = lab.bundle.manifest.channels[lab.victim].center
    _part(rows, lab)[:] = 2 * center - 3 * (_part(rows, lab) - center)


def _standstill(rows: np.ndarray, lab: Lab) -> None:
    """The machine is off: all sensors read 0."""
    rows[START : START + LENGTH] = 0


def _recalibrated(lab: Lab) -> Happened:
    """One channel is permanently off; the model must answer again."""
    rows = lab.rows[: START + 900].copy()
    rows[START:, lab.victim] += 4 * _spread(lab)
    records = lab.replay(rows)
    delay = first_marked(records, START)
    expect(delay is not None, "never marked")
    last = records[-100:]
    expect(all(r["tier"] < 3 for r in last), "the fallback answers at the end")
    alarms = sum(r["alarm"] for r in last)
    return f"marked after {delay} samples; model answers at the end, {alarms} of the last 100 alarm"


def _sensor(name: str, injected: str, spoil: Spoil, within: int = 2, named: bool = True) -> Fault:
    bound = f"marked within {within} samples" + (", on its channel" if named else "")
    return Fault(name, injected, bound, partial(_noticed, spoil=spoil, within=within, named=named))


FAULTS = (
    _sensor("NaN", "one channel without a reading, 100 samples", partial(_set, value=np.nan)),
    _sensor("infinite", "one channel reads inf", partial(_set, value=np.inf)),
    _sensor("out of range", "one channel reads 1e12", partial(_set, value=1e12)),
    _sensor("stuck", "one channel repeats its value", _stuck, LENGTH, named=False),
    _sensor("spike", "one reading 20 σ off", _spike),
    _sensor("burst", "noise of 6 σ on one channel", _burst, 5, named=False),
    _sensor("level", "one channel 8 σ off", _level),
    _sensor("drift", "one channel drifts by 0.15 σ a sample", _drift, LENGTH, named=False),
    _sensor("half gone", "half of the channels without a reading", _half_gone, named=False),
    _sensor("all gone", "no channel has a reading", _all_gone, named=False),
    _sensor("channels swapped", "two channels in each other's column", _swapped, 5, named=False),
    _sensor("wrong unit", "one channel times 1,000", _unit, 5, named=False),
    _sensor("wrong sign", "one channel mirrored and times 3", _sign, 20, named=False),
    _sensor("machine off and on", "all channels 0, then as before", _standstill, 5, named=False),
    Fault(
        "recalibrated for good", "one channel 4 σ off for ever",
        "marked; the model answers again at the end", _recalibrated,
    ),
)  # fmt: skip
