"""Which threshold holds on this machine: one calibrated here, or the one that the bundle carries.

What `gruard calibrate` finds lies beside the bundle, in NAME-VERSION.thresholds.json, so that the
bundle itself stays what was signed, hashed and proven. It belongs to one manifest and says so.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_runtime.bundle.json_text import parse_json
from edge_runtime.bundle.manifest import Threshold, threshold_from_dict
from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.kernels import INT8_KERNELS, threshold_kernel
from edge_runtime.durable import replace_text
from edge_runtime.errors import GruardError
from edge_runtime.files import read_regular

SCHEMA = 1
LARGEST_FILE = 1 << 20  # bytes


def local_file(bundle: Path) -> Path:
    """Where the thresholds of this machine for the bundle at `bundle` are kept."""
    return bundle.resolve().with_suffix(".thresholds.json")


def threshold_of(bundle: Bundle, kernel: str) -> Threshold:
    """The threshold for `kernel`, this machine's own before the bundle's.

    Raises GruardError when there is none, or when the file beside the bundle cannot be used.
    """
    kernel = threshold_kernel(kernel, bundle.manifest.linear)
    known = {**bundle.manifest.thresholds, **local_thresholds(bundle)}
    if kernel not in known:
        how = f"--kernel {kernel}" if kernel in INT8_KERNELS else "and the same --delegate"
        raise GruardError(
            f"{bundle.path}: no threshold for kernel {kernel}; calibrate it on this machine with "
            f"gruard calibrate {bundle.path} {how}"
        )
    return known[kernel]


def local_thresholds(bundle: Bundle) -> Mapping[str, Threshold]:
    """The thresholds that were calibrated on this machine, by kernel; none without the file.

    Raises GruardError when the file is damaged or was made for another bundle.
    """
    file = local_file(bundle.path)
    try:
        text = read_regular(file, LARGEST_FILE + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise GruardError(
            f"{file}: cannot be read ({error.strerror}); remove it, or run gruard calibrate "
            f"{bundle.path} again"
        ) from None
    data = _parsed(text)
    if data is None or data["manifest"] != bundle.digest:
        what = "not thresholds of this version" if data is None else "made for another bundle"
        raise GruardError(f"{file}: {what}; delete it, or run gruard calibrate {bundle.path} again")
    return {
        kernel: threshold_from_dict(threshold, f"{file}: {kernel}")
        for kernel, threshold in data["thresholds"].items()
    }


def _parsed(text: bytes) -> dict[str, Any] | None:
    """The file's object, None where it is not one of ours."""
    if len(text) > LARGEST_FILE:
        return None
    try:
        data = parse_json(text)
    except ValueError:
        return None
    fields = {"schema", "manifest", "thresholds"}
    fits = isinstance(data, dict) and set(data) == fields and data["schema"] == SCHEMA
    return data if fits and isinstance(data["thresholds"], dict) else None


def store_threshold(bundle: Bundle, kernel: str, threshold: Threshold) -> Path:
    """Keep `threshold` for `kernel` beside the bundle, with those of other kernels; the file.

    The file is replaced as a whole or not at all. One that was made for another bundle, or is
    damaged, is replaced: calibrating again is how it is mended. Raises GruardError when it cannot
    be written.
    """
    file = local_file(bundle.path)
    known: dict[str, Threshold] = {}
    with contextlib.suppress(GruardError):
        known |= local_thresholds(bundle)
    known[kernel] = threshold
    thresholds = {name: asdict(value) for name, value in known.items()}
    data = {"schema": SCHEMA, "manifest": bundle.digest, "thresholds": thresholds}
    try:
        replace_text(file, json.dumps(data, sort_keys=True) + "\n")
    except OSError as error:
        raise GruardError(f"{file}: cannot be written ({error.strerror})") from None
    return file
