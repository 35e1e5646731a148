"""What this processor computes, to be compared with another's: reads and writes one .npz each.

    python arithmetic_probe.py QUESTIONS.npz ANSWERS.npz

Questions are `roots` (float32) and, for each case N, `model/N` (a .tflite of one operator, as
bytes) with `codes/N` (int8 [count, inputs, width]).
"""

import sys

import numpy as np

from edge_runtime import numerics
from edge_runtime.detector.kernels import KERNEL_ID, interpreter_module

TINY = np.float32(1e-40)  # below the smallest normal float32


def answers(questions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One array for each question, and `small`: does the interpreter leave small numbers alone?"""
    module = interpreter_module(KERNEL_ID)
    found = {"small": np.array([TINY, TINY + TINY, TINY * np.float32(0.5)])}
    found["roots"] = np.array([numerics.root(value) for value in questions["roots"]])
    for name, model in questions.items():
        kind, _, case = name.partition("/")
        if kind == "model":
            codes = questions[f"codes/{case}"]
            found[f"answer/{case}"] = _answers(module, model.tobytes(), codes)
    return found


def _answers(module: object, model: bytes, codes: np.ndarray) -> np.ndarray:
    resolver = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # type: ignore[attr-defined]
    interpreter = module.Interpreter(  # type: ignore[attr-defined]
        model_content=model, experimental_op_resolver_type=resolver
    )
    interpreter.allocate_tensors()
    sources, (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for operands in codes:
        for source, row in zip(sources, operands, strict=True):
            interpreter.set_tensor(source["index"], row[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(sink["index"])[0])
    return np.array(rows)


if __name__ == "__main__":
    with np.load(sys.argv[1]) as asked:
        np.savez(sys.argv[2], **answers(dict(asked)))
