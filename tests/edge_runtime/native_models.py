"""Bundles in memory with made constants, of any size, and rows on which everything happens.

Nothing is trained: the constants only have to be ones that every part of a step depends on.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.bundle import manifest as m
from edge_runtime.bundle.flatbuffer import NO_GRAPH, GraphSummary, read_graph
from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.cell import build_model
from edge_runtime.detector.detector import Detector, open_graph
from edge_runtime.detector.golden import FEWEST_STEPS, replay
from edge_runtime.diagnosis import FEATURES, KIND_WEIGHTS, MACHINE_WEIGHTS, SENSOR_KINDS
from edge_runtime.native.engine import NativeDetector
from edge_runtime.record import Record, Sample
from tests.edge_runtime.made_manifest import made_manifest
from tests.golden_bundles import SIZES, network_file

THRESHOLD = m.Threshold(5.0, 4.0, 1.0, "by hand", 1.0, 1.0, 0, 3.0, False, 2.0, "no promise")
ORDER = 5  # of a network's highway: CellConfig's own
LEVELS = (3.0, 2.0)
RECORDS = 450  # so many rows to compare the records of as well, with a reset on the way
# Short enough for a test to pass through every tier several times.
HASTY = m.Tiers(
    closed_limit=12, lost_limit=6, contradiction_limit=4, free_run_limit=5, resync_channel=3,
    resync_all=6, window=120, hour=300, warmup=15, frozen_limit=10, saturated_limit=0.2, agree=12,
    bridge=4,
)  # fmt: skip
ODD = np.array(
    [np.nan, np.inf, -np.inf, 1e-45, -1e-40, 0.0, -0.0, 1e30, -9.9e29, 3.4e38, 1e-6, 7.0, -250.0],
    np.float32,
)


@dataclass(frozen=True)
class MadeBundle(Bundle):
    """A bundle without files, whose golden vectors are made when asked for."""

    @cached_property
    def golden(self) -> dict[str, np.ndarray]:
        """The reference's answers to rows with faults."""
        rows, threshold = faulty_rows(self, FEWEST_STEPS, seed=1), np.array([3.0, 2.0])
        graph = open_graph(self.manifest, self.model, self.graph)
        answers = list(replay(build_model(self.manifest, graph, ""), rows, threshold))
        stacked = {name: np.array([a[name] for a in answers]) for name in answers[0]}
        return {"rows": rows, "threshold": threshold, **stacked}

    def arrays(self, member: str) -> dict[str, np.ndarray]:
        """Of the golden vectors alone."""
        assert member == "golden.npz"
        return self.golden


def linear(
    channels: int, seed: int = 0, order: int = 2, rules: bool = False, diagnosis: bool = False
) -> MadeBundle:
    """A bundle without a graph. rules: range, rate and stuck rules on some of the channels."""
    rng = np.random.default_rng(seed)
    changes = _constants(rng, channels, order, rules, diagnosis)
    manifest = made_manifest(
        **changes, inputs={}, outputs={}, members={}, thresholds={"host-float32": THRESHOLD}
    )
    return MadeBundle(Path("made.gruard"), manifest, b"", NO_GRAPH, "0" * 64)


def modal(channels: int, seed: int = 0, diagnosis: bool = False) -> MadeBundle:
    """A linear bundle with three operating modes, told apart by the exogenous channels.

    Only the first two of them do.
    """
    made = linear(channels, seed, rules=True, diagnosis=diagnosis)
    exogenous = [i for i, c in enumerate(made.manifest.channels) if c.exogenous]
    silent = exogenous[2:]
    known = tuple(
        c if i in silent else replace(c, modes=_places(c))
        for i, c in enumerate(made.manifest.channels)
    )
    return changed(made, channels=known)


def _places(channel: m.Channel) -> tuple[m.Place, ...]:
    center, scale = channel.center, channel.scale
    return tuple(m.Place(center + 2 * k * scale, scale * (1 + k / 4)) for k in (0, 2, -1))


