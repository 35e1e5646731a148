"""One conversion from run folder to bundle: export, measure, calibrate, judge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convert.checks_export import trained_model
from convert.cross_fitting import in_folds, measured
from convert.diagnosis_section import Judgement, diagnosis_of_run
from convert.draft import (
    draft_manifest,
    forecast_constants,
    with_fallback_limits,
    with_score_centres,
    with_smoothing,
    with_state_limit,
)
from convert.labelled_stream import labelled_stream
from convert.material import Material
from convert.rollout import Rollout, rescored, roll, roll_all
from convert.streams import FaultyRecording, clean_test_rows, faulty_twin
from convert.threshold import calibrate_threshold
from convert.validate import Verdict, validate
from edge_runtime.detector import open_graph
from edge_runtime.fallback import Fallback
from edge_runtime.flatbuffer import NO_GRAPH, GraphSummary, read_graph
from edge_runtime.interpreter import FloatGraph, Int8Graph, NoGraph
from edge_runtime.manifest import Manifest, Validation
from edge_runtime.record import Sample
from edge_runtime.step import Model, Recurrent, Traces, build_model, initial_state, step
from train.folds import cut_folds
from train.linear import fold_weights
from train.run_folder import Run

if TYPE_CHECKING:
    from train.cell_config import CellConfig

Float32 = npt.NDArray[np.float32]
Say = Callable[[str], None]

REPRESENTATIVE, REPRESENTATIVE_ROWS = 3000, 6000
GOLDEN, GOLDEN_EVERY = 64, 8
FEWEST_JUDGED = 2000
# Enough training rows to measure covariances; more would only take time.
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
    judgement: Judgement | None = None  # of the diagnosis


def convert_run(run: Run, version: int, wished_per_day: float, say: Say) -> Conversion:
    """Convert `run`; the verdict says whether the result may ship."""
    from train.cell_config import CellConfig

    config = CellConfig(**run.config.sizes)
    material = material_of_run(run)
    model, float_model = (b"", b"") if config.linear else exported(run, config, say)
    say("measuring clean rows as the device will see them")
    manifest = calibrated(run, model, version, wished_per_day)
    say("validating the model" if config.linear else "validating int8 against float")
    shipped = shipped_model(manifest, model)
    reference = float_twin(manifest, float_model)
    verdict = validate(shipped, reference, trained_model(run), material)
    # Last, so that nothing above waits for it: the diagnosis changes neither score nor alarm.
    diagnosis, judgement = diagnosis_of_run(run, say)
    manifest = replace(
        manifest,
        diagnosis=diagnosis,
        validation=Validation(passed=verdict.passed, forced=not verdict.passed),
        provenance=replace(manifest.provenance, tools=_tools()),
    )
    return Conversion(
        manifest=manifest,
        model=model,
        float_model=float_model,
        golden=golden_vectors(shipped, material.faulty),
        calibration=_calibration_rows(run),
        verdict=verdict,
        judgement=judgement,
    )


def exported(run: Run, config: "CellConfig", say: Say) -> tuple[bytes, bytes]:
    """The step as an int8 and as a float .tflite file."""
    from convert.export import export_float, export_int8

    say("exporting one float step")
    float_model = export_float(run.weights, config)
    say("rolling out the float model for representative states")
    samples = representative(run, float_model)
    say("quantising to int8")
    return export_int8(run.weights, config, samples), float_model


def graph_of(model: bytes) -> GraphSummary:
    """What is in the int8 file that was made; nothing for a linear model, which has none."""
    return read_graph(model, "converted model") if model else NO_GRAPH


def shipped_model(manifest: Manifest, model: bytes) -> Model:
    """The int8 file, or nothing for a linear model, in the runtime's step."""
    return build_model(manifest, open_graph(manifest, model, graph_of(model)), "")


