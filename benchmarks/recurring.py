"""Alarms that recur at one time of day: how many false and how many true alarms are marked?

    python -m benchmarks.recurring [--out docs/changes.md]     (make benchmark-recurring)

Twelve servers (ASD, a row each 300 s): 30 healthy days and 15 with labelled faults. A linear
detector learns the first days and watches the rest. An alarm is false when it touches no labelled
row. A labelled stretch is announced when it touches an alarm, and marked when all these alarms
recur; a user who ignores recurring alarms misses it.

In a second part the healthy days after the first ten have an injected disturbance each night, on
one channel, and the same on one afternoon, which must not be marked.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np
import numpy.typing as npt

from benchmarks.gruard_detector import GruardDetector, silent
from benchmarks.pages import fill_page, markdown, page_option
from benchmarks.series import ASD_PERIOD, DATA, WATCH, Series, catalogue
from convert.metrics import intervals
from edge_runtime.detector.alarm import alarm_stretches
from edge_runtime.detector.cell import Model
from edge_runtime.learning.diagnosis.section import diagnosis_of_run
from edge_runtime.learning.recording import Recording
from edge_runtime.learning.rollout import records_of
from edge_runtime.learning.shipped import shipped_model
from edge_runtime.record import Float32, Record
from edge_runtime.recurring_alarms import (
    DAY,
    FEWEST_DAYS,
    SHARE,
    WINDOW,
    AlarmHistory,
    AlarmStart,
    RecurringAlarms,
)

Bools = npt.NDArray[np.bool_]

PART, NIGHTLY = "recurring", "nightly"
ROWS_A_DAY = int(DAY / ASD_PERIOD)
LEARNED_DAYS = (30, 10, 5)
NIGHTLY_DAYS = 10
NIGHT, AFTERNOON = 1.5, 14.0  # hours
NIGHT_ROWS, JITTER, SPREADS = 12, 2, 8.0
FAULT_DAY = 12

Signature = Callable[[Record], tuple[str, ...]]
SIGNATURES: Mapping[str, Signature] = {
    "all blamed": lambda record: tuple(sorted(record.blamed)),
    "all blamed, kind": lambda record: (*sorted(record.blamed), f"kind {record.kind}"),
    "worst blamed": lambda record: record.blamed[:1],
    "any": lambda record: ("",),
}


@dataclass(frozen=True)
class Rule:
    """A variant of the rule; the default is the one that ships."""

    signature: str = "all blamed"
    fewest_days: int = FEWEST_DAYS
    window: float = WINDOW
    share: float = SHARE

    @property
    def name(self) -> str:
        """Words for the table."""
        days = f"{self.fewest_days} day{'s' if self.fewest_days > 1 else ''}"
        share = "" if self.share == SHARE else ", at all hours too"
        shipped = " (ships)" if self == Rule() else ""
        return f"{self.signature}, {days}, ±{self.window / 60:.0f} min{share}{shipped}"


RULES = (
    Rule(),
    Rule(share=0.0),
    Rule(window=900.0),
    Rule(window=3600.0),
    Rule(fewest_days=1),
    Rule(fewest_days=3),
    Rule("all blamed, kind"),
    Rule("worst blamed"),
    Rule("any"),
)


@dataclass(frozen=True)
class DailyAlarm:
    """One alarm in rows [start, stop), and the rules by which it recurs."""

    start: int
    stop: int
    recurs: frozenset[str]


@dataclass(frozen=True)
class RecurringResult:
    """One server, `learned` days and a rule. healthy: rows watched without a label.

    false, recurring: alarms that touch no label, and those of them that recur.
    announced, harmed: labelled stretches in alarm, and those all of whose alarms recur.
    """

    server: str
    learned: int
    rule: str
    healthy: int
    false: int
    recurring: int
    announced: int
    harmed: int


@dataclass(frozen=True)
class Nights:
    """One server with a made disturbance. nights: those in alarm, from the third of them on.

    marked: of these nights. fault, fault_marked: whether the one in the afternoon is in alarm, and
    whether that alarm recurs.
    """

    server: str
    nights: int
    marked: int
    fault: bool
    fault_marked: bool


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", default="", help="Servers whose name begins so.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@page_option(PART, NIGHTLY)
def main(only: str, as_json: bool, out: Path | None) -> None:
    """Count the false alarms that recur, and the true ones.

    Example: python -m benchmarks.recurring --only omi-9
    """
    results: list[RecurringResult] = []
    nightly: list[Nights] = []
    for series in _servers(only):
        for days in LEARNED_DAYS:
            model = learned(series, days)
            results += measure(series, days, model)
            if days == NIGHTLY_DAYS:
                nightly.append(nights(series, model))
            click.echo(f"{series.name}: {days} days learned", err=True)
    if not results:
        raise click.ClickException(f"{DATA / 'asd'}: no such server there; docs/data.md names it")
    tables = {PART: table(results), NIGHTLY: nightly_table(nightly)}
    if out is not None:
        for part, text in tables.items():
            fill_page(out, text, part)
    found = {PART: [*map(asdict, results)], NIGHTLY: [*map(asdict, nightly)]}
    click.echo(json.dumps(found) if as_json else "\n\n".join(tables.values()))


def _servers(only: str) -> Iterator[Series]:
    """The servers that are there; a sentence for each that is not."""
    known = catalogue(DATA, WATCH, False, lambda told: click.echo(told, err=True))
    for name, load in known.items():
        if name.startswith(f"asd/{only}"):
            yield load()


def learned(series: Series, days: int) -> Model:
    """The detector that has seen the first `days`, as a bundle has it, with its diagnosis."""
    rows = series.train[0].values[: days * ROWS_A_DAY]
    recording = Recording("first days", series.channels, None, rows, None, series.period)
    first = Series(series.name, (recording,), (), series.exogenous, series.period)
    with tempfile.TemporaryDirectory() as scratch:
        made = GruardDetector("linear").make(first, 0, Path(scratch))
    diagnosis, _ = diagnosis_of_run(made.run, silent)
    return shipped_model(replace(made.manifest, diagnosis=diagnosis), made.model)


def measure(series: Series, days: int, model: Model) -> Iterator[RecurringResult]:
    """A result for each rule, over the healthy days that were not learned and the faulty ones."""
    healthy = series.train[0].values[days * ROWS_A_DAY :]
    (test,) = series.tests
    labels = np.concatenate([np.zeros(len(healthy), bool), test.labels > 0])
    alarms = alarms_of(records_of(model, np.concatenate([healthy, test.values])))
    for rule in RULES:
        yield judged(series.name, days, rule, alarms, labels)


def judged(
    server: str, days: int, rule: Rule, alarms: Sequence[DailyAlarm], labels: Bools
) -> RecurringResult:
    """What `rule` makes of `alarms` in rows with `labels`."""
    false = [alarm for alarm in alarms if not labels[alarm.start : alarm.stop].any()]
    touching = [
        [alarm for alarm in alarms if alarm.start < stop and start < alarm.stop]
        for start, stop in intervals(labels)
    ]
    announced = [found for found in touching if found]
    return RecurringResult(
        server, days, rule.name, int((~labels).sum()), len(false),
        sum(rule.name in alarm.recurs for alarm in false),
        len(announced),
        sum(all(rule.name in alarm.recurs for alarm in found) for found in announced),
    )  # fmt: skip


def alarms_of(records: Sequence[Record]) -> list[DailyAlarm]:
    """All alarms of a recording without times, from its first row."""
    marker = RecurringAlarms(ASD_PERIOD)
    begun: dict[int, AlarmStart] = {}
    for record in records:
        before = marker.history
        marker.mark(record)
        if marker.history is not before:
            begun[record.index] = marker.history.starts[-1]
    recurs = {rule.name: set(recurring(rule, begun, records)) for rule in RULES}
    stretches = alarm_stretches([record.alarm for record in records])
    return [
        DailyAlarm(start, stop, frozenset(name for name in recurs if start in recurs[name]))
        for start, stop in stretches
    ]


def recurring(
    rule: Rule, begun: Mapping[int, AlarmStart], records: Sequence[Record]
) -> Iterator[int]:
    """Rows, of those at which alarms have `begun`, where `rule` finds one that recurs."""
    history = AlarmHistory()
    for row, start in begun.items():
        signed = replace(start, blamed=SIGNATURES[rule.signature](records[row]))
        if history.recurs(signed, rule.fewest_days, rule.window, rule.share):
            yield row
        history = history.after(signed)


def nights(series: Series, model: Model) -> Nights:
    """The detector on healthy days with a disturbance each night, and one in an afternoon."""
    learned_rows = series.train[0].values[: NIGHTLY_DAYS * ROWS_A_DAY]
    rows = series.train[0].values[NIGHTLY_DAYS * ROWS_A_DAY :].copy()
    rng = np.random.default_rng(int(series.name.rpartition("-")[2]))
    places = _disturb(rows, learned_rows, rng)
    alarms = alarms_of(records_of(model, rows))
    found = [_beginning(alarms, at) for at in places]
    by_night = [alarm for alarm in found[:-1] if alarm][FEWEST_DAYS:]
    fault, shipped = found[-1], Rule().name
    return Nights(
        series.name,
        len(by_night),
        sum(shipped in alarm.recurs for alarm in by_night),
        fault is not None,
        fault is not None and shipped in fault.recurs,
    )


def _disturb(rows: Float32, like: Float32, rng: np.random.Generator) -> list[int]:
    """Lift one channel of `rows` each night and on one afternoon; where, the afternoon last."""
    spread = np.std(like, axis=0)
    channel = int(rng.choice(np.flatnonzero(spread > 1e-9)))
    whole_days = len(rows) // ROWS_A_DAY
    first = [day * ROWS_A_DAY + int(NIGHT * ROWS_A_DAY / 24) for day in range(whole_days)]
    places = [at + int(rng.integers(-JITTER, JITTER + 1)) for at in first]
    places.append(FAULT_DAY * ROWS_A_DAY + int(AFTERNOON * ROWS_A_DAY / 24))
    for at in places:
        rows[at : at + NIGHT_ROWS, channel] += SPREADS * spread[channel]
    return places


def _beginning(alarms: Iterable[DailyAlarm], at: int) -> DailyAlarm | None:
    """The alarm that begins in the disturbance at row `at`."""
    inside = (alarm for alarm in alarms if at <= alarm.start < at + NIGHT_ROWS)
    return next(inside, None)


def table(results: Sequence[RecurringResult]) -> str:
    """A line for each number of days and each rule, over all servers."""
    header = (
        "days learned", "like, at the same time", "false alarms in 10,000 rows",
        "without the recurring", "marked false alarms", "marked announced faults",
    )  # fmt: skip
    return markdown(header, _lines(results))


def _lines(results: Sequence[RecurringResult]) -> Iterator[tuple[str, ...]]:
    for days in dict.fromkeys(result.learned for result in results):
        for rule in RULES:
            found = [r for r in results if (r.learned, r.rule) == (days, rule.name)]
            healthy, false, recurs, announced, harmed = (
                sum(getattr(result, name) for result in found)
                for name in ("healthy", "false", "recurring", "announced", "harmed")
            )
            yield (
                str(days), rule.name, f"{1e4 * false / healthy:.2f}",
                f"{1e4 * (false - recurs) / healthy:.2f}", f"{recurs} of {false}",
                f"{harmed} of {announced}",
            )  # fmt: skip


def nightly_table(found: Sequence[Nights]) -> str:
    """One line over all servers."""
    header = (
        "servers", "nights in alarm, from the third on", "marked",
        "afternoons in alarm", "marked",
    )  # fmt: skip
    sums = (
        sum(getattr(each, name) for each in found)
        for name in ("nights", "marked", "fault", "fault_marked")
    )
    return markdown(header, [(str(len(found)), *map(str, sums))])


if __name__ == "__main__":
    main()
