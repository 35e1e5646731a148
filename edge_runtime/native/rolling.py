"""Whole recordings through the core around any graph, with everything that is inside a step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.detector.step import Model
from edge_runtime.errors import GruardError
from edge_runtime.native.blob import INPUTS, graph_names, pack_without_graph
from edge_runtime.native.engine import core_module
from edge_runtime.native.records import RECORD
from edge_runtime.record import Float32


@dataclass(frozen=True)
class Rolled:
    """What the core found in n rows; every array is [n, …].

    records: of `records.RECORD`. value, mask, forecast, own, ahead, gate, trusted, doubt:
    [n, channels]. terms, parts: smoothed, [n, 3, channels] and [n, memories, 6]. score, measured,
    settling: [n]. hidden: [n, all units]. inputs: of the graph, by name.
    """

    records: npt.NDArray[np.void]
    value: Float32
    mask: Float32
    forecast: Float32
    own: Float32
    ahead: Float32
    gate: Float32
    trusted: Float32
    doubt: Float32
    terms: Float32
    parts: Float32
    score: Float32
    measured: npt.NDArray[np.bool_]
    settling: npt.NDArray[np.bool_]
    hidden: Float32
    inputs: dict[str, Float32]


def roll_on_core(model: Model, rows: Float32) -> Rolled:
    """Raw `rows` [n, channels] from a fresh state: the core's step around the model's own graph.

    Each number is that of `edge_runtime.detector.step`. Raises GruardError where the core was not
    built, or cannot run the model.
    """
    channels, states = len(model.manifest.channels), model.graph.state_sizes
    units, count = sum(states), len(rows)
    named, _ = graph_names(range(len(states)))
    sizes = [*[channels] * len(INPUTS), *states]
    parts_shape = model.score.mean.shape
    widths = [*[channels] * 8, 3 * channels, int(np.prod(parts_shape)), 3, units, *sizes]
    records, traces = np.zeros(count, RECORD), np.zeros((count, sum(widths)), np.float32)
    inputs = np.zeros(sum(sizes), np.float32)
    outputs = np.zeros(3 * channels + 2 * units, np.float32)
    try:
        core = core_module().Core(pack_without_graph(model))
    except ValueError as error:
        raise GruardError(str(error)) from None
    call = _caller(model, dict(zip(named, _split(inputs, sizes), strict=True)), outputs)
    core.roll(np.ascontiguousarray(rows, np.float32), records, traces, inputs, outputs, call)
    value, mask, forecast, own, ahead, gate, trusted, doubt, terms, parts, told, hidden, *fed = (
        _split(traces, widths)
    )
    return Rolled(
        records, value, mask, forecast, own, ahead, gate, trusted, doubt,
        terms=terms.reshape(count, 3, channels),
        parts=parts.reshape(count, *parts_shape),
        score=told[:, 0],
        measured=told[:, 1] > 0,
        settling=told[:, 2] > 0,
        hidden=hidden,
        inputs=dict(zip(named, fed, strict=True)),
    )  # fmt: skip


def _caller(model: Model, inputs: dict[str, Float32], outputs: Float32) -> Callable[[], Any] | None:
    """Runs the model's graph from `inputs` to `outputs`; None for a model that has none."""
    graph, channels, states = model.graph, len(model.manifest.channels), model.graph.state_sizes
    pairs = [(f"update_{i}", f"candidate_{i}") for i in range(len(states))]
    there = {
        "gate_next": graph.gated, "doubt": graph.gated, "correction": bool(states),
        **{name: True for pair in pairs for name in pair},
    }  # fmt: skip
    sizes = [*[channels] * 3, *(size for size in states for _ in range(2))]
    targets = dict(zip(there, _split(outputs, sizes), strict=True))
    wanted = [(name, target) for name, target in targets.items() if there[name]]

    def call() -> None:
        found = graph(inputs)
        for name, target in wanted:
            target[:] = found[name]

    return call if wanted else None


def _split(array: Float32, widths: list[int]) -> list[Float32]:
    """Views of parts of the last axis."""
    return np.split(array, np.cumsum(widths)[:-1], axis=-1)
