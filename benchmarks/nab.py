"""Single channels: the streams of the Numenta benchmark, each with gruard's own threshold.

    python -m benchmarks.nab [--only realTraffic] [--out docs/accuracy.md]     (make benchmark-nab)

Of each stream the first 15 % (at most 750 rows) are learned and taken as healthy, as its scoring
does. The standard score (Lavin and Ahmad, ICMLA 2015) credits the first detection in a window by
how early it is and charges each detection outside and each window without one. A detector without
detections has 0; one that detects the first row of each window and nothing else has 100. Every
alarm is one detection, in the row where it begins. The share of rows in alarm is a separate column.
"""

import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np
import numpy.typing as npt

from benchmarks.gruard_detector import GruardDetector
from benchmarks.pages import fill_page, markdown, page_option
from benchmarks.series import DATA, Series
from benchmarks.short import starts, watched
from convert.metrics import intervals
from edge_runtime.errors import GruardError
from edge_runtime.learning.recording import Recording
from edge_runtime.learning.shipped import shipped_model
from edge_runtime.sources.csvfile import read_table

Bools = npt.NDArray[np.bool_]

LEARNED_SHARE, MOST_LEARNED = 0.15, 750
PERIOD = 300.0
FALSE_WEIGHT = 0.11  # of the standard profile
STEEPNESS, FURTHEST = 5.0, 3.0
PART = "nab"


@dataclass(frozen=True)
class NabResult:
    """One stream. raw: its score.

    windows, announced: windows, and those in which an alarm begins. healthy, alarmed: rows outside
    windows, and those of them in alarm. changed: share of all rows flagged CHANGED. onsets: alarms
    that begin outside. failed: why there is no detector, empty where there is one.
    """

    stream: str
    raw: float
    windows: int
    announced: int
    healthy: int
    alarmed: int
    onsets: int
    changed: float
    failed: str = ""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", default="", help="Streams whose name begins so.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@page_option(PART)
def main(only: str, as_json: bool, out: Path | None) -> None:
    """Learn the beginning of each stream, and watch the rest.

    Example: python -m benchmarks.nab --only realAWSCloudwatch
    """
    files = [file for file in sorted((DATA / "nab").glob("*.csv")) if file.stem.startswith(only)]
    if not files:
        raise click.ClickException(f"{DATA / 'nab'}: no such stream there; docs/data.md names it")
    results = []
    for file in files:
        results.append(measure(file))
        click.echo(_line(results[-1]), err=True)
    text = table(results)
    if out is not None:
        fill_page(out, text, PART)
    click.echo(json.dumps([asdict(each) for each in results]) if as_json else text)


def measure(file: Path) -> NabResult:
    """The result of the stream in `file`."""
    stream = read_table(file)
    assert stream.labels is not None
    learned = min(int(LEARNED_SHARE * len(stream.values)), MOST_LEARNED)
    labels = stream.labels[learned:] > 0
    recording = Recording(file.stem, stream.channels, None, stream.values[:learned], None, PERIOD)
    series = Series(f"nab/{file.stem}", (recording,), (), (), PERIOD)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            made = GruardDetector("linear").make(series, 0, Path(scratch))
        alarms, changed = watched(shipped_model(made.manifest, made.model), stream.values[learned:])
    except GruardError as error:
        nothing = np.zeros(len(labels), bool)
        return _judged(file.stem, nothing, nothing, labels, str(error))
    return _judged(file.stem, alarms, changed, labels)


def _judged(
    stream: str, alarms: Bools, changed: Bools, labels: Bools, failed: str = ""
) -> NabResult:
    windows = intervals(labels)
    begins = starts(alarms)
    inside = sum(any(a <= start < b for start in begins) for a, b in windows)
    return NabResult(
        stream,
        raw=score(begins, windows),
        windows=len(windows),
        announced=inside,
        healthy=int((~labels).sum()),
        alarmed=int((alarms & ~labels).sum()),
        onsets=sum(not labels[start] for start in begins),
        changed=float(changed.mean()),
        failed=failed,
    )


def score(detections: Sequence[int], windows: Sequence[tuple[int, int]]) -> float:
    """The standard profile's sum over rows of detections and windows [start, stop)."""
    total, outside = 0.0, set(detections)
    for start, stop in windows:
        found = [at for at in detections if start <= at < stop]
        outside -= set(found)
        if not found:
            total -= 1
            continue
        left = (stop - min(found)) / (stop - start)  # 1 in the first row
        total += _sigmoid(-left) / _sigmoid(-1.0)
    return total + FALSE_WEIGHT * sum(_charge(at, windows) for at in outside)


def _charge(at: int, windows: Sequence[tuple[int, int]]) -> float:
    """What a detection outside counts, the less the sooner it follows a window."""
    before = [(start, stop) for start, stop in windows if stop <= at]
    if not before:
        return -1.0
    start, stop = before[-1]
    return _sigmoid((at - stop + 1) / max(stop - start - 1, 1))


def _sigmoid(position: float) -> float:
    """1 at the far left, 0 at the end of a window, -1 far behind it."""
    if position > FURTHEST:
        return -1.0
    return 2 / (1 + math.exp(STEEPNESS * position)) - 1


def standard(results: Sequence[NabResult]) -> float:
    """The standard score of several streams, 0 to 100 (or below)."""
    perfect = sum(each.windows for each in results)  # and as much below 0 for silence
    return 100 * (sum(each.raw for each in results) + perfect) / (2 * perfect)


def table(results: Sequence[NabResult]) -> str:
    """One line a stream, and one for all."""
    header = (
        "stream", "standard score", "windows announced", "healthy rows in alarm",
        "onsets outside", "flagged changed",
    )  # fmt: skip
    return markdown(header, [*_lines(results)])


def _lines(results: Sequence[NabResult]) -> Iterator[tuple[str, ...]]:
    for each in results:
        alone = f"{standard([each]):.0f}" if each.windows else "–"
        yield (
            each.stream, alone, f"{each.announced} of {each.windows}",
            _share(each.alarmed, each.healthy), str(each.onsets), f"{each.changed:.0%}",
        )  # fmt: skip
    found, windows, onsets, alarmed, healthy = (
        sum(getattr(each, name) for each in results)
        for name in ("announced", "windows", "onsets", "alarmed", "healthy")
    )
    changed = float(np.mean([each.changed for each in results]))
    yield (
        f"all {len(results)}", f"{standard(results):.1f}", f"{found} of {windows}",
        _share(alarmed, healthy), str(onsets), f"{changed:.0%}",
    )  # fmt: skip


def _share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.2%}"


def _line(result: NabResult) -> str:
    if result.failed:
        return f"{result.stream}: no detector: {result.failed}"
    return (
        f"{result.stream}: {result.announced} of {result.windows} windows announced, "
        f"{_share(result.alarmed, result.healthy)} of the healthy rows in alarm"
    )


if __name__ == "__main__":
    main()
