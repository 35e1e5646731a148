"""Training batches: random windows of clean rows, each with a twin with injected faults."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime.learning.faults import inject
from edge_runtime.learning.prepare import Rows

Float32 = npt.NDArray[np.float32]
BURN_IN = 16  # steps at the start of a window that do not count: the state starts at zero
FAULT_SIZES = (0.3, 4.0)  # in channel scales: from barely visible to gross


def window_length(rows: Rows, longest: int = 128, shortest: int = 32) -> int:
    """Return the window length: a fifth of the longest recording, within bounds."""
    longest_recording = max(len(v) for v in rows.values)
    return int(np.clip(longest_recording // 5, min(shortest, longest_recording), longest))


def draw_batch(
    rows: Rows,
    length: int,
    windows: int,
    exogenous: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> dict[str, Float32]:
    """Draw clean windows and their faulty twins, each array [windows, length, channels].

    Recordings are drawn in proportion to their length; no window spans two recordings.
    """
    lengths = np.array([len(v) - length + 1 for v in rows.values], float)
    chosen = rng.choice(len(lengths), windows, p=lengths / lengths.sum())
    starts = [int(rng.integers(0, int(lengths[i]))) for i in chosen]
    clean = [rows.values[i][s : s + length] for i, s in zip(chosen, starts, strict=True)]
    masks = [rows.masks[i][s : s + length] for i, s in zip(chosen, starts, strict=True)]
    return _with_faults(clean, masks, exogenous, rng)


def _with_faults(
    clean: Sequence[Float32],
    masks: Sequence[Float32],
    exogenous: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> dict[str, Float32]:
    injections = [inject(window, rng, sizes=FAULT_SIZES, exogenous=exogenous) for window in clean]
    clean_mask = np.stack(masks)
    faulty_mask = clean_mask * np.stack([i.mask for i in injections])
    return {
        "clean": np.stack(clean),
        "clean_mask": clean_mask,
        "faulty": np.stack([i.values for i in injections]) * faulty_mask,
        "faulty_mask": faulty_mask,
        "fault": np.stack([i.labels > 0 for i in injections]).astype(np.float32),
    }
