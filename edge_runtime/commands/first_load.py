"""Load a model first in a child process, for commands that have no supervisor.

A damaged graph may abort the interpreter together with its process; here only the child dies.

    python -m edge_runtime.commands.first_load BUNDLE DIGEST
"""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.commands.options import warn
from edge_runtime.detector.detector import Detector, StepDetector
from edge_runtime.detector.kernels import (
    KERNEL_ID,
    Delegate,
    Kernel,
    add_kernel_arguments,
    chosen_kernel,
    explained,
    kernel_words,
)
from edge_runtime.errors import GruardError, described
from edge_runtime.native.engine import open_detector
from edge_runtime.record import Sample
from edge_runtime.supervision.policy import LOAD_LIMIT
from edge_runtime.supervision.worker_process import child_environment

STEPS = 3  # the first one initialises the state, the others are ordinary steps


def load_safely(bundle: Bundle, kernel: Kernel = KERNEL_ID, calibrated: bool = True) -> Detector:
    """Return the detector of `bundle`, after a child process has loaded it and run some steps.

    kernel: any but the core. calibrated: as for Detector. Raises GruardError when that process
    failed.
    """
    if not bundle.manifest.linear:  # a linear bundle has no graph to load
        _try_in_child(bundle, kernel)
    return Detector(bundle, kernel, calibrated)


def open_safely(
    bundle: Bundle, kernel: Kernel | None = None, calibrated: bool = True
) -> StepDetector:
    """Load on any kernel; the core needs no child process, because it checks all that it reads.

    Prints the reason where the core is the default and cannot be used.
    """
    refusals: list[str] = []
    detector = open_detector(bundle, kernel, calibrated, refusals.append, load_safely)
    for refusal in refusals:
        warn(f"{refusal}; {detector.kernel_id} runs it")
    return detector


def _try_in_child(bundle: Bundle, kernel: Kernel) -> None:
    module = "edge_runtime.commands.first_load"
    command = [sys.executable, "-m", module, str(bundle.path), bundle.digest]
    command += kernel_words(kernel)
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=LOAD_LIMIT, env=child_environment(), check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise GruardError(f"{bundle.path}: its model did not load in {LOAD_LIMIT:g} s") from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        ended = f"{bundle.path}: loading its model ended a process with {name}"
        raise GruardError(explained(ended) if isinstance(kernel, Delegate) else ended)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise GruardError(last)


def main(arguments: list[str]) -> int:
    """Load a bundle and run it for some steps; return the exit code."""
    try:
        options = _parser().parse_args(arguments)
        bundle = read_bundle(options.bundle, allow_failed=True, whole=False)
        if bundle.digest != options.digest:
            raise GruardError(f"{bundle.path}: was changed while it was read; try again")
        detector = open_detector(bundle, chosen_kernel(options), calibrated=False)
        centre = np.array([channel.center for channel in bundle.manifest.channels], np.float32)
        for index in range(STEPS):
            detector.step(Sample(index, None, centre))
    except Exception as error:
        # The process ends here, so the parent must get the reason of any error.
        print(described(error).replace("\n", " "), file=sys.stderr)
        return GruardError.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edge_runtime.commands.first_load", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("digest")
    add_kernel_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
