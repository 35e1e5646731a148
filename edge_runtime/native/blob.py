"""A bundle packed for the C core: header, constants and program, as the core's blob.c reads them.

Everything that needs names, JSON or double precision is decided here, so that the core reads only
32-bit words. A bundle that the core cannot run bit for bit is refused here, with the reason.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from edge_runtime.bundle.flatbuffer import NO_GRAPH, read_constants
from edge_runtime.bundle.manifest import Manifest, Threshold
from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector import fallback
from edge_runtime.detector.cell import Model, build_model
from edge_runtime.detector.interpreter import state_sizes
from edge_runtime.detector.kernels import HOST_KERNEL_ID, KERNEL_ID
from edge_runtime.errors import GruardError
from edge_runtime.native.layout import ROWS, Layout
from edge_runtime.native.program import END, Program, build_program, ends
from edge_runtime.record import Float32

MAGIC, VERSION = 0x42755247, 6
_MOST_WINDOW = 32  # scores of the debounce, one bit each
_MOST_COUNT = 1 << 24  # up to here float32 counts without gaps
_MOST_PERIOD = 1 << 31
_MOST_ORDER, _MOST_OPERATORS = 64, 1024
INPUTS = (
    "innovation", "forecast", "evidence", "magnitude", "difference", "mask", "guarded", "gate",
)  # fmt: skip
OUTPUTS = ("logit", "gate_next", "correction")
# The header: HEAD, which the checksum does not cover, then COUNTS.
HEAD = ("magic", "version", "size", "crc")
COUNTS = (
    "channels", "order", "layers", "operators", "arena", "cross", "gated", "diagnosis", "rules",
    "alarm_m", "alarm_n", "clear_after", "closed", "lost", "contradiction", "free_run",
    "resync_channel", "resync_all", "warmup", "frozen", "agree", "bridge", "change", "saturated",
    "window", "hour", "integers", "bytes", "layout", "own", "horizon", "memories", "modes",
    "telling",
)  # fmt: skip
# Those that are bounds of the tiers, and their fields in the manifest.
_TIERS = {
    "closed": "closed_limit", "lost": "lost_limit", "contradiction": "contradiction_limit",
    "free_run": "free_run_limit", "resync_channel": "resync_channel", "resync_all": "resync_all",
    "warmup": "warmup", "frozen": "frozen_limit", "agree": "agree", "bridge": "bridge",
}  # fmt: skip


class Outline:
    """The graph's shape, for `build_model`; only the core runs the graph."""

    def __init__(self, bundle: Bundle) -> None:
        self.kernel_id = HOST_KERNEL_ID if bundle.manifest.linear else KERNEL_ID
        self.gated = "logit" in bundle.graph.outputs
        self.state_sizes = state_sizes(bundle.graph)

    def __call__(self, inputs: Mapping[str, Float32]) -> dict[str, Float32]:
        raise NotImplementedError("the outline of a graph is never run")


def program_of(bundle: Bundle, layout: Layout = ROWS) -> Program:
    """Return the int8 graph of `bundle` for a kernel with `layout`; empty for a linear model.

    Raises GruardError when the core cannot run it, with the reason.
    """
    if bundle.graph is NO_GRAPH:
        return Program(layout.number)
    try:
        program = build_program(bundle.graph, read_constants(bundle.model), layout)
        if len(program.operators) > _MOST_OPERATORS:
            raise GruardError(f"{len(program.operators)} operators, too many for the C core")
    except GruardError as error:
        raise GruardError(f"{bundle.path}: {error}") from None
    return program


def pack(bundle: Bundle, threshold: Threshold, program: Program) -> bytes:
    """Return the blob of `bundle` and its `program`, with `threshold` for the alarm.

    Raises GruardError when the core cannot run it, with the reason.
    """
    try:
        _check(bundle.manifest)
    except GruardError as error:
        raise GruardError(f"{bundle.path}: {error}") from None
    model = build_model(bundle.manifest, Outline(bundle), bundle.model_hash)
    return _blob(model, threshold, program, _graph(bundle, model, program))


