"""The C core (kernel `core-c`) as detector, as fallback, and over whole recordings.

`NativeDetector` gives exactly the records of `edge_runtime.detector.detector.Detector`,
`NativeFallback` those of `edge_runtime.detector.fallback.Fallback`, both faster. `roll_on_core`
runs the core's step around any graph and returns every intermediate result.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.cell import Model
from edge_runtime.detector.detector import Detector, OnStage, StepDetector, require_fitting
from edge_runtime.detector.fallback import (
    THRESHOLD,
    GuardedFallback,
    GuardedMemory,
)
from edge_runtime.detector.golden import CODES, NONE, Array, SelfTest
from edge_runtime.detector.kernels import CORE_KERNEL_ID, KERNEL_ID, Kernel
from edge_runtime.detector.lasting_change import ChangePhase, LastingChange
from edge_runtime.detector.step import ignore_stage
from edge_runtime.detector.thresholds import threshold_of
from edge_runtime.diagnosis import KINDS
from edge_runtime.errors import GruardError, ignore_line
from edge_runtime.native.blob import (
    INPUTS,
    graph_names,
    not_above,
    pack,
    pack_without_graph,
    program_of,
)
from edge_runtime.native.layout import layout_of
from edge_runtime.record import Float32, Record, Sample, flags_of

INTERFACE = 4
"""Version of the compiled core that this code calls; the same in module.c."""
_WORDS = 8
# `gruard_record` of the core.
RECORD = np.dtype(
    [
        ("index", "<u8"), ("score", "<f4"), ("probability", "<f4"), ("flags", "<u2"),
        ("tier", "u1"), ("valid", "u1"), ("alarm", "u1"), ("kind", "i1"), ("sensor", "u1"),
        ("reserved", "u1"), ("blamed", "<i2", 3), ("masked", "<u4", _WORDS),
        ("imputed", "<u4", _WORDS),
    ],
    align=True,
)  # fmt: skip


class Records:
    """Makes records that name `channels` and the model. threshold: of the model's alarm."""

    def __init__(self, channels: Sequence[str], model_hash: str, threshold: float) -> None:
        self._names, self._hash, self._threshold = channels, model_hash, threshold

    def record(self, sample: Sample, answer: tuple[Any, ...]) -> Record:
        """Return the record of `sample` from the `answer` of the core's step."""
        score, flags, tier, alarm, kind, sensor, probability, blamed, masked, imputed = answer
        diagnosed = kind != NONE
        return Record(
            sample.index,
            sample.time,
            tier,
            flags_of(flags),
            tier != 3,
            score,
            THRESHOLD if tier == 3 else self._threshold,
            alarm != 0,
            self._named(masked) if masked else (),
            self._named(imputed) if imputed else (),
            self._named(blamed) if blamed else (),
            self._hash,
            KINDS[kind] if diagnosed else None,
            probability if diagnosed else None,
            sensor if diagnosed else None,
        )

    def of_rows(self, rows: Float32, records: npt.NDArray[np.void]) -> Iterator[Record]:
        """Yield the records of raw `rows` from the core's array of `RECORD`."""
        columns = ("score", "flags", "tier", "alarm", "kind", "sensor", "probability")
        numbers = zip(*(records[name].tolist() for name in columns), strict=True)
        blamed = (tuple(i for i in each if i >= 0) for each in records["blamed"].tolist())
        bits = map(_indices, records["masked"]), map(_indices, records["imputed"])
        for index, (row, first, *rest) in enumerate(zip(rows, numbers, blamed, *bits, strict=True)):
            score, flags, tier, alarm, kind, sensor, probability = first
            answer = (score, flags, tier, alarm, kind, sensor != 0, probability, *rest)
            yield self.record(Sample(index, None, row), answer)

    def _named(self, indices: tuple[int, ...]) -> tuple[str, ...]:
        return tuple([self._names[i] for i in indices])


def _indices(words: npt.NDArray[np.uint32]) -> tuple[int, ...]:
    """Return the indices of the bits that are set."""
    bits = np.unpackbits(words.view(np.uint8), bitorder="little") if words.any() else words
    return tuple(np.flatnonzero(bits).tolist())


def core_module() -> Any:
    """Import the compiled core. GruardError when it was not built here, or before an update."""
    try:
        module = importlib.import_module("edge_runtime.native._core")
    except ImportError:
        raise GruardError(
            f"this installation of gruard has no kernel {CORE_KERNEL_ID}; install the wheel for "
            "this processor, or the source where there is a C compiler (on Debian: apt install "
            "gcc python3-dev)"
        ) from None
    if getattr(module, "INTERFACE", None) != INTERFACE:
        raise GruardError(
            f"{module.__file__}: was built for another version of gruard; build it again with "
            "`make engine`, or install gruard from its source again"
        )
    return module


