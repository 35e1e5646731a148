"""Sixty days of many machines: false alarms and faults, with and without learning again.

    python -m benchmarks.life [--machines 20] [--out docs/life.md]     (make benchmark-life)

Each simulated pump is learned from its first 24 hours and watched from then on. Each
morning at 8 its owner answers: marks alarms as false or real, and accepts a reported change of a
healthy machine. At 9 of some days it is learned again, by one of four strategies. All of them use
the code of the product: gruard learn, the C core, and gruard relearn.
"""

import io
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click
import numpy as np
import numpy.typing as npt

from benchmarks.life_rig import CHANNELS, DAYS, Life, simulate
from benchmarks.pages import fill_page, markdown, page_option
from edge_runtime.bundle.flatbuffer import NO_GRAPH
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.bundle.reader import Bundle
from edge_runtime.columns import NOTHING_SAID
from edge_runtime.detector.alarm import alarm_stretches
from edge_runtime.learning.answers import AcceptedCreep, AnsweredAlarm, OwnerAnswers, TimeSpan
from edge_runtime.learning.learn import linear_run, measure
from edge_runtime.learning.past import LOOK_BACK, Past, judge_past
from edge_runtime.learning.recording import Dataset, Recording
from edge_runtime.learning.relearn import candidate_from, relearned, usable_pieces
from edge_runtime.learning.request import Data
from edge_runtime.learning.settings import load_settings
from edge_runtime.learning.shipped import shipped_model
from edge_runtime.learning.split import split_by_time
from edge_runtime.native.engine import NativeDetector
from edge_runtime.record import Flag
from train.run_folder import write_atomically

Bools = npt.NDArray[np.bool_]

PERIOD, WISH = 20.0, 1.0
STRATEGIES = ("never", "relearn", "everything", "oracle")
EVERY, DAILY_UNTIL = 3, 8
"""Days between learning again, after the first week, in which it is daily."""
FROM = 7  # first day that counts
PART, BARS = "life", "bars"
ANSWERS, RELEARNS = 8, 9  # o'clock


def ignore(sentence: str) -> None:
    """Discard progress messages."""


@dataclass(frozen=True)
class LifeOutcome:
    """What happened to one machine under one strategy.

    false_alarms: in each week from the second on. alarmed: share of the healthy time in alarm.
    delays: hours until an alarm on the right channel began inside each fault, None where none did;
    slow: whether each fault is slow. absorbed: slow faults that a later detector takes for normal.
    promoted: days. kept_out: reasons by day.
    """

    seed: int
    strategy: str
    false_alarms: tuple[int, ...]
    alarmed: float
    delays: tuple[float | None, ...]
    slow: tuple[bool, ...]
    absorbed: int
    promoted: tuple[int, ...]
    kept_out: Mapping[int, str]


class WatchedMachine:
    """A detector that watches a machine; it may be replaced, and the owner may accept a change."""

    def __init__(self, life: Life, manifest: Manifest) -> None:
        count = len(life.values)
        self.alarm, self.changed = np.zeros(count, bool), np.zeros(count, bool)
        self.blamed = np.full((count, 3), -1)
        self._life = life
        self.bundles: list[tuple[int, Manifest]] = []
        self.learned: list[tuple[int, Bools]] = []
        self.install(0, manifest)

    def install(self, day: int, manifest: Manifest) -> None:
        """Replace the detector."""
        self.bundles.append((day, manifest))
        self._detector = detector_of(manifest)

    def learn(self, first: int, used: Bools) -> None:
        """Remember which rows from `first` on the present detector has learned from."""
        self.learned.append((first, used))

    @property
    def manifest(self) -> Manifest:
        """Return that of the present detector."""
        return self.bundles[-1][1]

    def watch(self, start: int, stop: int) -> None:
        """Judge these rows."""
        records = self._detector.run(self._life.values[start:stop])
        self.alarm[start:stop] = records["alarm"] > 0
        self.changed[start:stop] = (records["flags"] & Flag.CHANGED) > 0
        self.blamed[start:stop] = records["blamed"]

    def accept(self) -> None:
        """Accept the reported change."""
        self._detector.accept(True)


