"""Judging a finished bundle again, with the float model of its run."""

from dataclasses import replace
from pathlib import Path

from convert.convert_run import float_twin, judged_rows, validation_stream
from convert.validate import Check, Verdict, validate
from edge_runtime.bundle import read_bundle
from edge_runtime.detector import Detector
from edge_runtime.errors import GruardError
from train.run_folder import read_run


def revalidate(bundle_folder: Path, run_folder: Path) -> Verdict:
    """All checks of the conversion, and the golden vectors, on the bundle as it lies on the disk.

    Raises GruardError when the bundle was not made from the run's weights.
    """
    bundle, run = read_bundle(bundle_folder, allow_failed=True), read_run(run_folder)
    if bundle.manifest.provenance.weights_sha256 != run.weights_sha256:
        raise GruardError(
            f"{bundle_folder}: was not made from the weights in {run_folder}; give its own run "
            "folder with --run"
        )
    detector, float_model = Detector(bundle), b""
    if not bundle.manifest.linear:
        from convert.export import export_float
        from train.cell_config import CellConfig

        float_model = export_float(run.weights, CellConfig(**run.config.sizes))
    # The diagnosis changes neither score nor alarm, and would only take time.
    reference = float_twin(replace(bundle.manifest, diagnosis=None), float_model)
    judged = replace(detector.model, diagnosis=None)
    verdict = validate(judged, reference, judged_rows(run), validation_stream(run))
    return Verdict((_golden_check(detector), *verdict.checks), verdict.evidence)


def _golden_check(detector: Detector) -> Check:
    try:
        detector.self_test()
        differing = 0.0
    except GruardError:
        differing = 1.0
    return Check("golden vectors: differing", differing, 0, 0, "bit-exact on this kernel")
