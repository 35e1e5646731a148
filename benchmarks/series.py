"""The series that detectors are compared on: clean recordings to learn, labelled ones to judge.

A catalogue maps names such as `asd/omi-3` to functions that read them on demand. A source whose
files are missing is left out, with one line about where to put them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.learning.recording import Recording
from edge_runtime.record import Float32
from edge_runtime.sources.csvfile import Table, read_table
from edge_runtime.sources.csvlayout import channel_order

ROOT = Path(__file__).resolve().parents[1]
DATA, WATCH = ROOT.parent / "shared" / "data", ROOT / "data" / "watch"

ASD_PERIOD, TEP_PERIOD = 300.0, 180.0
ASD_SERVERS, TEP_FAULTS = range(1, 13), range(1, 22)
TEP_FAULT_START = 160
NAB_PERIODS = {"ambient_temperature": 3600.0, "machine_temperature": 300.0}
NAB_SUFFIX = "_system_failure.csv"
# Rows before the first label that are not trusted to be clean, and the largest share to train on.
NAB_MARGIN, NAB_SHARE = 100, 0.5
WATCH_PEOPLE = range(1, 10)  # person 10 is the one in demo.csv
SIMULATOR_SEEDS = range(3)
SIMULATOR_ROWS, SIMULATOR_EVERY = 12000, 2000
QUICK_SERVERS, QUICK_FAULTS, QUICK_ROWS, QUICK_EVERY = (1, 6), (1, 4, 5, 10), 4000, 600


@dataclass(frozen=True)
class TestRecording:
    """A recording to judge on. values: float32 [n, channels] raw; labels: int8 [n], 1 anomalous."""

    name: str
    values: Float32
    labels: npt.NDArray[np.int8]


@dataclass(frozen=True)
class Series:
    """One machine: clean recordings to train on, and labelled ones that no detector sees before.

    name: GROUP/MEMBER. exogenous: channels that are inputs to the machine and not to be scored.
    period: seconds between samples.
    """

    name: str
    train: tuple[Recording, ...]
    tests: tuple[TestRecording, ...]
    exogenous: tuple[str, ...]
    period: float

    @property
    def group(self) -> str:
        """The data set it belongs to."""
        return group_of(self.name)

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names in the order of the columns."""
        return self.train[0].channels

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """Bool [channels], False for exogenous ones."""
        return np.array([name not in self.exogenous for name in self.channels])


Load = Callable[[], Series]


def group_of(name: str) -> str:
    """`asd` of `asd/omi-3`."""
    return name.split("/", 1)[0]


def catalogue(
    data: Path, watch: Path, quick: bool, missing: Callable[[str], None]
) -> Mapping[str, Load]:
    """All series whose source is there, by name; a sentence to `missing` for each that is not.

    data: the open data folder; watch: the folder that `python -m train watch` writes. quick: a
    small choice of the same sources, for a first look.
    """
    found: dict[str, Load] = {}
    for server in QUICK_SERVERS if quick else ASD_SERVERS:
        train, test = (data / "asd" / f"omi-{server}.{part}.csv" for part in ("train", "test"))
        _add(found, f"asd/omi-{server}", partial(_asd, train, test), (train, test), missing)
    faults = (0, *(QUICK_FAULTS if quick else TEP_FAULTS))
    files = tuple(data / "tep" / f"fault{fault:02d}.test.csv" for fault in faults)
    normal = data / "tep" / "normal.train.csv"
    _add(found, "tep/plant", partial(_tep, normal, files), (normal, *files), missing)
    for name, period in {} if quick else NAB_PERIODS.items():
        file = data / "nab_temperature" / f"{name}{NAB_SUFFIX}"
        _add(found, f"nab/{name}", partial(_nab, name, file, period), (file,), missing)
    if not quick:
        people = tuple(watch / "PEN" / f"person{n:02d}-right.csv" for n in WATCH_PEOPLE)
        demo = watch / "demo.csv"
        _add(found, "watch/pendulum", partial(_watch, people, demo), (*people, demo), missing)
    rows, every = (QUICK_ROWS, QUICK_EVERY) if quick else (SIMULATOR_ROWS, SIMULATOR_EVERY)
    for seed in SIMULATOR_SEEDS[:1] if quick else SIMULATOR_SEEDS:
        found[f"simulator/{seed}"] = partial(_simulator, seed, rows, every)
    return found


