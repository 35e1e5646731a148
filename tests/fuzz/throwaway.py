"""What happens to a process that computes with a model: it ran, it was refused, or it was ended.

The process is a copy of this one (`os.fork`), which has numpy and the interpreter loaded and a
single thread; whatever the model does to it, this one goes on.
"""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_runtime.detector.interpreter import load_interpreter
from edge_runtime.errors import GruardError

MOST_SECONDS = 5  # of processor time; then the kernel ends it
MOST_BYTES = 256 << 20  # beyond what this process has mapped
STEPS = 3
_REFUSED, _BROKEN = 3, 4


def outcome(work: Callable[[], object]) -> str:
    """`work` in a process of its own: "ran", "refused", "broken" or the signal that ended it."""
    child = os.fork()
    if child == 0:
        _run(work)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return {0: "ran", _REFUSED: "refused"}.get(os.WEXITSTATUS(status), "broken")


def _run(work: Callable[[], object]) -> None:
    code = _BROKEN
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MOST_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        work()
        code = 0
    except GruardError:
        code = _REFUSED
    finally:
        os._exit(code)


def run_steps(model: bytes) -> None:
    """Load `model` and run it on the ends of the range and on noise."""
    interpreter = load_interpreter(model)
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        for told in interpreter.get_input_details():
            noise = rng.integers(-128, 128, told["shape"])
            codes = (np.full(told["shape"], -128), np.full(told["shape"], 127), noise)[step % 3]
            interpreter.set_tensor(told["index"], codes.astype(np.int8))
        try:
            interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise GruardError(f"the interpreter stops: {error}") from None
        for told in interpreter.get_output_details():
            interpreter.get_tensor(told["index"])