def modal_rows(bundle: Bundle, count: int, seed: int) -> np.ndarray:
    """`faulty_rows` of a machine that changes its mode, and is in an unknown one now and then."""
    rows, rng = faulty_rows(bundle, count, seed), np.random.default_rng(seed)
    stays = np.repeat(np.arange(count), rng.integers(1, 25, count))[:count]
    mode, strange = rng.integers(0, 3, count)[stays], rng.random(count)[stays] < 0.1
    for i, channel in enumerate(bundle.manifest.channels):
        if channel.modes:
            rows[:, i] += np.array([p.center - channel.center for p in channel.modes])[mode]
            rows[strange, i] += 3 * channel.scale * channel.exogenous
    return rows


def recurrent(
    model: bytes, channels: int, seed: int = 0, rules: bool = False, diagnosis: bool = False
) -> MadeBundle:
    """A bundle with the int8 graph of a network for so many channels."""
    graph = read_graph(model, "made")
    rng = np.random.default_rng(seed)
    manifest = made_manifest(
        **_constants(rng, channels, ORDER, rules, diagnosis),
        inputs=_tensors(graph, graph.inputs), outputs=_tensors(graph, graph.outputs),
        members={"model.tflite": hashlib.sha256(model).hexdigest()},
        thresholds={"tflite-builtin": THRESHOLD},
    )  # fmt: skip
    return MadeBundle(Path("made.gruard"), manifest, model, graph, "0" * 64)


def stored(name: str, rules: bool = False, diagnosis: bool = False) -> MadeBundle:
    """`recurrent` with the network `name` of `golden_bundles`."""
    model, channels = network_file(name).read_bytes(), SIZES[name]["channels"]
    return recurrent(model, channels, rules=rules, diagnosis=diagnosis)


def changed(bundle: Bundle, **fields: object) -> MadeBundle:
    """`bundle` with other `fields` in its manifest, and golden vectors that fit."""
    manifest = replace(bundle.manifest, **fields)  # type: ignore[arg-type]
    return MadeBundle(bundle.path, manifest, bundle.model, bundle.graph, bundle.digest)


def faulty_rows(bundle: Bundle, count: int, seed: int) -> np.ndarray:
    """Raw readings [count, n]: a machine that moves, and every fault in turn, calm in between."""
    rng = np.random.default_rng(seed)
    channels = bundle.manifest.channels
    n = len(channels)
    time = np.arange(count)[:, None]
    phase = rng.uniform(0, 6, n)
    standard = np.sin(time / 17 + phase) + 0.3 * np.sin(time / 5.1) + rng.normal(0, 0.1, (count, n))
    center = np.array([c.center for c in channels])
    scale = np.array([c.scale for c in channels])
    rows = (center + scale * standard).astype(np.float32)
    for number, start in enumerate(range(70, count - 40, 60)):
        _FAULTS[number % len(_FAULTS)](rows, start, int(rng.integers(n)), scale)
    return rows


def differences(bundle: Bundle, rows: np.ndarray, threshold: tuple[float, float]) -> list[str]:
    """Where the core's golden quantities are not those of the reference, step by step."""
    reference, core = Detector(bundle), NativeDetector(bundle)
    levels = np.array(threshold, np.float64)
    found = zip(replay(reference.model, rows, levels), core.replay(rows, levels), strict=True)
    return [fault for step, (a, b) in enumerate(found) for fault in _apart(step, a, b)]


def _apart(step: int, a: dict[str, Any], b: dict[str, Any]) -> Iterator[str]:
    if list(a) != list(b):
        yield f"{step}: {sorted(set(a) ^ set(b))}"
    for name, value in a.items():
        if value.dtype != b[name].dtype or not np.array_equal(value, b[name]):
            yield f"{step} {name}: {value} {b[name]}"


def both(
    bundle: Bundle, rows: np.ndarray, resets: tuple[int, ...] = ()
) -> tuple[list[Record], list[Record]]:
    """The records of the reference and of the core; both are reset before each of `resets`."""
    runs: list[list[Record]] = []
    for detector in (Detector(bundle), NativeDetector(bundle)):
        records = []
        for i, row in enumerate(rows):
            if i in resets:
                detector.reset()
            records.append(detector.step(Sample(i, i * 0.5, row)))
        runs.append(records)
    return runs[0], runs[1]


