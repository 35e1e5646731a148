"""The fallback by the C core: the records of `edge_runtime.detector.fallback.Fallback`, sooner."""

import numpy as np

from edge_runtime.bundle.reader import Bundle
from edge_runtime.native.blob import pack, program_of
from edge_runtime.native.engine import core_module, core_over
from edge_runtime.native.layout import layout_of
from edge_runtime.native.records import Records
from edge_runtime.record import Record, Sample


class NativeFallback:
    """`step` answers every sample, marked tier 3. Raises GruardError as NativeDetector does."""

    def __init__(self, bundle: Bundle) -> None:
        threshold = next(iter(bundle.manifest.thresholds.values()))
        program = program_of(bundle, layout_of(core_module().LAYOUT))
        self._core = core_over(bundle, pack(bundle, threshold, program))
        self._records = Records(bundle, threshold.value)

    def step(self, sample: Sample) -> Record:
        """The fallback's record for `sample`: tier 3, flag FALLBACK, never valid."""
        row = np.ascontiguousarray(sample.values, np.float32)
        return self._records.record(sample, self._core.step_fallback(row))
