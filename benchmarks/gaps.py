"""How many missing rows can the state bridge? The same gaps, bridged and re-synchronised.

    python -m benchmarks.gaps [--machines 3] [--out docs/gate.md]      (make benchmark-gaps)

K consecutive rows at a time are blanked in healthy recordings that the model was not trained on.
Each recording is answered twice: once the state bridges every gap, once each gap is an outage with
a free run and a re-synchronisation. The rows after a gap are compared with those of the undisturbed
recording.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np
import numpy.typing as npt

from benchmarks.gruard_detector import GruardDetector, silent
from benchmarks.pages import fill_page, markdown, page_option
from benchmarks.series import DATA, SIMULATOR_SEEDS, WATCH, Series, catalogue
from edge_runtime.bundle.flatbuffer import NO_GRAPH, read_graph
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.bundle.reader import Bundle
from edge_runtime.native.engine import NativeDetector
from edge_runtime.record import Float32

LENGTHS = (1, 2, 4, 8, 16, 32, 64)
MODELS = ("linear", "gated")
ROWS = 4000  # of the last healthy ones, at most
HELD_OUT = 0.3
BETWEEN, AFTER = 100, 60  # rows between two gaps, and rows after one that are looked at
OFFSETS = (0, 33, 67)  # so that gaps begin at other rows, too
NEAR = 0.05  # of the threshold: the score is back
ALWAYS, NEVER = 10**6, 0
PART = "gaps"


@dataclass(frozen=True)
class Gaps:
    """One model with gaps of one length, one entry a gap.

    excess: the largest score of the rows after it, less that of the same rows without it, in shares
    of the threshold. alarms: whether an alarm rises that is not there without it. back: rows until
    the score stays within `NEAR` of the undisturbed one.
    """

    series: str
    model: str
    length: int
    bridged: bool
    excess: tuple[float, ...]
    alarms: tuple[bool, ...]
    back: tuple[int, ...]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--machines",
    default=len(SIMULATOR_SEEDS),
    show_default=True,
    type=click.IntRange(1, len(SIMULATOR_SEEDS)),
    help="How many simulated pumps.",
)
@click.option("--steps", type=click.IntRange(1), help="Most training steps.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@page_option(PART)
def main(machines: int, steps: int | None, as_json: bool, out: Path | None) -> None:
    """Measure what a gap costs that is bridged, and one that is re-synchronised."""
    series = catalogue(DATA, WATCH, False, silent)
    found: list[Gaps] = []
    for seed in SIMULATOR_SEEDS[:machines]:
        for model in MODELS:
            found += measure(series[f"simulator/{seed}"](), model, steps)
            click.echo(f"simulator/{seed}, {model}", err=True)
    if out is not None:
        fill_page(out, table(found), PART)
    click.echo(json.dumps([asdict(each) for each in found]) if as_json else table(found))


def measure(series: Series, model: str, steps: int | None = None) -> Iterator[Gaps]:
    """Train and convert once, then answer the held-out rows with gaps of every length."""
    with tempfile.TemporaryDirectory() as scratch:
        made = GruardDetector(model, steps).make(series, 0, Path(scratch))
    healthy = series.train[-1].values
    rows = healthy[max(len(healthy) - ROWS, round((1 - HELD_OUT) * len(healthy))) :]
    for length in LENGTHS:
        for bridge in (ALWAYS, NEVER):
            yield judged(series.name, model, made.manifest, made.model, rows, length, bridge)


def judged(
    series: str, model: str, manifest: Manifest, graph: bytes, rows: Float32, length: int,
    bridge: int,
) -> Gaps:  # fmt: skip
    """The raw healthy `rows` with gaps of `length` rows, for a state that may bridge `bridge`."""
    tiers = replace(manifest.tiers, bridge=bridge)
    bundle = bundled(replace(manifest, tiers=tiers), graph)
    threshold = next(iter(manifest.thresholds.values())).value
    excess: list[float] = []
    alarms: list[bool] = []
    back: list[int] = []
    calm = answered(bundle, rows)
    for offset in OFFSETS:
        starts = starts_of(manifest, len(rows), length, offset)
        found = answered(bundle, with_gaps(rows, starts, length))
        for end in starts + length:
            after = slice(end, end + AFTER)
            apart = (found["score"][after] - calm["score"][after]) / threshold
            off = np.flatnonzero(np.abs(apart) > NEAR)
            excess.append(float(apart.max()))
            back.append(int(off[-1]) + 1 if len(off) else 0)
            alarms.append(bool(found["alarm"][after].any() and not calm["alarm"][after].any()))
    return Gaps(series, model, length, bridge > 0, tuple(excess), tuple(alarms), tuple(back))


def starts_of(manifest: Manifest, count: int, length: int, offset: int) -> npt.NDArray[np.intp]:
    """Where gaps of `length` begin in `count` rows."""
    first = manifest.tiers.warmup + BETWEEN + offset
    return np.arange(first, count - length - AFTER, length + BETWEEN)


def with_gaps(rows: Float32, starts: npt.NDArray[np.intp], length: int) -> Float32:
    """`rows` without a reading in the `length` rows from each of `starts` on."""
    lost = rows.copy()
    for start in starts:
        lost[start : start + length] = np.nan
    return lost


def bundled(manifest: Manifest, graph: bytes) -> Bundle:
    """A bundle in memory, without its files."""
    summary = read_graph(graph, manifest.name) if graph else NO_GRAPH
    named = replace(manifest, members={"model.tflite": "0" * 64})  # the hash in its records
    return Bundle(Path(manifest.name), named, graph, summary, "")


def answered(bundle: Bundle, rows: Float32) -> npt.NDArray[np.void]:
    """The records of raw `rows` by the C core."""
    return NativeDetector(bundle, calibrated=False).run(rows)


def table(found: Sequence[Gaps]) -> str:
    """A line for each model and length, over all machines; bridged and re-synchronised."""
    head = (
        "model", "missing rows", "gaps",
        "bridged: score, 9 of 10", "worst", "false alarms", "back in",
        "re-synchronised: score, 9 of 10", "worst", "false alarms", "back in",
    )  # fmt: skip
    lines = []
    for model in dict.fromkeys(each.model for each in found):
        for length in dict.fromkeys(each.length for each in found):
            mine = [each for each in found if (each.model, each.length) == (model, length)]
            bridged = [each for each in mine if each.bridged]
            others = [each for each in mine if not each.bridged]
            gaps = sum(len(each.excess) for each in bridged)
            lines.append((model, str(length), str(gaps), *_shown(bridged), *_shown(others)))
    return markdown(head, lines)


def _shown(found: Sequence[Gaps]) -> tuple[str, str, str, str]:
    excess = [value for each in found for value in each.excess]
    back = [value for each in found for value in each.back]
    alarms = sum(sum(each.alarms) for each in found)
    return (
        f"{np.quantile(excess, 0.9):+.2f}", f"{max(excess):+.2f}", str(alarms),
        f"{np.quantile(back, 0.9):.0f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
