"""A fleet in six operating modes: is the wear of an engine detected before it fails, not earlier?

    python -m benchmarks.engines [--early 40] [--out docs/engines.md]      (make benchmark-engines)

NASA's simulated turbofan engines (CMAPSS FD002): one row a flight, 21 sensors, three settings that
decide the mode. One detector learns from the first flights of 259 engines that are still in
service, with the command's defaults and the settings as exogenous channels, and watches the whole
lives of 260 other engines.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np
import numpy.typing as npt

from benchmarks.baselines import baselines, with_threshold
from benchmarks.gruard_detector import GruardDetector
from benchmarks.pages import fill_page, markdown, page_option
from benchmarks.series import DATA, Series
from benchmarks.short import starts
from edge_runtime.learning.recording import Recording
from edge_runtime.learning.rollout import roll
from edge_runtime.learning.shipped import shipped_model
from edge_runtime.record import Float32
from edge_runtime.sources.csvfile import read_table

EARLY = 40  # flights of each engine to learn from: a third of the shortest life, a fifth of most
HEALTHY = 0.3  # share of a life in which an alarm is false
SETTINGS = ("op1", "op2", "op3")
SENSORS = tuple(f"s{i:02d}" for i in range(1, 22))
FEW = ("s02", "s03", "s04", "s11")  # temperatures behind both compressors and turbine, a pressure
RECORDED = {"21 sensors": SENSORS, "4 sensors": FEW}
PERIOD = 1.0  # has no effect: the target is one false alarm in 10,000 flights
FLOORS = ("flag-all", "random")
BASELINES = ("static-z", "t2-ewma", "ar-t2", "ar-sum", "var-sum")
PART = "engines"

Bools = npt.NDArray[np.bool_]
Alarms = Callable[[Float32], Bools]


@dataclass(frozen=True)
class Fleet:
    """Whole lives [flights, channels] of engines. learn: first flights of others."""

    channels: tuple[str, ...]
    learn: tuple[Float32, ...]
    lives: tuple[Float32, ...]


@dataclass(frozen=True)
class EngineResult:
    """A detector on all engines. warned: share with an alarm that begins after the healthy part.

    early: share with an alarm that begins in it. median, tenth: flights from the first alarm after
    the healthy part to the last flight, 0 without one; of the middle engine and of the tenth.
    """

    recorded: str
    detector: str
    warned: float
    early: float
    median: float
    tenth: float


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--early", default=EARLY, show_default=True, type=click.IntRange(20, 60))
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@page_option(PART)
def main(early: int, as_json: bool, out: Path | None) -> None:
    """Learn from the first flights of a fleet, and watch other engines to their end."""
    files = {part: DATA / "engines" / f"FD002.{part}.csv.gz" for part in ("test", "train")}
    if absent := [file for file in files.values() if not file.is_file()]:
        raise SystemExit(f"SKIPPED, nothing was measured: no {absent[0]}")
    found = []
    for recorded, sensors in RECORDED.items():
        fleet = Fleet(
            (*SETTINGS, *sensors),
            tuple(life[:early] for life in engines(files["test"], sensors)),
            tuple(engines(files["train"], sensors)),
        )
        for name, alarms in detectors(fleet):
            found.append(judged(recorded, name, [alarms(life) for life in fleet.lives]))
            click.echo(f"{recorded}, {name}: {found[-1].warned:.1%} warned", err=True)
    text = table(found)
    if out is not None:
        fill_page(out, text, PART)
    click.echo(json.dumps([asdict(each) for each in found]) if as_json else text)


def engines(file: Path, sensors: Sequence[str]) -> Iterator[Float32]:
    """The life of each engine in `file`: settings and `sensors` [flights, channels]."""
    whole = read_table(file)
    units = whole.values[:, whole.channels.index("unit")]
    columns = [whole.channels.index(name) for name in (*SETTINGS, *sensors)]
    for unit in np.unique(units):
        yield whole.values[units == unit][:, columns]


def detectors(fleet: Fleet) -> Iterator[tuple[str, Alarms]]:
    """Whether each flight of a life is in alarm, by name of the detector."""
    yield "gruard", gruard(fleet, fleet.channels)
    yield "gruard, settings not recorded", gruard(fleet, fleet.channels[len(SETTINGS) :])
    for name in (*FLOORS, *BASELINES):
        yield name, baseline(name, fleet, lambda rows: rows)
    for name in BASELINES:
        yield f"{name}, by mode", baseline(name, fleet, normaliser(fleet.learn))


def baseline(name: str, fleet: Fleet, seen: Callable[[Float32], Float32]) -> Alarms:
    """Fit the baseline `name` on the rows transformed by `seen`."""
    scored = np.array([channel not in SETTINGS for channel in fleet.channels])
    learn = [seen(rows) for rows in fleet.learn]
    fitted = with_threshold(baselines()[name].fit, learn, scored, 0)
    return lambda rows: fitted.alarms(seen(rows))


def gruard(fleet: Fleet, channels: Sequence[str]) -> Alarms:
    """Train the product's linear detector on `channels`, the last ones of the fleet's."""
    first = len(fleet.channels) - len(channels)
    recordings = tuple(
        Recording(f"engine {i}", tuple(channels), None, rows[:, first:], None, PERIOD)
        for i, rows in enumerate(fleet.learn)
    )
    exogenous = tuple(name for name in channels if name in SETTINGS)
    series = Series("engines/fleet", recordings, (), exogenous, PERIOD)
    with tempfile.TemporaryDirectory() as scratch:
        made = GruardDetector("linear").make(series, 0, Path(scratch))
    model = shipped_model(made.manifest, made.model)
    return lambda rows: roll(model, rows[:, first:]).alarm


def normaliser(learn: Sequence[Float32]) -> Callable[[Float32], Float32]:
    """Return a function that standardises rows by their mode, for detectors without modes.

    The six modes are distinguished by altitude, in steps of 5,000 ft, and throttle.
    """
    clean = np.concatenate(learn)
    modes = _modes(clean)
    by_mode: dict[int, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}
    for mode in np.unique(modes):
        rows = clean[modes == mode].astype(np.float64)
        middle = rows.mean(axis=0)
        by_mode[int(mode)] = middle, np.maximum(rows.std(axis=0), 1e-6 * np.abs(middle) + 1e-9)

    def relative(rows: Float32) -> Float32:
        middle, spread = (
            np.array([by_mode[mode][i] for mode in _modes(rows).tolist()]) for i in (0, 1)
        )
        return ((rows - middle) / spread).astype(np.float32)

    return relative


def _modes(rows: Float32) -> npt.NDArray[np.int64]:
    altitude, throttle = np.rint(rows[:, 0] / 5), np.rint(rows[:, 2] / 10)
    return (100 * altitude + throttle).astype(np.int64)


def judged(recorded: str, detector: str, lives: Sequence[Bools]) -> EngineResult:
    """The figures of `alarms` [flights] of each life. An alarm that is on does not begin."""
    early, warnings = [], []
    for alarms in lives:
        begins, healthy = np.array(starts(alarms), int), HEALTHY * len(alarms)
        later = begins[begins >= healthy]
        early.append(bool((begins < healthy).any()))
        warnings.append(len(alarms) - int(later[0]) if len(later) else 0)
    flights = np.array(warnings)
    return EngineResult(
        recorded, detector, float((flights > 0).mean()), float(np.mean(early)),
        float(np.median(flights)), float(np.quantile(flights, 0.1)),
    )  # fmt: skip


def table(found: Sequence[EngineResult]) -> str:
    """One line a detector, a table for each choice of sensors."""
    header = (
        "detector", "engines alarmed before failure", "alarm in the first 30 % of life",
        "warning, flights: median", "a tenth have fewer than",
    )  # fmt: skip
    grouped: Mapping[str, list[EngineResult]] = {
        recorded: [each for each in found if each.recorded == recorded]
        for recorded in dict.fromkeys(each.recorded for each in found)
    }
    return "\n\n".join(
        f"{recorded} and three settings:\n\n{markdown(header, map(_row, group))}"
        for recorded, group in grouped.items()
    )


def _row(each: EngineResult) -> tuple[str, ...]:
    shares = f"{each.warned:.1%}", f"{each.early:.1%}"
    return (each.detector, *shares, f"{each.median:.0f}", f"{each.tenth:.0f}")


if __name__ == "__main__":
    main()
