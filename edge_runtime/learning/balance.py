"""Balance the parts of the score, and set the threshold, from all healthy rows of the past.

A detector that is learned again is fitted to blocks of the past. The rare rows that decide a
threshold are hardly among them, so what decides its alarms is measured on all rows, most of which
it was not fitted to.

1. **Level of a part.** Each part of the score, in each memory, has the level that it exceeds in as
   many alarms as the target allows; in the last days, too, because what began lately, such as a
   valve that is now opened each morning, is rare in all rows.
2. **Balance.** Parts with a level above the usual are scaled down to it. One threshold serves all
   parts, and without this the part that the usual events of this machine disturb most would decide
   how far all others have to rise. A load that is switched disturbs the quick memory for minutes; a
   slow fault shows in the long one.
3. **Threshold.** That of `calibrate` from the balanced score, and at least what keeps the target in
   the last days.

A rate equal to the target misses it in every other week, so each level is computed for a lower one.
benchmarks/life.py measures all this.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import AlarmRule, Manifest, Threshold
from edge_runtime.calibration import (
    LEVELS,
    SECONDS_PER_DAY,
    Calibration,
    calibrate,
    debounce,
    margins_of,
    peaks,
)
from edge_runtime.detector.score import heights
from edge_runtime.learning.decimals import vector
from edge_runtime.learning.recording import Recording
from edge_runtime.learning.rollout import roll
from edge_runtime.learning.shipped import shipped_model, unchanging

Float64 = npt.NDArray[np.float64]
Parts = Sequence[Float64]

AIM = 0.57
"""Of a Poisson rate of 4 in the time of seven allowed alarms, more than seven come in one of 20."""
LAST_DAYS = (7.0, 2.0)
MOST_SCALE = 3.0
"""Bound on the scale of a part, so that none gets deaf. None is made louder than it was."""
MARGIN = 1.2
"""On the threshold: each week brings what no row of the past has shown."""
MOST_RAISED = 1.5
"""Times the threshold of all rows. What scores higher has to be learned; a threshold beyond it
would find little."""
PIECE = 10_000
"""Rows that are scored at once, which bounds the memory."""


@dataclass(frozen=True)
class AllowedAlarms:
    """per_day: at most so many, of the length of `rows_a_day`, by `rule`."""

    per_day: float
    rows_a_day: float
    rule: AlarmRule

    def level(self, scores: Parts) -> float:
        """Return the level that `scores`, each [n], exceed in as many alarms; also lately."""
        rows = sum(map(len, scores))
        spans = [rows, *(round(days * self.rows_a_day) for days in LAST_DAYS)]
        return max(self._level(last(scores, span), min(span, rows)) for span in spans)

    def _level(self, scores: Parts, rows: int) -> float:
        return level_with(scores, int(self.per_day * rows / self.rows_a_day), self.rule)


def balance(
    manifest: Manifest,
    learned: Sequence[Recording],
    held_out: Sequence[Recording],
    wished_per_day: float,
) -> tuple[Manifest, Calibration]:
    """Return `manifest` with balanced parts, and the calibration of its threshold.

    learned, held_out: healthy recordings in time order. Errors as for `calibrate`.
    """
    allowed = AllowedAlarms(
        AIM * wished_per_day, SECONDS_PER_DAY / (manifest.period or 1.0), manifest.alarm
    )
    clean, unseen = (settled_heights(manifest, pieces) for pieces in (learned, held_out))
    scale = part_scales(clean, allowed)
    memories = tuple(
        replace(memory, std=vector(np.array(memory.std) * row))
        for memory, row in zip(manifest.score.memories, scale, strict=True)
    )
    scores, further = ([(z / scale).max(axis=(1, 2)) for z in each] for each in (clean, unseen))
    found = calibrate(
        scores,
        further,
        wished_per_day,
        manifest.period,
        manifest.alarm,
        margins_of(manifest),
        aim=AIM,
    )
    found = replace(found, threshold=_raised(found.threshold, allowed.level(scores)))
    return replace(manifest, score=replace(manifest.score, memories=memories)), found


def part_scales(clean: Parts, allowed: AllowedAlarms) -> Float64:
    """Return factors on the deviation of each part [memories, 6] that bring its level to the usual.

    clean: heights of the parts of each recording, [n, memories, 6]; -inf where a part has no
    weight.
    """
    shape = clean[0].shape[1:]
    level = np.full(shape, np.nan)
    for memory, part in np.ndindex(shape):
        z = [rows[:, memory, part] for rows in clean]
        if np.isfinite(np.concatenate(z)).all():
            level[memory, part] = allowed.level(z)
    middle = np.nanmedian(level)
    scale = np.clip(level / middle, 1.0, MOST_SCALE) if middle > 0 else np.ones(shape)
    return np.where(np.isfinite(level), scale, 1.0)


def level_with(scores: Parts, alarms: int, rule: AlarmRule) -> float:
    """Return the level above which healthy `scores`, each [n], give so many alarms at most."""
    smooth = [debounce(each, rule) for each in scores]
    if not any(map(len, smooth)):
        return -np.inf
    level = float(np.quantile(np.concatenate(smooth), LEVELS[0]))
    while True:  # an alarm may be two at a higher level
        highest = np.sort(np.concatenate([peaks(each, level, rule) for each in smooth]))
        if len(highest) <= alarms:
            return level
        level = float(highest[-alarms - 1])


def last(scores: Parts, rows: int) -> list[Float64]:
    """Return the last `rows` of all scores, laid end to end."""
    kept = list[Float64]()
    for piece in reversed(scores):
        if rows > 0:
            kept.append(piece[-rows:])
        rows -= len(piece)
    return kept[::-1]


def settled_heights(manifest: Manifest, pieces: Sequence[Recording]) -> list[Float64]:
    """Return the heights [n, memories, 6] of the parts in the settled rows of each piece."""
    model = unchanging(shipped_model(manifest, b""))
    found = []
    for piece in pieces:
        for start in range(0, piece.rows, PIECE):
            rolled = roll(model, piece.values[start : start + PIECE])
            z = heights(rolled.parts[rolled.settled], model.score)
            found.append(np.where(model.score.weights > 0, z, -np.inf).astype(np.float64))
    return found


def _raised(threshold: Threshold, level: float) -> Threshold:
    """Return `threshold` at `level` if that is higher, within bounds, and with a margin."""
    factor = MARGIN * float(np.clip(level / threshold.value, 1.0, MOST_RAISED))
    return replace(
        threshold,
        value=float(np.float32(factor * threshold.value)),
        clear=float(np.float32(factor * threshold.clear)),
        method=f"{threshold.method}, times {factor:.2f} to keep the target from week to week",
    )
