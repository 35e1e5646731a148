"""How int8 and float detect the same anomalies: found or missed, delays, and alarm decisions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from convert.metrics import auc, first_hits, intervals
from convert.twins import Pair
from edge_runtime.calibration import debounce
from edge_runtime.detector.cell import Model
from edge_runtime.learning.faults import FaultEvent
from edge_runtime.learning.rollout import Rollout
from edge_runtime.learning.streams import FaultyRecording

Bools = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

GRACE = 10  # an alarm up to this many samples after a fault still counts
TIE = 0.1  # of the threshold
# One in this many anomalies may end differently: decisions after an anomaly depend on each other.
SPARED = 20
LABELLED = "labelled"  # the kind of recorded, not injected anomalies


@dataclass(frozen=True)
class Event:
    """One stretch of visible anomaly; delays in samples, None where the model misses it."""

    kind: str
    start: int
    stop: int
    int8_delay: int | None
    float_delay: int | None

    @property
    def shift(self) -> int | None:
        """How much later the int8 model finds it, None unless both do."""
        if self.int8_delay is None or self.float_delay is None:
            return None
        return self.int8_delay - self.float_delay


@dataclass(frozen=True)
class Detection:
    """Both models on one stream with anomalies.

    decisions: counts of debounced decisions, [float][int8], 0 calm and 1 alarm. hanging: number of
    decisions left out because both scores are within `TIE` of the threshold. spared: number of
    differing decisions left out, those of the worst one in `SPARED` anomalies.
    """

    stream: str
    int8_auc: float
    float_auc: float
    decisions: tuple[tuple[int, int], tuple[int, int]]
    hanging: int
    spared: int
    events: tuple[Event, ...]

    @property
    def shifts(self) -> tuple[int, ...]:
        """int8 delay minus float delay of every event that both find."""
        return tuple(e.shift for e in self.events if e.shift is not None)


@dataclass(frozen=True)
class KindResult:
    """One kind of anomaly; shift: the largest delay shift in either direction, None without one."""

    kind: str
    events: int
    int8_found: int
    float_found: int
    shift: int | None


def detect(
    quantised: Model, reference: Model, name: str, pair: Pair, stream: FaultyRecording
) -> Detection:
    """Compare both models, each with the threshold that ships, on the rows of `stream`."""
    both = pair.settled
    a, b = pair.quantised, pair.reference
    margins = _margins(quantised, a), _margins(reference, b)
    used = both[len(both) - len(margins[0]) :]
    hanging = used & (np.maximum(np.abs(margins[0]), np.abs(margins[1])) < TIE)
    int8, floating = margins[0] > 0, margins[1] > 0
    differing = used & ~hanging & (int8 != floating)
    starts = [e.start for e in stream.events] or [start for start, _ in intervals(stream.faulty)]
    spared = _worst_stretches(differing, [start - (len(both) - len(used)) for start in starts])
    kept = used & ~hanging & ~spared
    return Detection(
        stream=name,
        int8_auc=auc(a.score[both], stream.faulty[both]),
        float_auc=auc(b.score[both], stream.faulty[both]),
        decisions=_matrix(floating[kept], int8[kept]),
        hanging=int(hanging.sum()),
        spared=int((differing & spared).sum()),
        events=_events(pair, stream),
    )


def _worst_stretches(differing: Bools, starts: Sequence[int]) -> Bools:
    """Mark the stretches with the most `differing` rows [n], one in `SPARED` of them.

    A stretch begins at each of `starts` and ends where the next begins. While a gate is shut in one
    arithmetic only, all its decisions may differ: they are one event, not many.
    """
    edges = [max(start, 0) for start in starts] + [len(differing)]
    stretches = [slice(start, stop) for start, stop in pairwise(edges)]
    stretches.sort(key=lambda stretch: int(differing[stretch].sum()), reverse=True)
    worst = np.zeros(len(differing), bool)
    for stretch in stretches[: len(stretches) // SPARED]:
        worst[stretch] = True
    return worst


def by_kind(detection: Detection) -> list[KindResult]:
    """Sum up the events by kind, the worst kind first: most events lost, then largest shift."""
    kinds = sorted({event.kind for event in detection.events})
    results = [_result(kind, [e for e in detection.events if e.kind == kind]) for kind in kinds]
    return sorted(results, key=lambda r: (r.int8_found - r.float_found, -abs(r.shift or 0)))


def _result(kind: str, events: Sequence[Event]) -> KindResult:
    return KindResult(
        kind=kind,
        events=len(events),
        int8_found=sum(e.int8_delay is not None for e in events),
        float_found=sum(e.float_delay is not None for e in events),
        shift=max((e.shift for e in events if e.shift is not None), key=abs, default=None),
    )


def _events(pair: Pair, stream: FaultyRecording) -> tuple[Event, ...]:
    """Return the anomalies that begin while both models are settled and neither is in alarm.

    An alarm that an earlier anomaly left behind would count as a detection without delay.
    """
    settled = pair.settled
    ready = settled & ~_before(pair.quantised.alarm | pair.reference.alarm)
    spans = [span for span in intervals(stream.faulty) if ready[span[0]]]
    int8, floating = (
        first_hits(rollout.alarm & settled, spans, GRACE)
        for rollout in (pair.quantised, pair.reference)
    )
    return tuple(
        Event(_kind(start, stream.events), start, stop, a, b)
        for (start, stop), a, b in zip(spans, int8, floating, strict=True)
    )


def _before(flags: Bools) -> Bools:
    """Return the flag of the row before each row."""
    return np.concatenate([[False], flags[:-1]])


def _kind(row: int, events: Sequence[FaultEvent]) -> str:
    return next((e.kind.name.lower() for e in events if e.start <= row < e.stop), LABELLED)


def _margins(model: Model, rollout: Rollout) -> Float64:
    """Return the debounced score minus the model's threshold, as a share of the threshold.

    The score of a slow fault crosses the threshold some samples earlier in one arithmetic. While
    both scores are within a tenth of the threshold, their decisions are not compared.
    """
    threshold = model.manifest.thresholds[model.graph.kernel_id].value
    scores = debounce(rollout.score.astype(np.float64), model.manifest.alarm)
    return (scores - threshold) / abs(threshold)


def _matrix(reference: Bools, quantised: Bools) -> tuple[tuple[int, int], tuple[int, int]]:
    def count(a: Bools, b: Bools) -> int:
        return int((a & b).sum())

    return (
        (count(~reference, ~quantised), count(~reference, quantised)),
        (count(reference, ~quantised), count(reference, quantised)),
    )
