"""Real graphs with one thing changed."""

from dataclasses import replace
from typing import Any

from edge_runtime.bundle.flatbuffer import GraphOperator, GraphSummary


def with_tensor(graph: GraphSummary, index: int, **change: Any) -> GraphSummary:
    """`graph` with other fields in the tensor `index`."""
    tensors = [replace(t, **change) if t.index == index else t for t in graph.tensors]
    return replace(graph, tensors=tuple(tensors))


def with_operator(graph: GraphSummary, number: int, **change: Any) -> GraphSummary:
    """`graph` with other fields in the operator `number`."""
    operators = list(graph.operators)
    operators[number] = replace(operators[number], **change)
    return replace(graph, operators=tuple(operators))


def first(graph: GraphSummary, name: str) -> tuple[int, GraphOperator]:
    """Number of the first operator `name`, and the operator."""
    return next((i, o) for i, o in enumerate(graph.operators) if o.name == name)
