"""Judge a finished bundle again, with the float model of its run or, without a run, without it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from convert.candidates import candidate_of
from convert.checks.arithmetic import trained_model
from convert.checks.behaviour import alone_checks, golden_check, threshold_check
from convert.judged_rows import JudgedRows, judged_rows_of_file, judged_rows_of_run
from convert.twins import float_twin
from convert.validate import (
    LONG_STEPS,
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
from edge_runtime.detector.interpreter import quiet_stderr
from edge_runtime.detector.kernels import KERNEL_ID, available_kernels
from edge_runtime.errors import GruardError
from edge_runtime.learning.calibrated import calibrated, calibrated_on
from edge_runtime.learning.rollout import roll_all
from edge_runtime.learning.run import Run
from edge_runtime.learning.streams import ROLLOUT_STEPS
from train.run_folder import read_run

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
    """Repeat all checks of the conversion, and the golden vectors, on the bundle on the disk.

    run_folder: by default two folders up, where conversion puts bundles. data: a CSV to judge on
    instead of the rows of the run. Raises GruardError without run and data, and when the bundle was
    not made from the run.
    """
    bundle = read_bundle(bundle_folder, allow_failed=True)
    run = _run_of(bundle, run_folder, optional=data is not None)
    steps = LONG_STEPS if long else ROLLOUT_STEPS
    if data is not None:
        judged_rows = judged_rows_of_file(data, bundle.manifest)
    else:
        assert run is not None  # `_run_of` raises without a run unless optional
        judged_rows = judged_rows_of_run(run)
    verdict = _judged(bundle, None, run, judged_rows, steps)
    kernels = [
        kernel
        for kernel in available_kernels()
        if kernel in bundle.manifest.thresholds and kernel != verdict.kernel
    ]
    others = [_judged(bundle, kernel, run, judged_rows, steps) for kernel in kernels]
    if run is not None:
        verdict, *others = _with_thresholds(bundle, run, [verdict, *others])
    return Judged(bundle, verdict, tuple(others))


def _with_thresholds(bundle: Bundle, run: Run, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Add a check of its kernel's threshold to each verdict; the reference is the first."""
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
    bundle: Bundle, kernel: str | None, run: Run | None, judged_rows: JudgedRows, steps: int
) -> Verdict:
    """Judge one kernel; None is the reference, which must also reproduce the golden vectors."""
    with quiet_stderr():  # XNNPACK writes a line when it loads
        detector = load_safely(bundle, kernel or KERNEL_ID)
    # The diagnosis changes neither score nor alarm; without it the rollouts are faster.
    model = replace(detector.model, diagnosis=None)
    found = (
        _alone(model, judged_rows, steps)
        if run is None
        else _against_float(model, run, judged_rows, steps)
    )
    if kernel is not None:
        return found
    return joined([Verdict(model.graph.kernel_id, (golden_check(detector),)), found])


def _against_float(model: Model, run: Run, judged_rows: JudgedRows, steps: int) -> Verdict:
    manifest, float_model = replace(model.manifest, diagnosis=None), b""
    if not manifest.linear:
        from convert.export import export_float
        from train.cell_config import CellConfig

        float_model = export_float(run.weights, CellConfig(**run.config.sizes))
    reference = float_twin(manifest, float_model, model.graph.kernel_id)
    return validate(model, reference, trained_model(run), judged_rows, steps)


def _alone(model: Model, judged_rows: JudgedRows, steps: int) -> Verdict:
    """Judge without a run: a linear model fully, another one as far as no float model is needed."""
    rollouts = roll_all(model, judged_rows.clean)
    verdict = Verdict(model.graph.kernel_id, tuple(alone_checks(model, rollouts)))
    if model.manifest.linear:
        return joined([linear_verdict(model, judged_rows, steps), verdict])
    return replace(verdict, not_judged=tuple(NO_RUN.format(what) for what in NEEDS_RUN))


def _run_of(bundle: Bundle, folder: Path | None, optional: bool) -> Run | None:
    """Return the run of the bundle; None if it is optional, not named and not found."""
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