def check(bundle: Bundle, rows: np.ndarray, records: int = RECORDS) -> list[Record]:
    """Compare every quantity of all `rows`, and the first `records`, which are returned."""
    assert differences(bundle, rows, LEVELS) == []
    reference, core = both(bundle, rows[:records], resets=(400,))
    assert core == reference
    return core


def _constants(
    rng: np.random.Generator, n: int, order: int, rules: bool, diagnosis: bool
) -> dict[str, object]:
    def positive(low: float = 0.2, high: float = 2.0, size: int = n) -> tuple[float, ...]:
        return tuple(map(float, rng.uniform(low, high, size).astype(np.float32)))

    changes: dict[str, object] = {
        "channels": tuple(_channel(rng, i, n, rules) for i in range(n)),
        "forecast": _forecast(rng, n, order, positive(0.05, 0.4)),
        "score": m.Score(
            weights=(1.0, 0.9, 0.8, 0.5, 0.7, 0.6), memories=_memories(rng),
            error_scale=tuple(positive(0.05, 0.5) for _ in range(3)),
            absent=tuple(positive(1.0, 5.0) for _ in range(3)), residual_mean=positive(),
            evidence_mean=positive(), level_mean=positive(), distance_root=_matrix(_root(rng, n)),
            level_root=_matrix(_root(rng, n)),
        ),
        "fallback": m.FallbackLimits(
            smoothing=0.1, slack=0.5, range=positive(3, 5), level=positive(1.5, 3),
            change=positive(2, 4), cusum=positive(15, 30), same=positive(8, 20),
            missing=positive(8, 20),
        ),
        "alarm": m.AlarmRule(m=3, n=5, clear_after=8),
        "tiers": HASTY,
    }  # fmt: skip
    if diagnosis:
        changes["diagnosis"] = _diagnosis(rng, n)
    return changes


def _forecast(rng: np.random.Generator, n: int, order: int, scale: tuple[float, ...]) -> m.Forecast:
    """Each of the three beside the highway is there or not."""
    highway = rng.uniform(-0.3, 0.9 / order, (order, n))
    cross, own, ahead = (
        _matrix(rng.normal(0, 0.2 / np.sqrt(n * order), shape)) if rng.random() < 0.5 else ()
        for shape in ((n, order * n), (order, n), (n, order * n))
    )
    horizon = int(rng.integers(1, 8)) if ahead else 0
    return m.Forecast(_matrix(highway), cross, scale, own, ahead, horizon)


def _memories(rng: np.random.Generator) -> tuple[m.Memory, ...]:
    def six(low: float, high: float) -> tuple[float, ...]:
        return tuple(map(float, rng.uniform(low, high, 6).astype(np.float32)))

    every = ((0.3, 0.1, (1e30,) * 6), (0.05, 0.05, six(1, 3)), (0.02, 0.01, six(0.5, 2)))
    count = int(rng.integers(1, 4))
    return tuple(m.Memory(*each, six(0.2, 2), six(0.2, 2)) for each in every[:count])


def _channel(rng: np.random.Generator, i: int, n: int, rules: bool) -> m.Channel:
    center, scale = float(rng.normal(0, 50)), float(rng.uniform(0.5, 20))
    bound = 6 * scale
    limits: dict[str, Any] = dict.fromkeys(("low", "high", "max_rate", "stuck_after"))
    if rules and i % 3 != 1:
        limits = {"low": center - bound, "high": center + bound, "max_rate": 8 * scale}
        limits["stuck_after"] = 6
    return m.Channel(f"c{i}", "", center, scale, **limits, exogenous=n > 1 and i % 4 == 1)


