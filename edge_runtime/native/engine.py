"""The C core as a detector: the records of `edge_runtime.detector.detector.Detector`, sooner."""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.delegate import Kernel
from edge_runtime.detector.detector import Detector, StepDetector, require_fitting
from edge_runtime.detector.golden import CODES, NONE, Array
from edge_runtime.detector.kernels import CORE_KERNEL_ID, KERNEL_ID
from edge_runtime.detector.lasting_change import ChangePhase, LastingChange
from edge_runtime.detector.self_test import SelfTest
from edge_runtime.detector.step import unwatched
from edge_runtime.detector.thresholds import threshold_of
from edge_runtime.errors import GruardError
from edge_runtime.native.blob import not_above, pack, program_of
from edge_runtime.native.layout import layout_of
from edge_runtime.native.records import RECORD, Records
from edge_runtime.record import Float32, Record, Sample

INTERFACE = 4
"""Of the compiled core that this code calls; the same in module.c."""


def core_module() -> Any:
    """The compiled core. Raises GruardError when it was not built here, or before an update."""
    try:
        module = importlib.import_module("edge_runtime.native._core")
    except ImportError:
        raise GruardError(
            f"kernel {CORE_KERNEL_ID} was not built on this machine; install gruard from its "
            "source with a C compiler there (on Debian: apt install gcc python3-dev)"
        ) from None
    if getattr(module, "INTERFACE", None) != INTERFACE:
        raise GruardError(
            f"{module.__file__}: was built for another version of gruard; build it again with "
            "`make engine`, or install gruard from its source again"
        )
    return module


def core_over(bundle: Bundle, blob: bytes | bytearray) -> Any:
    """A core over `blob`, the packed `bundle`. Raises GruardError when it is refused."""
    try:
        return core_module().Core(blob)
    except ValueError as error:
        raise GruardError(f"{bundle.path}: {error}; run it on {KERNEL_ID}") from None


def open_detector(
    bundle: Bundle, kernel: Kernel | None = None, calibrated: bool = True
) -> StepDetector:
    """The detector of `bundle` on any kernel; arguments and errors as for Detector.

    A damaged model may end the process, except on the core.
    """
    if kernel == CORE_KERNEL_ID:
        return NativeDetector(bundle, calibrated)
    return Detector(bundle, kernel, calibrated)


class NativeDetector:
    """`step(sample)` by the C core.

    calibrated: as for Detector. Raises GruardError when the core was not built here or can't run
    the bundle.
    """

    kernel_id = CORE_KERNEL_ID

    def __init__(self, bundle: Bundle, calibrated: bool = True) -> None:
        module, manifest = core_module(), bundle.manifest
        threshold = (
            threshold_of(bundle, CORE_KERNEL_ID)
            if calibrated
            else next(iter(manifest.thresholds.values()))
        )
        program = program_of(bundle, layout_of(module.LAYOUT))
        self._blob, self._places = pack(bundle, threshold, program), program.places
        self._make = partial(core_over, bundle)
        self._core = self._make(self._blob)
        self._path, self._manifest = bundle.path, manifest
        self._reports_changes = manifest.change is not None and manifest.change.after > 0
        self._graph = bundle.graph
        self._records = Records(manifest.channel_names, bundle.model_hash, threshold.value)
        # Without a record, and the network without the detector: what there is to be measured.
        self.bare_step, self.run_graph = self._core.step, self._core.run_graph
        self._test = SelfTest(bundle, self.replay, self._blob, exact=True)

    def step(self, sample: Sample, reach: Callable[[str], None] = unwatched) -> Record:
        """The record for `sample`; the state moves on. Raises GruardError as Detector does."""
        if not self._core.possible():
            raise GruardError(f"{self._path}: its state changed in memory")
        distrusted = self._core.distrusted()
        found = self._core.step(np.ascontiguousarray(sample.values, np.float32))
        for stage in ("mask", "invoke", "check"):
            reach(stage)
        self._test.go_on(distrusted, self._core.distrusted())
        return self._records.record(sample, found)

    def run(self, rows: Float32) -> npt.NDArray[np.void]:
        """The records of raw `rows` [n, channels] as an array of `RECORD`, in one call."""
        records = np.zeros(len(rows), RECORD)
        self._core.run(np.ascontiguousarray(rows, np.float32), records)
        return records

    def reset(self) -> None:
        """Forget the recurrent state; the records until it has settled are flagged."""
        self._core.reset()

    @property
    def change_phase(self) -> ChangePhase | None:
        """As of `StepDetector`."""
        return ChangePhase(self._core.changed()) if self._reports_changes else None

    @property
    def lasting_change(self) -> LastingChange:
        """As of `StepDetector`."""
        count, *vectors = self._core.lasting_change()
        centre, baselines = (tuple(np.frombuffer(v, np.float32).tolist()) for v in vectors)
        return LastingChange(self._core.changed(), count, centre, baselines)

    def resume(self, known: LastingChange) -> None:
        """As of `StepDetector`."""
        require_fitting(known, self._manifest)
        vectors = (np.array(v, np.float32) for v in (known.centre, known.baselines))
        self._core.resume(int(known.phase), known.count, *vectors)

    def accept(self, yes: bool) -> None:
        """As of `StepDetector`."""
        self._core.accept(yes)

    def self_test(self) -> None:
        """Replay the golden vectors; GruardError when a single bit of any answer differs."""
        self._test.run()

    def replay(self, rows: Float32, threshold: Array) -> Iterator[dict[str, Array]]:
        """As `edge_runtime.detector.golden.replay`, by a core of its own over the same blob."""
        core = self._make(self._blob)
        core.set_threshold(*map(not_above, threshold.tolist()))
        for row in np.ascontiguousarray(rows, np.float32):
            yield self._answers(core.step(row), core.traces())

    def _answers(self, found: tuple[Any, ...], traces: tuple[Any, ...]) -> dict[str, Array]:
        _, flags, tier, alarm, kind, _, probability, blamed, _, _ = found
        mask, forecast, gate, state, parts, arena, score, fallback, fallback_alarm = traces
        values = np.frombuffer(arena, np.int8)
        outputs = self._graph.outputs.items()
        codes = {
            f"{CODES}{name}": values[at : at + self._graph.tensors[index].shape[1]]
            for name, index in outputs
            for at in (self._places[index],)
        }
        return {
            "mask": np.frombuffer(mask, np.float32) > 0,
            "forecast": np.frombuffer(forecast, np.float32),
            **codes,
            "gate": np.frombuffer(gate, np.float32),
            "state": np.frombuffer(state, np.float32),
            "parts": np.frombuffer(parts, np.float32),
            "score": np.asarray(score, np.float32),
            "fallback": np.array([fallback, fallback_alarm], np.float32),
            "tier": np.asarray(tier, np.int8),
            "flags": np.asarray(flags, np.int16),
            "alarm": np.asarray(bool(alarm)),
            "blamed": np.array([*blamed, *[NONE] * 3][:3], np.int16),
            "kind": np.asarray(kind, np.int8),
            "probability": np.asarray(probability, np.float32),
        }
