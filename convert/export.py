"""One recurrent step as a .tflite file: float for comparison, full int8 for the device.

Only one step is exported, with the state as explicit inputs and outputs: a sequence layer would
become a loop. Weights are per tensor, which every runtime including TensorFlow Lite Micro accepts.
"""

import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edge_runtime.bundle.flatbuffer import read_graph
from edge_runtime.bundle.graph_rules import graph_faults, signature
from edge_runtime.detector.cell import GRAPH_FORECAST_CLIP, GRAPH_INNOVATION_CLIP
from edge_runtime.detector.interpreter import quiet_stderr
from edge_runtime.errors import GruardError, UnfitError
from train.cell import cell_step, split_linear
from train.cell_config import CellConfig

Float32 = npt.NDArray[np.float32]

MIXED_CORNERS = 32
SIGNS = (-1.0, 1.0)
BOUNDS = {
    "innovation": float(GRAPH_INNOVATION_CLIP),
    "forecast": float(GRAPH_FORECAST_CLIP),
    "evidence": 1.0,
    "difference": 1.0,
}


def export_float(weights: Mapping[str, Float32], config: CellConfig) -> bytes:
    """Export the step as a float32 .tflite file."""
    return converted(step_converter(weights, config))


def export_int8(
    weights: Mapping[str, Float32],
    config: CellConfig,
    representative: Iterable[Mapping[str, Float32]],
) -> bytes:
    """Export the step as a full-int8 .tflite file, with ranges from `representative` inputs.

    representative: dicts of named float32 vectors [n], as the runtime feeds them. Raises
    UnfitError unless the result is int8 arithmetic with the allowed operators only.
    """
    widths = input_widths(config)
    inputs = [{name: sample[name] for name in widths} for sample in representative]
    samples = [{k: v[np.newaxis] for k, v in sample.items()} for sample in inputs]
    samples += [{k: v[np.newaxis] for k, v in c.items()} for c in corners(inputs)]
    converter = step_converter(weights, config)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: iter(samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    model = converted(converter)
    faults = graph_faults(read_graph(model, "converted model"))
    if faults:
        more = f" (and {len(faults) - 1} more)" if faults[1:] else ""
        raise UnfitError(f"the conversion is not a full-int8 step: {faults[0]}{more}")
    return model


def converted(converter: tf.lite.TFLiteConverter) -> bytes:
    """What the converter makes. Raises UnfitError with its reason when it cannot."""
    try:
        with quiet_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: bytes = converter.convert()
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UnfitError(f"TensorFlow cannot convert this model: {reason}") from None
    if not read_graph(model, "converted model").inputs:
        # Where a temporary file cannot be written it goes on, and the names are lost.
        raise GruardError(
            f"TensorFlow could not write its temporary files to {tempfile.gettempdir()}: "
            "free some space there, or set TMPDIR to another folder"
        )
    return model


def corners(samples: Sequence[Mapping[str, Float32]]) -> list[dict[str, Float32]]:
    """Return inputs at the bounds of what the host can feed, so that the ranges clip no input.

    The first two are opposite corners. The others mix the channels' signs at up to half the
    bounds, so that levels that no training row has do not saturate the sums inside the graph. Full
    bounds there would cost a quarter of the resolution.
    """
    made = []
    for sign in (-1.0, 1.0):
        corner = {name: np.full_like(value, sign) for name, value in samples[0].items()}
        corner |= {
            name: sign * bound * np.ones_like(corner[name])
            for name, bound in BOUNDS.items()
            if name in corner
        }
        for name in {"magnitude", "mask", "guarded", "gate"} & set(corner):
            corner[name] = np.maximum(corner[name], 0)
        made.append(corner)
    rng = np.random.default_rng(0)
    for sample in samples[:MIXED_CORNERS]:
        half = rng.uniform(0, 0.5)
        mixed = {
            name: half * bound * rng.choice(SIGNS, sample[name].shape)
            for name, bound in BOUNDS.items()
            if name in sample
        }
        made.append({**sample, **mixed})
    if "guarded" in samples[0]:
        # A reading whose gate is held open. If no sample had one, mask - guarded would get a scale
        # with which the interpreter aborts.
        ones = np.ones_like(samples[0]["mask"])
        made.append({**samples[0], "mask": ones, "guarded": np.zeros_like(ones)})
    return [{k: v.astype(np.float32) for k, v in corner.items()} for corner in made]


def input_widths(config: CellConfig) -> dict[str, int]:
    """Return the width of every graph input by name."""
    inputs, _ = signature(config.gru_layers, bool(config.gate_layers))
    return {
        name: config.gru_units if name.startswith("state_") else config.channels
        for name in sorted(inputs)
    }


def step_converter(weights: Mapping[str, Float32], config: CellConfig) -> tf.lite.TFLiteConverter:
    """Return TensorFlow's converter for one step, without quantisation."""
    _, kept = signature(config.gru_layers, bool(config.gate_layers))

    @tf.function(autograph=False)
    def step(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = cell_step(weights, config, inputs, split_linear)
        return {name: outputs[name] for name in sorted(kept)}

    holder = tf.Module()
    holder.step = step
    specification = {
        name: tf.TensorSpec([1, width], tf.float32, name)
        for name, width in input_widths(config).items()
    }
    concrete = step.get_concrete_function(**specification)
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)
