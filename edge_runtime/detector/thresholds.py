"""Which threshold holds on this machine: one calibrated here, or the one that the bundle carries.

What `gruard calibrate` finds lies beside the bundle, in NAME-VERSION.thresholds.json, so that the
bundle itself stays what was signed, hashed and proven. It belongs to one manifest and says so.
A run reads it once, when it makes a model ready, and hands it to each worker that it starts.
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
LARGEST_FILE = 1 << 16  # bytes, for a hundred kernels; it has to fit into a word of a command line


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
    """What the file would say of `thresholds`, in one line."""
    known = {kernel: asdict(threshold) for kernel, threshold in thresholds.items()}
    data = {"schema": SCHEMA, "manifest": bundle.digest, "thresholds": known}
    return seal(data)


def with_word(bundle: Bundle, word: str) -> Bundle:
    """`bundle` with the local thresholds that `to_word` put into `word`. Raises GruardError."""
    return replace(bundle, local=_parsed(word.encode(), bundle, "thresholds of the run"))


def _parsed(text: bytes, bundle: Bundle, source: str) -> dict[str, Threshold]:
    """The thresholds in `text`, which are for `bundle`. Raises GruardError."""
    try:
        found = _checked(text, bundle)
    except ValueError as error:
        raise GruardError(
            f"{source}: {error}; delete it, or run gruard calibrate {bundle.path} again"
        ) from None
    return {
        kernel: threshold_from_dict(threshold, f"{source}: {kernel}")
        for kernel, threshold in found.items()
    }


def _checked(text: bytes, bundle: Bundle) -> dict[str, Any]:
    """The thresholds as plain JSON types. Raises ValueError with what is wrong."""
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
    try:
        replace_file(file, to_word(bundle, known).encode() + b"\n")
    except OSError as error:
        raise GruardError(f"{file}: cannot be written ({error.strerror})") from None
    return file