def float_twin(manifest: Manifest, float_model: bytes) -> Model:
    """The float file in the runtime's step, with every other constant the same.

    But its state has no codes to run out of: rounded to the edge of int8 is not saturated.
    """
    if manifest.linear:
        return build_model(manifest, NoGraph(), "")
    graph = FloatGraph(float_model, read_graph(float_model, "float model"))
    endless = ((np.float32(-np.inf), np.float32(np.inf)),) * len(graph.state_sizes)
    return replace(build_model(manifest, graph, ""), state_limits=endless)


def clean_rows(run: Run) -> list[Float32]:
    """All rows a linear model is fitted and cross-fitted on."""
    return [*run.rows["train"], *run.rows["validate"], *run.rows["calibrate"]]


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


def material_of_run(run: Run) -> Material:
    """What the conversion of `run` is judged on."""
    labelled = labelled_stream(run.rows["test"], run.labels["test"]) if run.labels["test"] else None
    return Material(judged_rows(run), validation_stream(run), labelled)


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
    """The manifest with every constant and threshold, measured with what ships."""
    draft = draft_manifest(run, graph_of(model), version)
    if draft.linear:
        draft, clean = measured(draft, _rolled_by_folds(run, draft), _lengths(clean_rows(run)))
        unseen = clean
    else:
        rows = _share(run.rows["train"] + run.rows["validate"], MOST_SHAPE_ROWS)
        rows += run.rows["calibrate"]
        rollouts = roll_all(shipped_model(draft, model), rows)
        draft, clean = measured(draft, in_folds(rollouts), _lengths(rows))
        unseen = clean[-len(run.rows["calibrate"]) :]
    # What is usual must be told from all rows: a few hundred later ones may be all calm or all
    # strange. Only the threshold insists on rows that the network never saw.
    manifest = with_score_centres(with_smoothing(draft, clean), clean)
    manifest = with_fallback_limits(manifest, clean)
    manifest = with_state_limit(manifest, clean)
    shipped = shipped_model(manifest, model)
    unseen = [rescored(rollout, shipped.score) for rollout in unseen]
    test = roll_all(shipped, clean_test_rows(run))
    threshold = calibrate_threshold(
        [r.score[r.settled] for r in unseen],
        [r.score[r.settled] for r in test],
        wished_per_day,
        run.config.period,
        manifest.alarm,
    )
    return replace(manifest, thresholds={shipped.graph.kernel_id: threshold})


def _rolled_by_folds(run: Run, draft: Manifest) -> list[list[Rollout]]:
    """All clean rows of a linear run, each fold rolled with the forecast that never saw it."""
    folds = []
    for number, pieces in enumerate(cut_folds(clean_rows(run))):
        weights = {**run.weights, **fold_weights(run.weights, number)}
        fold = replace(draft, forecast=forecast_constants(weights))
        folds.append(roll_all(shipped_model(fold, b""), pieces))
    return folds


def golden_vectors(model: Model, stream: FaultyRecording) -> dict[str, npt.NDArray[np.generic]]:
    """Steps over the faulty stream for the self-test: forecasts, graph inputs and int8 outputs.

    forecast [n, channels] follows from history [n, order, channels] and correction [n, channels].
    """
    state, fallback = initial_state(model), Fallback(model.manifest, "")
    picked: list[tuple[Recurrent, Traces]] = []
    for index, values in enumerate(stream.rows[: GOLDEN_EVERY * GOLDEN]):
        sample = Sample(index, None, values)
        before = state.recurrent
        _, state, traces = step(model, sample, state, fallback.step(sample))
        if before is not None and index % GOLDEN_EVERY == 0:
            picked.append((before, traces))
    golden: dict[str, npt.NDArray[np.generic]] = {
        "history": np.array([before.history for before, _ in picked]),
        "correction": np.array([before.correction for before, _ in picked]),
        "forecast": np.array([traces.forecast for _, traces in picked]),
    }
    if isinstance(model.graph, Int8Graph):
        for name in model.manifest.inputs:
            golden[f"inputs/{name}"] = np.array([traces.inputs[name] for _, traces in picked])
        codes = [model.graph.codes(traces.inputs) for _, traces in picked]
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


def _lengths(recordings: Sequence[Float32]) -> list[int]:
    return [len(rows) for rows in recordings]


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
