"""Learn again from what was healthy since, and decide whether the candidate may be promoted.

    past ─→ healthy rows ─→ without creeps ─→ learned | held out ─→ candidate ─→ decision

The candidate is learned without some stretches of the healthy rows. It is promoted only if nothing
is open or creeps, the unseen rows keep the target of false alarms, and faults injected into them
are found as often as by the current detector. Otherwise the current detector stays, with a reason.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Manifest
from edge_runtime.calibration import (
    CONFIDENCE,
    SECONDS_PER_DAY,
    chance_of_at_most,
)
from edge_runtime.columns import GAP_PERIODS
from edge_runtime.detector.alarm import alarm_stretches
from edge_runtime.detector.cell import Model
from edge_runtime.learning.answers import OwnerAnswers, TimeSpan
from edge_runtime.learning.balance import PIECE, balance
from edge_runtime.learning.calibrated import Calibrated
from edge_runtime.learning.creep import DAY, Creep, creeping, day_numbers
from edge_runtime.learning.healthy import health_of
from edge_runtime.learning.learn import Say, linear_run, measure
from edge_runtime.learning.past import JudgedPast, Past
from edge_runtime.learning.recording import Dataset, Recording
from edge_runtime.learning.request import LARGEST_GAP, Data
from edge_runtime.learning.rollout import roll
from edge_runtime.learning.run import Run
from edge_runtime.learning.settings import ChannelSettings, Settings
from edge_runtime.learning.settling import change_section
from edge_runtime.learning.shipped import shipped_model
from edge_runtime.learning.split import pieces_where, split_by_time
from edge_runtime.learning.streams import FaultyRecording, faulty_twin, repeated
from edge_runtime.learning.thinning import BLOCK, block_spans
from edge_runtime.look.facts import FEWEST_ROWS
from edge_runtime.record import Float32
from edge_runtime.status.health import duration

Bools = npt.NDArray[np.bool_]
Recordings = Sequence[Recording]

HELD_OUT, MOST_HELD_OUT = 0.2, 0.5
LEAST_DAYS, MOST_DAYS = 1.0, 2.0
"""A fifth of the healthy rows is held out, but one to two days, and at most a half."""
STRETCH = 6 * 3600.0
"""Seconds, at least `BLOCK` rows, that are held out at once: stretches of all times, so that the
newest are learned, too."""
MOST_ROWS = 12_000
"""Rows to learn from; of more, blocks are taken."""
NEWEST_DAYS = 4.0
"""Healthy days from which half of the blocks are."""
SLOWER = 3.0
"""The baselines follow within all that was learned, not within a third: little is new after weeks,
and what grows for days has to stay visible."""
SHORTEST_PIECE = 60
"""Rows of a piece at least."""
ENOUGH_DAYS = 7.0
"""Healthy days that are enough, also if the current detector has learned from more."""
FAULTY_ROWS, SEED = 12_000, 0
MOST_ALARMED = 0.05
"""Share of the unseen healthy rows that a candidate may be in alarm, if the current one is less."""
RAISES = (1.0, 1.25, 1.5, 2.0, 3.0)
"""Factors on the threshold of the current detector, until it keeps the target."""
TOLERANCE = 0.1
"""Share of the injected faults that the candidate may miss and the current detector finds."""


@dataclass(frozen=True)
class LearnedAgain:
    """A detector that was learned again, without its proof."""

    run: Run
    measured: Calibrated


@dataclass(frozen=True)
class HeldOutComparison:
    """On held-out healthy rows. alarms: by the candidate in `days`; alarmed: share of the rows.

    alarmed_before: by the current detector.
    faults: injected into them; found, found_before: by the candidate and by the current detector.
    """

    days: float
    alarms: int
    alarmed: float
    alarmed_before: float
    faults: int
    found: int
    found_before: int


@dataclass(frozen=True)
class Decision:
    """reason: why the candidate is kept out, empty if it is promoted.

    learned_days: healthy time that was learned from. creeps: why, worst first. left_out: for
    good, to remember. used: bool [n], the rows that were learned from or held out. used,
    comparison, candidate: None if there is none.
    """

    reason: str
    learned_days: float = 0.0
    creeps: tuple[Creep, ...] = ()
    left_out: tuple[TimeSpan, ...] = ()
    used: Bools | None = None
    comparison: HeldOutComparison | None = None
    candidate: LearnedAgain | None = None

    @property
    def promoted(self) -> bool:
        """Whether the candidate may take over."""
        return not self.reason


def relearned(
    past: Past,
    judged: JudgedPast,
    answers: OwnerAnswers,
    current: Model,
    version: int,
    wished_per_day: float,
    say: Say,
) -> Decision:
    """Learn a candidate from the healthy rows of `past`, and decide.

    judged: by the current detector. version: of the candidate. Raises GruardError when nothing can
    be learned from these rows.
    """
    manifest = current.manifest
    health = health_of(past, judged, answers)
    watched = np.array([not channel.exogenous for channel in manifest.channels])
    accepted = [each.told for each in answers.creeps if each.channel in manifest.channel_names]
    crept = creeping(past, health.healthy, watched, accepted, _days_of_false_alarms(answers))
    crept_days = [TimeSpan(DAY * day, DAY * (day + 1)) for day in crept.days]
    left_out = _joined((*answers.left_out, *health.changed, *crept_days), float(past.times[0]))
    decide = partial(Decision, left_out=left_out)
    if health.faulty:
        return decide(
            "an alarm that was marked as real, or the change after it, goes on; repair the "
            "machine, and if it is to run like this, accept it with gruard accept"
        )
    if crept.now:
        return decide(_creep_sentence(crept.now[0], manifest), creeps=crept.now)
    used = health.healthy & ~crept.rows & ~_in_doubt(past, crept.fine, left_out)
    pieces = usable_pieces(past, manifest, used)
    learned, held_out = without_held_out(pieces, past.period)
    days = _rows(learned) * past.period / SECONDS_PER_DAY
    if reason := _too_few(learned, held_out, manifest, past.period):
        return decide(reason, days)
    candidate = candidate_from(learned, held_out, manifest, version, wished_per_day, say)
    say("comparing with the current detector, on rows that the candidate has not seen")
    found = compare(candidate.measured.manifest, current, held_out, past.period, wished_per_day)
    reason = judge(found, wished_per_day)
    return decide(reason, days, used=used, comparison=found, candidate=candidate)


def _joined(spans: Iterable[TimeSpan], since: float) -> tuple[TimeSpan, ...]:
    """Return `spans` without their overlaps, and without those that end before `since`."""
    found = list[TimeSpan]()
    for span in sorted(spans, key=lambda each: each.start):
        if found and span.start <= found[-1].end:
            found[-1] = TimeSpan(found[-1].start, max(found[-1].end, span.end))
        elif span.end >= since:
            found.append(span)
    return tuple(found)


def _in_doubt(past: Past, fine: Sequence[int], left_out: Sequence[TimeSpan]) -> Bools:
    """Return whether each row [n] is of a day without a level that may belong to a fault.

    Alarms may leave too few hours of a day for a level. Such a day is in doubt when something was
    left out between the days before and after it that are known to be `fine`.
    """
    if not fine:
        return np.zeros(len(past.times), bool)
    faulty = [
        day
        for span in left_out
        for day in range(int(span.start // DAY), int(np.ceil(span.end / DAY)))
        if day not in fine
    ]
    day = day_numbers(past.times)
    near = np.isin(np.searchsorted(fine, day), np.searchsorted(fine, faulty))
    return np.asarray(near & ~np.isin(day, fine))


def _days_of_false_alarms(answers: OwnerAnswers) -> set[int]:
    """Return the days with alarms all of which were marked as false."""
    false, others = set[int](), set[int]()
    for alarm in answers.alarms:
        first, last = day_numbers(np.array([alarm.span.start, alarm.span.end])).tolist()
        (false if alarm.real is False else others).update(range(first, last + 1))
    return false - others


def _creep_sentence(creep: Creep, manifest: Manifest) -> str:
    name = manifest.channels[creep.channel].name
    way = "high" if creep.up else "low"
    return (
        f"{name} has been {way} for {creep.days} days, beyond what the other channels explain; "
        "check the machine; if that is the new normal, accept it with gruard accept"
    )


def usable_pieces(past: Past, manifest: Manifest, used: Bools) -> list[Recording]:
    """Return the stretches of `used` rows [n] that have no gap in time and are long enough."""
    whole = Recording(
        "readings", manifest.channel_names, past.times, past.values, None, past.period
    )
    breaks = np.flatnonzero(np.diff(past.times) > GAP_PERIODS * past.period) + 1
    pieces: list[Recording] = []
    for start, stop in pairwise([0, *breaks.tolist(), whole.rows]):
        pieces += pieces_where(whole.cut(start, stop), used[start:stop])
    return [piece for piece in pieces if piece.rows >= SHORTEST_PIECE]


def without_held_out(pieces: Recordings, period: float) -> tuple[list[Recording], list[Recording]]:
    """Return the rows to learn from, and stretches of all times that are held out."""
    total = _rows(pieces)
    day = SECONDS_PER_DAY / period
    held = min(max(HELD_OUT * total, LEAST_DAYS * day), MOST_DAYS * day, MOST_HELD_OUT * total)
    count = max(round(held / max(STRETCH / period, BLOCK)), 1)
    edges, rng = np.linspace(0, total, count + 1).astype(int), np.random.default_rng(SEED)
    gap, length = min(LARGEST_GAP, total // 50), int(held / count)
    learned, held_out, done = list[Recording](), list[Recording](), 0
    for first, last in pairwise(edges.tolist()):
        start = int(rng.integers(first, max(last - length, first) + 1))
        learned += _between(pieces, done, start - gap)
        held_out += _between(pieces, start, start + length)
        done = start + length + gap
    return [*learned, *_between(pieces, done, total)], held_out


def _between(pieces: Recordings, start: int, stop: int) -> list[Recording]:
    """Return the rows from `start` up to `stop` of all pieces, laid end to end."""
    found, offset = [], 0
    for piece in pieces:
        first, last = max(start - offset, 0), min(stop - offset, piece.rows)
        if last - first >= SHORTEST_PIECE:
            found.append(piece.cut(first, last))
        offset += piece.rows
    return found


def _rows(pieces: Recordings) -> int:
    return sum(piece.rows for piece in pieces)


def _too_few(learned: Recordings, held_out: Recordings, manifest: Manifest, period: float) -> str:
    known = next(iter(manifest.thresholds.values())).clean_days
    days = _rows(learned) * period / SECONDS_PER_DAY
    needed = max(min(known, ENOUGH_DAYS), FEWEST_ROWS * period / SECONDS_PER_DAY)
    if days >= needed and _rows(held_out) >= FEWEST_ROWS:
        return ""
    there, wanted = (duration(each * SECONDS_PER_DAY) for each in (days, needed))
    return (
        f"{there} of healthy time to learn from are too little, {wanted} are needed; wait, or mark "
        "false alarms with gruard mark"
    )


def candidate_from(
    learned: Recordings,
    held_out: Recordings,
    manifest: Manifest,
    version: int,
    wished_per_day: float,
    say: Say,
) -> LearnedAgain:
    """Learn from the given rows, thinned if there are many.

    held_out: rows on which the threshold is checked. Raises GruardError if nothing can be learned.
    """
    newest = min(
        round(NEWEST_DAYS * SECONDS_PER_DAY / (manifest.period or 1.0)), _rows(learned) // 2
    )
    thin = thinned(learned, MOST_ROWS, newest)
    settings = Settings(
        manifest.period,
        {
            c.name: ChannelSettings(c.unit, c.low, c.high, c.max_rate, c.stuck_after, c.exogenous)
            for c in manifest.channels
        },
    )
    gap = min(LARGEST_GAP, _rows(thin) // 50)
    split = split_by_time(thin, gap=gap, test=thinned(held_out, MOST_ROWS // 4))
    data = Data(Dataset(tuple(thin)), split, settings, manifest.period, (), manifest.columns)
    run = linear_run(data, manifest.name, SEED, say)
    measured = measure(run, version, wished_per_day, say)
    if _rows(thin) < _rows(learned):
        measured = _measured_on_all(measured, learned, held_out, wished_per_day)
    return LearnedAgain(run, measured)


def _measured_on_all(
    measured: Calibrated, learned: Recordings, held_out: Recordings, wished_per_day: float
) -> Calibrated:
    """Return `measured` with what decides its alarms from all rows, of which it has seen a part.

    If one of all rows looks like an anomaly, score and threshold stay.
    """
    manifest = measured.manifest
    change = change_section([piece.values for piece in learned], manifest.channels, moving=True)
    change = replace(change, rate=change.rate / SLOWER)
    balanced, found = balance(manifest, learned, held_out, wished_per_day)
    if found.dirty:
        return replace(measured, manifest=replace(manifest, change=change))
    thresholds = dict.fromkeys(manifest.thresholds, found.threshold)
    balanced = replace(balanced, change=change, thresholds=thresholds)
    return replace(measured, manifest=balanced, calibration=found)


def thinned(pieces: Recordings, most: int, newest: int = 0) -> list[Recording]:
    """Return blocks of `pieces`, at most about `most` rows, half of them of the `newest` rows.

    What began lately has to be in several blocks to be learned. They are in random order, so that
    each fold of a fit that leaves folds out has blocks of all times.
    """
    if _rows(pieces) <= most:
        return list(pieces)
    left = _rows(pieces) - newest
    parts = _between(pieces, 0, left), _between(pieces, left, left + newest)
    spare = most if not newest else most // 2
    chosen = [*_blocks(parts[0], spare), *_blocks(parts[1], most - spare)]
    return [chosen[place] for place in np.random.default_rng(SEED).permutation(len(chosen))]


def _blocks(pieces: Recordings, most: int) -> list[Recording]:
    """Return blocks of about `most` rows in all, from all over `pieces`."""
    spans = block_spans([piece.rows for piece in pieces], most)
    return [pieces[number].cut(start, stop) for number, start, stop in spans]


def compare(
    candidate: Manifest, current: Model, held_out: Recordings, period: float, wished_per_day: float
) -> HeldOutComparison:
    """Judge the `candidate` next to the `current` detector, on rows that it has not seen.

    A detector with many false alarms finds more faults, so the current one gets a threshold with
    which it has no more of them on these rows than the target allows, or the candidate has.
    """
    model, rows = shipped_model(candidate, b""), [piece.values for piece in held_out]
    days = sum(map(len, rows)) * period / SECONDS_PER_DAY
    channels = current.manifest.channels
    scale = np.array(current.manifest.forecast.innovation_scale, np.float32)
    twin = faulty_twin(rows, channels, period, scale, SEED, FAULTY_ROWS)
    clean = repeated(rows, FAULTY_ROWS)
    alarms, alarmed = _calm(model, rows)
    raised = (_with_threshold(current, factor) for factor in RAISES)
    fair = next(
        (
            each
            for each in raised
            if _calm(each, rows)[0] <= max(alarms, int(wished_per_day * days))
        ),
        _with_threshold(current, RAISES[-1]),
    )
    return HeldOutComparison(
        days,
        alarms,
        alarmed,
        alarmed_before=_calm(current, rows)[1],
        faults=len(twin.events),
        found=_found(model, twin, clean),
        found_before=_found(fair, twin, clean),
    )


def _with_threshold(model: Model, factor: float) -> Model:
    """Return `model` with its thresholds times `factor`."""
    thresholds = {
        kernel: replace(each, value=factor * each.value, clear=factor * each.clear)
        for kernel, each in model.manifest.thresholds.items()
    }
    return replace(model, manifest=replace(model.manifest, thresholds=thresholds))


def _calm(model: Model, pieces: Sequence[Float32]) -> tuple[int, float]:
    """Return the number of alarms in healthy `pieces`, and the share of rows in alarm."""
    alarms = list(_alarms(model, pieces))
    return sum(len(alarm_stretches(each)) for each in alarms), float(np.concatenate(alarms).mean())


def _alarms(model: Model, pieces: Sequence[Float32]) -> Iterator[Bools]:
    for rows in pieces:
        starts = range(0, len(rows), PIECE)
        yield np.concatenate([roll(model, rows[a : a + PIECE]).alarm for a in starts])


def _found(model: Model, twin: FaultyRecording, clean: Float32) -> int:
    """Return in how many faults an alarm begins, without those that begin there in `clean` rows."""
    faulty, healthy = (_starts(roll(model, rows).alarm) for rows in (twin.rows, clean))
    spans = [(event.start, event.stop) for event in twin.events]
    return sum(bool(faulty[a:b].any() and not healthy[a:b].any()) for a, b in spans)


def _starts(alarm: Bools) -> Bools:
    return alarm & ~np.concatenate([[False], alarm[:-1]])


def judge(found: HeldOutComparison, wished_per_day: float) -> str:
    """Return why the candidate is kept out, or an empty text."""
    if _too_often(found.alarms, found.days, wished_per_day):
        return (
            f"{found.alarms} false alarms in {found.days:.1f} healthy days that it had not seen, "
            f"more than {wished_per_day:g} a day"
        )
    if found.alarmed > max(MOST_ALARMED, found.alarmed_before):
        return f"it is in alarm for {found.alarmed:.0%} of the healthy time that it had not seen"
    if found.found < found.found_before - max(TOLERANCE * found.faults, 1):
        return (
            f"it finds {found.found} of {found.faults} injected faults, the current detector "
            f"{found.found_before}"
        )
    return ""


def _too_often(alarms: int, days: float, wished_per_day: float) -> bool:
    """Return whether so many alarms miss the target, beyond chance."""
    return chance_of_at_most(alarms - 1, wished_per_day * days) > CONFIDENCE
