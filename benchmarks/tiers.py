"""How long may a gate stay shut before its reading is believed again? Both sides of the trade.

    python -m benchmarks.tiers [--machines 3] [--limits 48 --limits 1000]

A gated detector of each simulated pump goes through the labelled recording of the accuracy
benchmark once for each limit: where the limit is short, a long fault is learned away. And it goes
through healthy rows in which one channel, or every one, is shifted for a while and then put right:
how soon is the detector back?
"""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np
import numpy.typing as npt

from benchmarks.detection_metrics import auc_pr, vus_pr
from benchmarks.gruard_detector import GruardDetector, silent
from benchmarks.pages import markdown
from benchmarks.series import DATA, SIMULATOR_SEEDS, WATCH, Series, catalogue
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.record import Flag, Record

LIMITS = (48, 200, 1000, 5000)
SHIFT = 4.0  # channel scales
# Rows before the shift, with it, and put right again.
BEFORE, SHIFTED, AFTER = 200, 800, 800
CALM = 30  # samples in tier 1 without an imputed reading: the detector is back


@dataclass(frozen=True)
class Patience:
    """What one limit did on one machine.

    lone, every: samples after the end of a shift until the detector was back, None for not at all;
    one entry for each watched channel, shifted alone, and all of them shifted at once.
    """

    series: str
    limit: int
    vus_pr: float
    auc_pr: float
    lone: tuple[int | None, ...]
    every: int | None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--machines",
    default=len(SIMULATOR_SEEDS),
    show_default=True,
    type=click.IntRange(1, len(SIMULATOR_SEEDS)),
    help="How many simulated pumps.",
)
@click.option(
    "--limits",
    multiple=True,
    default=LIMITS,
    show_default=True,
    type=click.IntRange(1),
    help="Samples for which a lone gate may stay shut; repeatable.",
)
@click.option("--steps", type=click.IntRange(1), help="Most training steps.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(machines: int, limits: tuple[int, ...], steps: int | None, as_json: bool) -> None:
    """Measure how long a lone gate may stay shut: what is remembered, and how soon it is back."""
    series = catalogue(DATA, WATCH, False, silent)
    found = []
    for seed in SIMULATOR_SEEDS[:machines]:
        for patience in measure(series[f"simulator/{seed}"](), limits, steps):
            ranking = f"VUS-PR {patience.vus_pr:.3f}, AUC-PR {patience.auc_pr:.3f}"
            click.echo(f"{patience.series}, {patience.limit} samples: {ranking}", err=True)
            found.append(patience)
    click.echo(json.dumps([asdict(each) for each in found]) if as_json else table(found))


def measure(series: Series, limits: Sequence[int], steps: int | None = None) -> list[Patience]:
    """Train and convert once, run under each limit."""
    with tempfile.TemporaryDirectory() as scratch:
        made = GruardDetector("gated", steps).make(series, 0, Path(scratch))
    return [judged(series, made.manifest, made.model, limit) for limit in limits]


def judged(series: Series, manifest: Manifest, graph: bytes, limit: int) -> Patience:
    """The bundle with another limit, on the labelled rows and on shifted healthy ones."""
    from convert.rollout import roll
    from convert.twins import shipped_model

    model = shipped_model(
        replace(manifest, tiers=replace(manifest.tiers, closed_limit=limit)), graph
    )
    test = series.tests[0]
    scores = roll(model, test.values).score
    healthy = series.train[-1].values[-(BEFORE + SHIFTED + AFTER) :]
    end = BEFORE + SHIFTED
    scale = np.array([channel.scale for channel in manifest.channels], np.float32)
    watched = np.flatnonzero(series.scored)

    def back(channels: npt.NDArray[np.intp]) -> int | None:
        rows = healthy.copy()
        rows[BEFORE:end, channels] += np.float32(SHIFT) * scale[channels]
        return recovered(roll(model, rows).records[end:])

    return Patience(
        series=series.name,
        limit=limit,
        vus_pr=vus_pr(test.labels, scores),
        auc_pr=auc_pr(test.labels, scores),
        lone=tuple(back(watched[i : i + 1]) for i in range(len(watched))),
        every=back(watched),
    )


def recovered(records: Sequence[Record]) -> int | None:
    """Samples before the first `CALM` in a row in tier 1 without an imputed reading."""
    calm = 0
    for index, record in enumerate(records):
        calm = calm + 1 if record.tier == 1 and Flag.IMPUTED not in record.flags else 0
        if calm == CALM:
            return index + 1 - CALM
    return None


def table(found: Sequence[Patience]) -> str:
    """A line for each limit, over all machines."""
    head = (
        "limit, samples",
        "VUS-PR",
        "AUC-PR",
        "one shifted: back in",
        "at most",
        "all shifted",
    )
    lines = []
    for limit in dict.fromkeys(each.limit for each in found):
        mine = [each for each in found if each.limit == limit]
        lone = [samples for each in mine for samples in each.lone]
        lines.append(
            (
                f"{limit:,}",
                *(f"{np.mean([getattr(m, k) for m in mine]):.3f}" for k in ("vus_pr", "auc_pr")),
                _shown(lone, np.median),
                _shown(lone, np.max),
                _shown([each.every for each in mine], np.max),
            )
        )
    return markdown(head, lines)


def _shown(samples: Sequence[int | None], how: Callable[[Sequence[float]], float]) -> str:
    value = how([np.inf if each is None else each for each in samples])
    return "never" if np.isinf(value) else f"{value:.0f}"


if __name__ == "__main__":
    main()
