"""Single channels: the streams of the Numenta benchmark, each with gruard's own threshold.

    python -m benchmarks.nab [--only realTraffic] [--out docs/accuracy.md]     (make benchmark-nab)

Of each stream the first 15 % (at most 750 rows) are learned and taken as healthy, as its scoring
does. The standard score (Lavin and Ahmad, ICMLA 2015) credits the first detection in a window by
how early it is and charges each detection outside and each window without one; 0 is a detector that
never says anything, 100 one that says it in the first row of each window and nowhere else. Every
alarm is one detection, where it begins; how long alarms last is told beside it.
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
from convert.metrics import intervals
from convert.rollout import roll
from convert.twins import shipped_model
from edge_runtime.alarm_course import alarm_stretches
from edge_runtime.errors import GruardError
from edge_runtime.record import Flag, Float32
from edge_runtime.sources.csvfile import read_table
from train.recording import Recording

Bools = npt.NDArray[np.bool_]

LEARNED_SHARE, MOST_LEARNED = 0.15, 750
PERIOD = 300.0
FALSE_WEIGHT = 0.11  # of the standard profile
STEEPNESS, FURTHEST = 5.0, 3.0
PART = "nab"


@dataclass(frozen=True)
class Result:
    """One stream. raw: its score; perfect, silent: those of the two detectors that bound it.

    windows, announced: windows, and those in which one begins. healthy, alarmed: rows outside
    windows, and those of them in alarm. changed: share of all rows flagged CHANGED. onsets: alarms
    that begin outside. failed: why there is no detector, empty where there is one.
    """

    stream: str
    raw: float
    perfect: float
    silent: float
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


def measure(file: Path) -> Result:
    """The result of the stream in `file`."""
    stream = read_table(file)
    assert stream.labels is not None
    learned = min(int(LEARNED_SHARE * len(stream.values)), MOST_LEARNED)
    labels = stream.labels[learned:] > 0
    recording = Recording(file.stem, stream.channels, None, stream.values[:learned], None, PERIOD)
    series = Series(f"nab/{file.stem}", (recording,), (), (), PERIOD)
    try:
        alarms, changed = _watched(series, stream.values[learned:])
    except GruardError as error:
        nothing = np.zeros(len(labels), bool)
        return _judged(file.stem, nothing, nothing, labels, str(error))
    return _judged(file.stem, alarms, changed, labels)


def _watched(series: Series, rows: Float32) -> tuple[Bools, Bools]:
    with tempfile.TemporaryDirectory() as scratch:
        made = GruardDetector("linear").make(series, 0, Path(scratch))
    records = roll(shipped_model(made.manifest, made.model), rows).records
    alarms = np.array([record.alarm for record in records], bool)
    return alarms, np.array([Flag.CHANGED in record.flags for record in records], bool)


def _judged(stream: str, alarms: Bools, changed: Bools, labels: Bools, failed: str = "") -> Result:
    windows = intervals(labels)
    begins = [start for start, _ in alarm_stretches(alarms)]
    inside = sum(any(a <= start < b for start in begins) for a, b in windows)
    return Result(
        stream,
        raw=score(_at(begins, len(labels)), windows),
        perfect=float(len(windows)),
        silent=-float(len(windows)),
        windows=len(windows),
        announced=inside,
        healthy=int((~labels).sum()),
        alarmed=int((alarms & ~labels).sum()),
        onsets=sum(not labels[start] for start in begins),
        changed=float(changed.mean()),
        failed=failed,
    )


def _at(places: Sequence[int], count: int) -> Bools:
    flags = np.zeros(count, bool)
    flags[list(places)] = True
    return flags


def score(detections: Bools, windows: Sequence[tuple[int, int]]) -> float:
    """The standard profile's sum over `detections` [n] and windows [start, stop)."""
    total = 0.0
    for start, stop in windows:
        found = np.flatnonzero(detections[start:stop])
        if not len(found):
            total -= 1
            continue
        left = (stop - start - int(found[0])) / (stop - start)  # 1 in the first row
        total += _sigmoid(-left) / _sigmoid(-1.0)
    inside = np.zeros(len(detections), bool)
    for start, stop in windows:
        inside[start:stop] = True
    return total + FALSE_WEIGHT * sum(_charge(int(at), windows) for at in
                                      np.flatnonzero(detections & ~inside))  # fmt: skip


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


def standard(results: Sequence[Result]) -> float:
    """The standard score of several streams, 0 to 100 (or below)."""
    raw, perfect, silent = (
        sum(getattr(each, name) for each in results) for name in ("raw", "perfect", "silent")
    )
    return 100 * (raw - silent) / (perfect - silent)


def table(results: Sequence[Result]) -> str:
    """One line a stream, and one for all."""
    header = (
        "stream", "standard score", "windows announced", "healthy rows in alarm",
        "onsets outside", "flagged changed",
    )  # fmt: skip
    return markdown(header, [*_lines(results)])


def _lines(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
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


def _line(result: Result) -> str:
    if result.failed:
        return f"{result.stream}: no detector: {result.failed}"
    return (
        f"{result.stream}: {result.announced} of {result.windows} windows announced, "
        f"{_share(result.alarmed, result.healthy)} of the healthy rows in alarm"
    )


if __name__ == "__main__":
    main()
