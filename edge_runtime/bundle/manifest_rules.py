"""What a manifest must satisfy beyond its types: lengths that fit, divisors that divide.

A manifest that passes can be turned into arrays and stepped without a further check.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edge_runtime.diagnosis.contribution import MOST_CHANNELS, VIEWS
from edge_runtime.diagnosis.diagnosis import FEATURES, KIND_WEIGHTS, MACHINE_WEIGHTS, SENSOR_KINDS
from edge_runtime.errors import GruardError
from edge_runtime.period import LONGEST_PERIOD, SHORTEST_PERIOD

if TYPE_CHECKING:  # the manifest calls these rules
    from edge_runtime.bundle.manifest import Diagnosis, Manifest

# The device computes in float32: below this a divisor is zero there.
SMALLEST_DIVISOR = 1e-30
Length = tuple[str, Sequence[Any], int]
_CLEAN_DIVISORS = ("deviation", "explained_high", "move_mean", "jump_mean", "persistence")


def check_manifest(manifest: Manifest, source: str) -> None:
    """Raises GruardError naming the field of the manifest in `source` that breaks a rule."""
    _check_lengths(manifest, source)
    _check_constants(manifest, source)


def _check_lengths(manifest: Manifest, source: str) -> None:
    count = len(manifest.channels)
    if not 1 <= count <= 256 or len(set(manifest.channel_names)) != count:
        raise GruardError(f"{source}: channels: 1 to 256 different names are expected")
    score, fallback = manifest.score, manifest.fallback
    vectors: list[Length] = [
        ("forecast.innovation_scale", manifest.forecast.innovation_scale, count),
        ("score.residual_scale", score.residual_scale, count),
        ("score.absent", score.absent, count),
        ("score.residual_mean", score.residual_mean, count),
        ("score.evidence_mean", score.evidence_mean, count),
        ("score.level_mean", score.level_mean, count),
        ("score.distance_root", score.distance_root, count),
        ("score.level_root", score.level_root, count),
        ("score.weights", score.weights, 4),
        ("score.part_mean", score.part_mean, 4),
        ("score.part_std", score.part_std, 4),
        ("fallback.range", fallback.range, count),
        ("fallback.level", fallback.level, count),
        ("fallback.change", fallback.change, count),
        ("fallback.cusum", fallback.cusum, count),
        ("fallback.same", fallback.same, count),
        ("fallback.missing", fallback.missing, count),
        ("tables.softplus", manifest.tables.softplus, 256),
        ("tables.log", manifest.tables.log, 257),
    ]
    rows = [*manifest.forecast.highway, *score.distance_root, *score.level_root]
    vectors += [("a matrix row", row, count) for row in rows]
    if manifest.diagnosis is not None:
        if count > MOST_CHANNELS:
            raise GruardError(f"{source}: diagnosis: at most {MOST_CHANNELS} channels are expected")
        vectors += _diagnosis_lengths(manifest.diagnosis, count)
    if manifest.forecast.cross:
        vectors += [("forecast.cross", manifest.forecast.cross, count)]
        lagged = count * len(manifest.forecast.highway)
        vectors += [("a row of forecast.cross", row, lagged) for row in manifest.forecast.cross]
    for name, vector, wanted in vectors:
        if len(vector) != wanted:
            raise GruardError(f"{source}: {name}: {wanted} entries expected, {len(vector)} found")
    if not manifest.forecast.highway:
        raise GruardError(f"{source}: forecast.highway: at least one lag is expected")


def _check_constants(manifest: Manifest, source: str) -> None:
    score, fallback, alarm = manifest.score, manifest.fallback, manifest.alarm
    tensors = {**manifest.inputs, **manifest.outputs}
    divisors: dict[str, Sequence[float]] = {
        "period": [1.0 if manifest.period is None else manifest.period],
        "channels: scale": [channel.scale for channel in manifest.channels],
        "tensors: scale": [tensor.scale for tensor in tensors.values()],
        "forecast.innovation_scale": manifest.forecast.innovation_scale,
        "score.part_std": score.part_std,
        "score.residual_scale": score.residual_scale,
    }
    if manifest.diagnosis is not None:
        divisors |= _diagnosis_divisors(manifest.diagnosis)
    limits = ("range", "level", "change", "cusum", "same", "missing")
    divisors |= {f"fallback.{name}": getattr(fallback, name) for name in limits}
    for name, values in divisors.items():
        if min(values, default=1.0) < SMALLEST_DIVISOR:
            raise GruardError(f"{source}: {name}: must be above 0, not {min(values)}")
    if manifest.period is not None and not SHORTEST_PERIOD <= manifest.period <= LONGEST_PERIOD:
        raise GruardError(
            f"{source}: period: {SHORTEST_PERIOD:g} to {LONGEST_PERIOD:g} s are expected, "
            f"not {manifest.period:g}"
        )
    if not 1 <= alarm.m <= alarm.n or alarm.clear_after < 1:
        raise GruardError(f"{source}: alarm: 1 <= m <= n and clear_after >= 1 are expected")
    if min(score.weights) < 0 or max(score.weights) <= 0:
        raise GruardError(f"{source}: score.weights: none below 0 and one above 0 are expected")
    smoothings = {
        "score.attack": score.attack,
        "score.decay": score.decay,
        "fallback.smoothing": fallback.smoothing,
    }
    if manifest.diagnosis is not None:
        shares = enumerate(manifest.diagnosis.smoothing)
        smoothings |= {f"diagnosis.smoothing[{i}]": share for i, share in shares}
    for name, smoothing in smoothings.items():
        if not 0 < smoothing <= 1:
            raise GruardError(f"{source}: {name}: must be above 0 and at most 1")


def _diagnosis_lengths(section: Diagnosis, count: int) -> Iterator[Length]:
    views = VIEWS * count
    yield "diagnosis.smoothing", section.smoothing, VIEWS - 1
    yield "diagnosis.center", section.center, VIEWS
    yield "diagnosis.precision", section.precision, views
    yield "diagnosis.block", section.block, VIEWS
    for matrix in section.block:
        yield "a matrix of diagnosis.block", matrix, VIEWS
    rows = [*section.center, *(row for matrix in section.block for row in matrix)]
    yield from (("a row of diagnosis.center or block", row, count) for row in rows)
    yield from (("a row of diagnosis.precision", row, views) for row in section.precision)
    for name in (*_CLEAN_DIVISORS, "explained_mean", "longest_repeat"):
        yield f"diagnosis.{name}", getattr(section, name), count
    yield "diagnosis.feature_center", section.feature_center, len(FEATURES)
    yield "diagnosis.feature_scale", section.feature_scale, len(FEATURES)
    yield "diagnosis.machine", section.machine, MACHINE_WEIGHTS
    yield "diagnosis.kinds", section.kinds, len(SENSOR_KINDS)
    yield from (("a row of diagnosis.kinds", row, KIND_WEIGHTS) for row in section.kinds)


def _diagnosis_divisors(section: Diagnosis) -> dict[str, Sequence[float]]:
    return {f"diagnosis.{name}": getattr(section, name) for name in _CLEAN_DIVISORS} | {
        "diagnosis.distance_mean": [section.distance_mean],
        "diagnosis.feature_scale": section.feature_scale,
    }
