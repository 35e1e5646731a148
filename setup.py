"""The optional native engine: without a C compiler gruard is installed without it.

GRUARD_PURE leaves it out on purpose, which makes a wheel for every machine. GRUARD_TARGET names a
processor of `TARGETS`: the engine is cross-compiled for it, into a wheel for Linux.
"""

import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = Path("core")
SOURCES = (
    "blob.c", "crc.c", "detector.c", "validity.c", "alarm.c", "fallback.c", "score.c", "tiers.c",
    "diagnosis.c", "change.c", "graph.c", "matrix.c",
)  # fmt: skip
# By processor; else portable C.
KERNELS = {"x86_64": "kernel_x86.c", "AMD64": "kernel_x86.c", "aarch64": "kernel_neon.c"}
# By processor: Debian's compiler, its packages, and the oldest Linux that the wheel is for.
TARGETS = {
    "x86_64": ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu", "manylinux_2_28"),
    "aarch64": ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "manylinux_2_28"),
    "armv7l": ("arm-linux-gnueabihf-gcc", "gcc-arm-linux-gnueabihf", "manylinux_2_31"),
}
# Python 3.11 is the first whose stable interface has buffers. One wheel serves all from there on.
STABLE = (3, 11)
# What Python.h asks of its configuration, by the compiler itself: the target's may not be here.
CONFIGURATION = """\
#define HAVE_SSIZE_T 1
#define SIZEOF_INT __SIZEOF_INT__
#define SIZEOF_LONG __SIZEOF_LONG__
#define SIZEOF_LONG_LONG __SIZEOF_LONG_LONG__
#define SIZEOF_SHORT __SIZEOF_SHORT__
#define SIZEOF_SIZE_T __SIZEOF_SIZE_T__
#define SIZEOF_VOID_P __SIZEOF_POINTER__
#define SIZEOF_WCHAR_T __SIZEOF_WCHAR_T__
"""


def engine(processor: str, **options: bool) -> Extension:
    """Return the engine with the kernel for `processor`. options: of Extension."""
    sources = (*SOURCES, KERNELS.get(processor, "kernel_portable.c"))
    stable = sys.version_info >= STABLE
    return Extension(
        "edge_runtime.native._core",
        ["edge_runtime/native/module.c", *(str(CORE / name) for name in sources)],
        include_dirs=[str(CORE)],
        depends=[str(header) for header in CORE.glob("*.h")],
        define_macros=[
            ("GRUARD_HOST", None),
            *([("Py_LIMITED_API", "0x{:02X}{:02X}0000".format(*STABLE))] if stable else []),
        ],
        # One order of operations on every machine: nothing fused, nothing reassociated.
        extra_compile_args=["-std=gnu99", "-O3", "-ffp-contract=off", "-fno-math-errno"],
        **options,
    )


class CrossBuild(build_ext):
    """Compiles for another processor, with this machine's headers of Python."""

    def build_extensions(self) -> None:
        """Build with the compiler of the target, and without this machine's flags."""
        compiler, packages, _ = TARGETS[target]
        if not shutil.which(compiler):
            sys.exit(f"{compiler} is not installed; on Debian: apt-get install {packages}")
        headers = Path(self.build_temp) / "python"
        shutil.copytree(sysconfig.get_path("include"), headers, dirs_exist_ok=True)
        (headers / "pyconfig.h").write_text(CONFIGURATION)
        for extension in self.extensions:
            extension.include_dirs.insert(0, str(headers))
        self.compiler.set_executables(
            compiler_so=[compiler, "-fPIC", "-DNDEBUG", "-Wall"],
            linker_so=[compiler, "-shared", "-s"],
        )
        super().build_extensions()


target = os.environ.get("GRUARD_TARGET")
if os.environ.get("GRUARD_PURE"):
    setup()
elif not target:
    setup(ext_modules=[engine(platform.machine(), optional=True)])
elif target not in TARGETS or sys.version_info < STABLE:
    sys.exit(f"GRUARD_TARGET is one of {', '.join(TARGETS)}, and needs Python 3.11 or later")
else:
    setup(
        ext_modules=[engine(target, py_limited_api=True)],
        cmdclass={"build_ext": CrossBuild},
        options={
            "build": {"build_base": f"build/wheel-{target}"},  # objects of no other processor
            "bdist_wheel": {
                "plat_name": f"{TARGETS[target][2]}_{target}",
                "py_limited_api": "cp{}{}".format(*STABLE),
            },
        },
    )