@dataclass
class Owner:
    """The answers so far. now: the first row that is not seen yet."""

    life: Life
    alarms: tuple[AnsweredAlarm, ...] = ()
    accepted: tuple[TimeSpan, ...] = ()
    creeps: tuple[AcceptedCreep, ...] = ()
    left_out: tuple[TimeSpan, ...] = ()

    def answer(self, device: WatchedMachine, now: int) -> None:
        """Mark all alarms until `now`, and accept the present change of a healthy machine."""
        times, healthy = self.life.times, self.life.healthy
        self.alarms = tuple(
            AnsweredAlarm(_span(times, start, stop), bool(not healthy[start:stop].all()))
            for start, stop in alarm_stretches(device.alarm[:now])
        )
        if device.changed[now - 1] and healthy[now - 1]:
            since = int(np.flatnonzero(~device.changed[:now])[-1]) + 1
            device.accept()
            self.accepted += (_span(times, since, now),)

    def answers(self, device: WatchedMachine, now: int) -> OwnerAnswers:
        """Return all answers; alarms since the last ones have none."""
        stretches = alarm_stretches(device.alarm[:now])[len(self.alarms) :]
        new = tuple(AnsweredAlarm(_span(self.life.times, *each), None) for each in stretches)
        alarms = (*self.alarms, *new)
        return OwnerAnswers(alarms, -np.inf, self.accepted, self.creeps, (), self.left_out)


def _span(times: npt.NDArray[np.float64], start: int, stop: int) -> TimeSpan:
    return TimeSpan(float(times[start]), float(times[stop - 1]))


def detector_of(manifest: Manifest) -> NativeDetector:
    """Return the C core for a linear `manifest`."""
    return NativeDetector(Bundle(Path("memory"), manifest, b"", NO_GRAPH, "0" * 64))


