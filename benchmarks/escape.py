"""Does a detector find back by itself? The same gate with its tiers, without them, and held open.

    python -m benchmarks.escape [--machines 3] [--out docs]      (make benchmark-escape)

Each simulated pump's gated detector goes, as int8, through healthy rows that

- jump to another stretch of the recording, as when the machine is restarted,
- jump by 4 scales in every watched channel and stay there: another operating point,
- jump by 4 scales in one watched channel for 100 rows: a fault, during which the forecasts of all
  other channels are looked at.

*Error* is the forecast's, in units of the innovation's clean scale, clipped at 5, RMS over the
channels. A detector is back when its mean over 10 rows is below 1.5 times the usual one. Without
tiers nothing but the gate decides; held open, it lets everything through.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np
import numpy.typing as npt

from benchmarks.accuracy_report import markdown
from benchmarks.gruard_detector import GruardDetector, silent
from benchmarks.series import DATA, SIMULATOR_SEEDS, WATCH, Series, catalogue
from edge_runtime.detector import step as stepping
from edge_runtime.detector.standardise import standardise
from edge_runtime.detector.step import Model
from edge_runtime.detector.tiers import Phase
from edge_runtime.detector.validity import check_validity, initial_validity
from edge_runtime.record import Float32

WAYS = ("with tiers", "without tiers", "held open")
BEFORE, AFTER, FAULT = 500, 1500, 100  # rows
STARTS = 8  # stretches of the recording that each way is tried on
SHIFT = 4.0  # channel scales
MEAN, USUAL, CLIP = 10, 1.5, 5.0


@dataclass(frozen=True)
class Escape:
    """One way on one machine. restart, shift: samples until it is back, one entry a try, None for
    not within `AFTER`. healthy: error of the other channels during a fault, in usual ones.
    """

    series: str
    way: str
    restart: tuple[int | None, ...]
    shift: tuple[int | None, ...]
    healthy: float


def forecasts(model: Model, rows: Float32, way: str) -> tuple[Float32, Float32]:
    """Standardised readings and their forecasts [n, channels] of raw `rows`, in one of `WAYS`."""
    if way == "with tiers":
        from convert.rollout import roll

        rolled = roll(replace(model, diagnosis=None), rows)
        return rolled.value, rolled.forecast
    if way == "held open":
        model = replace(model, gated=np.zeros_like(model.gated))
    return _gate_alone(model, rows)


def _gate_alone(model: Model, rows: Float32) -> tuple[Float32, Float32]:
    validity, state = initial_validity(rows.shape[1]), None
    nothing = np.zeros(rows.shape[1], np.float32)
    values, found = [], []
    for row in rows:
        mask, validity = check_validity(row, model.rules, validity)
        value = standardise(row, mask, model.scaler)
        state = state or stepping.start_recurrent(model, value)
        trace, state = stepping.advance(
            model, value, mask.astype(np.float32), state, nothing, Phase.GATE
        )
        values.append(trace.value)
        found.append(trace.forecast)
    return np.array(values), np.array(found)


def errors(model: Model, rows: Float32, way: str, channels: npt.NDArray[np.intp]) -> Float32:
    """[n]: the error of the forecasts of `channels`, row by row."""
    value, forecast = forecasts(model, rows, way)
    apart = ((value - forecast) / model.innovation_scale)[:, channels]
    error: Float32 = np.sqrt((np.minimum(np.abs(apart), CLIP) ** 2).mean(axis=1))
    return error


def back_after(error: Float32, usual: float) -> int | None:
    """Rows until the mean over `MEAN` of them is below `USUAL` times the usual error."""
    means = np.convolve(error, np.ones(MEAN) / MEAN, "valid")
    calm = np.flatnonzero(means < USUAL * usual)
    return int(calm[0]) if len(calm) else None


def escape(model: Model, series: Series, way: str) -> Escape:
    """Every scenario in one of `WAYS`."""
    healthy = series.train[-1].values
    watched = np.flatnonzero(series.scored)
    scale = model.scaler.scale
    length = BEFORE + AFTER
    begins = np.linspace(0, len(healthy) - 2 * length, STARTS).astype(int)
    calm = errors(model, healthy[:length], way, watched)[100:]
    usual = float(np.sqrt((calm**2).mean()))
    restart, shift, others = [], [], []
    for number, begin in enumerate(begins):
        rows = healthy[begin : begin + length].copy()
        jumped = np.concatenate([rows[:BEFORE], healthy[begin + length :][:AFTER]])
        restart.append(back_after(errors(model, jumped, way, watched)[BEFORE:], usual))
        moved = rows.copy()
        moved[BEFORE:, watched] += np.float32(SHIFT) * scale[watched]
        shift.append(back_after(errors(model, moved, way, watched)[BEFORE:], usual))
        victim = watched[number % len(watched)]
        rows[BEFORE : BEFORE + FAULT, victim] += np.float32(SHIFT) * scale[victim]
        rest = watched[watched != victim]
        error = errors(model, rows[: BEFORE + FAULT], way, rest)[BEFORE:]
        before = errors(model, healthy[begin : begin + BEFORE + FAULT], way, rest)[BEFORE:]
        others.append(float(np.sqrt((error**2).mean() / (before**2).mean())))
    return Escape(series.name, way, tuple(restart), tuple(shift), float(np.median(others)))


def table(found: Sequence[Escape]) -> str:
    """A line for each way, over all machines and tries."""
    head = (
        "", "restart: back in", "at most", "operating point: back in", "at most", "never",
        "other channels' error during a fault",
    )  # fmt: skip
    lines = []
    for way in WAYS:
        mine = [each for each in found if each.way == way]
        restart = [samples for each in mine for samples in each.restart]
        shift = [samples for each in mine for samples in each.shift]
        never = sum(samples is None for samples in shift) / max(len(shift), 1)
        healthy = np.mean([each.healthy for each in mine])
        lines.append((way, *_shown(restart), *_shown(shift), f"{never:.0%}", f"×{healthy:.2f}"))
    return markdown(head, lines)


def _shown(samples: Sequence[int | None]) -> tuple[str, str]:
    """Median and largest."""
    values = [np.inf if each is None else each for each in samples]
    return tuple(  # type: ignore[return-value]
        "never" if np.isinf(value) else f"{value:.0f}"
        for value in (np.median(values), np.max(values))
    )


def picture(model: Model, series: Series, file: Path) -> None:
    """The error after a change of the operating point, and of healthy channels beside a fault."""
    import matplotlib.pyplot as plt

    healthy, watched = series.train[-1].values, np.flatnonzero(series.scored)
    figure, axes = plt.subplots(2, 1, figsize=(9, 6), layout="constrained")
    rows = healthy[: BEFORE + 400].copy()
    rows[BEFORE:, watched] += np.float32(SHIFT) * model.scaler.scale[watched]
    fault = healthy[: BEFORE + 400].copy()
    victim, rest = watched[0], watched[1:]
    fault[BEFORE : BEFORE + FAULT, victim] += np.float32(SHIFT) * model.scaler.scale[victim]
    titles = ("every channel, another operating point from row 0", "healthy channels, a fault")
    for axis, data, channels, title in zip(
        axes, (rows, fault), (watched, rest), titles, strict=True
    ):
        for way in WAYS:
            error = errors(model, data, way, channels)
            means = np.convolve(error, np.ones(MEAN) / MEAN, "valid")[BEFORE - 100 :]
            axis.plot(np.arange(len(means)) - 100, means, label=way)
        axis.set(title=title, ylabel="forecast error", xlabel="samples")
        axis.legend()
    figure.savefig(file, dpi=110, metadata={"Software": ""})
    plt.close(figure)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--machines",
    default=len(SIMULATOR_SEEDS),
    show_default=True,
    type=click.IntRange(1, len(SIMULATOR_SEEDS)),
    help="How many simulated pumps.",
)
@click.option("--steps", type=click.IntRange(1), help="Most training steps.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the picture.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(machines: int, steps: int | None, out: Path | None, as_json: bool) -> None:
    """Measure how a gated detector finds back, with its tiers and without them."""
    from convert.twins import shipped_model

    catalogued = catalogue(DATA, WATCH, False, silent)
    found: list[Escape] = []
    for seed in SIMULATOR_SEEDS[:machines]:
        series = catalogued[f"simulator/{seed}"]()
        with tempfile.TemporaryDirectory() as scratch:
            made = GruardDetector("gated", steps).make(series, 0, Path(scratch))
        model = shipped_model(made.manifest, made.model)
        for way in WAYS:
            found.append(escape(model, series, way))
            click.echo(f"{series.name}, {way}", err=True)
        if out and seed == SIMULATOR_SEEDS[0]:
            picture(model, series, out / "escape.png")
    click.echo(json.dumps([asdict(each) for each in found]) if as_json else table(found))


if __name__ == "__main__":
    main()
