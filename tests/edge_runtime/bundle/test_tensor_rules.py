"""A tensor of another type, shape, size or scale than gruard's is refused by its name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from graphs import first, with_tensor

from edge_runtime.bundle.flatbuffer import GraphSummary, read_graph
from edge_runtime.bundle.graph_rules import (
    MOST_OPERATORS,
    MOST_TENSORS,
    WIDEST,
    graph_faults,
    tensor_faults,
)


@pytest.fixture(scope="module")
def step(tiny_bundle: Path) -> GraphSummary:
    return read_graph((tiny_bundle / "model.tflite").read_bytes(), "model")


def places(graph: GraphSummary) -> dict[str, int]:
    """One tensor of each sort."""
    _, product = first(graph, "FULLY_CONNECTED")
    _, slice_ = first(graph, "SLICE")
    biased = next(o for o in graph.operators if o.name == "FULLY_CONNECTED" and o.inputs[2] >= 0)
    return {
        "row": product.outputs[0],
        "weights": product.inputs[1],
        "bias": biased.inputs[2],
        "begin": slice_.inputs[1],
    }


@pytest.mark.parametrize(
    ("place", "change", "told"),
    [
        ("row", {"shape": (3,)}, "has the shape [3]: 2 dimensions"),
        ("row", {"shape": (1, 0)}, "has the shape [1, 0]"),
        ("row", {"shape": (1, -8)}, "has the shape [1, -8]"),
        ("row", {"shape": (1, WIDEST + 1)}, f"1 to {WIDEST} are expected"),
        ("row", {"shape": (1,) * 100_000}, "has the shape [1, 1, 1, 1]"),
        ("row", {"shape": (2, 4)}, "neither constant nor a [1, n] row"),
        ("row", {"constant_bytes": 1}, "has 1 bytes, its shape"),
        ("row", {"scales": (), "zero_points": ()}, "has 0 scales and 0 zero points"),
        ("row", {"scales": (0.1, 0.1), "zero_points": (0, 0)}, "2 scales and 2 zero points"),
        ("row", {"zero_points": ()}, "has 1 scales and 0 zero points"),
        ("row", {"scales": (0.0,)}, "has the scale 0"),
        ("row", {"scales": (-0.1,)}, "has the scale -0.1"),
        ("row", {"scales": (float("nan"),)}, "has the scale nan"),
        ("row", {"scales": (float("inf"),)}, "has the scale inf"),
        ("row", {"scales": (1e-20,)}, "has the scale 1e-20"),
        ("row", {"scales": (1e9,)}, "has the scale 1e+09"),
        ("row", {"zero_points": (128,)}, "has the zero point 128"),
        ("row", {"zero_points": (-129,)}, "has the zero point -129"),
        ("weights", {"constant_bytes": 31}, "has 31 bytes, its shape [8, 8] needs 64"),
        ("weights", {"constant_bytes": 33}, "truncated or edited"),
        ("weights", {"constant_bytes": 0}, "neither constant nor a [1, n] row"),
        ("weights", {"scales": (0.1,) * 4, "zero_points": (0,) * 4}, "not per channel"),
        ("bias", {"shape": (1, 4)}, "has the shape [1, 4]: 1 dimensions"),
        ("bias", {"constant_bytes": 4}, "has 4 bytes"),
        ("bias", {"constant_bytes": 0}, "neither constant"),
        ("bias", {"zero_points": (1,)}, "has the zero point 1, not 0 to 0"),
        ("bias", {"scales": (1e-30,)}, "has the scale 1e-30"),
        ("begin", {"constant_bytes": 12}, "has 12 bytes, its shape [2] needs 8"),
    ],
    ids=str,
)
def test_each_tensor_is_one_of_gruards(
    step: GraphSummary, place: str, change: dict[str, Any], told: str
) -> None:
    index = places(step)[place]
    (found,) = tensor_faults(with_tensor(step, index, **change))
    assert found.startswith(f"tensor {index} (") and told in found and len(found) < 300


def test_a_graph_that_is_too_large_is_told_so_and_not_looked_at(step: GraphSummary) -> None:
    odd = replace(step.tensors[0], shape=())
    (found,) = graph_faults(replace(step, tensors=step.tensors + (odd,) * MOST_TENSORS))
    assert "more than any gruard step" in found
    (found,) = graph_faults(replace(step, operators=step.operators[:1] * (MOST_OPERATORS + 1)))
    assert f"and {MOST_OPERATORS + 1} operators" in found


def test_a_long_name_is_cut(step: GraphSummary) -> None:
    (found,) = tensor_faults(with_tensor(step, 0, name="x" * 10_000, scales=(0.0,)))
    assert len(found) < 200
