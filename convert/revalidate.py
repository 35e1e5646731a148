"""Judging a finished bundle again, with the float model of its run or with what there is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from convert.calibrated import calibrated, calibrated_on
from convert.candidates import candidate_of
from convert.checks.arithmetic import trained_model
from convert.checks.behaviour import alone_checks, golden_check, threshold_check
from convert.rollout import roll_all
from convert.streams import Material, material_of_file, material_of_run
from convert.twins import float_twin
from convert.validate import (
    LONG_STEPS,
    ROLLOUT_STEPS,
    Verdict,
    joined,
    linear_verdict,
    recording_verdict,
    validate,
)
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.calibration import Calibration
from edge_runtime.commands.first_load import load_safely
from edge_runtime.detector.cell import Model
from edge_runtime.detector.kernels import available_kernels
from edge_runtime.errors import GruardError
from train.console import quiet_stderr
from train.run_folder import Run, read_run

NO_RUN = "{}: needs the float model of the run folder, which is not there (--run)"
NEEDS_RUN = (
    "int8 against float (export, one step, rollout, clean scores)",
    "faults and alarms of int8 against float",
)


@dataclass(frozen=True)
class Judged:
    """A bundle, the verdict on the reference kernel, and those on its other kernels."""

    bundle: Bundle
    verdict: Verdict
    others: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether every kernel passed."""
        return all(verdict.passed for verdict in (self.verdict, *self.others))


def revalidate(
    bundle_folder: Path, run_folder: Path | None, data: Path | None = None, long: bool = False
) -> Judged:
    """All checks of the conversion, and the golden vectors, on the bundle as it lies on the disk.

    run_folder: None looks where conversion puts bundles, two folders up. data: a CSV to judge on
    instead of the rows of the run. Without run and data, and when the bundle was not made from the
    run, it raises GruardError.
    """
    bundle = read_bundle(bundle_folder, allow_failed=True)
    run = _run_of(bundle, run_folder, optional=data is not None)
    steps = LONG_STEPS if long else ROLLOUT_STEPS
    if data is not None:
        material = material_of_file(data, bundle.manifest)
    else:
        assert run is not None  # or it would have been an error
        material = material_of_run(run)
    verdict = _judged(bundle, None, run, material, steps)
    kernels = [
        kernel
        for kernel in available_kernels()
        if kernel in bundle.manifest.thresholds and kernel != verdict.kernel
    ]
    others = [_judged(bundle, kernel, run, material, steps) for kernel in kernels]
    if run is not None:
        verdict, *others = _with_thresholds(bundle, run, [verdict, *others])
    return Judged(bundle, verdict, tuple(others))


def _with_thresholds(bundle: Bundle, run: Run, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts, each with a check of its kernel's threshold; the reference is the first."""
    manifest = bundle.manifest
    wish = manifest.thresholds[verdicts[0].kernel].wished_per_day
    known = calibrated(run, bundle.model, manifest.version, wish)
    found = {verdicts[0].kernel: known.calibration}
    for verdict in verdicts[1:]:
        found[verdict.kernel] = calibrated_on(verdict.kernel, run, bundle.model, known)
    return [
        joined([verdict, _calibration_verdict(verdict.kernel, manifest, found[verdict.kernel])])
        for verdict in verdicts
    ]


def _calibration_verdict(kernel: str, manifest: Manifest, found: Calibration) -> Verdict:
    held = Verdict(kernel, (threshold_check(manifest.thresholds[kernel], found.threshold),))
    return joined([recording_verdict(kernel, found, manifest.linear), held])


def _judged(
    bundle: Bundle, kernel: str | None, run: Run | None, material: Material, steps: int
) -> Verdict:
    """The verdict on one kernel; None is the reference, which has to give the golden bits too."""
    with quiet_stderr():  # XNNPACK announces itself
        detector = load_safely(bundle, kernel)
    # The diagnosis changes neither score nor alarm, and would only take time.
    model = replace(detector.model, diagnosis=None)
    found = (
        _alone(model, material, steps)
        if run is None
        else _against_float(model, run, material, steps)
    )
    if kernel is not None:
        return found
    return joined([Verdict(model.graph.kernel_id, (golden_check(detector),)), found])


def _against_float(model: Model, run: Run, material: Material, steps: int) -> Verdict:
    manifest, float_model = replace(model.manifest, diagnosis=None), b""
    if not manifest.linear:
        from convert.export import export_float
        from train.cell_config import CellConfig

        float_model = export_float(run.weights, CellConfig(**run.config.sizes))
    reference = float_twin(manifest, float_model, model.graph.kernel_id)
    return validate(model, reference, trained_model(run), material, steps)


def _alone(model: Model, material: Material, steps: int) -> Verdict:
    """Without a run: a linear model is judged in full, of another what needs no float model."""
    rollouts = roll_all(model, material.clean)
    alone = Verdict(model.graph.kernel_id, tuple(alone_checks(model, rollouts)))
    if model.manifest.linear:
        return joined([linear_verdict(model, material, steps), alone])
    return replace(alone, not_judged=tuple(NO_RUN.format(what) for what in NEEDS_RUN))


def _run_of(bundle: Bundle, folder: Path | None, optional: bool) -> Run | None:
    """The run of the bundle; None where none was named, none is found and none is needed."""
    place = folder or bundle.path.resolve().parent.parent
    if folder is None and not (place / "weights.npz").is_file():
        if optional:
            return None
        raise GruardError(
            f"{place}: not a finished run; name the run folder of {bundle.path} with --run, or "
            "give a recording with --data"
        )
    run, provenance = read_run(place), bundle.manifest.provenance
    for what, its, theirs in (
        ("weights", provenance.weights_sha256, run.weights_sha256),
        ("data", provenance.data_sha256, run.config.data_sha256),
    ):
        if its != theirs:
            raise GruardError(
                f"{bundle.path}: was not made from the {what} in {place} (SHA-256 {its[:12]}… in "
                f"the bundle, {theirs[:12]}… in the run); give its own run folder with --run"
            )
    return candidate_of(run, bundle.manifest)
