"""Find the stretches of a recording that are unlike all the rest of it.

The recording is cut into about 100 blocks. Four features of each block and channel tell what the
machine was like then:

    level     mean of the readings
    movement  mean absolute step from row to row, as a logarithm
    relation  mean error of the channel's least-squares estimate from the other channels
    spread    variance of that error, as a logarithm

The estimate is fitted without the candidate stretch, so a fault cannot teach it to expect the
fault. A candidate is a run of neighbouring blocks. Its *contrast* is how far three quarters of its
blocks lie from the median of all other blocks, in units of how far these reach themselves on that
side. Only the most extreme other block is ignored. So a state that comes back elsewhere, a daily
rhythm and a slow drift all have a contrast of about 1: other blocks reach as far. What is above
`LIMITS` is unlike the rest. Its first and last row are then found on the rows themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LIMITS = {"level": 3.0, "movement": 4.0, "relation": 3.0, "spread": 4.0}
"""Contrast from which a stretch is reported; healthy recordings stay below two thirds and, in
movement and spread, below 0.85 of it."""
FEWEST_TO_TELL = 1000  # rows; in fewer much is like nothing else
ENOUGH_ROWS = 4000
"""With fewer rows the limits grow as the root of the shortage, and what reaches an end of the
recording is not judged: it may be a state that is still to come back, or a slow channel's way."""
BLOCKS = 100
SHORTEST, LONGEST = 3, 0.45  # of a stretch: in blocks, and as a share of all
REST = 0.4  # share of the blocks that a stretch is compared with, at least
SHARP = 2.0  # jumps, in units of those elsewhere, with which a stretch begins or ends
NEAR, FAR = 0.2, 2.0
"""Blocks are in one state within so many scales, or so many times the usual distance to the nearest
other block."""
MOST_STRETCHES = 5
STATES = 20  # a channel with fewer values is a switch: it is judged by no feature
FARTHEST = 20.0  # readings are clipped to so many scales
RIDGE = 0.01
QUARTER = 0.25
RATHER = 0.2  # evidence from which a row belongs to a stretch: 0 like the rest, 1 like its middle
RAMP = 0.6  # rise from the middle to the end, as a share of the middle, from which it is a ramp
ALSO = 1 / 3  # of the largest contrast: other channels that show the same stretch
EXPLAINS = 0.1  # share of the difference that a channel explains at least, to be named
EXACT = ("movement", "relation", "level", "spread")
"""The features in the order in which they show where a stretch begins."""
_FLOORS = {"level": 0.05, "movement": 0.1, "relation": 0.002, "spread": 0.1}
"""Least reach of the other blocks: what is constant elsewhere is not infinitely strange."""


@dataclass(frozen=True)
class StrangeStretch:
    """Rows from `start` up to, not including, `stop` that are unlike the rest.

    channels: columns that differ, the one that explains most first. features: of `LIMITS`, what
    differs. contrast: the largest, as a multiple of its limit.
    """

    start: int
    stop: int
    channels: tuple[int, ...]
    features: tuple[str, ...]
    contrast: float


@dataclass(frozen=True)
class _Blocks:
    """A recording in blocks. rows: standardised readings [n, channels], steps: from row to row.

    edges: [blocks + 1]. mean: [blocks, channels]. grams: [blocks + 1, channels, channels], the
    products of all rows before each edge, summed. movement: [blocks, channels]. known: [blocks,
    channels], whether most readings are there. judged: [channels]. caution: by how much the limits
    are raised.
    """

    rows: Float64
    steps: Float64
    edges: npt.NDArray[np.intp]
    mean: Float64
    grams: Float64
    movement: Float64
    known: Bools
    judged: Bools
    caution: float

    @property
    def count(self) -> Float64:
        return np.diff(self.edges).astype(np.float64)


@dataclass(frozen=True)
class _Estimate:
    """How each channel follows from the others: centre [channels], weights [channels, channels].

    (reading - centre) @ weights is the error of each channel's estimate. precision: the inverse of
    the covariance.
    """

    centre: Float64
    weights: Float64
    precision: Float64


@dataclass(frozen=True)
class _Candidate:
    """Blocks from `first` up to `last`, those to compare with, and the contrast of each feature and
    channel as a multiple of its limit.
    """

    first: int
    last: int
    others: Bools
    contrast: dict[str, Float64]

    @property
    def largest(self) -> float:
        return max(float(values.max()) for values in self.contrast.values())


