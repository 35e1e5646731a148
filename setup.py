"""The optional native engine: without a C compiler the wheel is made without it."""

import platform
from pathlib import Path

from setuptools import Extension, setup

CORE = Path("firmware_harness/firmware/core")
SOURCES = (
    "blob.c", "crc.c", "detector.c", "validity.c", "alarm.c", "fallback.c", "score.c", "tiers.c",
    "diagnosis.c", "graph.c",
)  # fmt: skip
KERNEL = "kernel_x86.c" if platform.machine() in ("x86_64", "AMD64") else "kernel_portable.c"

setup(
    ext_modules=[
        Extension(
            "edge_runtime.native._core",
            ["edge_runtime/native/module.c", *(str(CORE / name) for name in (*SOURCES, KERNEL))],
            include_dirs=[str(CORE)],
            depends=[str(header) for header in CORE.glob("*.h")],
            # One order of operations for all: no fused multiply-add, nothing reassociated.
            define_macros=[("GRUARD_HOST", None)],
            extra_compile_args=["-std=gnu99", "-O3", "-ffp-contract=off", "-fno-math-errno"],
            optional=True,
        )
    ]
)