def core_over(bundle: Bundle, blob: bytes | bytearray) -> Any:
    """Return a core over `blob`, the packed `bundle`. GruardError when the core refuses it."""
    try:
        return core_module().Core(blob)
    except ValueError as error:
        raise GruardError(f"{bundle.path}: {error}") from None


Opener = Callable[[Bundle, Kernel, bool], StepDetector]
"""Opens a detector on a kernel other than the core."""


def open_detector(
    bundle: Bundle,
    kernel: Kernel | None = None,
    calibrated: bool = True,
    say: Callable[[str], None] = ignore_line,
    otherwise: Opener = Detector,
) -> StepDetector:
    """Return the detector of `bundle` on any kernel; calibrated and errors as for Detector.

    kernel: None is the core, or the reference where the core cannot be used; both give the same
    bits, and `say` takes the reason. otherwise: opens every kernel but the core. A damaged model
    may crash the process, except on the core.
    """
    if kernel not in (None, CORE_KERNEL_ID):
        return otherwise(bundle, kernel, calibrated)
    try:
        return NativeDetector(bundle, calibrated)
    except GruardError as error:
        if kernel:
            raise
        refusal = str(error)
    detector = _on_reference(bundle, calibrated, otherwise, refusal)
    say(refusal)
    return detector


def _on_reference(
    bundle: Bundle, calibrated: bool, otherwise: Opener, refusal: str
) -> StepDetector:
    """Open the reference; the error has the `refusal` of the core, too."""
    try:
        return otherwise(bundle, KERNEL_ID, calibrated)
    except GruardError as error:
        both = (refusal,) if str(error) == refusal else (refusal, str(error))
        raise GruardError("; ".join(both)) from None


class NativeDetector:
    """`step(sample)` by the C core.

    calibrated: as for Detector. Raises GruardError when the core was not built here or cannot
    run the bundle.
    """

    kernel_id = CORE_KERNEL_ID

    def __init__(self, bundle: Bundle, calibrated: bool = True) -> None:
        module, manifest = core_module(), bundle.manifest
        threshold = threshold_of(bundle, CORE_KERNEL_ID, calibrated)
        program = program_of(bundle, layout_of(module.LAYOUT))
        self._blob = pack(bundle, threshold, program)
        self._codes = {
            f"{CODES}{name}": slice(place, place + bundle.graph.tensors[index].shape[1])
            for name, index in bundle.graph.outputs.items()
            for place in (program.places[index],)
        }
        self._make = partial(core_over, bundle)
        self._core = self._make(self._blob)
        self._path, self._manifest = bundle.path, manifest
        self._reports_changes = manifest.change is not None and manifest.change.after > 0
        self._records = Records(manifest.channel_names, bundle.model_hash, threshold.value)
        # For measurements: a step without a record, and the network without the detector.
        self.bare_step, self.run_graph = self._core.step, self._core.run_graph
        self._test = SelfTest(bundle, self.replay, self._blob, exact=True)

    def step(self, sample: Sample, on_stage: OnStage = ignore_stage) -> Record:
        """Return the record for `sample` and advance the state. GruardError as for Detector."""
        if not self._core.possible():
            raise GruardError(f"{self._path}: its state changed in memory")
        distrusted = self._core.distrusted()
        answer = self._core.step(np.ascontiguousarray(sample.values, np.float32))
        for stage in ("mask", "invoke", "check"):
            on_stage(stage)
        self._test.advance(distrusted, self._core.distrusted())
        return self._records.record(sample, answer)

    def run(self, rows: Float32) -> npt.NDArray[np.void]:
        """Return the records of raw `rows` [n, channels] as an array of `RECORD`, in one call."""
        records = np.zeros(len(rows), RECORD)
        self._core.run(np.ascontiguousarray(rows, np.float32), records)
        return records

    def reset(self) -> None:
        """Forget the recurrent state; the records until it has settled are flagged."""
        self._core.reset()

    @property
    def change_phase(self) -> ChangePhase | None:
        """See `StepDetector`."""
        return ChangePhase(self._core.changed()) if self._reports_changes else None

    @property
    def lasting_change(self) -> LastingChange:
        """See `StepDetector`."""
        count, *vectors = self._core.lasting_change()
        centre, baselines = (tuple(np.frombuffer(v, np.float32).tolist()) for v in vectors)
        return LastingChange(self._core.changed(), count, centre, baselines)

    def resume(self, saved: LastingChange) -> None:
        """See `StepDetector`."""
        require_fitting(saved, self._manifest)
        vectors = (np.array(v, np.float32) for v in (saved.centre, saved.baselines))
        self._core.resume(int(saved.phase), saved.count, *vectors)

    def accept(self, yes: bool) -> None:
        """See `StepDetector`."""
        self._core.accept(yes)

    def self_test(self) -> None:
        """Replay the golden vectors; GruardError when a single bit of any answer differs."""
        self._test.run()

    def replay(self, rows: Float32, threshold: Array) -> Iterator[dict[str, Array]]:
        """As `edge_runtime.detector.golden.replay`, on a second core over the same blob."""
        core = self._make(self._blob)
        core.set_threshold(*map(not_above, threshold.tolist()))
        for row in np.ascontiguousarray(rows, np.float32):
            yield self._answers(core.step(row), core.traces())

    def _answers(self, answer: tuple[Any, ...], traces: tuple[Any, ...]) -> dict[str, Array]:
        _, flags, tier, alarm, kind, _, probability, blamed, _, _ = answer
        mask, forecast, gate, state, parts, arena, score, fallback, fallback_alarm = traces
        values = np.frombuffer(arena, np.int8)
        codes = {name: values[place] for name, place in self._codes.items()}
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
            "blamed": np.array((*blamed, NONE, NONE, NONE)[:3], np.int16),
            "kind": np.asarray(kind, np.int8),
            "probability": np.asarray(probability, np.float32),
        }