def _add(
    found: dict[str, Load],
    name: str,
    load: Load,
    files: tuple[Path, ...],
    missing: Callable[[str], None],
) -> None:
    absent = [file for file in files if not file.is_file()]
    if not absent:
        found[name] = load
        return
    remedy = (
        "python -m train watch makes it" if name.startswith("watch/") else "put it there or --data"
    )
    missing(f"{name} is left out: no {absent[0]} ({remedy})")


# Tasks come ordered by series: what was read for one detector serves the next ones.
@lru_cache(maxsize=2)
def _asd(train: Path, test: Path) -> Series:
    clean, judged = read_table(train), read_table(test)
    name = f"asd/{train.name.split('.')[0]}"
    return Series(name, (_clean(clean, ASD_PERIOD),), (_test(judged, clean),), (), ASD_PERIOD)


@lru_cache(maxsize=2)
def _tep(normal: Path, files: tuple[Path, ...]) -> Series:
    clean = read_table(normal)
    tests = []
    for file in files:
        table = read_table(file)
        labels = np.zeros(len(table.values), np.int8)
        if not file.name.startswith("fault00"):
            labels[TEP_FAULT_START:] = 1
        name = file.name.split(".")[0]
        tests.append(TestRecording(name, _ordered(table, clean), labels))
    return Series("tep/plant", (_clean(clean, TEP_PERIOD),), tuple(tests), (), TEP_PERIOD)


@lru_cache(maxsize=2)
def _nab(name: str, file: Path, period: float) -> Series:
    # Local times that jump back in autumn, and holes: the samples are taken as evenly spaced.
    table = read_table(file)
    labels = _labels(table)
    first = int(np.flatnonzero(labels)[0])
    split = min(first - NAB_MARGIN, int(NAB_SHARE * len(labels)))
    train = Recording(str(file), table.channels, None, table.values[:split], None, period)
    test = TestRecording(name, table.values[split:], labels[split:])
    return Series(f"nab/{name}", (train,), (test,), (), period)


@lru_cache(maxsize=2)
def _watch(people: tuple[Path, ...], demo: Path) -> Series:
    from train.smartwatch import PERIOD

    tables = [read_table(file) for file in people]
    train = tuple(_clean(table, PERIOD) for table in tables)
    return Series("watch/pendulum", train, (_test(read_table(demo), tables[0]),), (), PERIOD)


@lru_cache(maxsize=2)
def _simulator(seed: int, rows: int, every: int) -> Series:
    from train.simulate import ALL_KINDS, PERIOD, SETTINGS, simulate, simulate_faults

    healthy = simulate(rows, seed)
    # One fault of every kind in turn; the first stretch has none.
    faulty = simulate_faults((len(ALL_KINDS) + 1) * every, seed + 1000, every=every).recording
    assert faulty.labels is not None
    test = TestRecording("faults", faulty.values, faulty.labels)
    exogenous = tuple(name for name, rule in SETTINGS.items() if rule.get("exogenous"))
    return Series(f"simulator/{seed}", (healthy,), (test,), exogenous, PERIOD)


def _clean(table: Table, period: float) -> Recording:
    return Recording(str(table.path), table.channels, None, table.values, None, period)


def _test(table: Table, like: Table) -> TestRecording:
    return TestRecording(table.path.name.split(".")[0], _ordered(table, like), _labels(table))


def _ordered(table: Table, like: Table) -> Float32:
    """The table's channels in the order of those that were trained on."""
    return table.values[:, channel_order(table.channels, like.channels, table.path)]


def _labels(table: Table) -> npt.NDArray[np.int8]:
    if table.labels is None:
        raise ValueError(f"{table.path}: has no label column, nothing can be judged by it")
    return table.labels
