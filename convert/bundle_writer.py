"""Write a bundle: all members into a hidden folder, then one rename."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from convert.convert_run import Conversion
from convert.report.facts import report_json
from convert.report.page import report_html
from edge_runtime.bundle.manifest import PROOF, to_dict
from edge_runtime.bundle.reader import CHECKSUM, checksum, read_bundle
from edge_runtime.errors import GruardError
from edge_runtime.files import sync, write_new
from train.run_folder import json_bytes, npz_bytes


def bundle_path(folder: Path, name: str, version: int) -> Path:
    """Return the path of the bundle with this name and version."""
    return folder / f"{name}-{version}.gruard"


def write_bundle(conversion: Conversion, folder: Path, force: bool) -> Path:
    """Write the bundle below `folder` and return its path.

    The bundle is read back and checked before the rename. Raises GruardError when it exists and
    `force` is False, or when it cannot be written.
    """
    target = bundle_path(folder, conversion.manifest.name, conversion.manifest.version)
    refuse_existing(target, force)
    with _scratch(folder, target.name) as scratch:
        for member, data in _members(conversion).items():
            write_new(scratch / member, data)
            sync(scratch / member)
        read_bundle(scratch, allow_failed=True)
        if target.exists():
            shutil.rmtree(target)
        scratch.replace(target)
        sync(folder)
    return target


def refuse_existing(target: Path, force: bool) -> None:
    """Raise GruardError when the bundle exists and `force` is False."""
    if target.exists() and not force:
        raise GruardError(
            f"{target}: is already there; raise --version, choose another --out, "
            "or add --force to replace it"
        )


def _members(conversion: Conversion) -> dict[str, bytes]:
    """Return file contents by name; the manifest, with the hashes of the others, is made last."""
    members = {"model.tflite": conversion.model} if conversion.model else {}
    members |= {
        "golden.npz": npz_bytes(conversion.golden),
        "calibration.npz": npz_bytes(dict(conversion.clean)),
        "report.json": json_bytes(report_json(conversion.manifest, conversion.proof)),
        "report.html": report_html(conversion.manifest, conversion.proof).encode(),
    }
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    needed = {name: digest for name, digest in hashes.items() if name not in PROOF}
    proof = {name: digest for name, digest in hashes.items() if name in PROOF}
    manifest = to_dict(replace(conversion.manifest, members=needed, proof=proof))
    text = (json.dumps(manifest, sort_keys=True) + "\n").encode()
    members["manifest.json"] = text
    members[CHECKSUM] = checksum(hashlib.sha256(text).hexdigest())
    return members


@contextlib.contextmanager
def _scratch(folder: Path, name: str) -> Iterator[Path]:
    scratch = folder / f".{name}.{os.getpid()}"
    try:
        scratch.mkdir(parents=True)
        yield scratch
    except OSError as error:
        raise GruardError(f"{folder / name}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