def find_stretches(values: npt.ArrayLike, starts: Sequence[int] = ()) -> list[StrangeStretch]:
    """Return the stretches of `values` [rows, channels] that are unlike the rest, in time order.

    Missing readings are NaN or infinite. starts: rows before which time is missing. Finds at most
    `MOST_STRETCHES`, none longer than about half the rows, and none in less than `FEWEST_TO_TELL`
    rows.
    """
    readings = np.asarray(values, np.float64)
    used = np.flatnonzero([_usable(column) for column in readings.T])
    if not can_tell(len(readings)) or not len(used):
        return []
    blocks = _blocks(readings[:, used], starts)
    found: list[StrangeStretch] = []
    free = np.ones(len(blocks.mean), bool)
    while len(found) < MOST_STRETCHES and (strangest := _strangest(blocks, free)):
        best, start, stop, blamed = strangest
        channels = tuple(int(used[i]) for i in blamed)
        features = tuple(name for name, c in best.contrast.items() if c.max() >= 1.0)
        found.append(StrangeStretch(start, stop, channels, features, best.largest))
        first, last = _blocks_of(blocks, start, stop)
        free[max(0, min(first, best.first) - 1) : max(last, best.last) + 1] = False
    return sorted(_apart(found), key=lambda stretch: stretch.start)


def can_tell(rows: int) -> bool:
    """Whether there is enough to tell a strange stretch from an ordinary one."""
    return rows >= FEWEST_TO_TELL


def _apart(found: Sequence[StrangeStretch]) -> list[StrangeStretch]:
    """Without those that overlap one with more contrast."""
    kept: list[StrangeStretch] = []
    for each in found:
        if all(each.stop <= other.start or each.start >= other.stop for other in kept):
            kept.append(each)
    return kept


def _usable(column: Float64) -> bool:
    known = column[np.isfinite(column)]
    return 2 * len(known) >= len(column) and bool(len(known)) and known.min() < known.max()


def _blocks(readings: Float64, starts: Sequence[int]) -> _Blocks:
    known = np.isfinite(readings)
    rows = np.stack([_standardised(column) for column in readings.T], axis=1)
    steps = np.abs(np.diff(rows, axis=0, prepend=rows[:1]))
    steps[list(starts)] = 0.0
    edges = np.linspace(0, len(rows), BLOCKS + 1).astype(np.intp)
    count = np.diff(edges)[:, np.newaxis]

    def mean(values: npt.NDArray[np.float64]) -> Float64:
        sums: Float64 = np.add.reduceat(values, edges[:-1], axis=0)
        means: Float64 = sums / count
        return means

    enough = mean(known.astype(np.float64)) > 0.5
    return _Blocks(
        rows=rows,
        steps=steps,
        edges=edges,
        mean=_neutral(mean(rows), enough),
        grams=_grams(rows, edges),
        movement=_neutral(_log(mean(steps)), enough),
        known=enough,
        caution=float(np.sqrt(max(1.0, ENOUGH_ROWS / len(rows)))),
        judged=np.array([len(np.unique(c[np.isfinite(c)])) >= STATES for c in readings.T]),
    )


def _grams(rows: Float64, edges: npt.NDArray[np.intp]) -> Float64:
    """The products of the rows [n, channels] before each edge, summed: [edges, channels, channels].

    The sum of neighbouring blocks is then one difference.
    """
    grams = np.zeros((len(edges), rows.shape[1], rows.shape[1]))
    for number, (a, b) in enumerate(pairwise(edges)):
        grams[number + 1] = grams[number] + rows[a:b].T @ rows[a:b]
    return grams


def _standardised(column: Float64) -> Float64:
    """Scales from the median; a missing reading lies on the line between its neighbours."""
    known = np.flatnonzero(np.isfinite(column))
    readings = column[known]
    low, middle, high = np.quantile(readings, (0.05, 0.5, 0.95))
    scale = (high - low) / 3.3 or np.std(readings - middle)
    near = np.clip((readings - middle) / scale, -FARTHEST, FARTHEST)
    return np.interp(np.arange(len(column)), known, near)


def _log(mean: Float64) -> Float64:
    """Logarithm of positive means [blocks, channels], down to a twentieth of the usual."""
    logarithm: Float64 = np.log(mean + np.maximum(0.05 * mean.mean(axis=0), 1e-9))
    return logarithm


def _neutral(feature: Float64, known: Bools) -> Float64:
    """`feature` [blocks, channels] with the usual value where readings are missing."""
    if known.all():
        return feature
    columns = zip(feature.T, known.T, strict=True)
    usual = [np.median(column[there]) if there.any() else 0.0 for column, there in columns]
    return np.where(known, feature, usual)


