"""What the options of post-training quantisation are worth.

    python -m benchmarks.quantisation runs/watch [--out docs]

One trained run, quantised in every way that was considered: ranges with and without faults in them,
weights per tensor and per channel, activations of 8 and of 16 bits. Each gets the inputs that the
float step sees on rows with faults: how far are its outputs off? docs/quantisation.md says.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.pages import fill_page, markdown
from train.run_folder import Run, read_run

if TYPE_CHECKING:
    from train.cell_config import CellConfig

Float32 = npt.NDArray[np.float32]
Samples = Sequence[Mapping[str, Float32]]

OUTPUTS = ("gate_next", "candidate_0", "correction")


@dataclass(frozen=True)
class Way:
    """One way to quantise. faults, corners: in the representative inputs."""

    name: str
    faults: bool = True
    corners: bool = True
    per_channel: bool = False
    bits: int = 8  # of activations


WAYS = (
    Way("as it ships"),
    Way("without the corners", corners=False),
    Way("clean rows alone", faults=False, corners=False),
    Way("weights per channel", per_channel=True),
    Way("16-bit activations", bits=16),
)


@dataclass(frozen=True)
class Quality:
    """One way's file, and for each of the outputs RMS and largest error against float."""

    name: str
    bytes: int
    rms: tuple[float, ...]
    largest: tuple[float, ...]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of quantisation.md.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(run: Path, out: Path | None, as_json: bool) -> None:
    """Quantise the trained RUN in every way and compare each with its float step."""
    found = measure(read_run(run))
    click.echo(json.dumps([asdict(each) for each in found]) if as_json else table(found))
    if out:
        fill_page(out / "quantisation.md", table(found))


def measure(run: Run) -> list[Quality]:
    """All ways on the rows with faults of the validation."""
    from convert.export import export_float
    from convert.exported import representative
    from train.cell_config import CellConfig

    config = CellConfig(**run.config.sizes)
    float_model = export_float(run.weights, config)
    seen = _faulty(run, float_model)
    reference = outputs_of(float_model, seen)
    # By `Way.faults`.
    samples = {True: representative(run, float_model), False: _clean(run, float_model)}
    found = []
    for way in WAYS:
        model = quantised(run, config, samples[way.faults], way)
        pairs = zip(outputs_of(model, seen), reference, strict=True)
        errors = [values - true for values, true in pairs]
        found.append(
            Quality(
                way.name,
                len(model),
                tuple(float(np.sqrt((e.astype(np.float64) ** 2).mean())) for e in errors),
                tuple(float(np.abs(e).max()) for e in errors),
            )
        )
    return found


def quantised(run: Run, config: "CellConfig", samples: Samples, way: Way) -> bytes:
    """The step of `run` quantised in one `way`, by the ranges of the graph inputs `samples`."""
    import tensorflow as tf

    from convert.export import converted, corners, input_widths, step_converter

    inputs = [{name: sample[name] for name in input_widths(config)} for sample in samples]
    inputs += corners(inputs) if way.corners else []
    batches = [{k: v[np.newaxis] for k, v in sample.items()} for sample in inputs]
    sets, kind = tf.lite.OpsSet, tf.int8 if way.bits == 8 else tf.int16
    wide = sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    converter = step_converter(run.weights, config)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: iter(batches)
    converter.target_spec.supported_ops = [sets.TFLITE_BUILTINS_INT8 if way.bits == 8 else wide]
    converter.inference_input_type = converter.inference_output_type = kind
    per_tensor = not way.per_channel
    converter._experimental_disable_per_channel_quantization_for_dense_layers = per_tensor
    return converted(converter)


def outputs_of(model: bytes, inputs: Samples) -> list[Float32]:
    """The `OUTPUTS` of every step, each [steps, n], by the file's own scales."""
    from edge_runtime.bundle.flatbuffer import read_graph
    from edge_runtime.detector.interpreter import load_interpreter
    from edge_runtime.detector.kernels import KERNEL_ID

    graph, interpreter = read_graph(model, "model"), load_interpreter(model, KERNEL_ID)
    kept: list[list[Float32]] = [[] for _ in OUTPUTS]
    for sample in inputs:
        for name, index in graph.inputs.items():
            interpreter.set_tensor(index, _stored(sample[name][np.newaxis], graph.tensors[index]))
        interpreter.invoke()
        for name, values in zip(OUTPUTS, kept, strict=True):
            index = graph.outputs[name]
            values.append(_read(interpreter.get_tensor(index)[0], graph.tensors[index]))
    return [np.array(values) for values in kept]


def table(found: Sequence[Quality]) -> str:
    """A line for each way: size, then RMS and largest error of each output."""
    head = ["", "bytes", *(f"{name}: RMS, largest" for name in ("gate", "candidate", "correction"))]
    lines = [
        [q.name, f"{q.bytes:,}", *map("{:.4f}, {:.3f}".format, q.rms, q.largest)] for q in found
    ]
    return markdown(head, lines)


def _faulty(run: Run, float_model: bytes) -> Samples:
    """What the float step sees on the validation's rows with faults."""
    from convert.exported import rolled_out
    from convert.material import material_of_run

    return rolled_out(run, float_model, material_of_run(run).faulty.rows)


def _clean(run: Run, float_model: bytes) -> Samples:
    """Inputs of a rollout over training rows as they are."""
    from convert.exported import rolled_out

    return rolled_out(run, float_model, run.rows["train"][0])


def _stored(value: Float32, tensor: Any) -> npt.NDArray[Any]:
    if not tensor.scales:
        return value
    info = np.iinfo(tensor.dtype)
    codes = np.rint(value / np.float32(tensor.scales[0])) + tensor.zero_points[0]
    return np.clip(codes, info.min, info.max).astype(tensor.dtype)


def _read(codes: npt.NDArray[Any], tensor: Any) -> Float32:
    if not tensor.scales:
        return codes
    shifted = codes.astype(np.float32) - np.float32(tensor.zero_points[0])
    return shifted * np.float32(tensor.scales[0])


if __name__ == "__main__":
    main()
