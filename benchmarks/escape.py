"""Does a detector find back by itself? Two gates with their tiers and without, and no gate.

    python -m benchmarks.escape [--machines 3] [--out docs]      (make benchmark-escape)

Each simulated pump's gated detector goes, as int8, through healthy rows that

- jump to another stretch of the recording, as when the machine is restarted,
- jump by 2 scales in every watched channel and stay there: another operating point,
- jump by 4 scales in one watched channel for 100 rows: a fault, during which the forecasts of all
  other channels are looked at.

A detector is *back* when what its network is fed is what the machine does again: readings and
trusted inputs are apart by less than a quarter of a channel's scale, RMS over the channels, mean
over 10 rows. *Error* is the forecast's, in units of the innovation's clean scale, clipped at 5. The
*strict* gate is no trained one: it shuts wherever the innovation is beyond 4 scales, as a simple
rule would, and so shows what the tiers are for. Without tiers nothing but the gate decides; held
open, it lets everything through.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np
import numpy.typing as npt

from benchmarks.gruard_detector import GruardDetector, silent
from benchmarks.pages import markdown
from benchmarks.series import DATA, SIMULATOR_SEEDS, WATCH, Series, catalogue
from edge_runtime.detector import step as stepping
from edge_runtime.detector.interpreter import StepGraph
from edge_runtime.detector.standardise import standardise
from edge_runtime.detector.step import EVIDENCE_CLIP, Model
from edge_runtime.detector.tiers import Phase
from edge_runtime.detector.validity import check_validity, initial_validity
from edge_runtime.record import Float32

BEFORE, AFTER, FAULT = 500, 1500, 100  # rows
STARTS = 8  # stretches of the recording that each way is tried on
SHIFT, FAULTY = 2.0, 4.0  # channel scales
STRICT = np.float32(4)  # innovation scales
MEAN, NEAR, CLIP = 10, 0.25, 5.0


@dataclass(frozen=True)
class Way:
    """How a detector runs. gate: `trained`, `strict` or `open`."""

    name: str
    gate: str
    tiers: bool


WAYS = (
    Way("trained gate, tiers", "trained", True),
    Way("trained gate alone", "trained", False),
    Way("strict gate, tiers", "strict", True),
    Way("strict gate alone", "strict", False),
    Way("held open", "open", False),
)


class StrictGate:
    """The network of `graph` with a gate that shuts beyond `STRICT` scales and knows no doubt."""

    def __init__(self, graph: StepGraph) -> None:
        self._graph, self.kernel_id, self.gated = graph, graph.kernel_id, True
        self.state_sizes = graph.state_sizes

    def __call__(self, inputs: Mapping[str, Float32]) -> dict[str, Float32]:
        outputs = self._graph(inputs)
        shut = (inputs["guarded"] > 0) & (inputs["magnitude"] * EVIDENCE_CLIP > STRICT)
        return outputs | {"gate_next": inputs["mask"] * ~shut}


@dataclass(frozen=True)
class Escape:
    """One way, by its name, on one machine.

    restart, shift: samples until it is back, one entry a try, None for not within `AFTER`. healthy:
    error of the other channels during a fault, in usual ones.
    """

    series: str
    way: str
    restart: tuple[int | None, ...]
    shift: tuple[int | None, ...]
    healthy: float


def followed(model: Model, rows: Float32, way: Way) -> tuple[Float32, Float32, Float32]:
    """Standardised readings, forecasts and trusted inputs [n, channels] of raw `rows`."""
    if way.gate == "strict":
        model = replace(model, graph=StrictGate(model.graph))
    if way.gate == "open":
        model = replace(model, gated=np.zeros_like(model.gated))
    if not way.tiers:
        return _gate_alone(model, rows)
    from convert.rollout import roll

    rolled = roll(replace(model, diagnosis=None), rows)
    return rolled.value, rolled.forecast, rolled.trusted


def _gate_alone(model: Model, rows: Float32) -> tuple[Float32, Float32, Float32]:
    validity, state = initial_validity(rows.shape[1]), None
    nothing = np.zeros(rows.shape[1], np.float32)
    traces = []
    for row in rows:
        mask, validity = check_validity(row, model.rules, validity)
        value = standardise(row, mask, model.scaler)
        state = state or stepping.start_recurrent(model, value)
        trace, state = stepping.advance(
            model, value, mask.astype(np.float32), state, nothing, Phase.GATE
        )
        traces.append((trace.value, trace.forecast, trace.trusted))
    value, forecast, trusted = (np.array(each) for each in zip(*traces, strict=True))
    return value, forecast, trusted


def errors(model: Model, rows: Float32, way: Way, channels: npt.NDArray[np.intp]) -> Float32:
    """[n]: the error of the forecasts of `channels`, row by row."""
    value, forecast, _ = followed(model, rows, way)
    apart = np.minimum(np.abs((value - forecast) / model.innovation_scale), CLIP)
    return _rms(apart[:, channels])


def distances(model: Model, rows: Float32, way: Way, channels: npt.NDArray[np.intp]) -> Float32:
    """[n]: how far trusted inputs are from the readings, in channel scales."""
    value, _, trusted = followed(model, rows, way)
    return _rms((value - trusted)[:, channels])


def _rms(values: Float32) -> Float32:
    root: Float32 = np.sqrt((values**2).mean(axis=1))
    return root


def back_after(distance: Float32) -> int | None:
    """Rows until the mean over `MEAN` of them is below `NEAR`."""
    calm = np.flatnonzero(_means(distance) < NEAR)
    return int(calm[0]) if len(calm) else None


def _means(error: Float32) -> Float32:
    means: Float32 = np.convolve(error, np.ones(MEAN) / MEAN, "valid")
    return means


def escape(model: Model, series: Series, way: Way) -> Escape:
    """Every scenario in one way."""
    healthy, watched = series.train[-1].values, np.flatnonzero(series.scored)
    length = BEFORE + AFTER
    begins = np.linspace(0, len(healthy) - 2 * length, STARTS).astype(int)

    def back(rows: Float32) -> int | None:
        return back_after(distances(model, rows, way, watched)[BEFORE:])

    restart, shift, others = [], [], []
    for number, begin in enumerate(begins):
        rows = healthy[begin : begin + length]
        restart.append(back(np.concatenate([rows[:BEFORE], healthy[begin + length :][:AFTER]])))
        shift.append(back(shifted(model, rows, watched, SHIFT, AFTER)))
        victim = watched[number % len(watched)]
        rest = watched[watched != victim]
        faulty = shifted(model, rows[: BEFORE + FAULT], watched[watched == victim], FAULTY, FAULT)
        pair = (faulty, rows[: BEFORE + FAULT])
        during, before = (errors(model, each, way, rest)[BEFORE:] for each in pair)
        others.append(float(np.sqrt((during**2).mean() / (before**2).mean())))
    return Escape(series.name, way.name, tuple(restart), tuple(shift), float(np.median(others)))


def shifted(
    model: Model, rows: Float32, channels: npt.NDArray[np.intp], scales: float, count: int
) -> Float32:
    """`rows` whose `channels` are off by so many scales in `count` rows from `BEFORE` on."""
    moved = rows.copy()
    moved[BEFORE : BEFORE + count, channels] += np.float32(scales) * model.scaler.scale[channels]
    return moved


def table(found: Sequence[Escape], ways: Sequence[Way] = WAYS) -> str:
    """A line for each of `ways`, over all machines and tries."""
    head = (
        "", "restart: back in", "at most", "operating point: back in", "at most", "never",
        "other channels' error during a fault",
    )  # fmt: skip
    lines = []
    for way in ways:
        mine = [each for each in found if each.way == way.name]
        restart = [samples for each in mine for samples in each.restart]
        shift = [samples for each in mine for samples in each.shift]
        never = sum(samples is None for samples in shift) / max(len(shift), 1)
        healthy = np.mean([each.healthy for each in mine])
        lines.append(
            (way.name, *_shown(restart), *_shown(shift), f"{never:.0%}", f"×{healthy:.2f}")
        )
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
    rest = watched[1:]
    rows = shifted(model, healthy[: BEFORE + 400], watched, SHIFT, AFTER)
    fault = shifted(model, healthy[: BEFORE + 400], watched[:1], FAULTY, FAULT)
    panels = (
        (distances, rows, watched, "another operating point: fed, off the readings [scales]"),
        (errors, fault, rest, "healthy channels beside a fault: forecast error"),
    )
    for axis, (measure, data, channels, title) in zip(axes, panels, strict=True):
        for way in WAYS:
            means = _means(measure(model, data, way, channels))[BEFORE - 100 :]
            axis.plot(np.arange(len(means)) - 100, means, label=way.name)
        axis.set(title=title, xlabel="samples")
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
            click.echo(f"{series.name}, {way.name}", err=True)
        if out and seed == SIMULATOR_SEEDS[0]:
            picture(model, series, out / "escape.png")
    click.echo(json.dumps([asdict(each) for each in found]) if as_json else table(found))


if __name__ == "__main__":
    main()