def pack_without_graph(model: Model) -> bytes:
    """Return the blob of a `model` whose graph the host runs, with its kernel's threshold.

    Raises GruardError when the core cannot run it, with the reason.
    """
    _check(model.manifest)
    channels, states = len(model.manifest.channels), model.graph.state_sizes
    layers = range(len(states))
    widths = dict.fromkeys((*INPUTS, *OUTPUTS), channels)
    for i in layers:
        widths |= dict.fromkeys((f"state_{i}", f"update_{i}", f"candidate_{i}"), states[i])
    program = Program(ROWS.number, arena=max(widths.values()))  # the core does not use it
    ends = (END.pack(0, widths[name], 1.0, 0.0) for names in graph_names(layers) for name in names)
    threshold = model.manifest.thresholds[model.graph.kernel_id]
    return _blob(model, threshold, program, b"".join(ends))


def _blob(model: Model, threshold: Threshold, program: Program, graph: bytes) -> bytes:
    counts = _counts(model, program)
    parts = [
        struct.pack(f"<{len(COUNTS)}I", *(counts[name] for name in COUNTS)),
        bytes.fromhex(model.model_hash).ljust(8, b"\0"), _constants(model, threshold),
        _modes(model), _forecast(model), _score(model), _limits(model), _diagnosis(model), graph,
    ]  # fmt: skip
    body = b"".join(parts)
    size = 4 * len(HEAD) + len(body)
    return struct.pack("<4I", MAGIC, VERSION, size, zlib.crc32(body)) + body


def not_above(value: float) -> np.float32:
    """Return the largest float32 that is at most `value`: a float32 exceeds both or neither."""
    with np.errstate(over="ignore"):  # beyond float32 it is infinite
        rounded = np.float32(value)
    return np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > value else rounded


def _check(manifest: Manifest) -> None:
    tiers, alarm = manifest.tiers, manifest.alarm
    if alarm.n > _MOST_WINDOW:
        raise GruardError(f"alarm.n is {alarm.n}, the C core debounces over at most {_MOST_WINDOW}")
    counts = {field: getattr(tiers, field) for field in _TIERS.values()}
    for name, count in {**counts, "clear_after": alarm.clear_after}.items():
        if not 0 <= count <= _MOST_COUNT:
            raise GruardError(f"{name} is {count}, the C core counts from 0 to {_MOST_COUNT}")
    for name in ("window", "hour"):
        if not 0 <= getattr(tiers, name) < _MOST_PERIOD:
            raise GruardError(f"tiers.{name} is beyond the C core's 31 bits")
    if len(manifest.forecast.highway) > _MOST_ORDER:
        raise GruardError(f"a highway over more than {_MOST_ORDER} samples, too long for the core")


def _counts(model: Model, program: Program) -> dict[str, int]:
    """Return each of `COUNTS` by name."""
    manifest, tiers, alarm = model.manifest, model.manifest.tiers, model.manifest.alarm
    lines, modes = model.lines, model.scaler.modes
    return {
        "channels": len(manifest.channels),
        "order": len(lines.highway),
        "layers": len(model.graph.state_sizes),
        "operators": len(program.operators),
        "arena": program.arena,
        "cross": bool(len(lines.cross)),
        "gated": model.graph.gated,
        "diagnosis": model.diagnosis is not None,
        "rules": not model.rules.none,
        "alarm_m": alarm.m,
        "alarm_n": alarm.n,
        "clear_after": alarm.clear_after,
        **{name: getattr(tiers, field) for name, field in _TIERS.items()},
        "change": model.change.after,
        "saturated": most_saturated(sum(model.graph.state_sizes), tiers.saturated_limit),
        "window": tiers.window,
        "hour": tiers.hour,
        "integers": len(program.integers),
        "bytes": len(program.constants),
        "layout": program.layout,
        "own": bool(len(lines.own)),
        "horizon": lines.horizon,
        "memories": len(model.score.mean),
        "modes": 0 if modes is None else len(modes.center),
        "telling": 0 if modes is None else len(modes.telling),
    }


