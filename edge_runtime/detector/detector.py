"""The detector on the device: a bundle, a state, and one record per sample.

Every step keeps each number of the state within bounds. `is_possible` checks these bounds before
the next step: a number beyond them, or NaN, means that memory has failed. It would stay, because a
recurrent unit that is NaN remains NaN, and no rule of the tiers notices it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np

from edge_runtime.bundle.flatbuffer import GraphSummary
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector import change, tiers
from edge_runtime.detector import step as stepping
from edge_runtime.detector.cell import build_model
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.golden import SelfTest, replay
from edge_runtime.detector.inputs import VALUE_CLIP
from edge_runtime.detector.interpreter import Int8Graph, NoGraph, StepGraph
from edge_runtime.detector.kernels import HOST_KERNEL_ID, KERNEL_ID, Kernel
from edge_runtime.detector.lasting_change import ChangePhase, Changing, LastingChange
from edge_runtime.detector.step import State
from edge_runtime.detector.thresholds import threshold_of
from edge_runtime.errors import GruardError
from edge_runtime.record import Float32, Record, Sample

OnStage = Callable[[str], None]
_ONE = np.float32(1)
_LARGEST = np.finfo(np.float32).max


class StepDetector(Changing, Protocol):
    """A detector for a stream of samples, on any kernel."""

    kernel_id: str

    def step(self, sample: Sample, on_stage: OnStage = stepping.ignore_stage) -> Record:
        """Return the record of one sample; `on_stage` is called after each stage of the work."""

    def reset(self) -> None:
        """Forget the recurrent state; the records until it has settled are flagged."""

    def self_test(self) -> None:
        """Raise GruardError if this machine does not compute what was validated."""


class Detector:
    """`step(sample)` around the pure function of `edge_runtime.detector.step`.

    kernel: any but the core. calibrated: False takes any threshold, to calibrate a new one.
    Raises GruardError when there is no threshold for the kernel that runs here.
    """

    def __init__(self, bundle: Bundle, kernel: Kernel = KERNEL_ID, calibrated: bool = True) -> None:
        self.graph = open_graph(bundle.manifest, bundle.model, bundle.graph, kernel)
        self.kernel_id = self.graph.kernel_id
        threshold = threshold_of(bundle, self.kernel_id, calibrated)
        manifest = replace(bundle.manifest, thresholds={self.kernel_id: threshold})
        self.model = build_model(manifest, self.graph, bundle.model_hash)
        self.state = stepping.initial_state(self.model)
        self._path = bundle.path
        self._fallback = Fallback(bundle.manifest, bundle.model_hash, self._refuse_damage)
        exact = self.kernel_id in (KERNEL_ID, HOST_KERNEL_ID)
        # The interpreter reads the weights from this very object.
        self._test = SelfTest(bundle, partial(replay, self.model), bundle.model, exact)

    def step(self, sample: Sample, on_stage: OnStage = stepping.ignore_stage) -> Record:
        """Return the record for `sample` and advance the state. `on_stage` as for `step.step`.

        Each step also checks the state and runs a part of the self-test, to notice memory that
        fails while the model is in service. Raises GruardError when it has failed.
        """
        if not is_possible(self.state, self.model.gate_limit):
            raise GruardError(f"{self._path}: its state changed in memory")
        shadow = self._fallback.step(sample, self.state.change.centre)
        distrusted = self.state.tiers.distrusted
        record, self.state, _ = stepping.step(self.model, sample, self.state, shadow, on_stage)
        self._test.advance(distrusted, self.state.tiers.distrusted)
        return record

    def _refuse_damage(self, line: str) -> None:
        # A bit has flipped in this process, so the whole process is replaced.
        raise GruardError(f"{self._path}: {line}")

    def reset(self) -> None:
        """Forget the recurrent state; the records until it has settled are flagged.

        State that comes only from the readings is kept.
        """
        fresh = stepping.initial_state(self.model)
        self.state = replace(
            fresh,
            validity=self.state.validity,
            alarm=self.state.alarm,
            change=replace(self.state.change, recorded=self.model.score.mean),
            tiers=tiers.restart(self.state.tiers, self.model.manifest.tiers),
        )

    @property
    def change_phase(self) -> ChangePhase | None:
        """See `StepDetector`."""
        return self.state.change.phase if self.model.change.after else None

    @property
    def lasting_change(self) -> LastingChange:
        """See `StepDetector`."""
        return change.lasting(self.state.change)

    def resume(self, saved: LastingChange) -> None:
        """See `StepDetector`."""
        require_fitting(saved, self.model.manifest)
        resumed = change.resumed(saved, self.model.score, self.model.change)
        self.state = replace(self.state, change=resumed)

    def accept(self, yes: bool) -> None:
        """See `StepDetector`."""
        self.state = replace(self.state, change=change.accepted(self.state.change, yes))

    def self_test(self) -> None:
        """Replay the golden vectors; GruardError when a single bit of any answer differs.

        A kernel other than the reference may differ by a small tolerance.
        """
        self._test.run()


def require_fitting(saved: LastingChange, source: Manifest) -> None:
    """Raise GruardError when no detector of `source` can have written `saved`."""
    if fault := change.fault_of(saved, source):
        raise GruardError(f"this lasting change {fault}")


def is_possible(state: State, gate_limit: np.float32) -> bool:
    """Whether `state` is within the bounds that every step keeps. gate_limit: of the model."""
    moved = state.change
    sums = [
        each.ravel()
        for each in (
            state.score.parts, state.score.terms, moved.baselines, moved.recorded, moved.pulled
        )
    ]  # fmt: skip
    if not _within([moved.centre, moved.standing], VALUE_CLIP):
        return False
    if state.recurrent is None:
        return _within(sums, _LARGEST)
    carried = state.recurrent
    units = [*carried.hidden, carried.mask]
    readings = [carried.history.ravel(), carried.value]
    return (
        _within(units, _ONE)
        and _within([carried.gate], gate_limit)
        and _within(readings, VALUE_CLIP)
        and _within([*sums, carried.correction], _LARGEST)
    )


def _within(vectors: Sequence[Float32], bound: np.float32) -> bool:
    return bool(np.all(np.abs(np.concatenate(vectors)) <= bound))


def open_graph(
    manifest: Manifest, model: bytes, graph: GraphSummary, kernel: Kernel = KERNEL_ID
) -> StepGraph:
    """Return the int8 `model`, described by `graph`, ready to run on `kernel`.

    A linear model has no graph, on any kernel.
    """
    if manifest.linear:
        return NoGraph()
    return Int8Graph(model, graph, np.array(manifest.tables.softplus, np.float32), kernel)
