"""An accelerator behind a delegate library: which one, what it runs, and how it is loaded.

A delegate is native code that drives a device, and may take its process with it: load one only in
a process that can be spared.
"""

import ctypes
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_runtime.bundle.flatbuffer import GraphSummary, read_graph
from edge_runtime.detector.delegate_failures import explained
from edge_runtime.detector.kernels import keep_small_numbers
from edge_runtime.errors import GruardError
from edge_runtime.files import read_regular

LARGEST_COMPILED = 16 << 20  # bytes, as for a bundle's model
_ENTRY_POINTS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")


@dataclass(frozen=True)
class Delegate:
    """library: a name for the dynamic linker, or a path.

    compiled: file of the model that was compiled for the device from the bundle's; None gives the
    bundle's own to the delegate.
    """

    library: str
    compiled: Path | None = None


Kernel = str | Delegate
"""What may run a model: an arithmetic of the CPU, by its id, or a delegate."""


def delegate_kernel_id(delegate: Delegate, model: bytes) -> str:
    """`edgetpu` for libedgetpu.so.1, `edgetpu-1f2e3d4c` with a compiled `model`.

    Another compiled model is another arithmetic, so its SHA-256 is part of the name. No CPU kernel
    has a name of this form.
    """
    stem = Path(delegate.library).name.split(".so")[0].removeprefix("lib").lower()
    name = re.sub("[^a-z0-9]+", "_", stem)
    compiled = delegate.compiled is not None
    return f"{name}-{hashlib.sha256(model).hexdigest()[:8]}" if compiled else name


def open_delegate(module: Any, library: str) -> Any:
    """The delegate in `library`, for the interpreters of the package `module`.

    Raises GruardError, which says what to do, when there is no library or no device.
    """
    try:
        # Not at once by the package's own loader: when that fails, its clean-up fails after it.
        exported = ctypes.PyDLL(library)
        for name in _ENTRY_POINTS:
            getattr(exported, name)
        delegate = module.load_delegate(library)
    except (OSError, AttributeError, ValueError) as error:
        raise GruardError(explained(str(error))) from None
    keep_small_numbers()
    return delegate


def read_compiled(file: Path, graph: GraphSummary) -> tuple[bytes, GraphSummary]:
    """The model in `file` and what is in it, with the inputs and outputs of `graph`.

    Raises GruardError when it cannot be read or was not compiled from the model of `graph`.
    """
    try:
        model = read_regular(file, LARGEST_COMPILED + 1)
    except OSError as error:
        raise GruardError(f"{file}: cannot be read ({error.strerror})") from None
    if len(model) > LARGEST_COMPILED:
        raise GruardError(f"{file}: larger than {LARGEST_COMPILED} bytes; not a compiled step")
    found = read_graph(model, str(file))
    inputs = _same_tensors(file, graph, found, graph.inputs)
    outputs = _same_tensors(file, graph, found, graph.outputs)
    return model, replace(found, inputs=inputs, outputs=outputs)


def _same_tensors(
    file: Path, graph: GraphSummary, compiled: GraphSummary, wanted: Mapping[str, int]
) -> dict[str, int]:
    """Where the `wanted` tensors of `graph` are in `compiled`: a compiler keeps their names."""
    named = {tensor.name: tensor for tensor in compiled.tensors}
    places = {}
    for name, index in wanted.items():
        tensor = graph.tensors[index]
        other = named.get(tensor.name)
        if other is None or other != replace(
            tensor, index=other.index, constant_bytes=other.constant_bytes
        ):
            raise GruardError(
                f"{file}: its tensor {tensor.name} is not that of the bundle's model; compile "
                "the model.tflite of this bundle"
            )
        places[name] = other.index
    return places
