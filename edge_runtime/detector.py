"""The detector on the device: a bundle, a state, and one record per sample."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime import step as stepping
from edge_runtime import tiers
from edge_runtime.bundle import Bundle
from edge_runtime.errors import GruardError
from edge_runtime.fallback import Fallback
from edge_runtime.flatbuffer import GraphSummary
from edge_runtime.interpreter import Int8Graph, NoGraph, StepGraph
from edge_runtime.kernels import KERNEL_ID
from edge_runtime.manifest import Manifest
from edge_runtime.record import Float32, Record, Sample
from edge_runtime.thresholds import threshold_of


class Detector:
    """`step(sample)` around the pure function of `edge_runtime.step`.

    kernel: None is the reference. calibrated: False takes any threshold, for setting a new one.
    Raises GruardError when there is no threshold for the kernel that runs here.
    """

    def __init__(self, bundle: Bundle, kernel: str | None = None, calibrated: bool = True) -> None:
        self._bundle = bundle
        self.graph = open_graph(bundle.manifest, bundle.model, bundle.graph, kernel or KERNEL_ID)
        kernel_id = self.graph.kernel_id
        threshold = (
            threshold_of(bundle, kernel_id)
            if calibrated
            else next(iter(bundle.manifest.thresholds.values()))
        )
        manifest = replace(bundle.manifest, thresholds={kernel_id: threshold})
        self.model = stepping.build_model(manifest, self.graph, bundle.model_hash)
        self.state = stepping.initial_state(self.model)
        self._fallback = Fallback(bundle.manifest, bundle.model_hash)

    def step(self, sample: Sample) -> Record:
        """The record for `sample`; the state moves on.

        Raises GruardError when the model is to be trusted again but fails its self-test.
        """
        shadow = self._fallback.step(sample)
        distrusted = self.state.tiers.distrusted
        record, self.state, _ = stepping.step(self.model, sample, self.state, shadow)
        if distrusted and not self.state.tiers.distrusted:
            self.self_test()
        return record

    def reset(self) -> None:
        """Forget the recurrent state; the records until it has settled are flagged."""
        fresh = stepping.initial_state(self.model)
        self.state = replace(
            fresh,
            alarm=self.state.alarm,
            tiers=tiers.restart(self.state.tiers, self.model.manifest.tiers),
        )

    def self_test(self) -> None:
        """Run the golden vectors; GruardError when a single bit of any output differs."""
        golden = self._bundle.arrays("golden.npz")
        graph = self._bundle.graph
        wanted = {"history", "correction", "forecast"}
        wanted |= {f"inputs/{name}" for name in graph.inputs}
        wanted |= {f"outputs/{name}" for name in graph.outputs}
        lengths = {array.shape[:1] for array in golden.values()}
        # Without a single vector nothing would be tested.
        fits = set(golden) == wanted and len(lengths) == 1 and not lengths & {(), (0,)}
        if not fits or golden["history"].shape[1:] != self.model.highway.shape:
            raise GruardError(f"{self._bundle.path}: golden vectors do not fit the model")
        for row in range(len(golden["forecast"])):
            for name, found in self._answers(golden, row).items():
                if not np.array_equal(found, golden[name][row]):
                    raise GruardError(
                        f"{self._bundle.path}: self-test failed: {name} of golden vector "
                        f"{row} differs; this machine does not compute what was validated"
                    )

    def _answers(self, golden: Mapping[str, Float32], row: int) -> dict[str, npt.NDArray[Any]]:
        """What this machine makes of golden vector `row`: the forecast and the graph's codes."""
        recurrent = replace(
            stepping.start_recurrent(self.model, golden["forecast"][row]),
            history=golden["history"][row],
            correction=golden["correction"][row],
        )
        answers: dict[str, npt.NDArray[Any]] = {
            "forecast": stepping.forecast(self.model, recurrent)
        }
        if isinstance(self.graph, Int8Graph):
            inputs = {name: golden[f"inputs/{name}"][row] for name in self._bundle.graph.inputs}
            codes = self.graph.codes(inputs)
            answers |= {f"outputs/{name}": found for name, found in codes.items()}
        return answers


def open_graph(
    manifest: Manifest, model: bytes, graph: GraphSummary, kernel: str = KERNEL_ID
) -> StepGraph:
    """The int8 `model`, described by `graph`, ready to run on `kernel`.

    A linear model has nothing to run, on any kernel.
    """
    if manifest.linear:
        return NoGraph()
    return Int8Graph(model, graph, np.array(manifest.tables.softplus, np.float32), kernel)
