"""Run a model file in TensorFlow Lite Micro's own interpreter, in a process that may crash or hang.

Run as `python -m convert.audit.micro`: the file comes on stdin, the result goes to stdout as JSON.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

TIME_LIMIT = 120  # seconds
STEPS = 200
NOT_INSTALLED = (
    "not checked: its interpreter is not installed; "
    "python -m pip install -c constraints.txt '.[micro]'"
)


@dataclass(frozen=True)
class MicroRun:
    """The model ran. codes: outputs compared; differing: how many differ from TFLite, by at most
    `largest`. arena: bytes of its tensors."""

    codes: int
    differing: int
    largest: int
    arena: int


@dataclass(frozen=True)
class NoTrial:
    """The model did not run; passed is None if it was not tried."""

    passed: bool | None
    summary: str


def micro_trial(model: bytes) -> MicroRun | NoTrial:
    """Compare TFLite and TFLite Micro on random int8 inputs, in a child process."""
    if find_spec("tflite_micro") is None:
        return NoTrial(None, NOT_INSTALLED)
    command = [sys.executable, "-m", "convert.audit.micro"]
    try:
        ended = subprocess.run(
            command, input=model, capture_output=True, timeout=TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return NoTrial(False, f"does not answer within {TIME_LIMIT} s")
    try:
        return MicroRun(**json.loads(ended.stdout))
    except (ValueError, TypeError):
        lines = ended.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines else f"its process ended with {ended.returncode}"
        return NoTrial(False, f"does not run: {reason}")


def main() -> None:
    """Compare the file on stdin in both interpreters."""
    model = sys.stdin.buffer.read()
    sys.stdout.write(json.dumps(asdict(_compared(model))))


def _compared(model: bytes) -> MicroRun:
    from tflite_micro.python.tflite_micro import runtime

    from edge_runtime.detector.interpreter import load_interpreter

    lite, micro = load_interpreter(model), runtime.Interpreter.from_bytes(model)
    rng = np.random.default_rng(0)
    apart: list[Any] = []
    for _ in range(STEPS):
        for place, details in enumerate(lite.get_input_details()):
            codes = rng.integers(-128, 128, details["shape"]).astype(np.int8)
            lite.set_tensor(details["index"], codes)
            micro.set_input(codes, place)
        lite.invoke()
        micro.invoke()
        for place, details in enumerate(lite.get_output_details()):
            ours = lite.get_tensor(details["index"]).astype(int)
            apart.append((micro.get_output(place).astype(int) - ours).ravel())
    errors = np.concatenate(apart)
    return MicroRun(
        codes=len(errors),
        differing=int((errors != 0).sum()),
        largest=int(np.abs(errors).max()),
        arena=_arena(micro),
    )


def _arena(micro: Any) -> int:
    """Return the bytes of the arena's tensors, which the interpreter only prints."""
    with tempfile.TemporaryFile() as printed:
        with _output_to(printed.fileno()):
            micro.print_allocations()
        printed.seek(0)
        text = printed.read().decode("utf-8", "replace")
    head = next(line for line in text.splitlines() if "Arena allocation head" in line)
    return int(head.split()[-2])


@contextlib.contextmanager
def _output_to(descriptor: int) -> Iterator[None]:
    """Redirect file descriptors 1 and 2 to `descriptor`."""
    saved = os.dup(1), os.dup(2)
    try:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        yield
    finally:
        for target, before in zip((1, 2), saved, strict=True):
            os.dup2(before, target)
            os.close(before)


if __name__ == "__main__":
    main()
