"""The bundle reader, which trusts nothing: sizes, signature, hashes, schema, then the graph.

A process of its own (`edge_runtime.supervision.worker`) runs the model for the first time, because
a damaged graph may abort the interpreter.

Arrays of an .npz archive are bounded before anything is unpacked: numpy alone would allocate the
size that a header states, and zipfile as many members as the directory lists, so both are compared
with the bytes that are there.

The optional signature is Ed25519 (RFC 8032) over manifest.json, which has the SHA-256 of every
other member, so that one signature covers them all. `manifest.sig` holds its 64 bytes and nothing
else; keys are PEM files, as `openssl` reads them.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from edge_runtime.bundle.flatbuffer import NO_GRAPH, GraphSummary, read_graph
from edge_runtime.bundle.graph_rules import GATE_INPUTS, GRU_INPUTS, graph_faults
from edge_runtime.bundle.manifest import PROOF, Forecast, Manifest, Threshold
from edge_runtime.bundle.manifest_rules import from_dict
from edge_runtime.errors import DamagedError, GruardError, NotAllowedError, reason
from edge_runtime.files import read_regular
from edge_runtime.plain import parse_json, shown
from edge_runtime.record import Float32

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


SIGNATURE = "manifest.sig"
SIGNATURE_BYTES = 64
NEEDED = ("model.tflite", "golden.npz")
LINEAR_NEEDED = NEEDED[1:]  # a linear model is in the manifest
MEMBERS, LINEAR_MEMBERS = (*NEEDED, *PROOF), (*LINEAR_NEEDED, *PROOF)
CHECKSUM = "manifest.sha256"
_SUMS = re.compile(rb"([0-9a-f]{64})  manifest\.json\n(?:([0-9a-f]{64})  manifest\.sig\n)?")
# Largest size of each file, in bytes; a bundle is tens of kilobytes of model plus its proof.
SIZE_LIMITS = {
    "manifest.json": 4 << 20,
    "manifest.sha256": 1 << 10,
    "manifest.sig": SIGNATURE_BYTES,
    "model.tflite": 16 << 20,
    "golden.npz": 16 << 20,
    "calibration.npz": 256 << 20,
    "report.html": 64 << 20,
    "report.json": 16 << 20,
}
# The most an archive may hold when unpacked, in bytes.
UNPACKED_LIMITS = {"golden.npz": 32 << 20, "calibration.npz": 1 << 30}
MOST_ARRAYS = 10_000  # two for each stretch of clean rows; each name takes half a kilobyte
_MEMBER = b"PK\x01\x02"  # begins each entry of the directory
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others allocate memory themselves
_KINDS = "biuf"  # truth values and numbers
_PIECE = 1 << 16  # bytes
_VERSION = (1, 0)  # of the header; later ones have names and structures
MISSING = (
    "signatures need the package cryptography; install it with pip install 'gruard[signed]' or, "
    "on Debian, apt install python3-cryptography"
)
_LARGEST_KEY = 1 << 14  # bytes; an Ed25519 key in PEM has 113


@dataclass(frozen=True)
class Bundle:
    """A bundle whose members match its manifest and whose graph is allowed.

    Its proof may be damaged: see `proof_faults`. model: the .tflite file, empty for a linear model.
    digest: SHA-256 of manifest.json, and so of everything. local: thresholds of this machine by
    kernel, as the parent process read them; None: read them from the file next to the bundle.
    """

    path: Path
    manifest: Manifest
    model: bytes
    graph: GraphSummary
    digest: str
    local: Mapping[str, Threshold] | None = None

    @property
    def model_hash(self) -> str:
        """First 12 hex digits of the model's SHA-256, as in records."""
        if self.manifest.linear:
            return linear_hash(self.manifest.forecast)[:12]
        return self.manifest.members["model.tflite"][:12]

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all its files, including a signature."""
        signature = (SIGNATURE,) if (self.path / SIGNATURE).exists() else ()
        members = LINEAR_MEMBERS if self.manifest.linear else MEMBERS
        return ("manifest.json", CHECKSUM, *signature, *members)

    def arrays(self, member: str) -> dict[str, Float32]:
        """Return the arrays of the .npz `member`, read without pickle.

        Raises GruardError when the member is not a plain archive of arrays.
        """
        data = read_member(self.path, member)
        _check_hash(self.path, member, data, self.manifest)
        try:
            return read_arrays(data, UNPACKED_LIMITS[member])
        except Exception as error:
            # numpy, zipfile and zlib have a dozen exceptions for damaged archives.
            raise GruardError(
                f"{self.path / member}: unreadable arrays ({shown(str(error), str)}); "
                "copy the bundle again"
            ) from None


def read_bundle(
    path: Path, allow_failed: bool = False, trusted_keys: Sequence[Path] = (), whole: bool = True
) -> Bundle:
    """Read and check the bundle at `path`.

    trusted_keys: public keys (PEM files), one of which must have signed it; empty: no signature.
    whole: False checks only what a run needs, and leaves the rest to `proof_faults`.
    Raises DamagedError when a file is missing, cut or edited, NotAllowedError when it is not signed
    by a trusted key or failed its validation and `allow_failed` is False, and GruardError when it
    is no bundle, of an unknown schema, or its graph is not an int8 gruard step.
    """
    path = Path(path)
    _check_folder(path)
    manifest, digest = read_manifest(path, trusted_keys)
    model = b""
    for member in LINEAR_NEEDED if manifest.linear else NEEDED:
        data = read_member(path, member)
        _check_hash(path, member, data, manifest)
        if member == "model.tflite":
            model = data
    sound = manifest.validation.passed and not manifest.validation.forced
    if not sound and not allow_failed:
        raise NotAllowedError(
            f"{path}: this bundle failed its validation and was written with --force; "
            "run it only knowingly, with --allow-failed"
        )
    if whole and (faults := _proof_faults(path, manifest)):
        raise DamagedError(faults[0])
    if manifest.linear:
        if manifest.outputs or "model.tflite" in manifest.members:
            raise GruardError(f"{path}: manifest inputs are not the model's; convert again")
        return Bundle(path, manifest, model, NO_GRAPH, digest)
    graph = read_graph(model, str(path / "model.tflite"))
    if faults := graph_faults(graph):
        raise GruardError(f"{path / 'model.tflite'}: {faults[0]}")
    _check_tensors(path, manifest, graph)
    return Bundle(path, manifest, model, graph, digest)


def proof_faults(bundle: Bundle) -> list[str]:
    """Return one sentence for each damaged file of `bundle` that no run needs."""
    return _proof_faults(bundle.path, bundle.manifest)


def _proof_faults(path: Path, manifest: Manifest) -> list[str]:
    faults = []
    for member in PROOF:
        try:
            _check_hash(path, member, read_member(path, member), manifest)
        except GruardError as error:
            faults.append(str(error))
    try:
        if _signature_sum(path):
            _read_signature(path)
    except GruardError as error:
        faults.append(str(error))
    return faults


def checksum(digest: str, signature: bytes = b"") -> bytes:
    """Return the contents of manifest.sha256, as `sha256sum` writes and checks them.

    signature: contents of manifest.sig, or empty.
    """
    lines = f"{digest}  manifest.json\n"
    if signature:
        lines += f"{hashlib.sha256(signature).hexdigest()}  {SIGNATURE}\n"
    return lines.encode()


def linear_hash(forecast: Forecast) -> str:
    """Return the SHA-256 of a linear model: of its forecast's constants, as JSON.

    Absent forecasts are left out, so that older bundles keep their hash.
    """
    constants = asdict(forecast)
    if not forecast.own and not forecast.ahead:
        constants = {name: constants[name] for name in ("highway", "cross", "innovation_scale")}
    return hashlib.sha256(json.dumps(constants, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path, trusted_keys: Sequence[Path] = ()) -> tuple[Manifest, str]:
    """Read the manifest of the bundle at `path`, without its other files, and its SHA-256.

    Raises as `read_bundle` does.
    """
    file = path / "manifest.json"
    text = read_member(path, "manifest.json")
    digest, sums = hashlib.sha256(text).hexdigest(), _SUMS.fullmatch(read_member(path, CHECKSUM))
    # Checked before the signature, which cannot tell damage from another key.
    if sums is None or sums[1].decode() != digest:
        raise DamagedError(
            f"{file}: does not match {CHECKSUM} (found {digest[:12]}…): truncated or edited; "
            "copy the bundle again"
        )
    if trusted_keys:
        check_signature(text, _read_signature(path), trusted_keys, path)
    try:
        data = parse_json(text)
    except ValueError as error:
        raise GruardError(f"{file}: not valid JSON ({error}); copy the bundle again") from None
    return from_dict(data, str(file)), digest


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "no such bundle"
        raise GruardError(f"{path}: {what}; give the folder NAME-VERSION.gruard")
    if not any((path / member).exists() for member in SIZE_LIMITS):
        raise GruardError(
            f"{path}: is no bundle: it has none of its files; give the folder NAME-VERSION.gruard"
        )


def _read_signature(path: Path) -> bytes:
    """Return the signature, not yet verified; DamagedError if it is not what signing wrote."""
    expected = _signature_sum(path)
    if not expected and not (path / SIGNATURE).exists():
        raise NotAllowedError(
            f"{path}: is not signed, and only signed bundles are trusted here; sign it on the "
            "workstation with python -m convert sign"
        )
    signature = read_member(path, SIGNATURE)
    if expected and hashlib.sha256(signature).hexdigest() != expected:
        raise DamagedError(
            f"{path / SIGNATURE}: does not match {CHECKSUM}: truncated or edited; "
            "copy the bundle again"
        )
    if len(signature) != SIGNATURE_BYTES:
        raise DamagedError(f"{path / SIGNATURE}: has not {SIGNATURE_BYTES} bytes; copy it again")
    return signature


def _signature_sum(path: Path) -> str:
    """Return the SHA-256 of the signature in manifest.sha256, or an empty text."""
    sums = _SUMS.fullmatch(read_member(path, CHECKSUM))
    return (sums[2] or b"").decode() if sums else ""


def read_member(path: Path, member: str) -> bytes:
    """Read one file of the bundle at `path`, unchecked; never follow a link.

    Raises DamagedError when it is no regular file below its size limit, and NotAllowedError when
    this user may not read it.
    """
    file, limit = path / member, SIZE_LIMITS[member]
    try:
        return read_regular(file, limit, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        kind = NotAllowedError if error.errno in (errno.EACCES, errno.EPERM) else DamagedError
        raise kind(
            f"{file}: cannot be read ({error.strerror}); copy the whole bundle folder again"
        ) from None
    except ValueError as error:
        raise DamagedError(f"{file}: {error}; copy the bundle again") from None


def _check_hash(path: Path, member: str, data: bytes, manifest: Manifest) -> None:
    hashes = manifest.proof if member in PROOF else manifest.members
    digest = hashlib.sha256(data).hexdigest()
    if hashes.get(member) != digest:
        raise DamagedError(
            f"{path / member}: does not match the manifest's SHA-256 (found {digest[:12]}…): "
            "truncated or edited; copy the bundle again"
        )


def _check_tensors(path: Path, manifest: Manifest, graph: GraphSummary) -> None:
    """Check that the manifest's tensors are the graph's; else the host would feed wrong numbers."""
    for side, described, indices in (
        ("inputs", manifest.inputs, graph.inputs),
        ("outputs", manifest.outputs, graph.outputs),
    ):
        if set(described) != set(indices):
            raise GruardError(f"{path}: manifest {side} are not the model's; convert again")
        for name, tensor in described.items():
            actual = graph.tensors[indices[name]]
            same = (
                tensor.shape == actual.shape
                and tensor.dtype == actual.dtype
                and np.float32(tensor.scale) == np.float32(actual.scales[0])
                and tensor.zero_point == actual.zero_points[0]
            )
            if not same:
                raise GruardError(
                    f"{path}: tensor {name} differs between manifest and model; convert again"
                )
    per_channel = {*GATE_INPUTS, *GRU_INPUTS} & set(manifest.inputs)
    widths = {name: manifest.inputs[name].shape[1] for name in per_channel}
    if set(widths.values()) != {len(manifest.channels)}:
        raise GruardError(f"{path}: the model's width is not the manifest's number of channels")


def check_signature(
    manifest: bytes, signature: bytes, trusted_keys: Sequence[Path], bundle: Path
) -> None:
    """Raise NotAllowedError unless `signature` is that of `manifest` by one of the keys.

    trusted_keys: PEM files of public keys; each must be readable, also when another one fits.
    """
    keys = [read_public_key(file) for file in trusted_keys]
    if not any(_signed_by(key, manifest, signature) for key in keys):
        names = ", ".join(str(file) for file in trusted_keys)
        raise NotAllowedError(
            f"{bundle / SIGNATURE}: not a signature of this bundle by {names}: edited after "
            "signing, or signed with another key"
        )


def read_public_key(file: Path) -> Ed25519PublicKey:
    """Read the public key in a PEM file. Raises NotAllowedError when there is none."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise NotAllowedError(MISSING) from None
    text = read_key_file(file)
    if b"PRIVATE KEY" in text:
        raise NotAllowedError(
            f"{file}: is a private key, which does not belong on a device; trust the .pub file"
        )
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise NotAllowedError(f"{file}: not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise NotAllowedError(f"{file}: not an Ed25519 key; make one with python -m convert keygen")
    return key


def read_key_file(file: Path) -> bytes:
    """Read a small key file. Raises NotAllowedError when it cannot be read."""
    try:
        text = read_regular(file, _LARGEST_KEY)
    except (OSError, ValueError) as error:
        raise NotAllowedError(
            f"{file}: cannot be read as a key ({reason(error)}); name a key file"
        ) from None
    if not text.strip():
        raise NotAllowedError(f"{file}: is blank and holds no key; copy the key again")
    return text


def _signed_by(key: Ed25519PublicKey, manifest: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        return False
    return True


def read_arrays(data: bytes, most_bytes: int) -> dict[str, Float32]:
    """Return the arrays in `data` by name, at most `most_bytes` unpacked; never unpickle.

    Raises ValueError for what is not allowed, and for damage whatever numpy, zipfile and zlib raise
    (a dozen exceptions, MemoryError and RecursionError among them).
    """
    if (count := data.count(_MEMBER)) > MOST_ARRAYS:
        raise ValueError(f"{count} arrays, at most {MOST_ARRAYS} are expected")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("two arrays of one name")
        if (unpacked := sum(entry.file_size for entry in entries)) > most_bytes:
            raise ValueError(f"{unpacked} bytes unpacked, at most {most_bytes} are expected")
        return {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in entries}


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Float32:
    if entry.compress_type not in _PLAIN:
        raise ValueError("an unusual compression")
    with archive.open(entry) as stream:
        if np.lib.format.read_magic(stream) != _VERSION:  # type: ignore[no-untyped-call]
            raise ValueError("an array of an unusual format")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)  # type: ignore[no-untyped-call]
        if dtype.kind not in _KINDS:
            raise ValueError("not an array of numbers")
        wanted, size = math.prod(shape) * dtype.itemsize, entry.file_size - stream.tell()
        if wanted != size:
            raise ValueError(f"{size} bytes for an array of {wanted}")
        content = bytearray(size)
        _fill(content, stream)
    array: Float32 = np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")
    return array


def _fill(content: bytearray, stream: IO[bytes]) -> None:
    """Read in pieces, as a whole would be in memory twice; reading to the end checks the CRC."""
    position = 0
    while piece := stream.read(_PIECE):
        content[position : position + len(piece)] = piece
        position += len(piece)
    if position != len(content):
        raise ValueError(f"{position} bytes instead of {len(content)}")