class NativeFallback(GuardedFallback):
    """The fallback on the C core. Raises GruardError as NativeDetector does.

    Each step compares the state, the core's pointers and the next piece of the constants.
    """

    def __init__(self, bundle: Bundle, on_damage: Callable[[str], None] = ignore_line) -> None:
        self._bundle, self._blob, manifest = bundle, bytearray(), bundle.manifest
        self._threshold = next(iter(manifest.thresholds.values()))  # of the model, which never runs
        self._records = Records(manifest.channel_names, bundle.model_hash, self._threshold.value)
        super().__init__(on_damage)

    def _read_constants(self) -> None:
        program = program_of(self._bundle, layout_of(core_module().LAYOUT))
        self._blob[:] = pack(self._bundle, self._threshold, program)  # where the core reads it
        self._guarded_constants = GuardedMemory(memoryview(self._blob))

    def _start(self) -> None:
        self._core: Any = core_over(self._bundle, self._blob)
        self._guarded_state = [GuardedMemory(memory) for memory in self._core.live()]

    def _advance(self, sample: Sample) -> None:
        self._answer = self._core.step_fallback(np.ascontiguousarray(sample.values, np.float32))

    def _is_possible(self) -> bool:
        return bool(self._core.fallback_possible())

    def _move_to(self, centre: Float32) -> None:
        self._core.stand_at(centre)

    def _record(self, sample: Sample) -> Record:
        return self._records.record(sample, self._answer)


@dataclass(frozen=True)
class Rolled:
    """Results of the core for n rows; every array is [n, …].

    records: of `RECORD`. value, mask, forecast, own, ahead, gate, trusted, doubt:
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
    """Run raw `rows` [n, channels] from a fresh state through the core, around the model's graph.

    Each number is that of `edge_runtime.detector.step`. Raises GruardError if the core was not
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
    value, mask, forecast, own, ahead, gate, trusted, doubt, terms, parts, marks, hidden, *fed = (
        _split(traces, widths)
    )
    return Rolled(
        records, value, mask, forecast, own, ahead, gate, trusted, doubt,
        terms=terms.reshape(count, 3, channels),
        parts=parts.reshape(count, *parts_shape),
        score=marks[:, 0],
        measured=marks[:, 1] > 0,
        settling=marks[:, 2] > 0,
        hidden=hidden,
        inputs=dict(zip(named, fed, strict=True)),
    )  # fmt: skip


def _caller(model: Model, inputs: dict[str, Float32], outputs: Float32) -> Callable[[], Any] | None:
    """Return a function that runs the graph from `inputs` to `outputs`; None without a graph."""
    graph, channels, states = model.graph, len(model.manifest.channels), model.graph.state_sizes
    pairs = [f"{part}_{i}" for i in range(len(states)) for part in ("update", "candidate")]
    names = ("gate_next", "doubt", "correction", *pairs)
    sizes = [*[channels] * 3, *(size for size in states for _ in range(2))]
    targets = dict(zip(names, _split(outputs, sizes), strict=True))
    if not graph.gated:
        del targets["gate_next"], targets["doubt"]
    if not states:
        del targets["correction"]

    def call() -> None:
        results = graph(inputs)
        for name, target in targets.items():
            target[:] = results[name]

    return call if targets else None


def _split(array: Float32, widths: list[int]) -> list[Float32]:
    """Split the last axis into views of these widths."""
    return np.split(array, np.cumsum(widths)[:-1], axis=-1)
