"""The fallback by the C core: the records of `edge_runtime.detector.fallback.Fallback`, faster."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.guarded_memory import (
    DamageLog,
    GuardedMemory,
    MemoryLostError,
    ignore_damage,
)
from edge_runtime.native.blob import pack, program_of
from edge_runtime.native.engine import core_module, core_over
from edge_runtime.native.layout import layout_of
from edge_runtime.native.records import Records
from edge_runtime.record import Record, Sample


class NativeFallback:
    """`step` answers every sample, marked tier 3. Raises GruardError as NativeDetector does.

    Its memory is compared and repaired as that of `Fallback`: the state and the places of the
    constants before each step, the constants piece by piece, in `walk` steps.
    """

    def __init__(self, bundle: Bundle, on_damage: Callable[[str], None] = ignore_damage) -> None:
        self._bundle = bundle
        self._blob = bytearray(self._pack())
        self._guarded_blob = GuardedMemory(memoryview(self._blob))
        self._damage = DamageLog(on_damage)
        self._start()
        threshold = next(iter(bundle.manifest.thresholds.values()))
        self._records = Records(bundle.manifest.channel_names, bundle.model_hash, threshold.value)

    @property
    def repaired(self) -> int:
        """How often its memory had changed and was repaired."""
        return self._damage.count

    @property
    def walk(self) -> int:
        """Steps in which every byte of the constants is compared."""
        return self._guarded_blob.looks

    def step(self, sample: Sample) -> Record:
        """The fallback's record for `sample`: tier 3, flag FALLBACK, never valid."""
        self._look_after_memory()
        row = np.ascontiguousarray(sample.values, np.float32)
        found = self._core.step_fallback(row)
        if not self._core.fallback_possible():
            self._damage.note("a step of the fallback", "it starts afresh")
            self._start()
            found = self._core.step_fallback(row)
        for state in self._guarded_state:
            state.renew()
        return self._records.record(sample, found)

    def stand_at(self, centre: Sequence[float]) -> None:
        """As `Fallback.stand_at`."""
        self._look_after_memory()
        self._core.stand_at(np.array(centre, np.float32))
        for state in self._guarded_state:
            state.renew()

    def _pack(self) -> bytes:
        threshold = next(iter(self._bundle.manifest.thresholds.values()))
        program = program_of(self._bundle, layout_of(core_module().LAYOUT))
        return pack(self._bundle, threshold, program)

    def _start(self) -> None:
        """Begin with the state before the first sample."""
        self._core: Any = core_over(self._bundle, self._blob)
        places, *state = map(GuardedMemory, self._core.live())
        self._guarded_places, self._guarded_state = places, state

    def _look_after_memory(self) -> None:
        try:
            if self._guarded_blob.restore():
                self._damage.note("constants of the fallback", "restored from their copy")
        except MemoryLostError:
            self._blob[:] = self._pack()
            self._guarded_blob.renew()
            self._damage.note("constants of the fallback and their copy", "read from the bundle")
        try:
            guarded = (self._guarded_places, *self._guarded_state)
            if sum(memory.restore() for memory in guarded):  # all of them, unlike `any`
                self._damage.note("state of the fallback", "restored from its copy")
        except MemoryLostError:
            self._start()
            self._damage.note("state of the fallback and its copy", "it starts afresh")
