"""One conversion from run folder to bundle: export, measure, calibrate, judge."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata

import numpy as np
import numpy.typing as npt

from convert.calibrated import calibrated, calibrated_on
from convert.checks.alone import standout_check
from convert.checks.export import trained_model
from convert.diagnosis.section import diagnosis_of_run
from convert.exported import Exported, exported
from convert.golden import golden_vectors
from convert.material import material_of_run
from convert.proof import Proof
from convert.tensor_errors import TensorError, tensor_errors
from convert.twins import float_twin, graph_of, shipped_model
from convert.validate import ROLLOUT_STEPS, Verdict, joined, validate
from edge_runtime.bundle.manifest import Manifest, Validation
from edge_runtime.calibration.calibration import Calibration
from edge_runtime.detector.kernels import available_kernels
from train.run_folder import Run

Float32 = npt.NDArray[np.float32]
Say = Callable[[str], None]

TENSORS_EVERY = 4  # steps of the rows with faults


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
    judged = validate(shipped, reference, trained, material, ROLLOUT_STEPS)
    verdict = _judged(judged, known.calibration)
    calibrations, others = {verdict.kernel: known.calibration}, []
    for kernel in () if config.linear else available_kernels()[1:]:
        say(f"calibrating and validating on {kernel}")
        found = calibrated_on(kernel, run, files.model, known)
        candidate = replace(manifest, thresholds={kernel: found.threshold})
        other = shipped_model(candidate, files.model, kernel)
        twin = float_twin(candidate, files.float_model, kernel)
        judged = validate(other, twin, trained, material, ROLLOUT_STEPS)
        others.append(_judged(judged, found))
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
        golden=golden_vectors(
            shipped_model(manifest, files.model), run.rows["calibrate"], run.config.seed
        ),
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


def _judged(verdict: Verdict, calibration: Calibration) -> Verdict:
    """The verdict, and whether its threshold was made from clean rows alone."""
    clean = Verdict(verdict.kernel, (standout_check(calibration),))
    return joined([verdict, clean])


def _tensors(files: Exported, verdict: Verdict) -> tuple[TensorError, ...]:
    """Errors inside the graph over the rows with faults; none for a linear model."""
    if not files.model:
        return ()
    assert verdict.evidence is not None  # this verdict has just been reached
    seen = verdict.evidence.faulty.quantised.inputs[::TENSORS_EVERY]
    return tensor_errors(files.model, files.float_model, list(seen))


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
