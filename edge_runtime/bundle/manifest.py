"""The manifest: everything in a bundle but the weights, as frozen dataclasses.

`manifest_rules.from_dict` is the inverse of `to_dict`. All arrays are in standardised units
(channel centre 0, scale 1) unless stated otherwise.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_runtime.columns import NOTHING_SAID, Columns

SCHEMA = 5
"""Layout of the manifest. `manifest_rules` reads older ones, too."""

UNLIMITED = 1e30  # a bound that nothing reaches
PARTS = ("residual", "own", "distance", "level", "ahead", "gate")
"""Parts of the score."""
ERRORS = ("residual", "own", "ahead")
"""Parts that are made of the errors of a forecast, in this order; see `detector.linear`."""
FALLBACK_VIEWS = ("range", "level", "change", "cusum", "same", "missing")
BRIDGE = 4  # rows that any state can bridge; measured in docs/gate.md
# Bounds of a sample period, in seconds: no arithmetic with it overflows, and no wait is endless.
# The shortest is less than a step takes on any device, the longest is twelve days.
SHORTEST_PERIOD, LONGEST_PERIOD = 1e-6, 1e6
PROOF = ("calibration.npz", "report.html", "report.json")
"""Files of a bundle that no run needs."""

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


@dataclass(frozen=True)
class Place:
    """Centre and scale of a channel in one operating mode, in raw units; see `detector.inputs`.

    Of an exogenous channel: the setting, and the distance to which readings belong to the mode.
    """

    center: float
    scale: float


@dataclass(frozen=True)
class Channel:
    """One sensor signal. Limits are in raw units; None switches a rule off.

    modes: a place for each operating mode, the same number for every channel; empty if there are no
    modes, or if an exogenous channel does not depend on the mode.
    """

    name: str
    unit: str
    center: float
    scale: float
    low: float | None
    high: float | None
    max_rate: float | None  # raw units per second
    stuck_after: int | None  # samples with the same value
    exogenous: bool
    modes: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Tensor:
    """Quantisation of one graph input or output."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


@dataclass(frozen=True)
class Forecast:
    """The linear highway, newest lag first, and the other forecasts of the score.

    highway: [order][channels], from a channel's own past. cross: [channels][order * channels], from
    the past of all channels (lag by lag), or empty. own: [order][channels], the forecast from a
    channel's own past only, or empty if the highway is that. ahead: [channels][order * channels],
    the forecast from `horizon` samples before, or empty; the horizon is then 0.
    """

    highway: Matrix
    cross: Matrix
    innovation_scale: Vector
    own: Matrix
    ahead: Matrix
    horizon: int


@dataclass(frozen=True)
class Memory:
    """One smoothing of the parts of the score, [6] each; see `edge_runtime.detector.score`.

    ceiling: of the unsmoothed parts. mean, std: of the smoothed parts on clean rows.
    """

    attack: float  # smoothing of a rising part
    decay: float  # smoothing of a falling part
    ceiling: Vector
    mean: Vector
    std: Vector


@dataclass(frozen=True)
class Score:
    """Constants of the anomaly score; see `edge_runtime.detector.score` for the formulas."""

    weights: Vector  # residual, own, distance, level, ahead, gate
    memories: tuple[Memory, ...]
    error_scale: Matrix  # [3][channels], of the errors of highway, own and ahead
    absent: Matrix  # [3][channels], the error that an unusable reading counts as
    residual_mean: Vector  # clean mean of the term of all errors, per channel
    evidence_mean: Vector  # clean mean of the gate's evidence, per channel
    level_mean: Vector  # clean mean of the level term, per channel
    distance_root: Matrix  # W with WᵀW the inverse of the shrunk residual covariance
    level_root: Matrix


@dataclass(frozen=True)
class ChangeRule:
    """When a lasting change is reported, and what follows slowly; see `detector.change`."""

    after: int  # samples of alarm in a row after which it is reported; 0: never
    rate: float  # at which the baseline of each part of the score follows it
    follow: Vector  # rate at which a channel's centre follows it once the machine has changed


@dataclass(frozen=True)
class AlarmRule:
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
    bridge: int  # successive rows with most readings missing that the state can bridge


@dataclass(frozen=True)
class FallbackLimits:
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
class DiagnosisModel:
    """Constants that tell the kinds of faults apart, for n channels; see `diagnosis`.

    The fields up to `longest_repeat` describe clean rows (`symptoms`), the others the classifiers.
    """

    smoothing: Vector  # of the fast and the slow average
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
    """Alarm threshold for one kernel id and what it promises (alarms per day)."""

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
    """Verdict of int8 against float. forced: the bundle was written although it failed."""

    passed: bool
    forced: bool


@dataclass(frozen=True)
class Provenance:
    """Origin of the bundle; without paths and times, so that equal inputs give equal bytes.

    selection: how well each tried model found injected faults, by name; empty if the user chose.
    """

    data_sha256: str
    weights_sha256: str
    seed: int
    selection: Mapping[str, float]
    tools: Mapping[str, str]


@dataclass(frozen=True)
class Manifest:
    """Contents of manifest.json.

    members: SHA-256 of each other file that a run needs. proof: the same of the files that a person
    judges the bundle by; damage there is only a warning. schema: of the file, which may be older.
    """

    schema: int
    name: str
    version: int
    period: float | None  # seconds
    channels: tuple[Channel, ...]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    forecast: Forecast
    score: Score
    alarm: AlarmRule
    tiers: Tiers
    fallback: FallbackLimits
    thresholds: Mapping[str, Threshold]
    tables: Tables
    validation: Validation
    provenance: Provenance
    members: Mapping[str, str]
    proof: Mapping[str, str]
    diagnosis: DiagnosisModel | None = None  # None: alarms have no kind
    change: ChangeRule | None = None  # None: an alarm lasts as long as its cause
    columns: Columns = NOTHING_SAID  # how the sources' columns are to be read

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channel names in the model's order."""
        return tuple(channel.name for channel in self.channels)

    @property
    def linear(self) -> bool:
        """Whether the forecast is only the highway: no graph, nothing to quantise."""
        return not self.inputs


@dataclass(frozen=True)
class FallbackConstants:
    """The fields of `Manifest` that the fallback needs, also kept outside the bundle.

    They survive damage of the bundle. The fallback does not use operating modes.
    """

    name: str
    version: int
    period: float | None
    channels: tuple[Channel, ...]
    alarm: AlarmRule
    fallback: FallbackLimits
    columns: Columns = NOTHING_SAID

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channel names in the model's order."""
        return tuple(channel.name for channel in self.channels)


def to_dict(source: Manifest | FallbackConstants) -> dict[str, Any]:
    """Return JSON types; floats keep their exact value. `columns` is left out if it is empty."""
    content = dataclasses.asdict(source)
    if source.columns == NOTHING_SAID:
        del content["columns"]
    return content


def fallback_constants(source: Manifest) -> FallbackConstants:
    """Return the part of a manifest that the fallback needs."""
    names = (field.name for field in dataclasses.fields(FallbackConstants))
    return FallbackConstants(**{name: getattr(source, name) for name in names})
