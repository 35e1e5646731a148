"""The answers of each engine that can run a bundle to the same rows: every quantity of every step.

Names and shapes are those of the golden vectors, except that the score is the record's, and that
the graph's codes are left out, because gate and states follow from them.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from edge_runtime.detector.cell import Model
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.golden import NONE
from edge_runtime.detector.step import initial_state, step
from edge_runtime.diagnosis import KINDS, LIMIT
from edge_runtime.errors import GruardError
from edge_runtime.native.blob import not_above, pack, program_of
from edge_runtime.native.engine import RECORD, core_module
from edge_runtime.native.layout import layout_of
from edge_runtime.record import Float32, Sample
from firmware_harness import semihosting
from firmware_harness.building import Built
from firmware_harness.core_records import Array, bits
from firmware_harness.packing import Packed, golden_of

Answers = dict[str, Array]
Threshold = tuple[float, float]  # value, clear
Engine = Callable[[Float32, Threshold], Answers]

NAMES = (
    "mask", "forecast", "gate", "state", "parts", "fallback", "score", "tier", "flags", "alarm",
    "imputed", "blamed", "kind", "probability", "sensor",
)  # fmt: skip
_AT_ONCE = 1000


def golden(packed: Packed) -> tuple[Float32, Threshold, Answers]:
    """Return rows, threshold and answers of the golden vectors."""
    vectors = golden_of(packed.bundle)
    value, clear = vectors.threshold.tolist()
    answers = {name: vectors.answers[name] for name in NAMES if name in vectors.answers}
    answers.pop("score")
    return vectors.rows, (value, clear), answers


def reference(packed: Packed) -> Engine:
    """Return the int8 file in the TFLite interpreter, in the runtime's step."""
    return _by_runtime(Detector(packed.bundle).model)


def float_graph(packed: Packed, run: Path | None) -> Engine | None:
    """Return the trained float graph in the runtime's step; None without a run folder.

    run: the run folder, by default two folders above the bundle, where conversion puts bundles.
    Raises GruardError when `run` is no run folder, or the bundle was made from another run.
    """
    if packed.bundle.manifest.linear:
        return None
    place = run or packed.bundle.path.resolve().parent.parent
    if run is None and not (place / "weights.npz").is_file():
        return None
    from convert.candidates import candidate_of
    from convert.export import export_float
    from convert.twins import float_twin
    from edge_runtime.detector.interpreter import quiet_stderr
    from train.cell_config import CellConfig
    from train.run_folder import read_run

    trained = read_run(place)
    if trained.weights_sha256 != packed.bundle.manifest.provenance.weights_sha256:
        if run is None:
            return None
        raise GruardError(f"{packed.bundle.path}: was not made from the weights in {run}")
    trained = candidate_of(trained, packed.bundle.manifest)
    with quiet_stderr():
        model = export_float(trained.weights, CellConfig(**trained.config.sizes))
        return _by_runtime(float_twin(packed.bundle.manifest, model))


def host_core(packed: Packed) -> Engine:
    """Return the C core on this machine. Raises GruardError when it was not built."""
    module = core_module()
    blob = pack(
        packed.bundle, packed.threshold, program_of(packed.bundle, layout_of(module.LAYOUT))
    )

    def run(rows: Float32, threshold: Threshold) -> Answers:
        core, records = module.Core(blob), np.zeros(len(rows), RECORD)
        core.set_threshold(*map(not_above, threshold))
        traces = []
        for place, row in enumerate(np.ascontiguousarray(rows, np.float32)):
            core.run(row.copy(), records[place : place + 1])
            mask, forecast, gate, state, parts, _, _, *fallback = core.traces()
            inside = b"".join((mask, forecast, gate, state, parts))
            traces.append(np.append(np.frombuffer(inside, np.float32), np.float32(fallback)))
        found = semihosting.split_traces(np.array(traces), packed.bundle.manifest)
        return _of_core(records, found)

    return run


def board(built: Built) -> Engine:
    """Return the C core on an emulated board."""

    def run(rows: Float32, threshold: Threshold) -> Answers:
        found = semihosting.replay(built, rows, threshold, traces=True)
        assert found.traces is not None  # asked for
        return _of_core(found.records, found.traces)

    return run


def _by_runtime(model: Model) -> Engine:
    def run(rows: Float32, threshold: Threshold) -> Answers:
        value, clear = threshold
        kernel = model.graph.kernel_id
        wanted = replace(model.manifest.thresholds[kernel], value=value, clear=clear)
        manifest = replace(model.manifest, thresholds={kernel: wanted})
        return _stacked(_steps(replace(model, manifest=manifest), rows))

    return run


def _steps(model: Model, rows: Float32) -> Iterator[Answers]:
    state, fallback = initial_state(model), Fallback(model.manifest, model.model_hash)
    names = model.manifest.channel_names
    for index, row in enumerate(rows):
        sample = Sample(index, None, row)
        shadow = fallback.step(sample, state.change.centre)
        record, state, traces = step(model, sample, state, shadow)
        blamed = [names.index(name) for name in record.blamed]
        yield {
            "mask": traces.mask > 0,
            "forecast": traces.forecast,
            "gate": traces.gate,
            "state": np.concatenate([*traces.hidden, np.zeros(0, np.float32)]),
            "parts": state.score.parts.ravel(),
            "fallback": np.array([shadow.score, shadow.alarm], np.float32),
            "score": np.array(record.score, np.float32),
            "tier": np.array(record.tier),
            "flags": np.array(int(record.flags)),
            "alarm": np.array(record.alarm),
            "imputed": np.array([name in record.imputed for name in names]),
            "blamed": np.array([*blamed, *[NONE] * LIMIT][:LIMIT]),
            "kind": np.array(NONE if record.kind is None else KINDS.index(record.kind)),
            "probability": np.array(record.probability or 0, np.float32),
            "sensor": np.array(bool(record.sensor)),
        }


def _stacked(steps: Iterator[Answers]) -> Answers:
    pieces: dict[str, list[Array]] = {name: [] for name in NAMES}
    while piece := list(islice(steps, _AT_ONCE)):
        for name, rows in pieces.items():
            rows.append(np.array([step[name] for step in piece]))
    return {name: np.concatenate(rows) for name, rows in pieces.items()}


def _of_core(records: Array, traces: dict[str, Float32]) -> Answers:
    channels = traces["mask"].shape[1]
    same = ("score", "tier", "flags", "blamed", "kind", "probability")
    return {
        **traces,
        **{name: records[name] for name in same},
        "mask": traces["mask"] > 0,
        "alarm": records["alarm"] != 0,
        "imputed": bits(records["imputed"], channels),
        "sensor": records["sensor"] != 0,
    }
