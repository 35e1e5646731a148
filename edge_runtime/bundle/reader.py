"""The bundle reader, which trusts nothing: sizes, signature, hashes, schema, then the graph.

Running the model for the first time is the business of a process of its own
(`edge_runtime.supervision.worker`), because a damaged graph may abort the interpreter.
"""

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edge_runtime.bundle.archive import read_arrays
from edge_runtime.bundle.flatbuffer import NO_GRAPH, GraphSummary, read_graph
from edge_runtime.bundle.graph_rules import GATE_INPUTS, GRU_INPUTS, graph_faults
from edge_runtime.bundle.json_text import parse_json
from edge_runtime.bundle.manifest import Forecast, Manifest, from_dict
from edge_runtime.bundle.signature import SIGNATURE, SIGNATURE_BYTES, check_signature
from edge_runtime.errors import GruardError
from edge_runtime.plain import shown
from edge_runtime.record import Float32

MEMBERS = ("model.tflite", "golden.npz", "calibration.npz", "report.html", "report.json")
CHECKSUM = "manifest.sha256"
LINEAR_MEMBERS = MEMBERS[1:]  # a linear model is all in the manifest
# The largest believable files: a bundle is tens of kilobytes of model plus its proof.
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


@dataclass(frozen=True)
class Bundle:
    """A bundle whose members match its manifest and whose graph is allowed.

    model: the .tflite file, empty for a linear model. digest: SHA-256 of manifest.json, and so of
    everything.
    """

    path: Path
    manifest: Manifest
    model: bytes
    graph: GraphSummary
    digest: str

    @property
    def model_hash(self) -> str:
        """First 12 hex digits of the model's SHA-256, as records carry it."""
        if self.manifest.linear:
            return linear_hash(self.manifest.forecast)[:12]
        return self.manifest.members["model.tflite"][:12]

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all its files, the signature too where there is one."""
        signature = (SIGNATURE,) if (self.path / SIGNATURE).exists() else ()
        members = LINEAR_MEMBERS if self.manifest.linear else MEMBERS
        return ("manifest.json", CHECKSUM, *signature, *members)

    def arrays(self, member: str) -> dict[str, Float32]:
        """Arrays of the .npz `member`, read without pickle.

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
    path: Path, allow_failed: bool = False, trusted_keys: Sequence[Path] = ()
) -> Bundle:
    """The checked bundle at `path`.

    trusted_keys: public keys (PEM files), by one of which it must be signed; none asks for none.
    Raises GruardError when a member is missing, too large, edited, of an unknown schema, when the
    graph is not an int8 gruard step, or when its validation failed and `allow_failed` is False.
    """
    path = Path(path)
    if not path.is_dir():
        raise GruardError(f"{path}: no such bundle; give the folder NAME-VERSION.gruard")
    manifest, digest = _read_manifest(path, trusted_keys)
    model = b""
    for member in LINEAR_MEMBERS if manifest.linear else MEMBERS:
        data = read_member(path, member)
        _check_hash(path, member, data, manifest)
        if member == "model.tflite":
            model = data
    sound = manifest.validation.passed and not manifest.validation.forced
    if not sound and not allow_failed:
        raise GruardError(
            f"{path}: this bundle failed its validation and was written with --force; "
            "run it only knowingly, with --allow-failed"
        )
    if manifest.linear:
        if manifest.outputs or "model.tflite" in manifest.members:
            raise GruardError(f"{path}: manifest inputs are not the model's; convert again")
        return Bundle(path, manifest, model, NO_GRAPH, digest)
    graph = read_graph(model, str(path / "model.tflite"))
    faults = graph_faults(graph)
    if faults:
        raise GruardError(f"{path / 'model.tflite'}: {faults[0]}")
    _check_tensors(path, manifest, graph)
    return Bundle(path, manifest, model, graph, digest)


def checksum(digest: str) -> bytes:
    """Contents of manifest.sha256, as `sha256sum` writes and checks them."""
    return f"{digest}  manifest.json\n".encode()


def linear_hash(forecast: Forecast) -> str:
    """SHA-256 of a model that is all in the manifest: of its forecast's constants, as JSON."""
    return hashlib.sha256(json.dumps(asdict(forecast), sort_keys=True).encode()).hexdigest()


def _read_manifest(path: Path, trusted_keys: Sequence[Path]) -> tuple[Manifest, str]:
    """The manifest and its SHA-256."""
    file = path / "manifest.json"
    text = read_member(path, "manifest.json")
    if trusted_keys:
        check_signature(text, _read_signature(path), trusted_keys, path)
    digest = hashlib.sha256(text).hexdigest()
    if read_member(path, CHECKSUM) != checksum(digest):
        raise GruardError(
            f"{file}: does not match {CHECKSUM} (found {digest[:12]}…): truncated or edited; "
            "copy the bundle again"
        )
    try:
        data = parse_json(text)
    except ValueError as error:
        raise GruardError(f"{file}: not valid JSON ({error}); copy the bundle again") from None
    return from_dict(data, str(file)), digest


def _read_signature(path: Path) -> bytes:
    if not (path / SIGNATURE).exists():
        raise GruardError(
            f"{path}: is not signed, and only signed bundles are trusted here; sign it on the "
            "workstation with python -m convert sign"
        )
    signature = read_member(path, SIGNATURE)
    if len(signature) != SIGNATURE_BYTES:
        raise GruardError(f"{path / SIGNATURE}: has not {SIGNATURE_BYTES} bytes; copy it again")
    return signature


def read_member(path: Path, member: str) -> bytes:
    """Bytes of one file of the bundle at `path`, unchecked; never follows a link.

    Raises GruardError when it is no regular file below its size limit.
    """
    file = path / member
    limit = SIZE_LIMITS[member]
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                raise GruardError(f"{file}: not a regular file below {limit} bytes")
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                return stream.read(limit + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise GruardError(
            f"{file}: cannot be read ({error.strerror}); copy the whole bundle folder again"
        ) from None


def _check_hash(path: Path, member: str, data: bytes, manifest: Manifest) -> None:
    found = hashlib.sha256(data).hexdigest()
    if manifest.members.get(member) != found:
        raise GruardError(
            f"{path / member}: does not match the manifest's SHA-256 (found {found[:12]}…): "
            "truncated or edited; copy the bundle again"
        )


def _check_tensors(path: Path, manifest: Manifest, graph: GraphSummary) -> None:
    """The manifest's tensors must be the graph's, or the host would feed it wrong numbers."""
    for side, described, found in (
        ("inputs", manifest.inputs, graph.inputs),
        ("outputs", manifest.outputs, graph.outputs),
    ):
        if set(described) != set(found):
            raise GruardError(f"{path}: manifest {side} are not the model's; convert again")
        for name, tensor in described.items():
            actual = graph.tensors[found[name]]
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
