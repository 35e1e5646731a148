"""One conversion from run folder to a judged bundle: export, calibrate, validate, diagnose."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from convert.checks.arithmetic import Trained, trained_model
from convert.exported import Exported, exported
from convert.judged_rows import JudgedRows, judged_rows_of_run
from convert.proof import Outcome, Proof
from convert.tensor_errors import TensorError, tensor_errors
from convert.twins import float_twin
from convert.validate import Verdict, joined, recording_verdict, validate
from edge_runtime.bundle.manifest import Manifest, Validation
from edge_runtime.calibration import Calibration
from edge_runtime.detector.kernels import available_kernels
from edge_runtime.learning.calibrated import Calibrated, calibrated, calibrated_on
from edge_runtime.learning.diagnosis.section import diagnosis_of_run
from edge_runtime.learning.golden import golden_vectors
from edge_runtime.learning.rollout import inputs_at
from edge_runtime.learning.run import Run, tool_versions
from edge_runtime.learning.shipped import graph_of, shipped_model
from edge_runtime.learning.streams import ROLLOUT_STEPS, clean_samples

Float32 = npt.NDArray[np.float32]
Say = Callable[[str], None]

# Packages that decide the bytes of a model.
TOOLS = ("tensorflow-cpu", "tensorflow", "numpy", "tflite-runtime", "ai-edge-litert")
TENSORS_EVERY = 4  # compare the tensors of every fourth step of the rows with faults


@dataclass(frozen=True)
class Conversion:
    """A judged conversion, ready to be written.

    golden: arrays of golden.npz, the self-test. clean: arrays of calibration.npz.
    """

    manifest: Manifest
    model: bytes
    float_model: bytes
    golden: dict[str, npt.NDArray[np.generic]]
    clean: dict[str, Float32]
    proof: Proof

    @property
    def verdict(self) -> Verdict:
        """The verdict on the reference kernel, which decides."""
        return self.proof.verdict


@dataclass(frozen=True)
class Assessment:
    """A run converted up to its verdict on the reference kernel, which decides."""

    run: Run
    files: Exported
    measured: Calibrated
    judged_rows: JudgedRows
    trained: Trained
    verdict: Verdict


def convert_run(run: Run, version: int, wished_per_day: float, say: Say) -> Conversion:
    """Convert `run`; the verdict says whether the result may ship."""
    return completed(assessed(run, version, wished_per_day, say), say)


def assessed(run: Run, version: int, wished_per_day: float, say: Say) -> Assessment:
    """Export, calibrate and judge `run`. Raises UnfitError when that is not possible."""
    from train.cell_config import CellConfig

    config = CellConfig(**run.config.sizes)
    judged_rows = judged_rows_of_run(run)
    files = exported(run, config, say)
    say("measuring clean rows as the device will see them")
    measured = calibrated(run, files.model, version, wished_per_day, say)
    manifest, reference = measured.manifest, float_twin(measured.manifest, files.float_model)
    trained = trained_model(run)
    say("validating the model" if config.linear else "validating int8 against float")
    shipped = shipped_model(manifest, files.model)
    found = validate(shipped, reference, trained, judged_rows, ROLLOUT_STEPS)
    verdict = joined([found, recording_verdict(found.kernel, measured.calibration, config.linear)])
    verdict = replace(verdict, warnings=(*run.config.strange, *verdict.warnings))
    return Assessment(run, files, measured, judged_rows, trained, verdict)


def completed(candidate: Assessment, say: Say, outcomes: tuple[Outcome, ...] = ()) -> Conversion:
    """Complete the conversion: further kernels, diagnosis, golden vectors.

    outcomes: of all candidates that were judged, including this one.
    """
    run, files, verdict = candidate.run, candidate.files, candidate.verdict
    calibrations, others = _on_other_kernels(candidate, say)
    thresholds = {kernel: found.threshold for kernel, found in calibrations.items()}
    # The diagnosis changes neither score nor alarm, so it is fitted last.
    diagnosis, judgement = diagnosis_of_run(run, say)
    manifest = candidate.measured.manifest
    manifest = replace(
        manifest,
        thresholds=thresholds,
        diagnosis=diagnosis,
        validation=Validation(passed=verdict.passed, forced=not verdict.passed),
        provenance=replace(manifest.provenance, tools=tool_versions(TOOLS)),
    )
    return Conversion(
        manifest=manifest,
        model=files.model,
        float_model=files.float_model,
        golden=golden_vectors(
            shipped_model(manifest, files.model), run.rows["calibrate"], run.config.seed
        ),
        clean=clean_samples(run),
        proof=Proof(
            graph=graph_of(files.model),
            verdict=verdict,
            calibrations=calibrations,
            others=tuple(others),
            tensors=_tensors(files, verdict),
            judgement=judgement,
            outcomes=outcomes,
        ),
    )


def _on_other_kernels(
    candidate: Assessment, say: Say
) -> tuple[dict[str, Calibration], list[Verdict]]:
    """Return calibrations of all kernels that passed, the reference first, and other verdicts."""
    run, files, measured = candidate.run, candidate.files, candidate.measured
    calibrations = {candidate.verdict.kernel: measured.calibration}
    others: list[Verdict] = []
    for kernel in () if measured.manifest.linear else available_kernels()[1:]:
        say(f"calibrating and validating on {kernel}")
        found = calibrated_on(kernel, run, files.model, measured)
        manifest = replace(measured.manifest, thresholds={kernel: found.threshold})
        shipped = shipped_model(manifest, files.model, kernel)
        twin = float_twin(manifest, files.float_model, kernel)
        verdict = validate(shipped, twin, candidate.trained, candidate.judged_rows, ROLLOUT_STEPS)
        others.append(joined([verdict, recording_verdict(kernel, found, linear=False)]))
        if others[-1].passed:
            calibrations[kernel] = found
    return calibrations, others


def _tensors(files: Exported, verdict: Verdict) -> tuple[TensorError, ...]:
    """Measure errors inside the graph over the rows with faults; none for a linear model."""
    if not files.model:
        return ()
    assert verdict.evidence is not None  # only `without_evidence` removes it
    rollout = verdict.evidence.faulty.quantised
    seen = inputs_at(rollout, range(0, len(rollout.score), TENSORS_EVERY))
    return tensor_errors(files.model, files.float_model, seen)
