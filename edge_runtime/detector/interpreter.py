"""Run one int8 (or float) step in a TFLite interpreter, on a named kernel."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from edge_runtime import numerics
from edge_runtime.bundle.flatbuffer import GraphSummary
from edge_runtime.bundle.graph_rules import layer_count
from edge_runtime.detector.kernels import (
    HOST_KERNEL_ID,
    KERNEL_ID,
    Delegate,
    Kernel,
    delegate_kernel_id,
    explained,
    interpreter_module,
    open_delegate,
    read_compiled,
)
from edge_runtime.errors import GruardError
from edge_runtime.record import Float32


class StepGraph(Protocol):
    """The model's part of a step: named [n] float32 vectors in, named [n] float32 vectors out."""

    kernel_id: str
    gated: bool  # whether the model has a gate
    state_sizes: tuple[int, ...]

    def __call__(self, inputs: Mapping[str, Float32]) -> dict[str, Float32]:
        """Run one step; with a gate the result includes `doubt` = log(1 + e^-logit)."""


class NoGraph:
    """The graph of a linear model: no gate and no correction."""

    kernel_id, gated = HOST_KERNEL_ID, False
    state_sizes: tuple[int, ...] = ()

    def __call__(self, inputs: Mapping[str, Float32]) -> dict[str, Float32]:
        return {}


def load_interpreter(
    model: bytes, kernel: str = KERNEL_ID, preserve_all: bool = False, library: str | None = None
) -> Any:
    """Return a ready interpreter for `model` on `kernel`, with one thread.

    library: of a delegate, which may take each operator before `kernel` does. Raises
    GruardError when no package for the kernel is installed or the model is refused.
    """
    module = interpreter_module(kernel)
    kinds = module.OpResolverType
    plain = kernel == KERNEL_ID
    resolver = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else kinds.AUTO
    delegates = [open_delegate(module, library)] if library else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TensorFlow announces that LiteRT replaces it
            interpreter = module.Interpreter(
                model_content=model,
                num_threads=1,
                experimental_op_resolver_type=resolver,
                experimental_delegates=delegates,
                experimental_preserve_all_tensors=preserve_all,
            )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        refusal = f"the interpreter refuses the model: {error}"
        raise GruardError(explained(refusal) if library else refusal) from None
    return interpreter


class Int8Graph:
    """A checked int8 step with float32 inputs and outputs, converted with the graph's own scales.

    All inputs are quantised as one vector, and all outputs dequantised as one: the values are the
    same as tensor by tensor, in a third of the time.
    """

    def __init__(
        self, model: bytes, graph: GraphSummary, softplus: Float32, kernel: Kernel = KERNEL_ID
    ) -> None:
        if isinstance(kernel, Delegate):
            self._interpreter, graph, self.kernel_id = _delegated(model, graph, kernel)
        else:
            self._interpreter, self.kernel_id = load_interpreter(model, kernel), kernel
        self._inputs = _Packing(graph, graph.inputs)
        self._outputs = _Packing(graph, graph.outputs)
        self._softplus = softplus
        self.gated = "logit" in graph.outputs
        self.state_sizes = state_sizes(graph)

    def codes(self, inputs: Mapping[str, Float32]) -> dict[str, numerics.Int8]:
        """Run one step and return the raw int8 outputs, each [n]."""
        packing = self._inputs
        values = np.concatenate([inputs[name] for name in packing.names])
        codes = numerics.quantise(values, packing.scale, packing.zero_point)
        for index, part in zip(packing.indices, packing.parts, strict=True):
            self._interpreter.set_tensor(index, codes[np.newaxis, part])
        self._interpreter.invoke()
        read = self._interpreter.get_tensor
        pairs = zip(self._outputs.names, self._outputs.indices, strict=True)
        return {name: read(index)[0] for name, index in pairs}

    def __call__(self, inputs: Mapping[str, Float32]) -> dict[str, Float32]:
        codes = self.codes(inputs)
        packing = self._outputs
        joined = np.concatenate([codes[name] for name in packing.names])
        values = numerics.dequantise(joined, packing.scale, packing.zero_point)
        pairs = zip(packing.names, packing.parts, strict=True)
        outputs = {name: values[part] for name, part in pairs}
        if self.gated:
            outputs["doubt"] = self._softplus[codes["logit"].astype(np.int32) + 128]
        return outputs


def _delegated(
    model: bytes, graph: GraphSummary, delegate: Delegate
) -> tuple[Any, GraphSummary, str]:
    """Return an interpreter with `delegate`, the graph that it runs, and the kernel id."""
    if delegate.compiled is not None:
        model, graph = read_compiled(delegate.compiled, graph)
    interpreter = load_interpreter(model, library=delegate.library)
    # A delegate adds nodes for what it takes over. If it takes nothing, the CPU runs everything,
    # and the record must say so.
    taken = len(interpreter._get_ops_details()) > len(graph.operators)
    return interpreter, graph, delegate_kernel_id(delegate, model) if taken else KERNEL_ID


class _Packing:
    """Several tensors in one vector, with the scale of each element."""

    def __init__(self, graph: GraphSummary, tensors: Mapping[str, int]) -> None:
        self.names, self.indices = tuple(tensors), tuple(tensors.values())
        described = [graph.tensors[index] for index in self.indices]
        widths = [tensor.shape[1] for tensor in described]
        ends = np.cumsum(widths)
        self.parts = [slice(int(e) - w, int(e)) for e, w in zip(ends, widths, strict=True)]
        self.scale = np.repeat(np.array([t.scales[0] for t in described], np.float32), widths)
        zero_points = np.array([t.zero_points[0] for t in described], np.float32)
        self.zero_point = np.repeat(zero_points, widths)


class FloatGraph:
    """The same step in float32, for validation on the workstation.

    kernel: of the int8 step that it is compared with, and whose threshold it has.
    """

    def __init__(self, model: bytes, graph: GraphSummary, kernel: str = KERNEL_ID) -> None:
        self.kernel_id = kernel
        self._interpreter = load_interpreter(model)
        self._inputs, self._outputs = graph.inputs, graph.outputs
        self.gated = "logit" in graph.outputs
        self.state_sizes = state_sizes(graph)

    def __call__(self, inputs: Mapping[str, Float32]) -> dict[str, Float32]:
        for name, index in self._inputs.items():
            self._interpreter.set_tensor(index, inputs[name][np.newaxis])
        self._interpreter.invoke()
        outputs = {name: self._interpreter.get_tensor(i)[0] for name, i in self._outputs.items()}
        if self.gated:
            outputs["doubt"] = np.logaddexp(np.float32(0), -outputs["logit"]).astype(np.float32)
        return outputs


def state_sizes(graph: GraphSummary) -> tuple[int, ...]:
    """Return the number of units of each recurrent layer."""
    names = (f"state_{i}" for i in range(layer_count(graph.inputs)))
    return tuple(graph.tensors[graph.inputs[name]].shape[1] for name in names)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discard everything written to file descriptor 2; Python exceptions still propagate.

    The C++ side of TensorFlow and of XNNPACK writes there at every log level.
    """
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
