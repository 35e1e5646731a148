"""Linear bundles made by hand in milliseconds: they read well, but fail any self-test."""

import hashlib
import json
from pathlib import Path

from made_manifest import made_manifest

from edge_runtime.bundle.manifest import PROOF, to_dict
from edge_runtime.bundle.reader import CHECKSUM, LINEAR_MEMBERS, checksum


def write_made_bundle(
    folder: Path, version: int = 1, name: str = "made", **changes: object
) -> Path:
    """A bundle below `folder`; `changes` replace fields of the manifest."""
    path = folder / f"{name}-{version}.gruard"
    path.mkdir(parents=True)
    members = {member: f"{member} of {name}-{version}".encode() * 9 for member in LINEAR_MEMBERS}
    hashes = {member: hashlib.sha256(data).hexdigest() for member, data in members.items()}
    proof = {member: hashes.pop(member) for member in PROOF}
    manifest = made_manifest(
        name=name, version=version, inputs={}, outputs={}, members=hashes, proof=proof, **changes
    )
    text = (json.dumps(to_dict(manifest), sort_keys=True) + "\n").encode()
    files = {**members, "manifest.json": text}
    files[CHECKSUM] = checksum(hashlib.sha256(text).hexdigest())
    for file, data in files.items():
        (path / file).write_bytes(data)
    return path
