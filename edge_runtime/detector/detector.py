"""The detector on the device: a bundle, a state, and one record per sample."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from edge_runtime.bundle.flatbuffer import GraphSummary
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector import step as stepping
from edge_runtime.detector import tiers
from edge_runtime.detector.delegate import Kernel
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.golden import differences, read_golden, too_far_apart
from edge_runtime.detector.interpreter import Int8Graph, NoGraph, StepGraph
from edge_runtime.detector.kernels import HOST_KERNEL_ID, KERNEL_ID
from edge_runtime.detector.soundness import is_possible
from edge_runtime.detector.thresholds import threshold_of
from edge_runtime.errors import GruardError
from edge_runtime.record import Record, Sample

PART = 4  # steps of the self-test with each sample that the model is distrusted for
WATCH_EVERY = 16  # samples from one look at a trusted model to the next


class Detector:
    """`step(sample)` around the pure function of `edge_runtime.detector.step`.

    kernel: None is the reference. calibrated: False takes any threshold, for setting a new one.
    Raises GruardError when there is no threshold for the kernel that runs here.
    """

    def __init__(
        self, bundle: Bundle, kernel: Kernel | None = None, calibrated: bool = True
    ) -> None:
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
        self._test: Iterator[str] | None = None
        self._steps, self._checksum = 0, zlib.crc32(bundle.model)

    def step(self, sample: Sample, reach: Callable[[str], None] = stepping.unwatched) -> Record:
        """The record for `sample`; the state moves on. `reach` as for `stepping.step`.

        The state is looked at, and a part of the self-test goes on with the samples, so that memory
        which fails while the model is in service is noticed. Raises GruardError when it is.
        """
        if not is_possible(self.state):
            raise GruardError(f"{self._bundle.path}: its state changed in memory")
        shadow = self._fallback.step(sample)
        distrusted = self.state.tiers.distrusted
        record, self.state, _ = stepping.step(self.model, sample, self.state, shadow, reach)
        self._steps += 1
        if distrusted:
            self._test_a_part(PART, finish=not self.state.tiers.distrusted)
        elif self._steps % WATCH_EVERY == 0:
            self._check_weights()
            self._test_a_part(1)
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
        """Replay the golden vectors; GruardError when a single bit of any answer differs.

        A kernel that is not the reference may be apart by a small tolerance.
        """
        for difference in self._differences():
            self._refuse(difference)

    def _check_weights(self) -> None:
        # The interpreter reads them where they lie, in this very object.
        if zlib.crc32(self._bundle.model) != self._checksum:
            raise GruardError(f"{self._bundle.path}: its weights changed in memory")

    def _test_a_part(self, steps: int, finish: bool = False) -> None:
        """A few steps of the self-test: all of them at once would miss the sample's deadline."""
        if self._test is None:
            self._test = self._differences()
        tested = 0
        for difference in self._test if finish else islice(self._test, steps):
            self._refuse(difference)
            tested += 1
        if finish or tested < steps:
            self._test = None

    def _differences(self) -> Iterator[str]:
        arrays = self._bundle.arrays("golden.npz")
        try:
            golden = read_golden(arrays, self.model)
        except ValueError as error:
            raise GruardError(
                f"{self._bundle.path}: golden vectors do not fit the model: {error}"
            ) from None
        exact = self.graph.kernel_id in (KERNEL_ID, HOST_KERNEL_ID)
        return (differences if exact else too_far_apart)(self.model, golden)

    def _refuse(self, difference: str) -> None:
        if difference:
            raise GruardError(
                f"{self._bundle.path}: self-test failed at {difference}; this machine does not "
                "compute what was validated"
            )


def open_graph(
    manifest: Manifest, model: bytes, graph: GraphSummary, kernel: Kernel = KERNEL_ID
) -> StepGraph:
    """The int8 `model`, described by `graph`, ready to run on `kernel`.

    A linear model has nothing to run, on any kernel.
    """
    if manifest.linear:
        return NoGraph()
    return Int8Graph(model, graph, np.array(manifest.tables.softplus, np.float32), kernel)
