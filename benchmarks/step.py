"""The cost of one step on this machine, by every engine; microseconds a sample, one core.

    python -m benchmarks.step [--units 32 --units 64 --units 128] [--out docs/engine.md] [--json]

The engines are measured in turn, round after round, and the median of the rounds is reported. The
networks are gruard's own unless a row says otherwise, trained for a moment on the simulated pump (8
channels); the time does not depend on the weights. Multiply-accumulates are those of the network's
products.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np

from benchmarks.gruard_detector import silent, write_series
from benchmarks.pages import fill_page, machine, markdown, page_option
from benchmarks.runtime import rows_of
from benchmarks.series import catalogue
from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.interpreter import load_interpreter
from edge_runtime.detector.kernels import KERNEL_ID, available_kernels
from edge_runtime.native.engine import NativeDetector
from edge_runtime.record import Sample
from firmware_harness.cost import macs

LIMIT_SOURCE = Path(__file__).with_name("int8_limit.c")
WINDOW = 64
ROUNDS = 15
SECONDS = 0.02  # of one engine in one round
TRAINING_STEPS = 30
SLOW = 1e-3  # seconds a step, from which one is enough for a round

Steps = Callable[[int], None]


@dataclass(frozen=True)
class Engine:
    """`run(n)` makes n steps. what: the part of the work that it does."""

    name: str
    what: str
    run: Steps


def made_bundle(units: int, scratch: Path, model: Literal["gated", "gru"] = "gated") -> Bundle:
    """A bundle with `units` recurrent units, judged or not. model: `gated` or `gru`."""
    from convert.bundle_writer import write_bundle
    from convert.convert_run import convert_run
    from train.cell_config import CellConfig
    from train.train_run import train_run
    from train.training_request import Budget, TrainingRequest, read_training_data

    nowhere = Path(os.devnull)  # the simulator needs no file
    series = catalogue(nowhere, nowhere, True, silent)["simulator/0"]()
    folder = scratch / f"{model}-{units}"
    folder.mkdir()
    data = write_series(series, folder / "data")
    request = TrainingRequest(data=(data,), out=folder / "run", name=f"pump{units}", model=model)
    sizes = CellConfig(channels=0, gru_units=units)
    run = train_run(
        request, read_training_data(request), sizes, Budget(steps=TRAINING_STEPS), silent, silent
    )
    conversion = convert_run(run, 1, 1.0, silent)
    return read_bundle(write_bundle(conversion, folder, force=True), allow_failed=True)


def detector_engines(bundle: Bundle, rows: np.ndarray) -> list[Engine]:
    """Return the engines of the whole detector, from raw readings to the record."""
    native, reference = NativeDetector(bundle), Detector(bundle)
    samples = [Sample(i, None, row) for i, row in enumerate(rows)]

    def block(steps: int) -> None:
        native.run(rows[:steps])

    return [
        Engine("core-c, block", "detector", block),
        Engine("core-c, bare call", "detector", _each(native.bare_step, list(rows))),
        Engine("core-c, record", "detector", _each(native.step, samples)),
        Engine(f"{KERNEL_ID} and numpy", "detector", _each(reference.step, samples)),
    ]


def network_engines(bundle: Bundle) -> list[Engine]:
    """Return the engines of the int8 network without the rest of the step."""
    engines = [Engine("core-c", "network", NativeDetector(bundle).run_graph)]
    for kernel in available_kernels():
        engines.append(Engine(kernel, "network", _interpreted(bundle, kernel)))
    micro = _micro(bundle)
    return [*engines, Engine("TensorFlow Lite Micro", "network", micro)] if micro else engines


def other_engines(units: int, channels: int, scratch: Path) -> list[Engine]:
    """Other engines with a GRU of that size: the plain recurrent layer, without gate and score."""
    step, window = _keras_models(units, channels)
    one, many = np.zeros((1, channels), "f4"), np.zeros((1, WINDOW, channels), "f4")
    state = np.zeros((1, units), "f4")
    engines = [
        Engine("Keras predict_on_batch", "plain GRU", _repeat(step.predict_on_batch, [one, state])),
        Engine(
            f"int8 TFLite over a window of {WINDOW}", "plain GRU", _window(window, many, scratch)
        ),
    ]
    onnx = _onnx(units, channels, one)
    return [*engines, Engine("onnxruntime, float GRU", "plain GRU", onnx)] if onnx else engines


def measured(engines: list[Engine]) -> dict[tuple[str, str], float]:
    """Measure the median microseconds a step of each engine, by part and name."""
    times: dict[tuple[str, str], list[float]] = {(e.what, e.name): [] for e in engines}
    counts = {(e.what, e.name): _count(e.run) for e in engines}
    for _ in range(ROUNDS):
        for engine in engines:
            key = (engine.what, engine.name)
            times[key].append(1e6 * _timed(engine.run, counts[key]) / counts[key])
    return {key: statistics.median(found) for key, found in times.items()}


def macs_a_second(scratch: Path) -> float:
    """Measure the int8 limit of the processor with a C program that only multiplies and adds."""
    program = scratch / "int8_limit"
    compiler = ["cc", "-O3", "-march=native", str(LIMIT_SOURCE), "-o", str(program)]
    subprocess.run(compiler, check=True)
    runs = [subprocess.run([program], check=True, capture_output=True) for _ in range(5)]
    return statistics.median(float(run.stdout) for run in runs)


def _count(run: Steps) -> int:
    run(1)
    once = _timed(run, 1)
    return 1 if once > SLOW else max(1, min(2000, int(SECONDS / once)))


def _timed(run: Steps, count: int) -> float:
    began = time.perf_counter()
    run(count)
    return time.perf_counter() - began


def _repeat(call: Callable[..., object], *arguments: object) -> Steps:
    def run(steps: int) -> None:
        for _ in range(steps):
            call(*arguments)

    return run


def _each(call: Callable[[Any], object], items: list[Any]) -> Steps:
    def run(steps: int) -> None:
        for item in items[:steps]:
            call(item)

    return run


def _interpreted(bundle: Bundle, kernel: str) -> Steps:
    """Return steps that set every input and read every output, as the runtime does."""
    interpreter = load_interpreter(bundle.model, kernel)
    tensors, graph = bundle.graph.tensors, bundle.graph
    inputs = [(i, np.zeros(tensors[i].shape, np.int8)) for i in graph.inputs.values()]
    outputs = list(graph.outputs.values())

    def run(steps: int) -> None:
        for _ in range(steps):
            for index, value in inputs:
                interpreter.set_tensor(index, value)
            interpreter.invoke()
            for index in outputs:
                interpreter.get_tensor(index)

    return run


def _micro(bundle: Bundle) -> Steps | None:
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError:
        return None
    interpreter = runtime.Interpreter.from_bytes(bundle.model)
    graph = bundle.graph
    shapes = [interpreter.get_input_details(n)["shape"] for n in range(len(graph.inputs))]
    values = [np.zeros(shape, np.int8) for shape in shapes]

    def run(steps: int) -> None:
        for _ in range(steps):
            for number, value in enumerate(values):
                interpreter.set_input(value, number)
            interpreter.invoke()
            for number in range(len(graph.outputs)):
                interpreter.get_output(number)

    return run


def _keras_models(units: int, channels: int) -> tuple[Any, Any]:
    """One step of a GRU with a forecast, and the same over a whole window."""
    import keras

    value, state = keras.Input((channels,)), keras.Input((units,))
    after, _ = keras.layers.GRUCell(units)(value, state)
    step = keras.Model([value, state], [keras.layers.Dense(channels)(after), after])
    values = keras.Input((WINDOW, channels), batch_size=1)
    last = keras.layers.GRU(units, unroll=True)(values)
    return step, keras.Model(values, keras.layers.Dense(channels)(last))


def _window(model: Any, values: np.ndarray, scratch: Path) -> Steps:
    """Quantise the window's model to int8 and run the whole window for every sample."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    model.export(scratch / "window", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(scratch / "window"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [rng.standard_normal(values.shape).astype("f4")] for _ in range(20)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    interpreter = load_interpreter(converter.convert())
    index = interpreter.get_input_details()[0]["index"]
    codes = values.astype(np.int8)

    def run(steps: int) -> None:
        for _ in range(steps):
            interpreter.set_tensor(index, codes)
            interpreter.invoke()

    return run


