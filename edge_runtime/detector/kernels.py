"""The names of the arithmetics a model can run on, and which of them this machine has.

The reference is TFLite's built-in kernels without any delegate: tflite-runtime 2.14 gives the same
bytes for the same file on x86-64, aarch64 and armv7l, for graphs that `bundle.graph_rules` lets
through. The XNNPACK delegate, which newer
interpreters use unless told otherwise, gives others: it is another kernel with its own threshold.

What the failures of delegate libraries mean, and what to do about each.

The texts are those of the dynamic linker, of TFLite's interpreter and of libedgetpu, and how a
process ended. The first one that is found explains.

An accelerator behind a delegate library: which one, what it runs, and how it is loaded.

A delegate is native code that drives a device, and may take its process with it: load one only in
a process that can be spared.

How a process of ours is told on its command line what is to run the model.
"""

import argparse
import ctypes
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_runtime.bundle.flatbuffer import GraphSummary, read_graph
from edge_runtime.errors import GruardError, reason
from edge_runtime.files import read_regular

KERNEL_ID = "tflite-builtin"
XNNPACK_KERNEL_ID = "tflite-xnnpack"
HOST_KERNEL_ID = "host-float32"  # linear models need no interpreter
CORE_KERNEL_ID = "core-c"  # the C core: the reference's bits, or the host's

# Where each arithmetic is found, the lightest package first; tflite-runtime has no int8 XNNPACK.
_TENSORFLOW = "tensorflow.lite.python.interpreter"
_MODULES = {
    KERNEL_ID: ("tflite_runtime.interpreter", "ai_edge_litert.interpreter", _TENSORFLOW),
    XNNPACK_KERNEL_ID: ("ai_edge_litert.interpreter", _TENSORFLOW),
}
INT8_KERNELS = tuple(_MODULES)


def threshold_kernel(kernel: str, linear: bool) -> str:
    """The kernel whose threshold holds for `kernel`: equal bits make equal scores."""
    if kernel != CORE_KERNEL_ID:
        return kernel
    return HOST_KERNEL_ID if linear else KERNEL_ID


def available_kernels() -> tuple[str, ...]:
    """The int8 kernels that this machine has an interpreter for, the reference first."""
    return tuple(k for k in INT8_KERNELS if any(map(_installed, _MODULES[k])))


def interpreter_module(kernel: str) -> Any:
    """The package that runs `kernel`. Raises GruardError when none is installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets on stderr
    for name in _MODULES[kernel]:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        keep_small_numbers()
        return module
    if kernel == KERNEL_ID:
        raise GruardError(
            "no TFLite interpreter is installed; install tflite-runtime (Python up to 3.11) "
            "or ai-edge-litert (Python 3.10 and later)"
        )
    raise GruardError(f"kernel {kernel} needs ai-edge-litert, which is not installed")


def keep_small_numbers() -> None:
    """Undo what loading tflite-runtime does on Arm: float32 below 1e-38 then counted as 0.

    Host arithmetic would not be that of other machines. The int8 kernels never see such numbers.
    """
    if sys.platform == "linux":
        default = ctypes.c_void_p(-1)  # FE_DFL_ENV of glibc and musl
        ctypes.CDLL(None).fesetenv(default)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # the package around it is not there
        return False


CAUSES = (
    (
        "edgetpu-custom-op",
        "the model was compiled for a Coral, and this library does not run it; "
        "give --delegate libedgetpu.so.1",
    ),
    (
        "cannot open shared object file",
        "install that library (a Coral's is in the package libedgetpu1-std), or give its path",
    ),
    (
        "undefined symbol: tflite_plugin",
        "this library is no TFLite delegate; give the delegate's own",
    ),
    (
        "ELF",
        "the library is for another processor, or damaged; install the one for this machine",
    ),
    (
        "Failed to load delegate",
        "no device answers: is it plugged in (lsusb shows 1a6e:089a or 18d1:9302; a PCIe one is "
        "/dev/apex_0), may this user use it (group plugdev or apex), and does no other program "
        "hold it?",
    ),
    (
        "delegate application failure",
        "the delegate refuses this model; a Coral wants the compiled one, --delegate-model",
    ),
    (
        "SIGSEGV",
        "a libedgetpu that was built for another TFLite ends so, as Coral's own does with "
        "tflite-runtime 2.12 and later (google-coral/edgetpu#812); install one built for yours",
    ),
    (
        "SIGABRT",
        "libedgetpu aborts when its device stops answering; check plug, cable and power",
    ),
)


def explained(text: str) -> str:
    """`text` as one line, with what to do about it where that is known and not said already."""
    line = " ".join(text.split())
    advice = next((advice for cause, advice in CAUSES if cause in line), "")
    return line if advice in line else f"{line}; {advice}"


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
        model = read_regular(file, LARGEST_COMPILED)
    except (OSError, ValueError) as error:
        raise GruardError(f"{file}: cannot be read ({reason(error)})") from None
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


def kernel_words(kernel: Kernel | None) -> list[str]:
    """The words for `kernel`; none for the reference."""
    if not isinstance(kernel, Delegate):
        return ["--kernel", kernel] if kernel else []
    compiled = ["--delegate-model", str(kernel.compiled)] if kernel.compiled else []
    return ["--delegate", kernel.library, *compiled]


def add_kernel_arguments(parser: argparse.ArgumentParser) -> None:
    """Let `parser` understand `kernel_words`."""
    parser.add_argument("--kernel")
    parser.add_argument("--delegate")
    parser.add_argument("--delegate-model", type=Path)


def chosen_kernel(options: argparse.Namespace) -> Kernel | None:
    """What such words said."""
    if options.delegate:
        return Delegate(options.delegate, options.delegate_model)
    kernel: str | None = options.kernel
    return kernel
