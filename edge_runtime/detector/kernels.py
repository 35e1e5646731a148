"""The kernels that can run a model: interpreters on the CPU, and accelerators behind a delegate.

The reference is TFLite's built-in kernels without any delegate: tflite-runtime 2.14 gives the same
bytes for the same file on x86-64, aarch64 and armv7l, for graphs that `bundle.graph_rules` allows.
The XNNPACK delegate, the default of newer interpreters, gives other bytes: it is another kernel
with its own threshold.

A delegate is native code that drives a device and may crash its process, so load one only in a
process that can be restarted. `CAUSES` explains the failures of delegate libraries, and
`kernel_words` passes the kernel to such a process on its command line.
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

# Packages for each kernel, the lightest first; tflite-runtime has no int8 XNNPACK.
_TENSORFLOW = "tensorflow.lite.python.interpreter"
_MODULES = {
    KERNEL_ID: ("tflite_runtime.interpreter", "ai_edge_litert.interpreter", _TENSORFLOW),
    XNNPACK_KERNEL_ID: ("ai_edge_litert.interpreter", _TENSORFLOW),
}
INT8_KERNELS = tuple(_MODULES)

LARGEST_COMPILED = 16 << 20  # bytes, as for a bundle's model
_ENTRY_POINTS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")
# Texts of the dynamic linker, of TFLite's interpreter and of libedgetpu, and signals that end a
# process, with the fix for each. The first match explains.
CAUSES = {
    "edgetpu-custom-op": "the model was compiled for a Coral, and this library does not run it; "
    "give --delegate libedgetpu.so.1",
    "cannot open shared object file": "install that library (a Coral's is in the package "
    "libedgetpu1-std), or give its path",
    "undefined symbol: tflite_plugin": "this library is no TFLite delegate; give the delegate's "
    "own",
    "ELF": "the library is for another processor, or damaged; install the one for this machine",
    "Failed to load delegate": "no device answers: is it plugged in (lsusb shows 1a6e:089a or "
    "18d1:9302; a PCIe one is /dev/apex_0), may this user use it (group plugdev or apex), and does "
    "no other program hold it?",
    "delegate application failure": "the delegate refuses this model; a Coral wants the compiled "
    "one, --delegate-model",
    "SIGSEGV": "a libedgetpu that was built for another TFLite ends so, as Coral's own does with "
    "tflite-runtime 2.12 and later (google-coral/edgetpu#812); install one built for yours",
    "SIGABRT": "libedgetpu aborts when its device stops answering; check plug, cable and power",
}


def threshold_kernel(kernel: str, linear: bool) -> str:
    """Return the kernel whose threshold holds for `kernel`: equal bits give equal scores."""
    if kernel != CORE_KERNEL_ID:
        return kernel
    return HOST_KERNEL_ID if linear else KERNEL_ID


def available_kernels() -> tuple[str, ...]:
    """Return the int8 kernels that this machine has an interpreter for, the reference first."""
    return tuple(k for k in INT8_KERNELS if any(map(_installed, _MODULES[k])))


def interpreter_module(kernel: str) -> Any:
    """Import the package that runs `kernel`. Raises GruardError when none is installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow logs to stderr
    for name in _MODULES[kernel]:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        keep_small_numbers()
        return module
    if kernel == KERNEL_ID:
        raise GruardError(
            f"kernel {KERNEL_ID} needs a TFLite interpreter, and none is installed: "
            "pip install 'gruard[interpreter]', on a Python and processor that has one"
        )
    raise GruardError(f"kernel {kernel} needs ai-edge-litert, which is not installed")


def keep_small_numbers() -> None:
    """Restore float32 below 1e-38, which loading tflite-runtime on Arm makes 0.

    Host arithmetic would otherwise differ from other machines. int8 kernels have no such numbers.
    """
    if sys.platform == "linux":
        default = ctypes.c_void_p(-1)  # FE_DFL_ENV of glibc and musl
        ctypes.CDLL(None).fesetenv(default)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # its parent package is not installed
        return False


def explained(text: str) -> str:
    """Return `text` as one line, with the fix if `CAUSES` has one and `text` does not."""
    line = " ".join(text.split())
    advice = next((advice for cause, advice in CAUSES.items() if cause in line), "")
    return line if advice in line else f"{line}; {advice}"


@dataclass(frozen=True)
class Delegate:
    """library: a name for the dynamic linker, or a path.

    compiled: file of the bundle's model as compiled for the device; None: the delegate gets the
    bundle's own model.
    """

    library: str
    compiled: Path | None = None


Kernel = str | Delegate
"""What runs a model: the id of a CPU kernel, or a delegate."""


def delegate_kernel_id(delegate: Delegate, model: bytes) -> str:
    """Return `edgetpu` for libedgetpu.so.1, `edgetpu-1f2e3d4c` with a compiled `model`.

    Another compiled model is another arithmetic, so its SHA-256 is part of the id. No CPU kernel
    has an id of this form.
    """
    stem = Path(delegate.library).name.split(".so")[0].removeprefix("lib").lower()
    name = re.sub("[^a-z0-9]+", "_", stem)
    compiled = delegate.compiled is not None
    return f"{name}-{hashlib.sha256(model).hexdigest()[:8]}" if compiled else name


def open_delegate(module: Any, library: str) -> Any:
    """Load the delegate in `library` for the interpreters of the package `module`.

    Raises GruardError with the fix when there is no library or no device.
    """
    try:
        # Check first: when the package's own loader fails, its clean-up fails, too.
        exported = ctypes.PyDLL(library)
        for name in _ENTRY_POINTS:
            getattr(exported, name)
        delegate = module.load_delegate(library)
    except (OSError, AttributeError, ValueError) as error:
        raise GruardError(explained(str(error))) from None
    keep_small_numbers()
    return delegate


def read_compiled(file: Path, graph: GraphSummary) -> tuple[bytes, GraphSummary]:
    """Read the compiled model in `file`; return it and its graph, with the ends of `graph`.

    Raises GruardError when it cannot be read or was not compiled from the model of `graph`.
    """
    try:
        model = read_regular(file, LARGEST_COMPILED)
    except (OSError, ValueError) as error:
        raise GruardError(f"{file}: cannot be read ({reason(error)})") from None
    compiled = read_graph(model, str(file))
    inputs = _same_tensors(file, graph, compiled, graph.inputs)
    outputs = _same_tensors(file, graph, compiled, graph.outputs)
    return model, replace(compiled, inputs=inputs, outputs=outputs)


def _same_tensors(
    file: Path, graph: GraphSummary, compiled: GraphSummary, wanted: Mapping[str, int]
) -> dict[str, int]:
    """Find the `wanted` tensors of `graph` in `compiled` by name, which a compiler keeps."""
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
    """Return the command-line words for `kernel`; none for the reference."""
    if not isinstance(kernel, Delegate):
        return ["--kernel", kernel] if kernel else []
    compiled = ["--delegate-model", str(kernel.compiled)] if kernel.compiled else []
    return ["--delegate", kernel.library, *compiled]


def add_kernel_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `kernel_words` to `parser`."""
    parser.add_argument("--kernel")
    parser.add_argument("--delegate")
    parser.add_argument("--delegate-model", type=Path)


def chosen_kernel(options: argparse.Namespace) -> Kernel | None:
    """Return the kernel that these options name."""
    if options.delegate:
        return Delegate(options.delegate, options.delegate_model)
    kernel: str | None = options.kernel
    return kernel
