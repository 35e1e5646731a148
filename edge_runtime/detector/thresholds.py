"""The threshold that holds on this machine: one calibrated here, or the one in the bundle.

`gruard calibrate` writes its thresholds next to the bundle, in NAME-VERSION.thresholds.json, so
that the bundle stays what was signed, hashed and proven. The file names the manifest it is for.
A run reads it once, when it opens the model, and passes it to each worker that it starts.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edge_runtime.bundle.manifest import Threshold
from edge_runtime.bundle.manifest_rules import threshold_from_dict
from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.kernels import INT8_KERNELS, threshold_kernel
from edge_runtime.errors import GruardError, reason
from edge_runtime.files import read_regular, replace_file
from edge_runtime.plain import parse_json, seal, unseal

SCHEMA = 2
"""Layout of the file. Schema 1 had no checksum."""
LARGEST_FILE = 1 << 16  # bytes, for a hundred kernels; must fit into a command-line argument


def local_file(bundle: Path) -> Path:
    """Return the file with this machine's thresholds for the bundle at `bundle`."""
    return bundle.resolve().with_suffix(".thresholds.json")


def threshold_of(bundle: Bundle, kernel: str, calibrated: bool = True) -> Threshold:
    """Return the threshold for `kernel`, this machine's own before the bundle's.

    calibrated: False returns any threshold, to calibrate a new one. Otherwise raises GruardError
    when there is none, or when the file next to the bundle cannot be used.
    """
    if not calibrated:
        return next(iter(bundle.manifest.thresholds.values()))
    kernel = threshold_kernel(kernel, bundle.manifest.linear)
    thresholds = {**bundle.manifest.thresholds, **local_thresholds(bundle)}
    if kernel not in thresholds:
        how = f"--kernel {kernel}" if kernel in INT8_KERNELS else "and the same --delegate"
        raise GruardError(
            f"{bundle.path}: no threshold for kernel {kernel}; calibrate it on this machine with "
            f"gruard calibrate {bundle.path} {how}"
        )
    return thresholds[kernel]


def local_thresholds(bundle: Bundle) -> Mapping[str, Threshold]:
    """Return the thresholds calibrated on this machine, by kernel; none without the file.

    Raises GruardError when the file is damaged or was made for another bundle.
    """
    if bundle.local is not None:
        return bundle.local
    file = local_file(bundle.path)
    try:
        text = read_regular(file, LARGEST_FILE)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise GruardError(
            f"{file}: cannot be read ({reason(error)}); remove it, or run gruard calibrate "
            f"{bundle.path} again"
        ) from None
    return _parsed(text, bundle, str(file))


def to_word(bundle: Bundle, thresholds: Mapping[str, Threshold]) -> str:
    """Return `thresholds` as one line of JSON, the content of the file."""
    sections = {kernel: asdict(threshold) for kernel, threshold in thresholds.items()}
    return seal({"schema": SCHEMA, "manifest": bundle.digest, "thresholds": sections})


def with_word(bundle: Bundle, word: str) -> Bundle:
    """Return `bundle` with the local thresholds that `to_word` wrote. Raises GruardError."""
    return replace(bundle, local=_parsed(word.encode(), bundle, "thresholds of the run"))


def _parsed(text: bytes, bundle: Bundle, source: str) -> dict[str, Threshold]:
    """Return the thresholds in `text`, checked for `bundle`. Raises GruardError."""
    try:
        sections = _checked(text, bundle)
    except ValueError as error:
        raise GruardError(
            f"{source}: {error}; delete it, or run gruard calibrate {bundle.path} again"
        ) from None
    return {
        kernel: threshold_from_dict(threshold, f"{source}: {kernel}")
        for kernel, threshold in sections.items()
    }


def _checked(text: bytes, bundle: Bundle) -> dict[str, Any]:
    """Return the thresholds as JSON types. Raises ValueError with the reason."""
    data = None
    with contextlib.suppress(ValueError):
        data = parse_json(text)
    fields = {"schema", "manifest", "thresholds"}
    if not isinstance(data, dict) or data.get("schema") not in (1, SCHEMA):
        raise ValueError("not thresholds of this version")
    if data["schema"] == SCHEMA:
        data = unseal(data)
    if set(data) != fields or not isinstance(data["thresholds"], dict):
        raise ValueError("not thresholds of this version")
    if data["manifest"] != bundle.digest:
        raise ValueError("made for another bundle")
    return data["thresholds"]


def store_threshold(bundle: Bundle, kernel: str, threshold: Threshold) -> Path:
    """Write `threshold` for `kernel` into the file next to the bundle and return the file.

    Thresholds of other kernels stay. The file is replaced as a whole or not at all; a file that is
    damaged, or was made for another bundle, is replaced. Raises GruardError when it cannot be
    written.
    """
    file = local_file(bundle.path)
    thresholds: dict[str, Threshold] = {}
    with contextlib.suppress(GruardError):
        thresholds |= local_thresholds(bundle)
    thresholds[kernel] = threshold
    try:
        replace_file(file, to_word(bundle, thresholds).encode() + b"\n")
    except OSError as error:
        raise GruardError(f"{file}: cannot be written ({error.strerror})") from None
    return file
