"""Spoiled bundles with every hash made good again, and who finds them out."""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from convert.revalidate import revalidate
from edge_runtime.bundle.manifest import PROOF
from edge_runtime.bundle.reader import CHECKSUM, checksum, read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.errors import GruardError
from edge_runtime.learning.run import Run


def coarse_ranges(patch: pytest.MonkeyPatch) -> None:
    """Quantise on 500 of 1,000 rows instead of 3,000 of 6,000: in a fifth of the time."""
    patch.setattr("convert.exported.REPRESENTATIVE_ROWS", 1000)
    patch.setattr("convert.exported.REPRESENTATIVE", 500)


def edited_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` edit the parsed manifest in place."""
    data = json.loads((bundle / "manifest.json").read_text())
    change(data)
    text = json.dumps(data).encode()
    (bundle / "manifest.json").write_bytes(text)
    (bundle / CHECKSUM).write_bytes(checksum(hashlib.sha256(text).hexdigest()))


def replaced_member(bundle: Path, member: str, data: bytes) -> None:
    """Another member with the hash that belongs to it."""
    (bundle / member).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    section = "proof" if member in PROOF else "members"
    edited_manifest(bundle, lambda manifest: manifest[section].update({member: digest}))


def with_quantisation(
    model: bytes, tensor: int, scale: float | None = None, zero_point: int | None = None
) -> bytes:
    """The file with another scale or zero-point of one tensor, everything else in its place."""
    found = schema.Model.GetRootAs(model).Subgraphs(0).Tensors(tensor).Quantization()
    changed = bytearray(model)
    if scale is not None:
        place = _vector(found, 8)
        struct.pack_into("<f", changed, place, scale)
    if zero_point is not None:
        struct.pack_into("<q", changed, _vector(found, 10), zero_point)
    return bytes(changed)


def _vector(table: Any, slot: int) -> int:
    """Where the elements of the vector in vtable `slot` begin."""
    return int(table._tab.Vector(table._tab.Offset(slot)))


def weight_buffers(model: bytes) -> list[tuple[str, int, bytes]]:
    """Name, buffer and bytes of the weights of every product.

    The zeros that a narrow product's input is padded with are no weights: they meet none.
    """
    parsed = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    graph = parsed.subgraphs[0]
    codes = [code.builtinCode for code in parsed.operatorCodes]
    product = schema.BuiltinOperator.FULLY_CONNECTED
    weights = {o.inputs[1] for o in graph.operators if codes[o.opcodeIndex] == product}
    tensors = [graph.tensors[index] for index in sorted(weights)]
    return [(t.name.decode(), t.buffer, bytes(parsed.buffers[t.buffer].data)) for t in tensors]


def with_buffer(model: bytes, buffer: int, data: bytes) -> bytes:
    """The file with other bytes in one constant, everything else in its place."""
    found = schema.Model.GetRootAs(model).Buffers(buffer)
    place = _vector(found, 4)
    assert found.DataLength() == len(data)
    return model[:place] + data + model[place + len(data) :]


def self_test_fails(bundle: Path) -> bool:
    """Whether the device finds it out when it loads the bundle."""
    try:
        Detector(read_bundle(bundle)).self_test()
    except GruardError:
        return True
    return False


def checks_that_fail(bundle: Path, run: Run) -> set[str]:
    """The checks that do not pass when the bundle is judged again, on the reference kernel only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convert.revalidate.available_kernels", lambda: ())
        verdict = revalidate(bundle, run.path).verdict
    return {check.name for check in verdict.checks if not check.passed}