def most_saturated(units: int, limit: float) -> int:
    """Return how many of `units` may be at the edge of their range, a share of at most `limit`."""
    return max((n for n in range(units + 1) if not units or n / units <= limit), default=0)


def _constants(model: Model, threshold: Threshold) -> bytes:
    constants, rules = model.manifest.fallback, model.rules
    levels = threshold.value, threshold.clear, fallback.THRESHOLD, fallback.CLEAR
    return _floats(
        [not_above(level) for level in levels], [constants.smoothing, constants.slack],
        model.scaler.center, model.scaler.scale,
        rules.low, rules.high, rules.max_step, rules.stuck_after, model.watched, model.gated,
    )  # fmt: skip


def _modes(model: Model) -> bytes:
    modes = model.scaler.modes
    if modes is None:
        return b""
    places = _floats(modes.setting, modes.reach, modes.center, modes.scale)
    return modes.telling.astype("<u4").tobytes() + places


def _forecast(model: Model) -> bytes:
    lines = model.lines  # matrices by columns: the core adds several rows at a time
    return _floats(lines.highway, lines.cross.T, model.innovation_scale, lines.own, lines.ahead.T)


def _score(model: Model) -> bytes:
    score = model.score
    return _floats(
        score.weights, score.attack, score.decay, score.ceiling, score.mean, score.std,
        score.error_scale, score.absent, score.channel_mean, score.typical,
        score.distance_root.T, score.level_root.T, [model.change.rate], model.change.follow,
        score.log_table, model.manifest.tables.softplus if model.graph.gated else (),
    )  # fmt: skip


def _limits(model: Model) -> bytes:
    constants = model.manifest.fallback
    limits = np.array([getattr(constants, view) for view in fallback.VIEWS], np.float32)
    ceiling = fallback.CUSUM_CEILING * limits[fallback.VIEWS.index("cusum")]
    low = [edge for edge, _ in model.state_limits]
    return _floats(limits, ceiling, low, [edge for _, edge in model.state_limits])


def _diagnosis(model: Model) -> bytes:
    if model.diagnosis is None:
        return b""
    symptoms, contribution = model.diagnosis.symptoms, model.diagnosis.symptoms.contribution
    return _floats(
        contribution.smoothing, contribution.center, contribution.precision.T, contribution.block,
        contribution.deviation, symptoms.explained_mean, symptoms.explained_high,
        symptoms.move_mean, symptoms.jump_mean, symptoms.persistence, symptoms.longest_repeat,
        symptoms.blameable, model.diagnosis.center, model.diagnosis.scale,
        model.diagnosis.machine, model.diagnosis.kinds, [symptoms.distance_mean],
    )  # fmt: skip


def _graph(bundle: Bundle, model: Model, program: Program) -> bytes:
    inputs, outputs = graph_names(range(len(model.graph.state_sizes)))
    graph = bundle.graph
    constants = program.constants + bytes(-len(program.constants) % 4)
    integers = struct.pack(f"<{len(program.integers)}i", *program.integers)
    inputs_and_outputs = ends(inputs, graph.inputs, graph, program) + ends(
        outputs, graph.outputs, graph, program
    )
    return b"".join([inputs_and_outputs, *program.operators, integers, constants])


def graph_names(layers: range) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the inputs and outputs of a graph, in the core's order."""
    pairs = ((f"update_{i}", f"candidate_{i}") for i in layers)
    inputs = (*INPUTS, *(f"state_{i}" for i in layers))
    return inputs, (*OUTPUTS, *(name for pair in pairs for name in pair))


def _floats(*parts: Sequence[float | np.float32] | Float32) -> bytes:
    return b"".join(np.asarray(part, "<f4").tobytes() for part in parts)