def _diagnosis(rng: np.random.Generator, n: int) -> m.DiagnosisModel:
    wide = 3 * n
    spread = rng.normal(0, 1, (2 * wide, wide)) / np.sqrt(2 * wide)
    precision = (spread.T @ spread + 0.2 * np.eye(wide)).astype(np.float32)
    views = precision.reshape(3, n, 3, n)
    blocks = np.array([np.linalg.inv(views[:, i, :, i]) for i in range(n)])  # [n, 3, 3]

    def vector(low: float, high: float, size: int = n) -> tuple[float, ...]:
        return tuple(map(float, rng.uniform(low, high, size).astype(np.float32)))

    return m.DiagnosisModel(
        smoothing=(0.3, 0.05), center=_matrix(rng.normal(0, 0.1, (3, n))),
        precision=_matrix(precision), block=tuple(_matrix(b) for b in blocks.transpose(1, 2, 0)),
        deviation=vector(0.5, 1.5), explained_mean=vector(0.5, 1.5), explained_high=vector(3, 6),
        distance_mean=float(n), move_mean=vector(0.01, 0.2), jump_mean=vector(0.05, 0.5),
        persistence=vector(2, 20), longest_repeat=tuple(map(float, rng.integers(0, 4, n))),
        feature_center=vector(-1, 1, len(FEATURES)), feature_scale=vector(0.5, 2, len(FEATURES)),
        machine=vector(-0.5, 0.5, MACHINE_WEIGHTS),
        kinds=_matrix(rng.normal(0, 0.4, (len(SENSOR_KINDS), KIND_WEIGHTS))),
    )  # fmt: skip


def _root(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.eye(n) + rng.normal(0, 0.3 / np.sqrt(n), (n, n))


def _matrix(values: Any) -> m.Matrix:
    return tuple(tuple(map(float, row)) for row in np.asarray(values, np.float32)[...])


def _tensors(graph: GraphSummary, named: dict[str, int]) -> dict[str, m.Tensor]:
    tensors = {name: graph.tensors[index] for name, index in named.items()}
    return {
        n: m.Tensor(t.shape, t.dtype, t.scales[0], t.zero_points[0]) for n, t in tensors.items()
    }


def _spike(rows: np.ndarray, at: int, i: int, scale: np.ndarray) -> None:
    rows[at : at + 2, i] += 30 * scale[i]


def _level(rows: np.ndarray, at: int, i: int, scale: np.ndarray) -> None:
    rows[at : at + 35, i] += 5 * scale[i]


def _dropout(rows: np.ndarray, at: int, i: int, scale: np.ndarray) -> None:
    rows[at : at + 20, i] = np.nan


def _stuck(rows: np.ndarray, at: int, i: int, scale: np.ndarray) -> None:
    rows[at : at + 25, i] = rows[at, i]


def _all_missing(rows: np.ndarray, at: int, i: int, scale: np.ndarray) -> None:
    rows[at : at + 22] = np.nan


def _odd(rows: np.ndarray, at: int, i: int, scale: np.ndarray) -> None:
    for row in range(at, at + len(ODD)):
        rows[row] = np.roll(ODD, row - at)[np.arange(rows.shape[1]) % len(ODD)]


def _drift(rows: np.ndarray, at: int, i: int, scale: np.ndarray) -> None:
    rows[at : at + 30, i] += (np.arange(30) * 0.3 * scale[i]).astype(np.float32)


def _noise(rows: np.ndarray, at: int, i: int, scale: np.ndarray) -> None:
    rows[at : at + 20, i] += (np.resize([4, -4, -2, 3], 20) * scale[i]).astype(np.float32)


def _all_shifted(rows: np.ndarray, at: int, i: int, scale: np.ndarray) -> None:
    rows[at : at + 40] += (6 * scale).astype(np.float32)


def _standstill(rows: np.ndarray, at: int, i: int, scale: np.ndarray) -> None:
    rows[at : at + 30] = rows[at]


_FAULTS = (
    _spike, _level, _dropout, _stuck, _all_missing, _odd, _drift, _all_shifted, _noise, _standstill,
    _all_missing, _all_shifted,
)  # fmt: skip
