"""A machine of three channels and a model for it made by hand: real files, in seconds, untrained.

`set_point` is exogenous, `flow` follows it, `heat` follows slowly. The gate of each channel closes
where the innovation exceeds about four of its scales, as a trained gate does; all other weights are
random, so that every tensor of the graph carries something. The linear model of the same machine is
its highway alone, fitted as training does.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edge_runtime.bundle.manifest import Channel
    from edge_runtime.learning.run import Run
    from train.cell_config import CellConfig

Float32 = npt.NDArray[np.float32]

NAME, LINEAR_NAME, VERSION, PERIOD = "tiny", "straight", 1, 1.0
CHANNELS = ("set_point", "flow", "heat")
UNITS, ORDER = 8, 3
ROWS = {"train": 500, "validate": 100, "calibrate": 400, "test": 200}
GATE_SLOPE, GATE_BIAS = 12.0, 6.0
SHORT_ROLLOUT = 1200  # steps of a free rollout, where 4,000 would only take time


def judge_briefly(put: Callable[[object, str, int], object] = setattr) -> None:
    """Judge conversions on streams long enough for every check; `put` sets a module's constant."""
    from convert import convert_run, revalidate
    from edge_runtime.learning import learn, streams

    put(streams, "FEWEST_JUDGED", 900)
    put(streams, "FAULTY_ROWS", 1600)
    for module in (convert_run, revalidate, learn):
        put(module, "ROLLOUT_STEPS", SHORT_ROLLOUT)


def machine_rows(count: int, seed: int) -> Float32:
    """Raw readings [count, 3] of the machine while it behaves."""
    rng = np.random.default_rng(seed)
    time = np.arange(count) + 1000 * seed
    target = np.sin(time / 23) + 0.5 * np.sin(time / 7.3)
    noise = rng.standard_normal((count, 2))
    flow, heat = np.zeros(count), np.zeros(count)
    for i in range(1, count):
        flow[i] = 0.6 * flow[i - 1] + 0.4 * target[i - 1] + 0.08 * noise[i, 0]
        heat[i] = 0.9 * heat[i - 1] + 0.1 * flow[i - 1] + 0.04 * noise[i, 1]
    return np.stack([50 + 10 * target, 20 + 5 * flow, 300 + 80 * heat], axis=1).astype(np.float32)


def write_run(path: Path, name: str = NAME, gru_layers: int = 1, gate_layers: int = 1) -> None:
    """A finished run folder at `path`, as training leaves it."""
    from edge_runtime.learning.highway import fit_highway, innovation_scale
    from edge_runtime.learning.linear import highway_arrays
    from edge_runtime.learning.prepare import standard_rows
    from train.cell import AnomalyGatedGRU
    from train.cell_config import CellConfig

    rows, channels = machine_parts(), machine_channels()
    standard = standard_rows([rows["train"]], channels, PERIOD)
    highway = fit_highway(standard.values, standard.masks, ORDER)
    spread = innovation_scale(standard.values, standard.masks, highway)
    sizes = CellConfig(
        channels=len(CHANNELS), gru_layers=gru_layers, gru_units=UNITS, gate_layers=gate_layers,
        gate_units=UNITS, order=ORDER,
    )  # fmt: skip
    gated = np.array([not c.exogenous for c in channels], np.float32)
    weights = AnomalyGatedGRU(sizes, highway, spread, gated).arrays()
    arrays = {**_shaped(weights), **highway_arrays(highway), "innovation_scale": spread}
    _write_folder(path, name, sizes, arrays)


def write_linear_run(path: Path) -> None:
    """A finished run folder of the same machine without gate and GRU."""
    from edge_runtime.learning.linear import fit_linear
    from edge_runtime.learning.prepare import standard_rows
    from train.cell_config import CellConfig

    rows = machine_parts()
    clean = [rows[part] for part in ("train", "validate", "calibrate")]
    sizes = CellConfig(channels=len(CHANNELS), gru_layers=0, gate_layers=0, order=ORDER)
    weights = fit_linear(standard_rows(clean, machine_channels(), PERIOD), ORDER)
    _write_folder(path, LINEAR_NAME, sizes, weights)


def machine_parts() -> dict[str, Float32]:
    """Raw rows of each part of the split."""
    return {part: machine_rows(count, seed) for seed, (part, count) in enumerate(ROWS.items())}


def machine_channels() -> "tuple[Channel, ...]":
    """The channels, scaled by the training rows."""
    from edge_runtime.bundle.manifest import Channel

    rows = machine_parts()["train"]
    center, scale = rows.mean(axis=0), rows.std(axis=0)
    limits = {"flow": (-20.0, 60.0, 40.0, 12), "heat": (-500.0, 1500.0, None, 12)}
    return tuple(
        Channel(name, "", float(center[i]), float(scale[i]), *limits.get(name, (None,) * 4), i == 0)
        for i, name in enumerate(CHANNELS)
    )


