"""Write a bundle: all members into a hidden folder, then one rename."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from edge_runtime.bundle.manifest import PROOF, Manifest, to_dict
from edge_runtime.bundle.reader import CHECKSUM, checksum, read_bundle
from edge_runtime.errors import GruardError
from edge_runtime.files import sync, write_new


def bundle_path(folder: Path, name: str, version: int) -> Path:
    """Return the path of the bundle with this name and version."""
    return folder / f"{name}-{version}.gruard"


def write_members(
    manifest: Manifest, members: Mapping[str, bytes], folder: Path, force: bool
) -> Path:
    """Write the bundle of `manifest` below `folder` and return its path.

    members: contents by name, without the manifest. The bundle is read back and checked before the
    rename. Raises GruardError when it exists and `force` is False, or when it cannot be written.
    """
    target = bundle_path(folder, manifest.name, manifest.version)
    refuse_existing(target, force)
    with _scratch(folder, target.name) as scratch:
        for member, data in {**members, **_described(manifest, members)}.items():
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
            f"{target}: is already there; raise the version, choose another --out, "
            "or add --force to replace it"
        )


def refuse_unwritable(target: Path) -> None:
    """Raise GruardError when no bundle can be written at `target`."""
    there = next(path for path in target.absolute().parents if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise GruardError(f"{target}: {there} is no folder to write to; choose another --out")


def _described(manifest: Manifest, members: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the manifest with the hashes of all `members`, and its own hash."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    needed = {name: digest for name, digest in hashes.items() if name not in PROOF}
    proof = {name: digest for name, digest in hashes.items() if name in PROOF}
    content = to_dict(replace(manifest, members=needed, proof=proof))
    text = (json.dumps(content, sort_keys=True) + "\n").encode()
    return {"manifest.json": text, CHECKSUM: checksum(hashlib.sha256(text).hexdigest())}


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
