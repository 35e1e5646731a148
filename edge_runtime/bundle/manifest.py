"""The manifest: everything about a bundle that is not weights, as frozen dataclasses.

`to_dict` and `from_dict` are inverse; `from_dict` trusts nothing and names the field that is wrong.
All arrays are in standardised units (channel centre 0, scale 1) unless said otherwise.
"""

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_runtime.bundle.manifest_rules import LARGEST, check_manifest
from edge_runtime.errors import GruardError

SCHEMA = 2
LARGEST_INTEGER = 10**15  # counts of samples; exact in a double
# Control characters, and halves of characters that no output can encode.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
SHOWN, FEW = 100, 5  # characters of a text, and names, that go into a message
Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


@dataclass(frozen=True)
class Channel:
    """One sensor signal. Limits are in raw units; None switches a rule off."""

    name: str
    unit: str
    center: float
    scale: float
    low: float | None
    high: float | None
    max_rate: float | None  # raw units per second
    stuck_after: int | None  # samples of one and the same value
    exogenous: bool


@dataclass(frozen=True)
class Tensor:
    """Quantisation of one graph input or output."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


@dataclass(frozen=True)
class Forecast:
    """The linear highway, newest lag first.

    highway: [order][channels], what a channel's own past says. cross: [channels][order * channels],
    what the past of all channels adds (lag by lag), or empty where they add nothing.
    """

    highway: Matrix
    cross: Matrix
    innovation_scale: Vector


@dataclass(frozen=True)
class Score:
    """Constants of the anomaly score; see `edge_runtime.detector.score` for the formulas."""

    attack: float  # smoothing of a rising part
    decay: float  # smoothing of a falling part
    weights: Vector  # residual, distance, level, gate
    part_mean: Vector
    part_std: Vector
    residual_scale: Vector
    absent: Vector  # the error that an unusable reading counts as, in channel scales
    residual_mean: Vector  # clean mean of the residual term, per channel
    evidence_mean: Vector  # clean mean of the gate's evidence, per channel
    level_mean: Vector  # clean mean of the level term, per channel
    distance_root: Matrix  # W with WᵀW the inverse of the shrunk residual covariance
    level_root: Matrix


@dataclass(frozen=True)
class Alarm:
    """Debounce and hysteresis: on after `m` of `n`, off after `clear_after` calm samples."""

    m: int
    n: int
    clear_after: int


@dataclass(frozen=True)
class Tiers:
    """Bounds of the tiers, in samples."""

    closed_limit: int
    lost_limit: int
    contradiction_limit: int
    free_run_limit: int
    resync_channel: int
    resync_all: int
    window: int  # re-synchronisations are counted over this many samples
    hour: int  # returns from tier 3 are counted over this many samples
    warmup: int
    frozen_limit: int
    saturated_limit: float  # share of the state at the edge of its range that is still healthy
    agree: int


@dataclass(frozen=True)
class Fallback:
    """Clean limits of the statistical detector, per channel; see `detector.fallback`."""

    smoothing: float
    slack: float
    range: Vector
    level: Vector
    change: Vector
    cusum: Vector
    same: Vector  # samples
    missing: Vector  # samples


@dataclass(frozen=True)
class Diagnosis:
    """What tells the kinds of faults apart, for n channels; see `diagnosis.diagnosis`.

    Up to `longest_repeat` it describes clean rows (`diagnosis.symptoms`), then the classifiers.
    """

    smoothing: Vector  # of the fast and of the slow average
    center: Matrix  # [3][n]
    precision: Matrix  # [3 n][3 n]
    block: tuple[Matrix, ...]  # [3][3][n]
    deviation: Vector
    explained_mean: Vector
    explained_high: Vector
    distance_mean: float
    move_mean: Vector
    jump_mean: Vector
    persistence: Vector
    longest_repeat: Vector
    feature_center: Vector
    feature_scale: Vector
    machine: Vector  # bias and weights of "is it the machine?"
    kinds: Matrix  # bias and weights of each kind of sensor fault


@dataclass(frozen=True)
class Threshold:
    """Alarm threshold for one kernel id and the promise it carries (alarms per day)."""

    value: float
    clear: float
    wished_per_day: float
    method: str
    clean_days: float
    held_out_days: float
    held_out_alarms: int
    upper_bound_per_day: float
    assured: bool
    days_needed: float
    statement: str


@dataclass(frozen=True)
class Tables:
    """Non-linearities of the host, as float32 values."""

    softplus: Vector  # 256 entries, one per int8 code of the logit
    log: Vector  # 257 entries


@dataclass(frozen=True)
class Validation:
    """The verdict of int8 against float; `forced` marks a bundle written although it failed."""

    passed: bool
    forced: bool


@dataclass(frozen=True)
class Provenance:
    """Where the bundle comes from; no path and no clock, so that equal inputs give equal bytes.

    selection: how well each model that was tried found injected faults, by name; empty when one was
    asked for.
    """

    data_sha256: str
    weights_sha256: str
    seed: int
    selection: Mapping[str, float]
    tools: Mapping[str, str]


@dataclass(frozen=True)
class Manifest:
    """Contents of manifest.json. `members` maps each other file to its SHA-256."""

    schema: int
    name: str
    version: int
    period: float | None  # seconds
    channels: tuple[Channel, ...]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    forecast: Forecast
    score: Score
    alarm: Alarm
    tiers: Tiers
    fallback: Fallback
    thresholds: Mapping[str, Threshold]
    tables: Tables
    validation: Validation
    provenance: Provenance
    members: Mapping[str, str]
    diagnosis: Diagnosis | None = None  # a bundle may have none: alarms then have no kind

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Channel names in the model's order."""
        return tuple(channel.name for channel in self.channels)

    @property
    def linear(self) -> bool:
        """Whether the forecast is the highway alone: there is no graph and nothing to quantise."""
        return not self.inputs


