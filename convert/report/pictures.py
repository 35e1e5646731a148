"""The pictures of the proof, one PNG each; the same evidence gives the same bytes."""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convert.checks.arithmetic import TOLERANCE
from convert.detection import Detection
from convert.metrics import intervals
from convert.tensor_errors import EXACT_DB, TensorError
from convert.validate import Evidence
from edge_runtime.calibration import Calibration, Tail

Float64 = npt.NDArray[np.float64]

INT8, FLOAT, THRESHOLD, FAULT = "#1f6f8b", "#b9b9b9", "#b3261e", "#f2b8b5"
TOP = 3.0  # thresholds; higher scores are cut
MOST_POINTS = 4000  # of a line
FEWEST_BARS, MOST_BARS = 6, 48


def scores_picture(evidence: Evidence, threshold: float) -> bytes:
    """Draw both models' scores on the rows with injected faults, and their difference."""

    def draw(figure: Any) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        a, b = evidence.faulty.quantised.score, evidence.faulty.reference.score
        top = TOP * threshold
        above.plot(np.clip(b, None, top), linewidth=1.6, color=FLOAT, label="float")
        above.plot(np.clip(a, None, top), linewidth=0.7, color=INT8, label="int8")
        above.axhline(threshold, color=THRESHOLD, linewidth=0.9, label="threshold")
        for start, stop in intervals(evidence.stream.faulty):
            above.axvspan(start, stop, color=FAULT, alpha=0.5, linewidth=0)
        above.set_ylabel("score")
        above.legend(frameon=False, fontsize=8, ncols=3, loc="upper right")
        below.plot(a - b, linewidth=0.7, color=INT8)
        below.set(ylabel="int8 − float", xlabel="sample", xlim=(0, len(a)))

    return _png(draw, (11, 4.2))


def states_picture(errors: Float64) -> bytes:
    """Draw the distance of the states along the free rollout, with bursts marked."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for start, stop in intervals(errors > TOLERANCE):
            axis.axvspan(start, stop, color=FAULT, alpha=0.6, linewidth=0)
        # The largest error of each piece, so that no burst falls between two points.
        width = max(len(errors) // MOST_POINTS, 1)
        starts = np.arange(0, len(errors), width)
        axis.plot(starts, np.maximum.reduceat(errors, starts), linewidth=0.7, color=INT8)
        axis.axhline(TOLERANCE, color=THRESHOLD, linewidth=0.9, linestyle="--")
        axis.set(xlabel="step", ylabel="RMS over the units", xlim=(0, len(errors)), ylim=(0, None))

    return _png(draw, (11, 2.4))


def tensors_picture(tensors: Sequence[TensorError]) -> bytes:
    """Draw signal over error of each tensor, in graph order."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        shown = tensors[-MOST_BARS:]
        places = np.arange(len(shown))
        colours = [THRESHOLD if tensor.saturated else INT8 for tensor in shown]
        axis.barh(places, [tensor.sqnr_db for tensor in shown], color=colours, height=0.7)
        axis.set_yticks(places, [f"{t.name} · {t.kind_of_op}" for t in shown], fontsize=7)
        axis.set(xlabel="signal over error, dB (red: some values beyond the range)")
        axis.set(xlim=(0, EXACT_DB), ylim=(len(shown) - 0.5, -0.5))
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)

    return _png(draw, (11, 1 + 0.17 * min(max(len(tensors), FEWEST_BARS), MOST_BARS)))


def tail_picture(calibration: Calibration) -> bytes:
    """Draw return levels: height of clean peaks over the days between them, and the threshold."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        threshold, tail = calibration.threshold, calibration.tail
        peaks = np.sort(calibration.peaks)[::-1]
        days = threshold.clean_days
        axis.plot(days / np.arange(1, len(peaks) + 1), peaks, "o", markersize=3, color=INT8)
        wished = 1 / threshold.wished_per_day
        if tail is not None:
            _draw_tail(axis, tail, days, wished)
        axis.axhline(threshold.value, color=THRESHOLD, linewidth=0.9, label="threshold")
        axis.axhline(
            threshold.clear, color=THRESHOLD, linewidth=0.7, linestyle=":", label="clears below"
        )
        axis.axvline(wished, color="0.5", linewidth=0.7, linestyle="--", label="target")
        axis.set(xscale="log", xlabel="days between peaks", ylabel="debounced score")
        axis.legend(frameon=False, fontsize=8)

    return _png(draw, (5.4, 3.4))


def matrix_picture(found: Detection) -> bytes:
    """Draw how often both models decide alike."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        counts = np.array(found.decisions)
        shade = np.array([[0, 1], [1, 0]]) * (counts > 0)
        axis.imshow(shade, cmap="Reds", vmin=0, vmax=3)
        for row, column in np.ndindex(2, 2):
            axis.text(column, row, f"{counts[row, column]:,}", ha="center", va="center")
        axis.set_xticks([0, 1], ["calm", "alarm"])
        axis.set_yticks([0, 1], ["calm", "alarm"])
        axis.set(xlabel="int8", ylabel="float")

    return _png(draw, (2.7, 2.7))


def delays_picture(found: Detection) -> bytes:
    """Draw how much later, or earlier, the int8 model finds the events that both find."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        counts = Counter(found.shifts)
        reach = max([3, *map(abs, counts)])
        axis.bar(list(counts), list(counts.values()), color=INT8, width=0.7)
        axis.set(xlim=(-reach - 0.6, reach + 0.6), ylabel="events")
        axis.set_xlabel("samples later than float")
        axis.locator_params(axis="both", integer=True, nbins=6)

    return _png(draw, (3.6, 2.7))


def _draw_tail(axis: Any, tail: Tail, days: float, wished: float) -> None:
    returns = np.geomspace(days / tail.count, max(days, 3 * wished), 40)
    axis.plot(returns, [tail.reached(1 / r) for r in returns], color="0.4", label="fitted tail")
    upper = [tail.upper(1 / r) for r in returns]
    axis.plot(returns, upper, color="0.4", linewidth=0.8, linestyle="--", label="upper 75 % limit")


def _png(draw: Callable[[Any], None], size: tuple[float, float]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
