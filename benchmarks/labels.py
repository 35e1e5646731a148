"""What labelled events buy: the gated network on the simulated pump, taught by 0, 1, 3, 10 of them.

    python -m benchmarks.labels [--seeds 3] [--steps 1000] [--out labels.json]

Every model learns from one and the same recording with the same ten events cut out of its clean
rows; they differ only in how many of the events teach the gate. All are judged on the events of
another recording, one of every kind in turn. A training event has the kind of a test event, never
its channel, size and place.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np

if TYPE_CHECKING:
    from benchmarks.judge import Figures
    from benchmarks.series import TestRecording
    from edge_runtime.detector.step import Model
    from train.run_folder import Run

EVENTS = (0, 1, 3, 10)
# Rows per event: those to learn from must lie so far apart that each is a stretch of its own.
TRAIN_EVERY, TEST_EVERY = 1500, 1000
HEALTHY_ROWS = 12000  # after the events, so that all of them lie in the training share
TEST_SEED = 1000  # added to the seed of the training recording
FIGURES = {  # of the table: heading and name
    "VUS-PR": "vus_pr",
    "AUC-PR": "auc_pr",
    "events found": "event_recall",
    "false alarms/10,000": "false_alarms_per_10000",
}


@dataclass(frozen=True)
class Result:
    """One model. events: how many taught its gate; kinds: theirs. figures: as in docs/accuracy.md.

    seconds: training time.
    """

    seed: int
    events: int
    kinds: tuple[str, ...]
    figures: "Figures"
    seconds: float


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Machines.")
@click.option(
    "--steps", default=1000, show_default=True, type=click.IntRange(1), help="Most training steps."
)
@click.option(
    "--events",
    multiple=True,
    default=EVENTS,
    show_default=True,
    type=click.IntRange(0, max(EVENTS)),
    help="Labelled events that teach the gate; repeatable.",
)
@click.option("--float", "as_float", is_flag=True, help="Judge the float model, not the int8 one.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the results as JSON."
)
def main(seeds: int, steps: int, events: tuple[int, ...], as_float: bool, out: Path | None) -> None:
    """What 1, 3, 10 labelled events buy the gated network on SEEDS simulated pumps.

    Prints a table of means over the machines (and deviations, from two on); progress goes to
    stderr. With the default steps a model takes about three minutes, and there are four for each
    machine. A hundred steps show that it works, not what it buys: gates learn from labels late.

    Example: python -m benchmarks.labels --seeds 1 --steps 150
    """
    results = []
    for seed in range(seeds):
        for result in measure(seed, events, steps, as_float):
            click.echo(
                f"seed {seed}, {result.events} labelled events: VUS-PR "
                f"{result.figures['vus_pr']:.3f} after {result.seconds:.0f} s of training",
                err=True,
            )
            results.append(result)
    if out is not None:
        out.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n", encoding="utf-8")
    click.echo(table(results))


def measure(seed: int, events: Sequence[int], steps: int, as_float: bool) -> Iterator[Result]:
    """One result for each number of labelled events, all on the machine of `seed`."""
    from benchmarks.judge import Outcome, judge
    from benchmarks.series import Series

    with tempfile.TemporaryDirectory() as scratch:
        kinds = write_data(Path(scratch) / "data", seed)
        test = faulty_recording(seed)
        series = Series("simulator/labels", (), (test,), (), 1.0)
        for count in events:
            started = time.monotonic()
            run = _trained(Path(scratch), seed, count, steps)
            seconds = time.monotonic() - started
            scores, alarms = _watched(_model(run, as_float), test)
            figures = judge(series, Outcome([scores], [alarms], 0, 0, seconds))
            yield Result(seed, count, kinds[:count], figures, seconds)


def write_data(folder: Path, seed: int) -> tuple[str, ...]:
    """The training recordings with their settings in `folder`; the kinds of the events, in order.

    The kinds differ from seed to seed, so that a single event is not always of the same kind.
    """
    from train.recording import write_recording
    from train.simulate import ALL_KINDS, simulate, simulate_faults, write_settings

    most = max(EVENTS)
    kinds = [str(kind) for kind in np.random.default_rng(seed).permutation(ALL_KINDS)[:most]]
    eventful = simulate_faults((most + 1) * TRAIN_EVERY, seed, kinds, TRAIN_EVERY)
    folder.mkdir()
    write_recording(folder / "0-events.csv", eventful.recording)
    write_recording(folder / "1-healthy.csv", simulate(HEALTHY_ROWS, seed + max(EVENTS)))
    write_settings(folder / "channels.yaml")
    return tuple(event.kind for event in eventful.events)


def faulty_recording(seed: int) -> "TestRecording":
    """Events of every kind, on a recording of their own."""
    from benchmarks.series import TestRecording
    from train.simulate import ALL_KINDS, simulate_faults

    rows = (len(ALL_KINDS) + 1) * TEST_EVERY
    faulty = simulate_faults(rows, TEST_SEED + seed, every=TEST_EVERY).recording
    assert faulty.labels is not None
    return TestRecording("faults", faulty.values, faulty.labels)


def table(results: Sequence[Result]) -> str:
    """One line for each number of labelled events: means over the seeds, deviations from two on."""
    lines = [f"{'events':>6}" + "".join(f"{heading:>22}" for heading in FIGURES)]
    for count in sorted({r.events for r in results}):
        rows = [r.figures for r in results if r.events == count]
        cells = [_cell([figures[name] for figures in rows]) for name in FIGURES.values()]
        lines.append(f"{count:>6}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{statistics.mean(known):.3f}"
    return f"{mean} ±{statistics.stdev(known):.3f}" if len(known) > 1 else mean


def _trained(scratch: Path, seed: int, count: int, steps: int) -> "Run":
    from benchmarks.gruard_detector import silent
    from train.cell_config import CellConfig
    from train.fit import Budget
    from train.train_run import Request, train_run

    request = Request(
        data=(scratch / "data",),
        out=scratch / f"run-{count}",
        name="pump",
        model="gated",
        most_labelled=count,
    )
    budget = Budget(steps=steps, seed=seed)
    return train_run(request, CellConfig(channels=0), budget, silent, silent)


def _model(run: "Run", as_float: bool) -> "Model":
    from benchmarks.gruard_detector import converted
    from convert.twins import float_twin, shipped_model
    from train.simulate import PERIOD

    manifest, model, float_model = converted(run, PERIOD)
    return float_twin(manifest, float_model) if as_float else shipped_model(manifest, model)


def _watched(model: "Model", test: "TestRecording") -> tuple[np.ndarray, np.ndarray]:
    from convert.rollout import roll

    rollout = roll(model, test.values)
    alarms = np.array([record.alarm for record in rollout.records], bool)
    return rollout.score.astype(np.float64), alarms


if __name__ == "__main__":
    main()