def _strangest(blocks: _Blocks, free: Bools) -> tuple[_Candidate, int, int, list[int]] | None:
    """The candidate of `free` blocks with the largest contrast of those that can be a fault.

    And its first row, the row after its last, and its channels.
    """
    if not blocks.judged.any():
        return None
    runs = (run for run in _runs(len(free)) if free[slice(*run)].all())
    candidates = [found for run in runs if (found := _candidate(blocks, *run, free))]
    dull = np.zeros(len(free), bool)
    for best in sorted(candidates, key=lambda candidate: -candidate.largest):
        if best.largest < 1.0:
            break
        if not dull[best.first : best.last].all():
            start, stop = _rows_of(blocks, best)
            channels = _blamed(blocks, best, start, stop)
            if (
                _is_judged(blocks, start, stop)
                and _is_sharp(blocks, best, start, stop)
                and _is_known_state(blocks, best, channels)
            ):
                return best, start, stop, channels
            dull[best.first : best.last] = True
    return None


def _runs(count: int) -> list[tuple[int, int]]:
    """Runs of neighbouring blocks, each at most a quarter of its length from any other.

    Up to half of the recording at its two ends: a machine that changed for good.
    """
    runs = []
    length = SHORTEST
    while length <= LONGEST * count:
        places = range(0, count - length + 1, max(1, length // 4))
        runs += [(first, first + length) for first in {*places, count - length}]
        length = max(length + 1, round(1.2 * length))
    for length in range(int(LONGEST * count), count // 2 + 1):
        runs += [(0, length), (count - length, count)]
    return runs


def _candidate(blocks: _Blocks, first: int, last: int, free: Bools) -> _Candidate | None:
    """None where too few other blocks are left to compare with."""
    others = free.copy()
    guard = max(1, (last - first) // 6)  # the stretch may reach a little further
    others[max(0, first - guard) : last + guard] = False
    if np.count_nonzero(others) < REST * len(others):
        return None
    contrast = {}
    caution = blocks.caution / float(np.mean(free))  # where stretches were found, less is usual
    for name, feature in _features(blocks, others).items():
        found = _contrast(feature[first:last], feature[others], _FLOORS[name])
        found /= LIMITS[name] * caution
        contrast[name] = np.where(blocks.judged, found, 0.0)
    return _Candidate(first, last, others, contrast)


def _contrast(inside: Float64, others: Float64, floor: float) -> Float64:
    """How far most of `inside` lies out of the reach of `others` [blocks, channels], by channel."""
    ordered = np.sort(others.T).T  # by channel, which is faster
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    above, below = ordered[-2] - middle, middle - ordered[1]
    least = np.maximum((above + below) / 2, floor)
    above, below = np.maximum(above, least / 2), np.maximum(below, least / 2)
    low, high = np.quantile(inside, (QUARTER, 1 - QUARTER), axis=0)
    contrast: Float64 = np.maximum((low - middle) / above, (middle - high) / below)
    return contrast


def _features(blocks: _Blocks, others: Bools) -> dict[str, Float64]:
    """Each feature [blocks, channels], as seen by the blocks `others`."""
    features = {"level": blocks.mean, "movement": blocks.movement}
    if blocks.mean.shape[1] > 1:
        features["relation"], features["spread"] = _errors(blocks, others)
    return features


def _is_judged(blocks: _Blocks, start: int, stop: int) -> bool:
    """Whether there are enough rows, or some before and after the stretch."""
    rows = len(blocks.rows)
    inside = rows // len(blocks.mean) <= start and stop <= rows - rows // len(blocks.mean)
    return inside or rows >= ENOUGH_ROWS


def _is_sharp(blocks: _Blocks, best: _Candidate, start: int, stop: int) -> bool:
    """Whether the machine jumped at row `start` or `stop` as nowhere else: what drifts does not."""
    edges = _blocks_of(blocks, start, stop)
    calm = best.others.copy()
    calm[slice(*edges)] = False
    calm = calm[:-3] & calm[1:-2] & calm[2:-1] & calm[3:]
    if np.count_nonzero(calm) < SHORTEST:
        return False
    sharp = 0.0
    for name, feature in _features(blocks, best.others).items():
        shown = best.contrast[name] >= max(1.0, ALSO * best.largest)
        pairs = (feature[:-1] + feature[1:]) / 2
        jumps = np.abs(pairs[2:] - pairs[:-2])[:, shown]  # from the blocks k, k + 1 to the next two
        at = [k for edge in edges for k in range(edge - 3, edge) if 0 <= k < len(jumps)]
        usual = np.maximum(np.sort(jumps[calm], axis=0)[-2], 1e-9)
        sharp = max(sharp, float((jumps[at].max(axis=0) / usual).max(initial=0.0)))
    return sharp >= SHARP


def _is_known_state(blocks: _Blocks, best: _Candidate, channels: Sequence[int]) -> bool:
    """Whether the other channels say that the machine was in a state that it was in elsewhere, too.

    If not, the stretch may well be how a state looks that came only once.
    """
    rest = [i for i in range(blocks.mean.shape[1]) if i not in channels]
    if not rest:
        return blocks.mean.shape[1] == 1
    places = blocks.mean[:, rest]
    others = places[best.others]
    among = _distances(others, others)
    index = np.arange(len(others))
    among[abs(index[:, np.newaxis] - index) <= 1] = np.inf
    usual = float(np.median(among.min(axis=1)))
    nearest = _distances(places[best.first : best.last], others).min(axis=1)
    return float(np.median(nearest)) <= max(NEAR, FAR * usual)


def _distances(rows: Float64, others: Float64) -> Float64:
    """Median difference over the channels, of each row to each of the others.

    The median, as a fault also moves channels a little that are not blamed for it.
    """
    distances: Float64 = np.median(np.abs(rows[:, np.newaxis] - others), axis=2)
    return distances


def _blocks_of(blocks: _Blocks, start: int, stop: int) -> tuple[int, int]:
    """The first block with rows from `start` on, and the block after the last before `stop`."""
    first = int(np.searchsorted(blocks.edges, start, "right")) - 1
    return first, int(np.searchsorted(blocks.edges, stop, "left"))


def _errors(blocks: _Blocks, others: Bools) -> tuple[Float64, Float64]:
    """Mean and log variance of the errors of the estimate fitted on `others`, by block."""
    whole = blocks.known.all(axis=1)
    estimate = _estimate(blocks, others & whole if (others & whole).any() else others)
    weights, shift = estimate.weights, estimate.centre @ estimate.weights
    raw = blocks.mean @ weights
    squares = _squares(blocks, weights) / blocks.count[:, np.newaxis]
    variance = np.maximum(squares - raw**2, 1e-12)
    known = np.broadcast_to(whole[:, np.newaxis], raw.shape)
    floor = 1e-3 * np.median(variance, axis=0)
    return _neutral(raw - shift, known), _neutral(np.log(variance + floor), known)


def _squares(blocks: _Blocks, weights: Float64) -> Float64:
    """The squares of rows @ weights, summed by block: [blocks, channels].

    From the products of the rows if there are more rows than those have.
    """
    channels = len(weights)
    if len(blocks.rows) <= len(blocks.mean) * channels:
        squares: Float64 = np.add.reduceat((blocks.rows @ weights) ** 2, blocks.edges[:-1], axis=0)
        return squares
    # One product for all blocks, which is many times faster than one for each.
    gram = np.diff(blocks.grams, axis=0)
    products = (gram.reshape(-1, channels) @ weights).reshape(gram.shape)
    return np.asarray((products * weights).sum(axis=1))


def _gram_of(blocks: _Blocks, chosen: Bools) -> Float64:
    """The products of the rows of the `chosen` blocks, summed: [channels, channels]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(np.int8), [0]])))
    total: Float64 = np.zeros(blocks.grams.shape[1:])
    for first, last in edges.reshape(-1, 2):
        total += blocks.grams[last] - blocks.grams[first]
    return total


def _estimate(blocks: _Blocks, others: Bools) -> _Estimate:
    count = blocks.count[others]
    centre = count @ blocks.mean[others] / count.sum()
    covariance = _gram_of(blocks, others) / count.sum() - np.outer(centre, centre)
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    correlation = covariance / np.outer(scale, scale)
    inverse = np.linalg.inv(correlation + RIDGE * np.eye(len(scale)))
    # Row j of the inverse holds the regression of channel j on all others.
    weights = inverse / np.diag(inverse) * scale / scale[:, np.newaxis]
    return _Estimate(centre, weights, inverse / np.outer(scale, scale))


def _rows_of(blocks: _Blocks, best: _Candidate) -> tuple[int, int]:
    """First row and the row after the last of the stretch around the blocks of `best`."""
    count, size = len(blocks.rows), int(np.median(np.diff(blocks.edges)))
    start, stop = int(blocks.edges[best.first]), int(blocks.edges[best.last])
    around = max(2 * size, (stop - start) // 2)
    near = slice(max(0, start - around), min(count, stop + around))
    outside = np.repeat(best.others, np.diff(blocks.edges))
    least = max(1.0, ALSO * best.largest)
    shown = next(name for name in EXACT if best.contrast.get(name, np.zeros(1)).max() >= least)
    evidence = [
        _evidence(_by_row(blocks, best, shown, channel, size), slice(start, stop), outside)[near]
        for channel in np.flatnonzero(best.contrast[shown] >= least)
    ]
    # The run of rows with the largest sum of what the evidence is over `RATHER`.
    mean = np.mean(evidence, axis=0)
    sums = np.concatenate([[0.0], np.cumsum(mean - RATHER)])
    gain = sums - np.minimum.accumulate(sums)
    last = int(np.argmax(gain))
    first = int(np.argmin(sums[: last + 1]))
    first, last = _to_its_foot(mean, first, last)
    if last - first > max(stop - start, LONGEST * count):
        return start, stop
    return near.start + first, near.start + last


def _to_its_foot(evidence: Float64, first: int, last: int) -> tuple[int, int]:
    """Widen the rows from `first` to `last` to where a ramp in `evidence` begins or ends.

    A fault that grows is not seen before it stands out; its line through all rows leads back.
    """
    if last - first < 3:
        return first, last
    slope, middle = np.polyfit(
        np.arange(first, last) - (first + last - 1) / 2, evidence[first:last], 1
    )
    half = (last - first) / 2
    if abs(slope) * half <= RAMP * middle:
        return first, last
    foot = round((first + last) / 2 - middle / slope)
    if slope > 0:
        return max(0, min(first, foot)), last
    return first, min(len(evidence), max(last, foot))


def _by_row(blocks: _Blocks, best: _Candidate, name: str, channel: int, size: int) -> Float64:
    """What shows the feature `name` of `channel`, for each row."""
    if name == "level":
        return blocks.rows[:, channel]
    if name == "movement":
        return _smoothed_log(blocks.steps[:, channel], size)
    estimate = _estimate(blocks, best.others)
    error = (blocks.rows - estimate.centre) @ estimate.weights[:, channel]
    return error if name == "relation" else _smoothed_log(np.abs(error), size)


def _smoothed_log(values: Float64, size: int) -> Float64:
    width = max(3, size // 10)
    smooth = np.convolve(values, np.full(width, 1 / width), mode="same")
    logarithm: Float64 = np.log(np.maximum(smooth, 0) + max(0.05 * float(values.mean()), 1e-9))
    return logarithm


def _evidence(values: Float64, inside: slice, outside: Bools) -> Float64:
    """0 for a row like those outside, 1 for one like those inside."""
    usual, strange = float(np.median(values[outside])), float(np.median(values[inside]))
    return np.clip((values - usual) / ((strange - usual) or 1.0), -1.0, 2.0)


def _blamed(blocks: _Blocks, best: _Candidate, start: int, stop: int) -> list[int]:
    """The channels that differ, the one that explains most first.

    An error of one channel shows in the estimates of all others. So channels are taken one by one,
    each time that whose free choice explains most of the difference of the means.
    """
    direct = np.maximum(best.contrast["level"], best.contrast["movement"])
    found = [int(i) for i in np.argsort(-direct, kind="stable") if direct[i] >= 1.0]
    if best.contrast.get("relation", np.zeros(1)).max() >= 1.0:
        estimate = _estimate(blocks, best.others)
        precision = estimate.precision
        pull = precision @ (blocks.rows[start:stop].mean(axis=0) - estimate.centre)
        whole = float(pull @ np.linalg.solve(precision, pull))
        chosen: list[int] = []
        done = 0.0
        while left := [i for i in range(len(pull)) if i not in chosen]:
            gains = [_explained(precision, pull, [*chosen, i]) - done for i in left]
            if max(gains) < EXPLAINS * whole:
                break
            chosen.append(left[int(np.argmax(gains))])
            done += max(gains)
        found = [*chosen, *(i for i in found if i not in chosen)]
    if not found:
        found = [int(i) for i in np.flatnonzero(best.contrast["spread"] >= 1.0)]
    return found


def _explained(precision: Float64, pull: Float64, chosen: Sequence[int]) -> float:
    """Of the difference of the means, by errors of the `chosen` channels."""
    part = pull[list(chosen)]
    return float(part @ np.linalg.solve(precision[np.ix_(chosen, chosen)], part))