def _onnx(units: int, channels: int, value: np.ndarray) -> Steps | None:
    """A float GRU of ONNX, state in and state out; None where onnxruntime is not installed."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
    rng = np.random.default_rng(0)
    weights = {"W": (1, 3 * units, channels), "R": (1, 3 * units, units), "B": (1, 6 * units)}
    constants = [
        numpy_helper.from_array(rng.standard_normal(shape).astype("f4"), name)
        for name, shape in weights.items()
    ]
    sides = {"x": (1, 1, channels), "h": (1, 1, units), "y": (1, 1, 1, units), "g": (1, 1, units)}
    described = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in sides.items()
    }
    node = helper.make_node("GRU", ["x", "W", "R", "B", "", "h"], ["y", "g"], hidden_size=units)
    graph = helper.make_graph(
        [node], "gru", [described["x"], described["h"]], [described["g"]], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    feed = {"x": value[None], "h": np.zeros((1, 1, units), "f4")}
    return _repeat(session.run, ["g"], feed)


@dataclass(frozen=True)
class Size:
    """The results for one width of the network."""

    units: int
    macs: int
    limit_us: float
    times: dict[tuple[str, str], float]


def study(units: int, scratch: Path, macs_per_second: float) -> Size:
    """Measure every engine that is installed here, at one width."""
    bundle = made_bundle(units, scratch)
    rows = rows_of(bundle, 2000)
    folder = scratch / f"others-{units}"
    folder.mkdir()
    engines = [
        *detector_engines(bundle, rows),
        *network_engines(bundle),
        *other_engines(units, rows.shape[1], folder),
    ]
    products = macs(bundle)
    return Size(units, products, 1e6 * products / macs_per_second, measured(engines))


def report(sizes: list[Size], macs_per_second: float) -> str:
    """Return the tables as Markdown."""
    head = ["part", "engine", *(f"H = {size.units}" for size in sizes)]
    body = [[*key, *(f"{size.times[key]:.2f}" for size in sizes)] for key in sizes[0].times]
    body += [
        ["network", "multiply-accumulates", *(f"{size.macs:,}" for size in sizes)],
        ["network", "the processor's int8 limit", *(f"{size.limit_us:.2f}" for size in sizes)],
    ]
    ratios = [[name, *(f"{ratio(size):.1f}" for size in sizes)] for name, ratio in RATIOS.items()]
    return "\n\n".join(
        [
            f"{machine()}; {macs_per_second / 1e9:.0f} G int8 multiply-accumulates a second.",
            "Microseconds a sample:",
            markdown(head, body),
            markdown(["ratio", *head[2:]], ratios),
        ]
    )


NETWORK = ("network", KERNEL_ID)
RATIOS: dict[str, Callable[[Size], float]] = {
    f"{KERNEL_ID}'s network over core-c's": lambda s: (
        s.times[NETWORK] / s.times["network", "core-c"]
    ),
    f"{KERNEL_ID}'s network over core-c's whole detector, block": lambda s: (
        s.times[NETWORK] / s.times["detector", "core-c, block"]
    ),
    "core-c's network over the int8 limit": lambda s: s.times["network", "core-c"] / s.limit_us,
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--units", multiple=True, default=(32, 64, 128), show_default=True, type=int)
@page_option("step")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(units: tuple[int, ...], out: Path | None, as_json: bool) -> None:
    """Microseconds a step, by every engine that is installed here."""
    with tempfile.TemporaryDirectory() as scratch:
        speed = macs_a_second(Path(scratch))
        sizes = [study(count, Path(scratch), speed) for count in units]
    text = report(sizes, speed)
    if out:
        fill_page(out, text, "step")
    if as_json:
        times = [{"units": s.units, **{" ".join(k): v for k, v in s.times.items()}} for s in sizes]
        text = json.dumps({"machine": machine(), "macs_per_second": speed, "sizes": times})
    click.echo(text)


if __name__ == "__main__":
    main()
