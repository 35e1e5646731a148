"""From the JSON of a manifest to a checked `Manifest`.

`from_dict` trusts nothing and names the field that is wrong: types, lengths and divisors are
checked, so that a step needs no further check. Manifests of older schemas are first converted to
the present layout.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from edge_runtime.bundle.manifest import (
    BRIDGE,
    ERRORS,
    FALLBACK_VIEWS,
    LONGEST_PERIOD,
    PARTS,
    PROOF,
    SCHEMA,
    SHORTEST_PERIOD,
    UNLIMITED,
    Channel,
    DiagnosisModel,
    FallbackConstants,
    Manifest,
    Threshold,
)
from edge_runtime.diagnosis import FEATURES, KIND_WEIGHTS, MACHINE_WEIGHTS, SENSOR_KINDS
from edge_runtime.errors import GruardError
from edge_runtime.plain import build, shown
from edge_runtime.sources.csvcell import DAY_FIRST, MONTH_FIRST, SERIAL
from edge_runtime.symptoms import MOST_CHANNELS, VIEWS

OLDER = 2
"""The oldest schema that is read. It has no `proof`, and its tiers have no `bridge`."""
WITH_CHANGES = 4
"""The first schema with a section on lasting changes."""
WITH_MODES = 5
"""The first schema with operating modes, and with more forecasts and memories for the score."""
FORMER_PARTS = ("residual", "distance", "level", "gate")
"""Parts of the score before schema 5, which had one memory, no ceiling and one forecast."""

SMALLEST_DIVISOR = 1e-30  # in float32, on the device, smaller ones may be 0
LONGEST_BRIDGE = 1000  # a longer one would hide that a machine is no longer measured
LONGEST_CHANGE = 1 << 20
LONGEST_HORIZON = 64
MOST_MEMORIES = 4
MOST_MODES = 16
Length = tuple[str, Sequence[Any], int]
_NOTHING_SAID: dict[str, Any] = {
    "columns": {"time": None, "label": None, "dates": "", "counters": []}
}
_CLEAN_DIVISORS = ("deviation", "explained_high", "move_mean", "jump_mean", "persistence")


def from_dict(data: Any, source: str) -> Manifest:
    """Return the manifest in `data` (parsed JSON of the file `source`).

    Raises GruardError naming the field when something is missing, unknown, of the wrong type or
    not finite, when the schema is unknown, when lengths contradict the number of channels, or when
    a constant would silence the detector (a divisor of 0, a debounce that no alarm can pass).
    """
    if not isinstance(data, dict):
        raise GruardError(f"{source}: not a manifest (a JSON object is expected)")
    schema = data.get("schema")
    if type(schema) is not int or not OLDER <= schema <= SCHEMA:
        raise GruardError(
            f"{source}: schema {shown(schema)} is unknown, this runtime reads schema {OLDER} to "
            f"{SCHEMA}; convert again with the matching version or update the runtime"
        )
    manifest: Manifest = build(Manifest, _from_older(data, schema), source)
    _check_manifest(manifest, source)
    return manifest


def _from_older(data: dict[str, Any], schema: int) -> dict[str, Any]:
    """Convert `data` to the present layout, as far as it is sound; `build` refuses the rest."""
    data = {**_NOTHING_SAID, **data}
    if schema < WITH_MODES:
        data = without_modes(with_memories(data))
    if schema < WITH_CHANGES:
        data = {"change": None, **data}
    if schema > OLDER:
        return data
    tiers, hashes = data.get("tiers"), data.get("members")
    if isinstance(tiers, dict):
        data = {**data, "tiers": {**tiers, "bridge": BRIDGE}}
    if not isinstance(hashes, dict):
        return {**data, "proof": {}}
    proof = {name: digest for name, digest in hashes.items() if name in PROOF}
    members = {name: digest for name, digest in hashes.items() if name not in PROOF}
    return {**data, "members": members, "proof": proof}


def fallback_from_dict(data: Any, where: str) -> FallbackConstants:
    """Return the constants in `data` (parsed JSON, at `where`). GruardError as for `from_dict`."""
    data = {**_NOTHING_SAID, **without_modes(data)} if isinstance(data, dict) else data
    constants: FallbackConstants = build(FallbackConstants, data, where)
    check_fallback(constants, where)
    return constants


def threshold_from_dict(data: Any, where: str) -> Threshold:
    """Return the threshold in `data` (parsed JSON, at `where`). GruardError as for `from_dict`."""
    threshold: Threshold = build(Threshold, data, where)
    return threshold


def _check_manifest(manifest: Manifest, source: str) -> None:
    """Raise GruardError naming the field of the manifest in `source` that breaks a rule."""
    if manifest.diagnosis is not None and len(manifest.channels) > MOST_CHANNELS:
        raise GruardError(f"{source}: diagnosis: at most {MOST_CHANNELS} channels are expected")
    check_fallback(manifest, source)
    _check_lengths(manifest, source)
    _check_constants(manifest, source)


def check_fallback(constants: Manifest | FallbackConstants, source: str) -> None:
    """Do the same for what the fallback needs."""
    count = len(constants.channels)
    if not 1 <= count <= 256 or len(set(constants.channel_names)) != count:
        raise GruardError(f"{source}: channels: 1 to 256 different names are expected")
    _check_modes(constants.channels, source)
    _check_columns(constants, source)
    fallback, alarm = constants.fallback, constants.alarm
    limits = [(f"fallback.{name}", getattr(fallback, name), count) for name in FALLBACK_VIEWS]
    _check_each_length(limits, source)
    period = constants.period
    divisors: dict[str, Sequence[float]] = {
        "period": [1.0 if period is None else period],
        "channels: scale": [channel.scale for channel in constants.channels],
        "channels: modes": [place.scale for c in constants.channels for place in c.modes],
        **{name: values for name, values, _ in limits},
    }
    _check_divisors(divisors, source)
    if period is not None and not SHORTEST_PERIOD <= period <= LONGEST_PERIOD:
        raise GruardError(
            f"{source}: period: {SHORTEST_PERIOD:g} to {LONGEST_PERIOD:g} s are expected, "
            f"not {period:g}"
        )
    if not 1 <= alarm.m <= alarm.n or alarm.clear_after < 1:
        raise GruardError(f"{source}: alarm: 1 <= m <= n and clear_after >= 1 are expected")
    _check_smoothings({"fallback.smoothing": fallback.smoothing}, source)


def _check_modes(channels: tuple[Channel, ...], source: str) -> None:
    modes = max((len(channel.modes) for channel in channels), default=0)
    telling = [len(channel.modes) == modes for channel in channels if channel.exogenous]
    even = all(
        len(channel.modes) == modes or (channel.exogenous and not channel.modes)
        for channel in channels
    )
    if modes and not (2 <= modes <= MOST_MODES and even and any(telling)):
        raise GruardError(
            f"{source}: channels: modes: 2 to {MOST_MODES} are expected, the same number for every "
            "channel, and an exogenous one that tells them apart"
        )


def _check_columns(constants: Manifest | FallbackConstants, source: str) -> None:
    said, names = constants.columns, constants.channel_names
    if said.dates not in ("", DAY_FIRST, MONTH_FIRST, SERIAL):
        raise GruardError(f"{source}: columns.dates: {shown(said.dates)} is no form of dates")
    if len({*said.counters} & {*names}) != len(said.counters):
        raise GruardError(f"{source}: columns.counters: different channels are expected")
    if {said.time, said.label} & {*names}:
        raise GruardError(f"{source}: columns: a channel is no column of times or labels")


def _check_lengths(manifest: Manifest, source: str) -> None:
    count, score = len(manifest.channels), manifest.score
    vectors: list[Length] = [
        ("forecast.innovation_scale", manifest.forecast.innovation_scale, count),
        ("score.error_scale", score.error_scale, len(ERRORS)),
        ("score.absent", score.absent, len(ERRORS)),
        ("score.residual_mean", score.residual_mean, count),
        ("score.evidence_mean", score.evidence_mean, count),
        ("score.level_mean", score.level_mean, count),
        ("score.distance_root", score.distance_root, count),
        ("score.level_root", score.level_root, count),
        ("score.weights", score.weights, len(PARTS)),
        ("tables.softplus", manifest.tables.softplus, 256),
        ("tables.log", manifest.tables.log, 257),
    ]
    rows = [*manifest.forecast.highway, *score.distance_root, *score.level_root]
    rows += [*manifest.forecast.own, *score.error_scale, *score.absent]
    vectors += [("a matrix row", row, count) for row in rows]
    vectors += [
        (f"score.memories.{name}", getattr(memory, name), len(PARTS))
        for memory in score.memories
        for name in ("ceiling", "mean", "std")
    ]
    if manifest.diagnosis is not None:
        vectors += _diagnosis_lengths(manifest.diagnosis, count)
    if manifest.change is not None:
        vectors.append(("change.follow", manifest.change.follow, count))
    lags = len(manifest.forecast.highway)
    if manifest.forecast.own:
        vectors.append(("forecast.own", manifest.forecast.own, lags))
    for name in ("cross", "ahead"):
        if matrix := getattr(manifest.forecast, name):
            vectors.append((f"forecast.{name}", matrix, count))
            vectors += [(f"a row of forecast.{name}", row, count * lags) for row in matrix]
    _check_each_length(vectors, source)
    if not lags:
        raise GruardError(f"{source}: forecast.highway: at least one lag is expected")


def _check_constants(manifest: Manifest, source: str) -> None:
    score = manifest.score
    tensors = {**manifest.inputs, **manifest.outputs}
    divisors: dict[str, Sequence[float]] = {
        "tensors: scale": [tensor.scale for tensor in tensors.values()],
        "forecast.innovation_scale": manifest.forecast.innovation_scale,
        "score.memories: std": [value for memory in score.memories for value in memory.std],
        "score.error_scale": [value for row in score.error_scale for value in row],
    }
    if manifest.diagnosis is not None:
        divisors |= _diagnosis_divisors(manifest.diagnosis)
    _check_divisors(divisors, source)
    if not 0 <= manifest.tiers.bridge <= LONGEST_BRIDGE:
        raise GruardError(f"{source}: tiers.bridge: 0 to {LONGEST_BRIDGE} samples are expected")
    if min(score.weights) < 0 or max(score.weights) <= 0:
        raise GruardError(f"{source}: score.weights: none below 0 and one above 0 are expected")
    _check_forecast(manifest, source)
    if (section := manifest.change) is not None and (
        not 0 <= section.after <= LONGEST_CHANGE
        or not all(0 <= rate <= 1 for rate in (section.rate, *section.follow))
    ):
        raise GruardError(
            f"{source}: change: after from 0 to {LONGEST_CHANGE}, rates from 0 to 1 are expected"
        )
    smoothings = {
        f"score.memories[{i}].{name}": getattr(memory, name)
        for i, memory in enumerate(score.memories)
        for name in ("attack", "decay")
    }
    if manifest.diagnosis is not None:
        shares = enumerate(manifest.diagnosis.smoothing)
        smoothings |= {f"diagnosis.smoothing[{i}]": share for i, share in shares}
    _check_smoothings(smoothings, source)


def _check_forecast(manifest: Manifest, source: str) -> None:
    """Check that every part with a weight has its forecast, and the forecast ahead a horizon."""
    forecast, weights = manifest.forecast, dict(zip(PARTS, manifest.score.weights, strict=True))
    fewest, most = (1, LONGEST_HORIZON) if forecast.ahead else (0, 0)
    if not fewest <= forecast.horizon <= most:
        raise GruardError(
            f"{source}: forecast.horizon: 1 to {LONGEST_HORIZON} samples with a forecast from "
            "there, 0 without, are expected"
        )
    for name in ("own", "ahead"):
        if weights[name] > 0 and not getattr(forecast, name):
            raise GruardError(f"{source}: score.weights: {name} counts without a forecast.{name}")
    if not 1 <= len(manifest.score.memories) <= MOST_MEMORIES:
        raise GruardError(f"{source}: score.memories: 1 to {MOST_MEMORIES} are expected")


def _check_each_length(vectors: Iterable[Length], source: str) -> None:
    for name, vector, wanted in vectors:
        if len(vector) != wanted:
            raise GruardError(f"{source}: {name}: {wanted} entries expected, {len(vector)} found")


def _check_divisors(divisors: Mapping[str, Sequence[float]], source: str) -> None:
    for name, values in divisors.items():
        if min(values, default=1.0) < SMALLEST_DIVISOR:
            raise GruardError(f"{source}: {name}: must be above 0, not {min(values)}")


def _check_smoothings(smoothings: Mapping[str, float], source: str) -> None:
    for name, smoothing in smoothings.items():
        if not 0 < smoothing <= 1:
            raise GruardError(f"{source}: {name}: must be above 0 and at most 1")


def _diagnosis_lengths(section: DiagnosisModel, count: int) -> Iterator[Length]:
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


def _diagnosis_divisors(section: DiagnosisModel) -> dict[str, Sequence[float]]:
    return {f"diagnosis.{name}": getattr(section, name) for name in _CLEAN_DIVISORS} | {
        "diagnosis.distance_mean": [section.distance_mean],
        "diagnosis.feature_scale": section.feature_scale,
    }


def with_memories(data: dict[str, Any]) -> dict[str, Any]:
    """Give `data` from before schema 5 the present forecasts and score, as far as it is sound."""
    forecast, score = data.get("forecast"), data.get("score")
    if isinstance(forecast, dict):
        data = {**data, "forecast": {**forecast, "own": [], "ahead": [], "horizon": 0}}
    if isinstance(score, dict):
        data = {**data, "score": _score(dict(score))}
    return data


def without_modes(data: dict[str, Any]) -> dict[str, Any]:
    """Give the channels of `data` from before schema 5 empty `modes`."""
    channels = data.get("channels")
    if not isinstance(channels, list):
        return data
    return {
        **data,
        "channels": [{"modes": [], **c} if isinstance(c, dict) else c for c in channels],
    }


def _score(score: dict[str, Any]) -> dict[str, Any]:
    missing: list[Any] = []
    scale, absent = score.pop("residual_scale", missing), score.pop("absent", missing)
    ones, zeros = ([value] * _length(scale) for value in (1.0, 0.0))
    memory = {
        "attack": score.pop("attack", None),
        "decay": score.pop("decay", None),
        "ceiling": [UNLIMITED] * len(PARTS),
        "mean": _spread(score.pop("part_mean", None), 0.0),
        "std": _spread(score.pop("part_std", None), 1.0),
    }
    return {
        **score,
        "weights": _spread(score.get("weights"), 0.0),
        "memories": [memory],
        "error_scale": [scale, ones, ones],
        "absent": [absent, zeros, zeros],
    }


def _spread(values: Any, otherwise: float) -> Any:
    """Spread four numbers over the present six; anything else stays, and `build` refuses it."""
    if not isinstance(values, list) or len(values) != len(FORMER_PARTS):
        return values
    former = dict(zip(FORMER_PARTS, values, strict=True))
    return [former.get(name, otherwise) for name in PARTS]


def _length(values: Any) -> int:
    return len(values) if isinstance(values, list) else 0
