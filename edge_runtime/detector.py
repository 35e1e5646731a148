"""The detector on the device: a bundle, a state, and one record per sample."""

from dataclasses import replace

import numpy as np

from edge_runtime import step as stepping
from edge_runtime import tiers
from edge_runtime.bundle import Bundle
from edge_runtime.errors import GruardError
from edge_runtime.fallback import Fallback
from edge_runtime.interpreter import KERNEL_ID, Int8Graph
from edge_runtime.record import Record, Sample


class Detector:
    """`step(sample)` around the pure function of `edge_runtime.step`.

    Raises GruardError when the bundle has no threshold for the kernel that runs here.
    """

    def __init__(self, bundle: Bundle) -> None:
        if KERNEL_ID not in bundle.manifest.thresholds:
            raise GruardError(
                f"{bundle.path}: no threshold for kernel {KERNEL_ID}; convert again on it"
            )
        self._bundle = bundle
        softplus = np.array(bundle.manifest.tables.softplus, np.float32)
        self._graph = Int8Graph(bundle.model, bundle.graph, softplus)
        self.model = stepping.build_model(bundle.manifest, self._graph, bundle.model_hash)
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
        names = {"inputs": self._bundle.graph.inputs, "outputs": self._bundle.graph.outputs}
        wanted = {f"{side}/{name}" for side, group in names.items() for name in group}
        lengths = {array.shape[:1] for array in golden.values()}
        # Without a single vector nothing would be tested.
        if set(golden) != wanted or len(lengths) != 1 or lengths & {(), (0,)}:
            raise GruardError(f"{self._bundle.path}: golden vectors do not fit the model")
        for row in range(len(golden["inputs/mask"])):
            inputs = {name: golden[f"inputs/{name}"][row] for name in names["inputs"]}
            codes = self._graph.codes(inputs)
            for name, found in codes.items():
                if not np.array_equal(found, golden[f"outputs/{name}"][row]):
                    raise GruardError(
                        f"{self._bundle.path}: self-test failed: output {name} of golden vector "
                        f"{row} differs; this interpreter does not compute what was validated"
                    )