def to_dict(manifest: Manifest) -> dict[str, Any]:
    """Plain JSON types; floats keep their exact value."""
    return dataclasses.asdict(manifest)


def from_dict(data: Any, source: str) -> Manifest:
    """The manifest in `data` (parsed JSON of the file `source`).

    Raises GruardError naming the field when something is missing, unknown, of the wrong type or
    not finite, when the schema is not ours, when lengths contradict the number of channels, or
    when a constant would silence the detector (a divisor of 0, a debounce that no alarm can pass).
    """
    if not isinstance(data, dict):
        raise GruardError(f"{source}: not a manifest (a JSON object is expected)")
    schema = data.get("schema")
    if type(schema) is not int or schema != SCHEMA:
        raise GruardError(
            f"{source}: schema {shown(schema)} is unknown, this runtime reads schema {SCHEMA}; "
            "convert again with the matching version or update the runtime"
        )
    manifest = _build(Manifest, data, source)
    assert isinstance(manifest, Manifest)
    check_manifest(manifest, source)
    return manifest


def threshold_from_dict(data: Any, where: str) -> Threshold:
    """The threshold in `data` (parsed JSON, at `where`). Raises GruardError as `from_dict` does."""
    threshold = _build(Threshold, data, where)
    assert isinstance(threshold, Threshold)
    return threshold


def _build(kind: Any, value: Any, where: str) -> Any:
    """`value` as an instance of the annotation `kind`, checked all the way down."""
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise GruardError(f"{where}: a list is expected")
        if arguments[0] is float and all(type(v) is float and abs(v) <= LARGEST for v in value):
            return tuple(value)  # nearly all of a manifest is this
        return tuple(_build(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is not None and _is_subclass(origin, Mapping):
        if not isinstance(value, dict):
            raise GruardError(f"{where}: an object is expected")
        return {
            _text(k, where): _build(arguments[1], v, f"{where}.{shown(k, str)}")
            for k, v in value.items()
        }
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        return _build(next(a for a in arguments if a is not type(None)), value, where)
    return _build_scalar(kind, value, where)


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise GruardError(f"{where}: an object is expected")
    hints = _hints(kind)
    missing, unknown = sorted(hints.keys() - value.keys()), sorted(value.keys() - hints.keys())
    if missing or unknown:
        raise GruardError(
            f"{where}: fields missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(shown(name, str) for name in unknown[:FEW]) or 'none'}"
        )
    return kind(
        **{name: _build(hint, value[name], f"{where}: {name}") for name, hint in hints.items()}
    )


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _build_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= LARGEST:  # also false for NaN
            raise GruardError(f"{where}: {shown(value)} is not a finite float32 number")
        return float(value)
    if kind is int and type(value) is int and not abs(value) <= LARGEST_INTEGER:
        raise GruardError(f"{where}: {shown(value)} is too large a number")
    if kind is str and type(value) is str:
        return _text(value, where)
    if kind in (int, bool) and type(value) is kind:
        return value
    raise GruardError(f"{where}: {shown(value)} is not of type {kind.__name__}")


def _text(value: str, where: str) -> str:
    """`value`, which goes into records, terminals and journals, and so must be printable there."""
    if UNPRINTABLE.search(value):
        raise GruardError(f"{where}: {shown(value)} has control characters; rename it")
    return value


def shown(value: Any, form: Callable[[Any], str] = ascii) -> str:
    """The beginning of `value` as messages show it: one line, whatever it is."""
    if isinstance(value, (list, dict)):
        return f"a list of {len(value)}" if isinstance(value, list) else "an object"
    if type(value) is int and abs(value) > LARGEST_INTEGER:
        return "an integer of more than 15 digits"  # Python may refuse to write it out
    text = form(value[:SHOWN] if isinstance(value, str) else value)
    return UNPRINTABLE.sub("?", text)


def _is_subclass(origin: Any, parent: type) -> bool:
    """Whether a typing origin is a class below `parent`."""
    return isinstance(origin, type) and issubclass(origin, parent)
