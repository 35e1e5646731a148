"""One conversion from run folder to bundle: export, measure, calibrate, judge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata

import numpy as np
import numpy.typing as npt

from convert.draft import (
    draft_manifest,
    with_fallback_limits,
    with_score_centres,
    with_score_shapes,
    with_state_limit,
)
from convert.rollout import roll, roll_all
from convert.streams import FaultyRecording, clean_test_rows, faulty_twin
from convert.threshold import calibrate_threshold
from convert.validate import Verdict, validate
from edge_runtime.flatbuffer import read_graph
from edge_runtime.interpreter import KERNEL_ID, FloatGraph, Int8Graph
from edge_runtime.manifest import Manifest, Validation
from edge_runtime.step import Model, build_model
from train.run_folder import Run

Float32 = npt.NDArray[np.float32]
Say = Callable[[str], None]

REPRESENTATIVE, REPRESENTATIVE_ROWS = 600, 2000
GOLDEN = 64
FEWEST_JUDGED = 2000
# Enough rows to measure covariances; more would only take time.
MOST_SHAPE_ROWS = 6000


@dataclass(frozen=True)
class Conversion:
    """A judged conversion, ready to be written. golden: arrays of the self-test."""

    manifest: Manifest
    model: bytes
    float_model: bytes
    golden: dict[str, npt.NDArray[np.generic]]
    calibration: dict[str, Float32]
    verdict: Verdict


def convert_run(run: Run, version: int, wished_per_day: float, say: Say) -> Conversion:
    """Convert `run`; the verdict says whether the result may ship."""
    from convert.export import export_float, export_int8
    from train.cell import CellConfig

    config = CellConfig(**run.config.sizes)
    say("exporting one float step")
    float_model = export_float(run.weights, config)
    stream = validation_stream(run)
    say("rolling out the float model for representative states")
    samples = representative(run, float_model)
    say("quantising to int8")
    model = export_int8(run.weights, config, samples)
    say("measuring clean rows with the int8 model")
    manifest = calibrated(run, model, version, wished_per_day)
    say("validating int8 against float")
    quantised = int8_model(manifest, model)
    verdict = validate(quantised, float_twin(manifest, float_model), judged_rows(run), stream)
    manifest = replace(
        manifest,
        validation=Validation(passed=verdict.passed, forced=not verdict.passed),
        provenance=replace(manifest.provenance, tools=_tools()),
    )
    return Conversion(
        manifest=manifest,
        model=model,
        float_model=float_model,
        golden=golden_vectors(quantised, stream),
        calibration=_calibration_rows(run),
        verdict=verdict,
    )


def int8_model(manifest: Manifest, model: bytes) -> Model:
    """The int8 file in the runtime's step."""
    softplus = np.array(manifest.tables.softplus, np.float32)
    graph = read_graph(model, "converted model")
    return build_model(manifest, Int8Graph(model, graph, softplus), "")


def float_twin(manifest: Manifest, float_model: bytes) -> Model:
    """The float file in the runtime's step, with every other constant the same."""
    return build_model(
        manifest, FloatGraph(float_model, read_graph(float_model, "float model")), ""
    )


def held_out(run: Run) -> list[Float32]:
    """Clean rows that neither training nor scaling saw: calibration and clean test rows."""
    return [*run.rows["calibrate"], *clean_test_rows(run)]


def judged_rows(run: Run) -> list[Float32]:
    """Rows to compare int8 and float on: held-out ones, and the latest training rows if too few.

    It is the arithmetic that is compared, so rows that training saw do no harm; a handful of rows
    repeated for ever would.
    """
    rows = held_out(run)
    missing = FEWEST_JUDGED - sum(map(len, rows))
    for recording in reversed(run.rows["train"]):
        if missing <= 0:
            break
        rows.append(recording[-missing:])
        missing -= len(rows[-1])
    return rows


def validation_stream(run: Run) -> FaultyRecording:
    """The judged rows with known faults."""
    return faulty_twin(
        judged_rows(run),
        run.config.channels,
        run.config.period,
        run.weights["innovation_scale"],
        run.config.seed + 1,
    )


