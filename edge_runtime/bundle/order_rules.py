"""Operators run in the order of the file: what one reads, an earlier one has written."""

from collections.abc import Iterator

from edge_runtime.bundle.flatbuffer import GraphSummary
from edge_runtime.bundle.tensor_rules import shown

_LEFT_OUT = -1


def order_faults(graph: GraphSummary) -> list[str]:
    """Reasons why the operators can't be run one after the other."""
    return list(_ends_faults(graph)) + list(_operator_faults(graph))


def _ends_faults(graph: GraphSummary) -> Iterator[str]:
    for side, indices in (("input", graph.inputs), ("output", graph.outputs)):
        if len(set(indices.values())) < len(indices):
            yield f"one tensor is two {side}s of the graph: every name needs its own"
    written = {index for operator in graph.operators for index in operator.outputs}
    for name, index in graph.inputs.items():
        if graph.tensors[index].constant_bytes:
            yield f"input {name} is a constant: the host could not feed it"
    for name, index in graph.outputs.items():
        if index not in written:
            yield f"output {name} is written by no operator: convert again"


def _operator_faults(graph: GraphSummary) -> Iterator[str]:
    constants = {tensor.index for tensor in graph.tensors if tensor.constant_bytes}
    ready = {_LEFT_OUT, *constants, *graph.inputs.values()}
    for number, operator in enumerate(graph.operators):
        for index in operator.inputs:
            if index not in ready:
                yield (
                    f"operator {number} {operator.name} reads {shown(graph.tensors[index])} before "
                    "it is written: put the operators into their order"
                )
        for index in operator.outputs:
            if index in ready:
                what = "nothing" if index == _LEFT_OUT else shown(graph.tensors[index])
                yield (
                    f"operator {number} {operator.name} writes {what}, which is an input, a "
                    "constant or already written: give every result a tensor of its own"
                )
            ready.add(index)
