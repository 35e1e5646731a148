"""Write a conversion as a bundle: the model, its golden vectors, and its proof."""

from pathlib import Path

from convert.convert_run import Conversion
from convert.report.facts import report_json
from convert.report.page import report_html
from edge_runtime.learning.bundle_writer import write_members
from edge_runtime.learning.run import json_bytes, npz_bytes


def write_bundle(conversion: Conversion, folder: Path, force: bool) -> Path:
    """Write the bundle below `folder` and return its path; errors as for `write_members`."""
    return write_members(conversion.manifest, _members(conversion), folder, force)


def _members(conversion: Conversion) -> dict[str, bytes]:
    """Return the contents of all files but the manifest, by name."""
    members = {"model.tflite": conversion.model} if conversion.model else {}
    return members | {
        "golden.npz": npz_bytes(conversion.golden),
        "calibration.npz": npz_bytes(dict(conversion.clean)),
        "report.json": json_bytes(report_json(conversion.manifest, conversion.proof)),
        "report.html": report_html(conversion.manifest, conversion.proof).encode(),
    }
