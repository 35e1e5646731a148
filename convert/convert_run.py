"""One conversion from run folder to bundle: export, measure, calibrate, judge."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata

import numpy as np
import numpy.typing as npt

from convert.calibrated import calibrated, calibrated_on
from convert.checks_export import trained_model
from convert.diagnosis_section import diagnosis_of_run
from convert.exported import Exported, exported
from convert.material import material_of_run
from convert.proof import Proof
from convert.streams import FaultyRecording
from convert.tensor_errors import TensorError, tensor_errors
from convert.twins import float_twin, graph_of, shipped_model
from convert.validate import Verdict, validate
from edge_runtime.fallback import Fallback
from edge_runtime.interpreter import Int8Graph
from edge_runtime.kernels import available_kernels
from edge_runtime.manifest import Manifest, Validation
from edge_runtime.record import Sample
from edge_runtime.step import Model, Recurrent, Traces, initial_state, step
from train.run_folder import Run

Float32 = npt.NDArray[np.float32]
Say = Callable[[str], None]

TENSORS_EVERY = 4  # steps of the rows with faults

GOLDEN, GOLDEN_EVERY = 64, 8


@dataclass(frozen=True)
class Conversion:
    """A judged conversion, ready to be written. golden: arrays of the self-test.

    clean: what goes into calibration.npz.
    """

    manifest: Manifest
    model: bytes
    float_model: bytes
    golden: dict[str, npt.NDArray[np.generic]]
    clean: dict[str, Float32]
    proof: Proof

    @property
    def verdict(self) -> Verdict:
        """Of the reference kernel, which decides."""
        return self.proof.verdict


def convert_run(run: Run, version: int, wished_per_day: float, say: Say) -> Conversion:
    """Convert `run`; the verdict says whether the result may ship."""
    from train.cell_config import CellConfig

    config = CellConfig(**run.config.sizes)
    material = material_of_run(run)
    files = exported(run, config, say)
    say("measuring clean rows as the device will see them")
    known = calibrated(run, files.model, version, wished_per_day)
    manifest, reference = known.manifest, float_twin(known.manifest, files.float_model)
    trained = trained_model(run)
    say("validating the model" if config.linear else "validating int8 against float")
    shipped = shipped_model(manifest, files.model)
    verdict = validate(shipped, reference, trained, material)
    calibrations, others = {verdict.kernel: known.calibration}, []
    for kernel in () if config.linear else available_kernels()[1:]:
        say(f"calibrating and validating on {kernel}")
        found = calibrated_on(kernel, run, files.model, known)
        candidate = replace(manifest, thresholds={kernel: found.threshold})
        other = shipped_model(candidate, files.model, kernel)
        twin = float_twin(candidate, files.float_model, kernel)
        others.append(validate(other, twin, trained, material))
        if others[-1].passed:
            calibrations[kernel] = found
    thresholds = {kernel: found.threshold for kernel, found in calibrations.items()}
    # Last, so that nothing above waits for it: the diagnosis changes neither score nor alarm.
    diagnosis, judgement = diagnosis_of_run(run, say)
    manifest = replace(
        manifest,
        thresholds=thresholds,
        diagnosis=diagnosis,
        validation=Validation(passed=verdict.passed, forced=not verdict.passed),
        provenance=replace(manifest.provenance, tools=_tools()),
    )
    return Conversion(
        manifest=manifest,
        model=files.model,
        float_model=files.float_model,
        golden=golden_vectors(shipped, material.faulty),
        clean=_clean_samples(run),
        proof=Proof(
            graph=graph_of(files.model),
            verdict=verdict,
            calibrations=calibrations,
            others=tuple(others),
            tensors=_tensors(files, verdict),
            judgement=judgement,
        ),
    )


def _tensors(files: Exported, verdict: Verdict) -> tuple[TensorError, ...]:
    """Errors inside the graph over the rows with faults; none for a linear model."""
    if not files.model:
        return ()
    assert verdict.evidence is not None  # this verdict has just been reached
    seen = verdict.evidence.faulty.quantised.traces[::TENSORS_EVERY]
    return tensor_errors(files.model, files.float_model, [trace.inputs for trace in seen])


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


def _clean_samples(run: Run) -> dict[str, Float32]:
    from train.prepare import standard_rows

    rows = standard_rows(run.rows["calibrate"], run.config.channels, run.config.period)
    arrays = {f"value/{i:03d}": value for i, value in enumerate(rows.values)}
    return arrays | {f"mask/{i:03d}": mask for i, mask in enumerate(rows.masks)}


def _tools() -> dict[str, str]:
    """Versions that decide the bytes of the model."""
    found = {}
    for package in ("tensorflow-cpu", "tensorflow", "numpy", "tflite-runtime", "ai-edge-litert"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
