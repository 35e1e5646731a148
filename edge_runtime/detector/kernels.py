"""The names of the arithmetics a model can run on, and which of them this machine has.

The reference is TFLite's built-in kernels without any delegate: tflite-runtime 2.14 gives the same
bytes for the same file on x86-64, aarch64 and armv7l, for graphs that `bundle.graph_rules` lets
through. The XNNPACK delegate, which newer
interpreters use unless told otherwise, gives others: it is another kernel with its own threshold.
"""

import ctypes
import importlib
import importlib.util
import os
import sys
from typing import Any

from edge_runtime.errors import GruardError

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