def first_manifest(life: Life) -> Manifest:
    """Learn the first day, as gruard learn does."""
    day = life.rows_a_day
    recording = Recording(
        "first day", CHANNELS, life.times[:day], life.values[:day], None, life.period
    )
    gap = min(128, day // 50)
    data = Data(
        Dataset((recording,)),
        split_by_time([recording], gap=gap, margin=gap),
        load_settings(None, CHANNELS),
        life.period,
        (),
        NOTHING_SAID,
    )
    return measure(linear_run(data, "pump", 0, ignore), 1, WISH, ignore).manifest


def live(
    life: Life, strategy: str, schedule: Sequence[int]
) -> tuple[WatchedMachine, dict[int, str]]:
    """Watch a machine for all its days."""
    day = life.rows_a_day
    device, owner = WatchedMachine(life, first_manifest(life)), Owner(life)
    kept_out: dict[int, str] = {}
    for number in range(1, len(life.values) // day):
        morning, nine = (number * day + day * hour // 24 for hour in (ANSWERS, RELEARNS))
        device.watch(number * day, morning)
        owner.answer(device, morning)
        device.watch(morning, nine)
        if strategy != "never" and number in schedule:
            reason = _learn_again(life, strategy, device, owner, number, nine)
            kept_out |= {number: reason} if reason else {}
        device.watch(nine, (number + 1) * day)
    return device, kept_out


def _learn_again(
    life: Life, strategy: str, device: WatchedMachine, owner: Owner, number: int, now: int
) -> str:
    """Replace the detector, or return why not."""
    first = max(life.rows_a_day, now - round(LOOK_BACK / life.period))  # the first day is not kept
    past = Past(life.times[first:now], life.values[first:now], life.period)
    current, version = device.manifest, len(device.bundles) + 1
    if strategy == "relearn":
        answers = owner.answers(device, now)
        judged = judge_past(detector_of(current), past, [span.end for span in answers.accepted])
        model = shipped_model(current, b"")
        decision = relearned(past, judged, answers, model, version, WISH, ignore)
        owner.left_out = decision.left_out
        if decision.candidate and decision.promoted:
            device.install(number, decision.candidate.measured.manifest)
            assert decision.used is not None
            device.learn(first, decision.used)
        elif life.healthy[now - 1]:
            told = float(life.times[now - 1])
            owner.creeps += tuple(AcceptedCreep(CHANNELS[c.channel], told) for c in decision.creeps)
        return decision.reason
    used = life.healthy[first:now] if strategy == "oracle" else np.ones(now - first, bool)
    pieces = usable_pieces(past, current, used)
    made = candidate_from(pieces, pieces[-1:], current, version, WISH, ignore)
    device.install(number, made.measured.manifest)
    device.learn(first, used)
    return ""


def judged(
    life: Life, strategy: str, device: WatchedMachine, kept_out: Mapping[int, str]
) -> LifeOutcome:
    """Return the figures of a machine's days."""
    day, healthy = life.rows_a_day, life.healthy
    counted = healthy & (np.arange(len(healthy)) >= FROM * day)
    for fault in life.faults:  # the alarm of a fault may end an hour after it
        counted[fault.stop : fault.stop + round(3600 / life.period)] = False
    stretches = alarm_stretches(device.alarm)
    weeks = [start // day // 7 for start, _ in stretches if counted[start]]
    delays = []
    for fault in life.faults:
        starts = [
            start
            for start, stop in stretches
            if fault.start <= start < fault.stop
            and (device.blamed[start : min(stop, fault.stop)] == fault.channel).any()
        ]
        delays.append((starts[0] - fault.start) * life.period / 3600 if starts else None)
    return LifeOutcome(
        life.seed,
        strategy,
        tuple(weeks.count(week) for week in range(FROM // 7, -(-len(healthy) // day // 7))),
        float(device.alarm[counted].mean()),
        tuple(delays),
        tuple(fault.slow for fault in life.faults),
        sum(
            _absorbed(life, device, fault.start, fault.stop) for fault in life.faults if fault.slow
        ),
        tuple(number for number, _ in device.bundles),
        kept_out,
    )


def _absorbed(life: Life, device: WatchedMachine, start: int, stop: int) -> bool:
    """Whether a detector has learned from the second half of a slow fault, and is calm on its end.

    From an hour of it at least; on its last day no alarm begins.
    """
    day, half = life.rows_a_day, (start + stop) // 2
    rows = life.values[stop - day : stop]
    for (_, manifest), (first, used) in zip(device.bundles[1:], device.learned, strict=True):
        learned = used[max(half - first, 0) : max(stop - first, 0)].sum()
        if learned > day / 24 and not (detector_of(manifest).run(rows)["alarm"] > 0).any():
            return True
    return False


def schedule_of(every: int) -> tuple[int, ...]:
    """Return the days on which a machine is learned again."""
    return (*range(3, DAILY_UNTIL), *range(DAILY_UNTIL, DAYS, every))


def of_machine(
    seed: int, period: float, every: int, strategies: Sequence[str]
) -> list[LifeOutcome]:
    """Return the outcomes of one machine."""
    life, found = simulate(seed, period), []
    for strategy in strategies:
        found.append(judged(life, strategy, *live(life, strategy, schedule_of(every))))
        click.echo(_line(found[-1]), err=True)
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--machines", default=20, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True, help="Of the first machine.")
@click.option("--period", default=PERIOD, show_default=True, help="Seconds between samples.")
@click.option("--every", default=EVERY, show_default=True, help="Days, after the first week.")
@click.option("--strategy", "strategies", multiple=True, default=STRATEGIES)
@click.option("--jobs", default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@page_option(PART, BARS)
def main(
    machines: int,
    seed: int,
    period: float,
    every: int,
    strategies: tuple[str, ...],
    jobs: int,
    as_json: bool,
    out: Path | None,
) -> None:
    """Watch machines for sixty days, by four strategies of learning again.

    Example: python -m benchmarks.life --machines 3 --seed 1000
    """
    found: list[LifeOutcome] = []
    with ProcessPoolExecutor(jobs) as pool:
        work = partial(of_machine, period=period, every=every, strategies=strategies)
        for outcomes in pool.map(work, range(seed, seed + machines)):
            found += outcomes
    click.echo(json.dumps([asdict(each) for each in found]) if as_json else table(found))
    if out is not None:
        write_page(out, found, every)


def write_page(out: Path, found: Sequence[LifeOutcome], every: int) -> None:
    """Fill the page, and write its picture next to it."""
    machines = len({each.seed for each in found})
    run = f"{machines} machines, learned again daily in the first week, then every {every} days."
    fill_page(out, f"{run}\n\n{table(found)}", PART)
    fill_page(out, bars(found), BARS)
    write_atomically(out.with_suffix(".png"), picture(found))


def _line(each: LifeOutcome) -> str:
    pairs = list(zip(each.delays, each.slow, strict=True))
    sudden = [delay is not None for delay, slow in pairs if not slow]
    slow = ["-" if delay is None else f"{delay / 24:.1f}d" for delay, slow in pairs if slow]
    kept = {number: reason[:24] for number, reason in each.kept_out.items()}
    return (
        f"{each.seed} {each.strategy:<10} false {each.false_alarms} alarmed {each.alarmed:.2%} "
        f"sudden {sum(sudden)}/{len(sudden)} slow {slow} absorbed {each.absorbed} "
        f"promoted {each.promoted} {kept}"
    )


def _recall(group: Sequence[LifeOutcome], slow: bool) -> float:
    hits = [
        delay is not None
        for each in group
        for delay, kind in zip(each.delays, each.slow, strict=True)
        if kind is slow
    ]
    return float(np.mean(hits))


def _delay(group: Sequence[LifeOutcome], slow: bool) -> float:
    delays = [
        delay
        for each in group
        for delay, kind in zip(each.delays, each.slow, strict=True)
        if kind is slow and delay is not None
    ]
    return float(np.median(delays)) if delays else float("nan")


def kept_weeks(group: Sequence[LifeOutcome]) -> float:
    """Return the share of machine-weeks that keep the target of false alarms."""
    return float(np.mean([count <= 7 * WISH for each in group for count in each.false_alarms]))


def table(found: Sequence[LifeOutcome]) -> str:
    """Return one line for each strategy."""
    header = (
        "strategy", "false alarms a day", "machine-weeks within the target",
        "healthy time in alarm", "sudden faults found", "median delay, h", "slow faults found",
        "median delay, d", "absorbed",
    )  # fmt: skip
    lines = []
    for strategy in dict.fromkeys(each.strategy for each in found):
        group = [each for each in found if each.strategy == strategy]
        alarms = np.array([each.false_alarms for each in group])
        lines.append(
            (
                strategy,
                f"{alarms.mean() / 7:.2f}",
                f"{kept_weeks(group):.0%}",
                f"{np.mean([each.alarmed for each in group]):.2%}",
                f"{_recall(group, False):.2f}",
                f"{_delay(group, False):.1f}",
                f"{_recall(group, True):.2f}",
                f"{_delay(group, True) / 24:.1f}",
                str(sum(each.absorbed for each in group)),
            )
        )
    return markdown(header, lines)


def bars(found: Sequence[LifeOutcome]) -> str:
    """Return what gruard relearn is held to, and whether it keeps it."""
    mine, oracle = (
        [each for each in found if each.strategy == name] for name in ("relearn", "oracle")
    )
    weeks, alarmed = kept_weeks(mine), float(np.mean([each.alarmed for each in mine]))
    recall, best = _recall_of_all(mine), _recall_of_all(oracle)
    absorbed = sum(each.absorbed for each in mine)
    lines = [
        ("machine-weeks within the target", "≥ 90%", f"{weeks:.0%}", weeks >= 0.9),
        ("healthy time in alarm", "≤ 1%", f"{alarmed:.2%}", alarmed <= 0.01),
        ("slow faults absorbed", "0", str(absorbed), absorbed == 0),
        (
            "faults found, less than the oracle",
            "≤ .02",
            f"{best - recall:.2f}",
            best - recall <= 0.02,
        ),
    ]
    header = ("bar, from day 8 on", "bar", "gruard relearn", "kept")
    return markdown(header, [(*line[:3], "yes" if line[3] else "**no**") for line in lines])


def _recall_of_all(group: Sequence[LifeOutcome]) -> float:
    return float(np.mean([delay is not None for each in group for delay in each.delays]))


def picture(found: Sequence[LifeOutcome]) -> bytes:
    """Return a PNG: false alarms a day in each week, and delays of slow faults, by strategy."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for number, strategy in enumerate(dict.fromkeys(each.strategy for each in found)):
        group = [each for each in found if each.strategy == strategy]
        alarms = np.array([each.false_alarms for each in group]).mean(axis=0) / 7
        left.plot(np.arange(len(alarms)) + 2, alarms, marker="o", label=strategy)
        for each in group:
            for delay, slow in zip(each.delays, each.slow, strict=True):
                if slow:
                    days = 11 if delay is None else delay / 24
                    right.plot(days, number, "x" if delay is None else "o", color=f"C{number}")
    left.axhline(WISH, color="black", linewidth=0.8, linestyle=":")
    left.set(xlabel="week", ylabel="false alarms a day", ylim=(0, None))
    left.legend(fontsize=8)
    names = list(dict.fromkeys(each.strategy for each in found))
    right.set(xlabel="days until a slow fault is found (x: not found)", yticks=range(len(names)))
    right.set_yticklabels(names)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=110)
    plt.close(figure)
    return stream.getvalue()


if __name__ == "__main__":
    main()
