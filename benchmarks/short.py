"""Detectors that learned from a few minutes only: false alarms and found faults.

    python -m benchmarks.short [--rows 250] [--out docs/changes.md]      (make benchmark-short)

A detector learns the first rows of each clean recording with the command's defaults, and watches up
to 2,000 healthy rows after them; then the same with a fault of each kind on one channel, 150 rows
long. A fault is announced when an alarm begins inside it; an alarm that is already on does not
count. An alarm that begins in the same rows without a fault is chance.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np
import numpy.typing as npt

from benchmarks.gruard_detector import GruardDetector
from benchmarks.pages import fill_page, markdown, page_option
from benchmarks.series import DATA, WATCH, Series, catalogue
from edge_runtime.detector.alarm import alarm_stretches
from edge_runtime.detector.cell import Model
from edge_runtime.errors import GruardError
from edge_runtime.learning.recording import Recording
from edge_runtime.learning.rollout import roll
from edge_runtime.learning.shipped import shipped_model
from edge_runtime.record import Flag, Float32

ROWS = (250, 500, 1000, 2000)
FOLLOWING, FEWEST = 2000, 250
STARTS = {"asd": (0, 3000), "simulator": (500,)}
FAULT_ROWS, FAULT_START = 150, 150
KINDS = ("level 3", "level 5", "level 8", "drift", "noise", "swapped", "stuck")
RIGS = range(8)
RIG_ROWS, RIG_CHANNELS = 6000, 8
PART = "short"
RULES = (True, False)

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ShortResult:
    """One recording learned from. rule: whether that of lasting changes is on.

    rows: learned; following: watched, all of them healthy.
    alarmed: share of the healthy rows in alarm. onsets: alarms that began in them. changed: share
    of them flagged CHANGED. announced: by kind of fault. chance: whether an alarm begins in the
    same rows without one. failed: why there is no detector, empty where there is one.
    """

    series: str
    rule: bool
    rows: int
    following: int
    alarmed: float
    onsets: int
    changed: float
    announced: Mapping[str, bool]
    chance: bool
    failed: str = ""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--rows", multiple=True, default=ROWS, show_default=True, type=click.IntRange(200),
    help="Rows to learn from; repeatable.",
)  # fmt: skip
@click.option("--only", default="", help="Series whose name begins so.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@page_option(PART)
def main(rows: tuple[int, ...], only: str, as_json: bool, out: Path | None) -> None:
    """Learn from short recordings, and watch what follows.

    Example: python -m benchmarks.short --rows 500 --only asd
    """
    found = []
    for series in _all_series(only):
        for count in rows:
            for result in measure(series, count):
                found.append(result)
                click.echo(_line(result), err=True)
    text = table(found)
    if out is not None:
        fill_page(out, text, PART)
    click.echo(json.dumps([asdict(each) for each in found]) if as_json else text)


def _all_series(only: str) -> Iterator[Series]:
    """Yield the available open recordings, and simulated rigs that have not settled."""
    known = catalogue(DATA, WATCH, False, lambda told: click.echo(told, err=True))
    for name, load in known.items():
        if name.startswith(only) and not name.startswith("watch"):
            yield load()
    for seed in RIGS:
        if f"rig/{seed}".startswith(only):
            recording = Recording(f"rig {seed}", _names(), None, rig(seed), None, 1.0)
            yield Series(f"rig/{seed}", (recording,), (), (), 1.0)


def _names() -> tuple[str, ...]:
    return tuple(f"s{i}" for i in range(RIG_CHANNELS))


def rig(seed: int) -> Float32:
    """Simulate a test rig [RIG_ROWS, RIG_CHANNELS]; one to three channels have not settled.

    They warm up, wander or swing slowly, by 5 to 30 times the spread of the others; three hidden
    causes move all.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(RIG_ROWS)
    memory = np.array([0.9, 0.7, 0.97])
    causes = np.zeros((RIG_ROWS, 3))
    for t in range(1, RIG_ROWS):
        causes[t] = memory * causes[t - 1] + rng.normal(size=3) * np.sqrt(1 - memory**2)
    noise = rng.normal(size=(RIG_ROWS, RIG_CHANNELS)) * rng.uniform(0.2, 0.8, RIG_CHANNELS)
    rows = causes @ rng.normal(size=(3, RIG_CHANNELS)) * 0.7 + noise
    for channel in range(int(rng.integers(1, 4))):
        size, length = rng.uniform(5, 30) * rng.choice([-1, 1]), rng.uniform(400, 3000)
        walk = np.cumsum(rng.normal(size=RIG_ROWS))
        rows[:, channel] *= 0.3
        rows[:, channel] += (
            size * (1 - np.exp(-time / length)),
            walk * rng.uniform(0.03, 0.2),
            size * np.sin(2 * np.pi * time / length / 3 + rng.uniform(0, 6)) + 0.03 * walk,
        )[int(rng.integers(3))]
    return rows.astype(np.float32)


