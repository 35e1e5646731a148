"""One int8 (or float) step through a TFLite interpreter, on the reference arithmetic.

The reference is TFLite's built-in kernels without any delegate: tflite-runtime 2.14 gives the same
bytes for the same file on x86-64, aarch64 and armv7l; the default XNNPACK delegate does not.
"""

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from edge_runtime import numerics
from edge_runtime.errors import GruardError
from edge_runtime.flatbuffer import GraphSummary
from edge_runtime.record import Float32

KERNEL_ID = "tflite-builtin"
_MODULES = ("tflite_runtime.interpreter", "ai_edge_litert.interpreter", "tensorflow.lite")


class StepGraph(Protocol):
    """The model's part of a step: named [n] float32 vectors in, named [n] float32 vectors out."""

    state_sizes: tuple[int, ...]

    def __call__(self, inputs: Mapping[str, Float32]) -> dict[str, Float32]:
        """Run one step; besides the graph's outputs the result holds `doubt` = log(1 + e^-logit)."""
        ...


def load_interpreter(model: bytes, preserve_all: bool = False) -> Any:
    """A ready interpreter for `model` with built-in kernels, one thread and no delegate."""
    module = _interpreter_module()
    resolver = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    if module.__name__ == "tensorflow.lite":
        resolver = module.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = module.Interpreter(
            model_content=model,
            num_threads=1,
            experimental_op_resolver_type=resolver,
            experimental_preserve_all_tensors=preserve_all,
        )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise GruardError(f"the interpreter refuses the model: {error}") from None
    return interpreter


def _interpreter_module() -> Any:
    for name in _MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise GruardError(
        "no TFLite interpreter is installed; install tflite-runtime (Python up to 3.11) "
        "or ai-edge-litert (Python 3.10 and later)"
    )


class Int8Graph:
    """A checked int8 step, fed and read as float32 with the graph's own scales."""

    def __init__(self, model: bytes, graph: GraphSummary, softplus: Float32) -> None:
        self._interpreter = load_interpreter(model)
        self._inputs = [(name, i, *_scale(graph, i)) for name, i in graph.inputs.items()]
        self._outputs = [(name, i, *_scale(graph, i)) for name, i in graph.outputs.items()]
        self._softplus = softplus
        self.state_sizes = _state_sizes(graph)

    def codes(self, inputs: Mapping[str, Float32]) -> dict[str, numerics.Int8]:
        """Run one step and return the raw int8 outputs, each [n]."""
        for name, index, scale, zero_point in self._inputs:
            codes = numerics.quantise(inputs[name], scale, zero_point)
            self._interpreter.set_tensor(index, codes[np.newaxis])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(i)[0] for name, i, _, _ in self._outputs}

    def __call__(self, inputs: Mapping[str, Float32]) -> dict[str, Float32]:
        codes = self.codes(inputs)
        outputs = {
            name: numerics.dequantise(codes[name], scale, zero_point)
            for name, _, scale, zero_point in self._outputs
        }
        outputs["doubt"] = self._softplus[codes["logit"].astype(np.int32) + 128]
        return outputs


class FloatGraph:
    """The float32 twin of the same step, for validation on the workstation."""

    def __init__(self, model: bytes, graph: GraphSummary) -> None:
        self._interpreter = load_interpreter(model)
        self._inputs, self._outputs = graph.inputs, graph.outputs
        self.state_sizes = _state_sizes(graph)

    def __call__(self, inputs: Mapping[str, Float32]) -> dict[str, Float32]:
        for name, index in self._inputs.items():
            self._interpreter.set_tensor(index, inputs[name][np.newaxis])
        self._interpreter.invoke()
        outputs = {name: self._interpreter.get_tensor(i)[0] for name, i in self._outputs.items()}
        outputs["doubt"] = np.logaddexp(np.float32(0), -outputs["logit"]).astype(np.float32)
        return outputs


def _scale(graph: GraphSummary, index: int) -> tuple[float, int]:
    tensor = graph.tensors[index]
    return tensor.scales[0], tensor.zero_points[0]


def _state_sizes(graph: GraphSummary) -> tuple[int, ...]:
    layers = sum(name.startswith("state_") for name in graph.inputs)
    return tuple(graph.tensors[graph.inputs[f"state_{i}"]].shape[1] for i in range(layers))