def _write_folder(path: Path, name: str, sizes: "CellConfig", weights: dict[str, Float32]) -> None:
    from edge_runtime.learning.run import Config
    from train.run_folder import save_arrays, save_config

    path.mkdir(parents=True)
    save_config(path, Config(name, PERIOD, machine_channels(), sizes.to_dict(), 0, "0" * 64))
    save_arrays(path / "rows.npz", {f"{k}/000": values for k, values in machine_parts().items()})
    save_arrays(path / "weights.npz", weights)


def _shaped(initial: dict[str, Float32]) -> dict[str, Float32]:
    """The initial weights with a gate that works and a correction that is not zero."""
    rng, count = np.random.default_rng(0), len(CHANNELS)
    weights = {name: array.copy() for name, array in initial.items()}
    if "logit_kernel" in weights:
        weights["gate_0_kernel"] *= 0.1
        weights["logit_kernel"] *= 0.1
        for i in range(count):
            # Hidden unit i is the magnitude of channel i.
            weights["gate_0_kernel"][count + i, i] += 1.0
            weights["logit_kernel"][i, i] -= GATE_SLOPE
        weights["logit_bias"][:] = GATE_BIAS
    if "correction_kernel" in weights:
        shape = weights["correction_kernel"].shape
        weights["correction_kernel"] = (0.1 * rng.standard_normal(shape)).astype(np.float32)
    return weights


def write_bundle(run_path: Path, folder: Path) -> Path:
    """The run as a finished bundle below `folder`: the conversion, with a shortened proof."""
    from convert import bundle_writer, convert_run, validate
    from convert.checks.arithmetic import one_step_checks, state_errors
    from convert.export import export_float, export_int8
    from convert.proof import Proof
    from convert.twins import float_twin, roll_pair
    from edge_runtime.bundle.manifest import Validation
    from edge_runtime.learning.calibrated import calibrated
    from edge_runtime.learning.golden import golden_vectors
    from edge_runtime.learning.prepare import standard_rows
    from edge_runtime.learning.shipped import graph_of, shipped_model
    from edge_runtime.learning.streams import faulty_twin
    from train.cell_config import CellConfig
    from train.run_folder import read_run

    run = read_run(run_path)
    config, sizes = run.config, CellConfig(**run.config.sizes)
    float_model = export_float(run.weights, sizes)
    model = export_int8(run.weights, sizes, _representative(run, float_model))
    known = calibrated(run, model, VERSION, wished_per_day=1.0)
    manifest = replace(known.manifest, validation=Validation(passed=True, forced=False))
    quantised, twin = shipped_model(manifest, model), float_twin(manifest, float_model)
    clean, spread = run.rows["calibrate"], run.weights["innovation_scale"]
    stream = faulty_twin(clean, config.channels, PERIOD, spread, seed=1, length=512)
    pair = roll_pair(quantised, twin, stream.rows)
    apart = state_errors(pair.quantised.hidden, pair.reference.hidden)
    evidence = validate.Evidence((pair,), pair, stream, apart)
    checks = tuple(one_step_checks(quantised, twin, pair.quantised))
    kernel = quantised.graph.kernel_id
    standard = standard_rows(clean, config.channels, PERIOD)
    conversion = convert_run.Conversion(
        manifest=manifest,
        model=model,
        float_model=float_model,
        golden=golden_vectors(quantised, clean, config.seed),
        clean={"value/000": standard.values[0], "mask/000": standard.masks[0]},
        proof=Proof(
            graph=graph_of(model),
            verdict=validate.Verdict(kernel, checks, evidence=evidence),
            calibrations={kernel: known.calibration},
        ),
    )
    return bundle_writer.write_bundle(conversion, folder, force=False)


def write_linear_bundle(run_path: Path, folder: Path) -> Path:
    """The linear run as a finished bundle below `folder`, converted and judged."""
    from convert.bundle_writer import write_bundle as write
    from convert.convert_run import convert_run
    from train.run_folder import read_run

    conversion = convert_run(read_run(run_path), VERSION, 1.0, lambda sentence: None)
    return write(conversion, folder, force=False)


def _representative(run: "Run", float_model: bytes) -> list[dict[str, Float32]]:
    """Graph inputs from a short float rollout over rows with faults."""
    from edge_runtime.bundle.flatbuffer import read_graph
    from edge_runtime.detector.cell import build_model
    from edge_runtime.detector.interpreter import FloatGraph
    from edge_runtime.learning.draft import draft_manifest
    from edge_runtime.learning.rollout import inputs_at, roll
    from edge_runtime.learning.streams import faulty_twin

    graph = read_graph(float_model, "float model")
    tensors = tuple(replace(t, scales=(1 / 64,), zero_points=(0,)) for t in graph.tensors)
    draft = draft_manifest(run, replace(graph, tensors=tensors), VERSION)
    spread = run.weights["innovation_scale"]
    stream = faulty_twin(run.rows["train"], run.config.channels, PERIOD, spread, 2, length=500)
    model = build_model(draft, FloatGraph(float_model, graph), "")
    return inputs_at(roll(model, stream.rows), range(0, len(stream.rows), 4))