def measure(series: Series, count: int) -> Iterator[ShortResult]:
    """A result for each place in the recording from which `count` rows are learned."""
    whole = series.train[0].values
    for start in STARTS.get(series.group, (0,)):
        learned = whole[start : start + count]
        following = whole[start + count : start + count + FOLLOWING]
        if len(following) < FEWEST:
            continue
        rng = np.random.default_rng(count + start)
        faulty = {kind: with_fault(following, learned, kind, series.scored, rng) for kind in KINDS}
        try:
            models = _learned(series, learned)
        except GruardError as error:
            for rule in RULES:
                few = len(following)
                yield ShortResult(series.name, rule, count, few, 1.0, 0, 0.0, {}, False, str(error))
            continue
        for rule, model in models.items():
            yield _judged(series.name, rule, count, model, following, faulty)


def _judged(
    name: str, rule: bool, count: int, model: Model, following: Float32,
    faulty: Mapping[str, Float32],
) -> ShortResult:  # fmt: skip
    alarms, changed = watched(model, following)
    announced = {kind: _begins(watched(model, rows)[0]) for kind, rows in faulty.items()}
    return ShortResult(
        name, rule, count, len(following), float(alarms.mean()), len(starts(alarms)),
        float(changed.mean()), announced, _begins(alarms),
    )  # fmt: skip


def _learned(series: Series, rows: Float32) -> dict[bool, Model]:
    """Detectors with and without the rule of lasting changes."""
    recording = Recording("short", series.channels, None, rows, None, series.period)
    short = Series(series.name, (recording,), (), series.exogenous, series.period)
    with tempfile.TemporaryDirectory() as scratch:
        made = GruardDetector("linear").make(short, 0, Path(scratch))
    plain = replace(made.manifest, change=None)
    return {rule: shipped_model(made.manifest if rule else plain, made.model) for rule in RULES}


def watched(model: Model, rows: Float32) -> tuple[Bools, Bools]:
    """Whether each row is in alarm by the model, and whether it is flagged CHANGED."""
    rolled = roll(model, rows)
    return rolled.alarm & (rolled.tier < 3), (rolled.flags & Flag.CHANGED) > 0


def starts(alarms: Bools) -> list[int]:
    """Rows at which alarms begin."""
    return [start for start, _ in alarm_stretches(alarms)]


def _begins(alarms: Bools) -> bool:
    return any(0 <= start - FAULT_START < FAULT_ROWS for start in starts(alarms))


def with_fault(
    rows: Float32, learned: Float32, kind: str, scored: Bools, rng: np.random.Generator
) -> Float32:
    """The first of `rows` with a fault of a `kind` at their end, on a channel that moves."""
    faulty = rows[: FAULT_START + FAULT_ROWS].copy()
    spread = np.nanstd(learned, axis=0)
    channel = int(rng.choice(np.flatnonzero((spread > 1e-9) & scored)))
    at = faulty[FAULT_START:, channel]
    sign, size = rng.choice([-1, 1]), float(spread[channel])
    match kind.split():
        case ["level", deviations]:
            at += sign * float(deviations) * size
        case ["drift"]:
            at += sign * 6 * size * np.minimum(np.arange(len(at)) / 100, 1)
        case ["noise"]:
            at += 2 * size * rng.normal(size=len(at))
        case ["swapped"]:  # readings of another time
            place = int(rng.integers(0, max(len(learned) - len(at), 1)))
            at[:] = learned[place : place + len(at), channel][: len(at)]
        case ["stuck"]:
            at[:] = faulty[FAULT_START - 1, channel]
    return faulty


def _line(result: ShortResult) -> str:
    if result.failed:
        return f"{result.series}, {result.rows} rows: {result.failed}"
    return (
        f"{result.series}, {result.rows} rows{'' if result.rule else ', without the rule'}: "
        f"{result.alarmed:.1%} of the healthy time in alarm, "
        f"{sum(result.announced.values())} of {len(result.announced)} faults announced"
    )


def table(found: Sequence[ShortResult]) -> str:
    """One line for each number of rows learned and one for all, with the rule and without."""
    header = (
        "rows learned", "lasting changes", "recordings", "healthy time in alarm: median", "mean",
        "worst", "flagged changed", "onsets in 10,000 rows", "faults announced", "chance",
        "no detector",
    )  # fmt: skip
    groups = [
        (f"{n:,}", [r for r in found if r.rows == n]) for n in sorted({r.rows for r in found})
    ]
    lines = [
        _row(name, rule, [result for result in group if result.rule is rule])
        for name, group in [*groups, ("all", list(found))]
        for rule in RULES
    ]
    return markdown(header, lines)


def _row(name: str, rule: bool, every: Sequence[ShortResult]) -> tuple[str, ...]:
    made = [result for result in every if not result.failed]
    shares = np.array([result.alarmed for result in made])
    rows = sum(result.following for result in made)
    announced = [hit for result in made for hit in result.announced.values()]
    return (
        name,
        "told once" if rule else "alarms",
        str(len(every)),
        f"{np.median(shares):.1%}",
        f"{shares.mean():.1%}",
        f"{shares.max():.0%}",
        f"{np.mean([result.changed for result in made]):.1%}",
        f"{1e4 * sum(result.onsets for result in made) / rows:.1f}",
        f"{np.mean(announced):.2f}",
        f"{np.mean([result.chance for result in made]):.2f}",
        str(len(every) - len(made)),
    )


if __name__ == "__main__":
    main()
