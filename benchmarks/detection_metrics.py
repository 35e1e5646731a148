"""Metrics of scores and alarms on labelled events, each from its publication.

Throughout: labels [n] are 1 (or True) where a row is anomalous, scores [n] are higher for stranger
rows, alarms [n] are True where the alarm is on. An event is a maximal stretch of labelled rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from convert.metrics import intervals
from edge_runtime.detector.alarm import alarm_stretches

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Interval = tuple[float, float]

# An alarm may outlast its event by so many rows before the tail counts as a false alarm.
TAIL_ROWS = 100


def auc_pr(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Average precision: the sum of precision times gain in recall over all distinct scores.

    Rows with equal scores are flagged together, so their order does not matter. Raises ValueError
    for labels without an event or scores that are not finite.
    """
    truth, score = _checked(labels, scores)
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    recall = hits[last] / hits[-1]
    return float(np.diff(recall, prepend=0.0) @ (hits[last] / (last + 1)))


def vus_pr(
    labels: npt.ArrayLike, scores: npt.ArrayLike, buffer: int = 100, thresholds: int = 250
) -> float:
    """Volume under the surface of range-based precision-recall curves (Paparrizos et al., 2022).

    The mean over the windows 0, 1, …, `buffer` of the area under the range-PR curve, as in the
    authors' RangeAUC_volume_opt. For one window w every event is softened by sqrt(1 - distance / w)
    on w // 2 rows on both sides. TP is the softened label summed over the flagged rows;

        precision = TP / flagged,   recall = min(TP / ((P + N) / 2), 1) * existence,

    P the labelled rows, N those plus the softened label of the flagged rows next to events, and
    existence the share of softened events with a flagged row. The thresholds are the scores at
    `thresholds` equally spaced ranks. Raises ValueError as `auc_pr`.
    """
    truth, score = _checked(labels, scores)
    order = np.argsort(-score, kind="stable")
    ranks = np.linspace(0, len(score) - 1, thresholds).astype(int)
    levels = score[order][ranks]
    flagged = np.searchsorted(-score[order], -levels, side="right")
    inside = np.cumsum(truth[order])[flagged - 1]
    events, positives = intervals(truth), int(truth.sum())
    areas = []
    for window in range(buffer + 1):
        hits = np.cumsum(_softened(truth, events, window)[order])[flagged - 1]
        peaks = [score[a:b].max() for a, b in _widened(events, window // 2, len(truth))]
        existence = (np.array(peaks) >= levels[:, None]).mean(axis=1)
        wanted = positives + (hits - inside) / 2
        recall = np.minimum(hits / wanted, 1.0) * existence
        areas.append(np.diff(recall, prepend=0.0) @ (hits / flagged))
    return float(np.mean(areas))


def fdr_at_far(normal_scores: npt.ArrayLike, faulty_scores: npt.ArrayLike, far: float) -> float:
    """Fault detection rate: share of faulty rows above the 1 - `far` quantile of normal rows."""
    level = np.quantile(np.asarray(normal_scores, float), 1 - far)
    return float((np.asarray(faulty_scores, float) > level).mean())


@dataclass(frozen=True)
class AlarmFigures:
    """Counts of one recording's alarms, which can be added over recordings.

    events: labelled events. delays: rows from the first row of each found event to its first alarm.
    false_alarms: see `alarm_figures`; false_rows: their rows. normal_rows: rows outside events.
    """

    events: int
    delays: tuple[int, ...]
    false_alarms: int
    normal_rows: int
    false_rows: int

    def __add__(self, other: "AlarmFigures") -> "AlarmFigures":
        return AlarmFigures(
            self.events + other.events,
            self.delays + other.delays,
            self.false_alarms + other.false_alarms,
            self.normal_rows + other.normal_rows,
            self.false_rows + other.false_rows,
        )

    @property
    def event_recall(self) -> float:
        """Share of events with an alarm in at least one of their rows; NaN without events."""
        return len(self.delays) / self.events if self.events else float("nan")

    @property
    def median_delay(self) -> float:
        """Median delay of the found events in rows; NaN when none was found."""
        return float(np.median(self.delays)) if self.delays else float("nan")

    @property
    def false_alarms_per_10000(self) -> float:
        """False alarms per 10,000 rows outside events; NaN when there are no such rows."""
        return 1e4 * self.false_alarms / self.normal_rows if self.normal_rows else float("nan")

    @property
    def false_share(self) -> float:
        """Share of the rows outside events that belong to false alarms; NaN without such rows."""
        return self.false_rows / self.normal_rows if self.normal_rows else float("nan")


def alarm_figures(labels: npt.ArrayLike, alarms: npt.ArrayLike) -> AlarmFigures:
    """Found events, their delays and the false alarms of one recording.

    A false alarm is one alarm (`edge_runtime.detector.alarm`) of the rows outside events. The end
    of an alarm that outlasts its event does not count if it is at most `TAIL_ROWS` rows long.
    """
    truth, alarm = np.asarray(labels) != 0, np.asarray(alarms, bool)
    events = intervals(truth)
    outside = alarm & ~truth
    ends = {stop for _, stop in events if alarm[stop - 1]}
    stretches = alarm_stretches(outside)
    false = [(a, b) for a, b in stretches if a not in ends or b - a > TAIL_ROWS]
    delays = tuple(int(np.argmax(alarm[a:b])) for a, b in events if alarm[a:b].any())
    return AlarmFigures(
        len(events),
        delays,
        len(false),
        int((~truth).sum()),
        sum(int(outside[a:b].sum()) for a, b in false),
    )


@dataclass(frozen=True)
class Affiliation:
    """Means over events. precision: NaN when nothing at all was flagged."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean; 0 when nothing was flagged or nothing was right."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total > 0 else 0.0


def affiliation(labels: npt.ArrayLike, alarms: npt.ArrayLike) -> Affiliation:
    """Affiliation precision and recall (Huet, Navarro and Rossi, KDD 2022).

    Each event owns the zone of the rows that are nearer to it than to any other event. Within its
    zone, a distance counts as much as the chance that a random guess lies farther away: precision
    from flagged rows to the event, averaged over the flagged rows; recall from the event's rows
    to the nearest flagged one, averaged over the event. Both are integrals over time with row i as
    the stretch from i to i + 1. A zone without an alarm has recall 0 and no precision. Raises
    ValueError for labels without an event.
    """
    truth = np.asarray(labels) != 0
    if not truth.any():
        raise ValueError("labels without an event")
    flagged = intervals(np.asarray(alarms, bool))
    precisions, recalls = [], []
    for event, zone in _zones(intervals(truth), len(truth)):
        here = [(max(a, zone[0]), min(b, zone[1])) for a, b in flagged]
        here = [(a, b) for a, b in here if a < b]
        recalls.append(_zone_recall(here, event, zone) if here else 0.0)
        if here:
            precisions.append(_zone_precision(here, event, zone))
    precision = float(np.mean(precisions)) if precisions else float("nan")
    return Affiliation(precision, float(np.mean(recalls)))


def _checked(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Bools, Float64]:
    truth, score = np.asarray(labels) != 0, np.asarray(scores, np.float64)
    if truth.shape != score.shape or truth.ndim != 1:
        raise ValueError(f"labels {truth.shape} and scores {score.shape} must be equally long")
    if not truth.any():
        raise ValueError("labels without an event")
    if not np.isfinite(score).all():
        raise ValueError("scores must be finite")
    return truth, score


def _softened(truth: Bools, events: list[tuple[int, int]], window: int) -> Float64:
    """Labels with a slope of window // 2 rows on both sides of each event; overlaps add up to 1."""
    soft = truth.astype(np.float64)
    if window // 2:
        slope = np.sqrt(1 - np.arange(1, window // 2 + 1) / window)
        for start, stop in events:
            after = soft[stop : stop + len(slope)]
            after += slope[: len(after)]
            before = soft[max(start - len(slope), 0) : start]
            before += slope[: len(before)][::-1]
    return np.minimum(soft, 1.0)


def _widened(events: list[tuple[int, int]], reach: int, rows: int) -> list[tuple[int, int]]:
    """Events with `reach` more rows on both sides; those that share a row become one."""
    wide: list[tuple[int, int]] = []
    for start, stop in events:
        first, end = max(start - reach, 0), min(stop + reach, rows)
        if wide and first < wide[-1][1]:
            wide[-1] = (wide[-1][0], end)
        else:
            wide.append((first, end))
    return wide


def _zones(events: list[tuple[int, int]], rows: int) -> Iterator[tuple[Interval, Interval]]:
    """Each event with its zone, whose borders lie half-way to the neighbours."""
    borders = [(a[1] + b[0]) / 2 for a, b in pairwise(events)]
    yield from zip(events, zip([0.0, *borders], [*borders, float(rows)], strict=True), strict=True)


def _zone_precision(flagged: list[Interval], event: Interval, zone: Interval) -> float:
    """Mean over the flagged time of P(distance of a random guess to the event >= its own)."""
    width = zone[1] - zone[0]
    margins = (event[0] - zone[0], zone[1] - event[1])

    def farther(distance: float) -> float:
        """Integral from 0 to `distance` of the chance to lie farther outside the event."""
        near = [min(distance, margin) for margin in margins]
        return sum(m * d - d * d / 2 for m, d in zip(margins, near, strict=True)) / width

    total = 0.0
    for start, stop in flagged:
        total += max(min(stop, event[1]) - max(start, event[0]), 0.0)
        total += farther(max(event[0] - start, 0.0)) - farther(max(event[0] - stop, 0.0))
        total += farther(max(stop - event[1], 0.0)) - farther(max(start - event[1], 0.0))
    return total / sum(stop - start for start, stop in flagged)


def _zone_recall(flagged: list[Interval], event: Interval, zone: Interval) -> float:
    """Mean over the event of P(distance of a random guess >= that of the nearest flagged time)."""
    inside = (max(min(b, event[1]) - max(a, event[0]), 0.0) for a, b in flagged)
    total = sum(inside)
    stops = [b for _, b in flagged]
    starts = [a for a, _ in flagged]
    # Gaps between alarms are cut in the middle: left of it the earlier alarm is the nearer one.
    middles = [(b + a) / 2 for b, a in zip(stops, starts[1:], strict=False)]
    for stop, middle in zip(stops, [*middles, zone[1]], strict=True):
        total += _after(stop, max(stop, event[0]), min(middle, event[1]), zone)
    for start, middle in zip(starts, [zone[0], *middles], strict=True):
        # The same, with the direction of time reversed.
        mirrored = (-zone[1], -zone[0])
        total += _after(-start, max(-start, -event[1]), min(-middle, -event[0]), mirrored)
    return total / (event[1] - event[0])


def _after(alarm: float, start: float, stop: float, zone: Interval) -> float:
    """Integral over the time y from start to stop, whose nearest alarm ended at `alarm` <= start.

    A guess is farther from y than the alarm when it lies before the alarm or after 2 y - alarm.
    """
    if start >= stop:
        return 0.0
    before = (alarm - zone[0]) * (stop - start)
    beyond = [max(zone[1] + alarm - 2 * y, 0.0) for y in (start, stop)]
    return (before + (beyond[0] ** 2 - beyond[1] ** 2) / 4) / (zone[1] - zone[0])
