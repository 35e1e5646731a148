"""The optional native engine: without a C compiler gruard is installed without it.

GRUARD_PURE leaves it out on purpose, which makes a wheel for every machine.
"""

import os
import platform
from pathlib import Path

from setuptools import Extension, setup

CORE = Path("core")
SOURCES = (
    "blob.c", "crc.c", "detector.c", "validity.c", "alarm.c", "fallback.c", "score.c", "tiers.c",
    "diagnosis.c", "change.c", "graph.c", "matrix.c",
)  # fmt: skip
# By processor; else portable C.
KERNELS = {"x86_64": "kernel_x86.c", "AMD64": "kernel_x86.c", "aarch64": "kernel_neon.c"}
KERNEL = KERNELS.get(platform.machine(), "kernel_portable.c")

ENGINE = Extension(
    "edge_runtime.native._core",
    ["edge_runtime/native/module.c", *(str(CORE / name) for name in (*SOURCES, KERNEL))],
    include_dirs=[str(CORE)],
    depends=[str(header) for header in CORE.glob("*.h")],
    define_macros=[("GRUARD_HOST", None)],
    # One order of operations on every machine: nothing fused, nothing reassociated.
    extra_compile_args=["-std=gnu99", "-O3", "-ffp-contract=off", "-fno-math-errno"],
    optional=True,
)

setup(ext_modules=[] if os.environ.get("GRUARD_PURE") else [ENGINE])