def representative(run: Run, float_model: bytes) -> list[Mapping[str, Float32]]:
    """Graph inputs from a free rollout over training rows with faults, states included.

    Ranges that only ever saw clean rows would clip exactly when it matters.
    """
    model = float_twin(_float_draft(run, float_model), float_model)
    twin = faulty_twin(
        run.rows["train"],
        run.config.channels,
        run.config.period,
        run.weights["innovation_scale"],
        run.config.seed + 2,
        REPRESENTATIVE_ROWS,
    )
    traces = roll(model, twin.rows).traces
    picked = np.unique(np.linspace(0, len(traces) - 1, REPRESENTATIVE).astype(int))
    return [traces[int(i)].inputs for i in picked]


def calibrated(run: Run, model: bytes, version: int, wished_per_day: float) -> Manifest:
    """The manifest with every constant and threshold, measured with the int8 file."""
    manifest = draft_manifest(run, read_graph(model, "converted model"), version)
    shape_rows = _share(run.rows["train"] + run.rows["validate"], MOST_SHAPE_ROWS)
    seen = roll_all(int8_model(manifest, model), shape_rows)
    manifest = with_score_shapes(manifest, seen)
    calibration = roll_all(int8_model(manifest, model), run.rows["calibrate"])
    manifest = with_score_centres(manifest, calibration)
    manifest = with_fallback_limits(manifest, [*seen, *calibration])
    manifest = with_state_limit(manifest, [*seen, *calibration])
    final = int8_model(manifest, model)
    calibration = roll_all(final, run.rows["calibrate"])
    unseen = roll_all(final, clean_test_rows(run))
    threshold = calibrate_threshold(
        [r.score[r.settled] for r in calibration],
        [r.score[r.settled] for r in unseen],
        wished_per_day,
        run.config.period,
        manifest.alarm,
    )
    return replace(manifest, thresholds={KERNEL_ID: threshold})


def golden_vectors(model: Model, stream: FaultyRecording) -> dict[str, npt.NDArray[np.generic]]:
    """Float inputs and raw int8 outputs of steps over the faulty stream, for the self-test."""
    assert isinstance(model.graph, Int8Graph)
    traces = roll(model, stream.rows[: 8 * GOLDEN]).traces[::8]
    golden: dict[str, npt.NDArray[np.generic]] = {
        f"inputs/{name}": np.array([t.inputs[name] for t in traces]) for name in traces[0].inputs
    }
    codes = [model.graph.codes(t.inputs) for t in traces]
    golden |= {f"outputs/{name}": np.array([c[name] for c in codes]) for name in codes[0]}
    return golden


def _float_draft(run: Run, float_model: bytes) -> Manifest:
    """A draft around the float graph, whose tensors have no scales."""
    graph = read_graph(float_model, "float model")
    tensors = tuple(replace(t, scales=(1 / 64,), zero_points=(0,)) for t in graph.tensors)
    return draft_manifest(run, replace(graph, tensors=tensors), 0)


def _calibration_rows(run: Run) -> dict[str, Float32]:
    from train.prepare import standard_rows

    rows = standard_rows(run.rows["calibrate"], run.config.channels, run.config.period)
    arrays = {f"value/{i:03d}": value for i, value in enumerate(rows.values)}
    return arrays | {f"mask/{i:03d}": mask for i, mask in enumerate(rows.masks)}


def _share(recordings: Sequence[Float32], most: int) -> list[Float32]:
    """The beginning of each recording, the same share of all, `most` rows or fewer in total."""
    share = min(most / sum(map(len, recordings)), 1.0)
    return [rows[: max(int(share * len(rows)), 1)] for rows in recordings]


def _tools() -> dict[str, str]:
    """Versions that decide the bytes of the model."""
    found = {}
    for package in ("tensorflow-cpu", "tensorflow", "numpy", "tflite-runtime", "ai-edge-litert"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
