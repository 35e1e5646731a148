"""A whole-sequence float model's forecasts, and the product's score on them.

The score is that of `train.selection`, by which the training command chooses among models: its
shapes, mean and deviation come from one clean stream that the model never saw.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edge_runtime.bundle.manifest_rules import PARTS
from edge_runtime.detector.score import ScoreConstants
from train.cell import AnomalyGatedGRU
from train.quiet import quiet_stderr
from train.selection import SETTLING, Scored, clean_constants, smoothed_parts, total_scores

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """What a model made of streams; forecast, doubt: [streams, n, channels], doubt 0 without gate.

    doubt: log(1 + e^-logit), the gate's evidence.
    """

    forecast: Float32
    doubt: Float32


Run = Callable[[Float32, Float32], Seen]


def runner(model: AnomalyGatedGRU) -> Run:
    """The whole-sequence form: values, masks [streams, n, channels], each from a fresh state."""
    call = tf.function(model.call, jit_compile=True)

    def run(values: Float32, masks: Float32) -> Seen:
        # Every length is compiled anew, which TensorFlow warns of.
        with quiet_stderr():
            out = call(tf.constant(values), tf.constant(masks))
        forecast, logit = out["forecast"].numpy(), out["logit"].numpy()
        doubt = np.logaddexp(0, -logit) if model.config.gate_layers else np.zeros_like(logit)
        return Seen(forecast, doubt.astype(np.float32))

    return run


def score_constants(
    forecast: Float32,
    doubt: Float32,
    values: Float32,
    mask: Float32,
    exogenous: Bools,
    evidence: bool,
) -> ScoreConstants:
    """The score's constants from one clean stream, each [n, channels]; evidence: doubt counts."""
    found = clean_constants(_settled(forecast, doubt, values, mask), exogenous)
    weights = np.where([part == "gate" for part in PARTS], evidence, found.weights)
    return replace(found, weights=weights.astype(np.float32))


def score_rows(
    forecast: Float32, doubt: Float32, values: Float32, mask: Float32, constants: ScoreConstants
) -> Float64:
    """The score [n] of one stream [n, channels]; while it settles it has its first value."""
    rows = _settled(forecast, doubt, values, mask)
    scores = total_scores(smoothed_parts(rows, constants)[0], constants)
    return np.concatenate([np.full(SETTLING, scores[0]), scores])


def _settled(forecast: Float32, doubt: Float32, values: Float32, mask: Float32) -> Scored:
    """One stream as several, without the rows in which it settles."""
    every = ((values - forecast) * mask, values, doubt, mask)
    return Scored(*(array[np.newaxis, SETTLING:] for array in every))
