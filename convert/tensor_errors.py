"""Where int8 loses accuracy: every tensor of the int8 graph against its twin in the float graph.

Both graphs are walked together, operator by operator. The int8 graph may have additional QUANTIZE
operators, which change codes but no value; all others must match, with the same operands.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime import numerics
from edge_runtime.bundle.flatbuffer import GraphOperator, GraphSummary, GraphTensor, read_graph
from edge_runtime.detector.interpreter import load_interpreter
from edge_runtime.errors import GruardError

Float32 = npt.NDArray[np.float32]
Inputs = Sequence[Mapping[str, Float32]]

EXACT_DB = 50.0  # what 256 evenly used codes reach; above it no loss is reported


@dataclass(frozen=True)
class TensorError:
    """One tensor of the int8 graph.

    sqnr_db: signal power over error power, all earlier errors included, at most 50 dB.
    lost_db: how far sqnr_db is below that of the noisiest operand: the loss of this operator.
    largest_error: in the tensor's own unit. saturated: share of the float values beyond the int8
    range.
    """

    name: str
    kind_of_op: str
    shape: tuple[int, ...]
    sqnr_db: float
    lost_db: float
    largest_error: float
    saturated: float

    def to_dict(self) -> dict[str, Any]:
        """Return the errors as JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """Describe the tensor in one line."""
        return (
            f"{self.name} ({self.kind_of_op}): signal {self.sqnr_db:.0f} dB over its error, "
            f"{self.lost_db:.0f} dB lost here, {self.saturated:.1%} saturated"
        )


def tensor_errors(model: bytes, float_model: bytes, inputs: Inputs) -> tuple[TensorError, ...]:
    """Measure the errors of all inputs and results inside the int8 `model`, in graph order.

    inputs: named float32 vectors [n], as the runtime feeds them, for both graphs. Raises
    GruardError when the two files are not the same step.
    """
    graph, reference = read_graph(model, "int8 model"), read_graph(float_model, "float model")
    quantised, true = _values(model, graph, inputs), _values(float_model, reference, inputs)
    sqnr: dict[int, float] = {}  # of the float graph's tensors
    errors = []
    for kind, operands, tensor, twin in _walk(graph, reference):
        signal, codes = true[twin], quantised[tensor.index]
        scale, zero_point = (np.float32(v[0]) for v in (tensor.scales, tensor.zero_points))
        error = numerics.dequantise(codes, scale, zero_point) - signal
        sqnr[twin] = _decibels(signal, error)
        before = min((sqnr[operand] for operand in operands if operand in sqnr), default=EXACT_DB)
        errors.append(
            TensorError(
                name=_place(graph, tensor),
                kind_of_op=kind,
                shape=tensor.shape,
                sqnr_db=sqnr[twin],
                lost_db=before - sqnr[twin],
                largest_error=float(np.abs(error).max()),
                saturated=numerics.saturations(signal, scale, zero_point) / signal.size,
            )
        )
    return tuple(errors)


def worst_tensor(tensors: Sequence[TensorError]) -> TensorError:
    """Return the tensor with the largest loss."""
    return max(tensors, key=lambda tensor: tensor.lost_db)


def _walk(
    graph: GraphSummary, reference: GraphSummary
) -> Iterator[tuple[str, tuple[int, ...], GraphTensor, int]]:
    """Yield kind of operator, operands (float graph), int8 tensor and float twin, in order."""
    twins = {index: reference.inputs[name] for name, index in graph.inputs.items()}
    for index in sorted(twins):
        yield "input", (), graph.tensors[index], twins[index]
    expected = iter(reference.operators)
    for operator in graph.operators:
        (result,) = operator.outputs
        if operator.name == "QUANTIZE":
            twins[result] = twins[operator.inputs[0]]
            continue
        other = next(expected, None)
        if other is None or not _same(operator, other, graph, reference, twins):
            raise GruardError(
                f"the int8 and the float model are not the same step: {operator.name} to "
                f"{graph.tensors[result].name}; convert both from the same weights and sizes"
            )
        twins[result] = other.outputs[0]
        yield operator.name, other.inputs, graph.tensors[result], other.outputs[0]


def _same(
    operator: GraphOperator,
    other: GraphOperator,
    graph: GraphSummary,
    reference: GraphSummary,
    twins: Mapping[int, int],
) -> bool:
    """Return whether both are the same operator on the same operands; constants match by shape."""
    result, wanted = graph.tensors[operator.outputs[0]], reference.tensors[other.outputs[0]]
    if (operator.name, result.shape) != (other.name, wanted.shape):
        return False
    # A missing bias may be stored as -1 or omitted.
    mine, theirs = ([i for i in o.inputs if i >= 0] for o in (operator, other))
    return len(mine) == len(theirs) and all(
        twins[a] == b if a in twins else graph.tensors[a].shape == reference.tensors[b].shape
        for a, b in zip(mine, theirs, strict=True)
    )


def _values(model: bytes, graph: GraphSummary, inputs: Inputs) -> dict[int, npt.NDArray[Any]]:
    """Return all inputs and results [samples, n] by tensor index, as the graph stores them."""
    interpreter = load_interpreter(model, preserve_all=True)
    kept = [*graph.inputs.values(), *(o.outputs[0] for o in graph.operators)]
    seen: dict[int, list[npt.NDArray[Any]]] = {index: [] for index in kept}
    for sample in inputs:
        for name, index in graph.inputs.items():
            interpreter.set_tensor(index, _stored(sample[name][np.newaxis], graph.tensors[index]))
        interpreter.invoke()
        for index, values in seen.items():
            values.append(interpreter.get_tensor(index)[0])
    return {index: np.array(values) for index, values in seen.items()}


def _stored(value: Float32, tensor: GraphTensor) -> npt.NDArray[Any]:
    """Return `value` as the graph takes it: as codes if the tensor is quantised."""
    if not tensor.scales:
        return value
    scale, zero_point = np.float32(tensor.scales[0]), np.float32(tensor.zero_points[0])
    return numerics.quantise(value, scale, zero_point)


def _decibels(signal: Float32, error: Float32) -> float:
    power, noise = (float((v.astype(np.float64) ** 2).mean()) for v in (signal, error))
    # A signal that is always 0 loses nothing.
    if not power or noise <= power * 10 ** (-EXACT_DB / 10):
        return EXACT_DB
    return float(10 * np.log10(power / noise))


def _place(graph: GraphSummary, tensor: GraphTensor) -> str:
    """Return the tensor's signature name, or its name in the file and the output it leads to."""
    names = {index: name for name, index in {**graph.inputs, **graph.outputs}.items()}
    queue = deque([tensor.index])
    while queue:
        index = queue.popleft()
        if index in names:
            own = index == tensor.index
            return names[index] if own else f"{tensor.name}, to {names[index]}"
        queue += [o.outputs[0] for o in graph.operators if index in o.inputs]
    return tensor.name
