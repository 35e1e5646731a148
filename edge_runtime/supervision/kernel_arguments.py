"""How a process of ours is told on its command line what is to run the model."""

import argparse
from pathlib import Path

from edge_runtime.detector.delegate import Delegate, Kernel


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
