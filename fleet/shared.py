"""The model of a type: learned from many assets of one design, and used by an asset with few rows.

    rows of many assets ─→ common units ─→ one linear detector, a bundle like any other
    its constants + scaler and threshold of an asset ─→ the bundle of that asset

The pieces of the recordings are laid end to end by asset, so the folds of the calibration are
groups of assets: the type's threshold is one for assets that the model has not seen.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Channel, Manifest, Threshold
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.calibration import (
    CONFIDENCE,
    FEWEST_SCORES,
    SECONDS_PER_DAY,
    Calibration,
    calibrate,
    chance_of_at_most,
    margins_of,
)
from edge_runtime.columns import NOTHING_SAID
from edge_runtime.detector.alarm import alarm_stretches
from edge_runtime.detector.cell import Model
from edge_runtime.detector.inputs import channel_scaler, restored
from edge_runtime.detector.score import heights, score_constants
from edge_runtime.errors import GruardError
from edge_runtime.learning.calibrated import Calibrated
from edge_runtime.learning.draft import no_threshold
from edge_runtime.learning.learn import Learned, Say, learn, linear_run, proven, run_of
from edge_runtime.learning.modes import with_modes
from edge_runtime.learning.prepare import describe_channels, fit_rows, standard_rows
from edge_runtime.learning.recording import Dataset, Recording, require_rows
from edge_runtime.learning.relearn import SHORTEST_PIECE
from edge_runtime.learning.request import LARGEST_GAP, Data
from edge_runtime.learning.rollout import roll, roll_all
from edge_runtime.learning.settings import ChannelSettings
from edge_runtime.learning.shipped import shipped_model
from edge_runtime.learning.split import clean_parts, split_by_time
from edge_runtime.learning.streams import clean_test_rows, faulty_twin
from edge_runtime.learning.thinning import spread_spans
from edge_runtime.look.facts import FEWEST_ROWS
from edge_runtime.plain import read_sealed
from edge_runtime.record import Float32
from fleet.alignment import Alignment, Moments, aligned, fit_alignment, moments_of
from fleet.assets import FEWEST_ASSETS

ALIGNMENT = "alignment.json"  # next to the bundle of a type
JUDGED_ROWS = 12_000  # with injected faults
ENOUGH_ASSETS = 50  # to learn from, if they have enough rows
MOST_TYPE_ROWS = 20_000  # of all assets together; more would only take time
FEWEST_SHARED_ROWS = 30  # of an asset with the model of its type
FEW_ROWS_RAISE = 1.5
"""Factor on the threshold of the type, where an asset has too few rows for a threshold."""


@dataclass(frozen=True)
class SharedModel:
    """The detector of a type, and how to bring an asset to its units."""

    manifest: Manifest
    alignment: Alignment

    @property
    def threshold(self) -> Threshold:
        """The threshold for assets that the model has not seen."""
        (threshold,) = self.manifest.thresholds.values()
        return threshold


@dataclass(frozen=True)
class Chosen:
    """The detector of an asset. shared: whether it is that of its type; reason: why or why not."""

    learned: Learned
    shared: bool
    reason: str


@dataclass(frozen=True)
class LearnedType:
    """A type's detector with its proof. assets: that it was learned from."""

    learned: Learned
    alignment: Alignment
    assets: int


def learn_type(
    members: Sequence[Data], name: str, version: int, wished_per_day: float, say: Say
) -> LearnedType:
    """Learn one detector from the rows of `members`, each the data of one asset.

    Assets with other channels than most are left out, and the rows that an asset is tested on.
    Raises GruardError when fewer than `FEWEST_ASSETS` are left.
    """
    alike = _alike(members)
    if len(alike) < FEWEST_ASSETS:
        raise GruardError(
            f"type {name}: {len(alike)} assets can be learned from, with the same channels and "
            f"period; {FEWEST_ASSETS} are needed"
        )
    say(f"bringing {len(alike)} assets to common units")
    channels = _common_channels(alike)
    known = [(data, found) for data in alike if (found := _moments(data, channels))]
    alignment = fit_alignment([moments for _, moments in known], _exogenous(channels))
    most = max(MOST_TYPE_ROWS // len(known), SHORTEST_PIECE)
    recordings = [
        _in_type_units(piece, aligned(_limited(channels, data), found, alignment), channels, data)
        for data, found in known
        for piece in _spread(_learned_from(data), most)
    ]
    # Every row: the rest would be of assets that the model has seen.
    run = linear_run(_joined(recordings, alike[0]), name, 0, say, every=True)
    learned = learn(run, version, wished_per_day, say)
    final = learned.manifest.channels
    again = [found for data, _ in known if (found := _moments(data, final))]
    return LearnedType(learned, fit_alignment(again, _exogenous(final)), len(known))


def read_shared(bundle: Path) -> SharedModel:
    """Return the type's model in `bundle`, and its alignment next to it. Raises GruardError."""
    alignment = read_sealed(bundle.parent / ALIGNMENT, Alignment)
    if alignment is None:
        raise GruardError(f"{bundle.parent / ALIGNMENT}: is missing")
    return SharedModel(read_bundle(bundle).manifest, alignment)


def choose(
    model: SharedModel, data: Data, name: str, version: int, wished_per_day: float, say: Say
) -> Chosen:
    """Return the better detector for the asset whose rows are `data`: its type's or its own.

    Raises GruardError when neither can be had.
    """

    def own() -> Learned:
        require_rows(data.dataset, FEWEST_ROWS)
        return learn(linear_run(data, name, 0, say), version, wished_per_day, say)

    if problem := why_not_shared(model, data):
        return Chosen(own(), False, f"own model: {problem}")
    shared = shared_for(model, data, name, version, wished_per_day, say)
    if own_is_trial(data):
        few = f"{data.dataset.rows} rows are few for a model of its own"
        return Chosen(shared, True, f"model of the type: {few}")
    alone = own()
    better, reason = compared(shared, alone, data, wished_per_day)
    return Chosen(shared if better else alone, better, reason)


def shared_for(
    model: SharedModel, data: Data, name: str, version: int, wished_per_day: float, say: Say
) -> Learned:
    """Return the type's detector with scaler and threshold of the asset whose rows are `data`.

    The threshold is at least that of the type, and raised where the asset has few rows. Raises
    GruardError when nothing can be said of the asset.
    """
    source = model.manifest
    moments = _moments(data, source.channels)
    if moments is None:
        raise GruardError(
            f"{name}: has hardly a row with a reading of every channel; record it for longer"
        )
    channels = aligned(_limited(source.channels, data), moments, model.alignment)
    weights = {"innovation_scale": np.array(source.forecast.innovation_scale, np.float32)}
    run = run_of(data, name, 0, channels, weights, source.provenance.weights_sha256)
    (kernel,) = source.thresholds
    draft = replace(
        source,
        name=name,
        version=version,
        channels=channels,
        columns=data.columns,
        thresholds={kernel: no_threshold()},
        provenance=replace(source.provenance, data_sha256=run.config.data_sha256),
    )
    detector = shipped_model(draft, b"")
    unseen_rows = [] if own_is_trial(data) else clean_test_rows(run)
    clean, unseen = (
        [r.score[r.settled] for r in roll_all(detector, rows)]
        for rows in ([piece.values for piece in _learned_from(data)], unseen_rows)
    )
    few = sum(map(len, clean)) < FEWEST_SCORES
    margins = margins_of(draft)
    if few:  # the type's threshold has a margin already
        margins = replace(margins, small_sample=1.0, largest_raise=1.0)
    found = calibrate(clean, unseen, wished_per_day, draft.period, draft.alarm, margins)
    found = _at_least(found, model.threshold, _raise(model) if few else 1.0)
    manifest = replace(draft, thresholds={kernel: found.threshold})
    return proven(run, Calibrated(manifest, found, None), say, source.diagnosis)


def why_not_shared(model: SharedModel, data: Data) -> str:
    """Return why the model of a type does not fit an asset, empty if it does."""
    source, settings = model.manifest, data.settings.channels
    if data.dataset.channels != source.channel_names:
        return "its channels are not those of its type"
    if data.period != source.period:
        return f"its period is {data.period} s, that of its type {source.period} s"
    if any(settings[c.name].exogenous != c.exogenous for c in source.channels):
        return "other channels are exogenous than in its type"
    return ""


def own_is_trial(data: Data) -> bool:
    """Return whether an asset has so few rows that a model of its own would be a trial."""
    return data.dataset.rows < FEWEST_SCORES


def compared(shared: Learned, own: Learned, data: Data, target: float) -> tuple[bool, str]:
    """Return whether the type's model is better for an asset than its `own`, and why.

    Judged on the rows of `data` that neither has seen, with and without injected faults.
    """
    held_out = [piece.values for r in data.split.test for piece in clean_parts(r, 0)]
    rows = sum(map(len, held_out))
    if rows < FEWEST_ROWS:
        return False, f"own model: {rows} held-out rows are too few to judge that of the type"
    days = rows * (data.period or 1.0) / SECONDS_PER_DAY
    detector, alone = (shipped_model(each.manifest, b"") for each in (shared, own))
    alarms, by_own = (
        sum(len(alarm_stretches(roll(each, piece).alarm)) for piece in held_out)
        for each in (detector, alone)
    )
    if alarms > by_own and chance_of_at_most(alarms - 1, target * days) > CONFIDENCE:
        return False, f"own model: that of the type has {alarms} alarms in {rows} held-out rows"
    found, alone_found = (_faults_found(each, held_out, own.manifest) for each in (detector, alone))
    of_all = "of the injected faults"
    if found <= alone_found:
        return False, f"own model: finds {alone_found:.0%} {of_all}, its type's {found:.0%}"
    return True, f"model of the type: finds {found:.0%} {of_all}, its own {alone_found:.0%}"


def _faults_found(model: Model, pieces: Sequence[Float32], units: Manifest) -> float:
    """Return the share of faults, injected into `pieces`, in which an alarm begins.

    units: the detector in whose scales faults have their sizes. The pieces are used again with
    other faults until there are enough.
    """
    scale = np.array(units.forecast.innovation_scale, np.float32)
    rows = sum(map(len, pieces))
    began = []
    for seed in range(max(JUDGED_ROWS // rows, 1)):
        twin = faulty_twin(pieces, units.channels, units.period, scale, seed, rows)
        alarm = roll(model, twin.rows).alarm
        began += [_begins(alarm[event.start : event.stop]) for event in twin.events]
    return float(np.mean(began))


def _begins(alarm: npt.NDArray[np.bool_]) -> bool:
    """Return whether an alarm begins in these rows, and not in the first, where it may be older."""
    return bool((alarm[1:] & ~alarm[:-1]).any())


def _alike(members: Sequence[Data]) -> list[Data]:
    """Return the members with the most frequent channels and period."""
    kinds = [(d.dataset.channels, d.period, _exogenous_names(d)) for d in members]
    if not kinds:
        return []
    ((usual, _),) = Counter(kinds).most_common(1)
    return [data for data, kind in zip(members, kinds, strict=True) if kind == usual]


def _exogenous_names(data: Data) -> tuple[str, ...]:
    settings = data.settings.channels
    return tuple(name for name in data.dataset.channels if settings[name].exogenous)


def _exogenous(channels: Sequence[Channel]) -> npt.NDArray[np.bool_]:
    return np.array([channel.exogenous for channel in channels])


def _learned_from(data: Data) -> list[Recording]:
    """Return the clean rows of an asset, without those that the models are compared on."""
    if own_is_trial(data):
        return [piece for whole in data.dataset.recordings for piece in clean_parts(whole, 0)]
    return [*data.split.train, *data.split.validate, *data.split.calibrate]


def _spread(recordings: Sequence[Recording], most: int) -> list[Recording]:
    """Return about `most` rows of `recordings`, in blocks from all over them."""
    spans = spread_spans([recording.rows for recording in recordings], most)
    return [recordings[number].cut(start, stop) for number, start, stop in spans]


def _moments(data: Data, channels: tuple[Channel, ...]) -> Moments | None:
    rows = [recording.values for recording in _learned_from(data)]
    return moments_of(standard_rows(rows, _limited(channels, data), data.period))


def _limited(channels: tuple[Channel, ...], data: Data) -> tuple[Channel, ...]:
    """Return `channels` with the units and limits of the asset of `data`."""
    settings = data.settings.channels
    return tuple(
        replace(c, unit=own.unit, low=own.low, high=own.high, max_rate=own.max_rate,
                stuck_after=own.stuck_after)
        for c in channels
        for own in (settings[c.name],)
    )  # fmt: skip


def _common_channels(members: Sequence[Data]) -> tuple[Channel, ...]:
    """Return channels with the scaler of the usual asset, and operating modes of all of them."""
    first = members[0]
    scalers = [fit_rows(np.concatenate([r.values for r in _learned_from(d)])) for d in members]
    center = np.median([scaler.center for scaler in scalers], axis=0)
    scale = np.median([scaler.scale for scaler in scalers], axis=0)
    channels = tuple(
        replace(channel, center=float(center[i]), scale=float(scale[i]))
        for i, channel in enumerate(describe_channels(_learned_from(first), first.settings))
    )
    most = max(MOST_TYPE_ROWS // len(members), SHORTEST_PIECE)
    rows = [piece.values for data in members for piece in _spread(_learned_from(data), most)]
    return with_modes(channels, rows, first.period)


def _in_type_units(
    piece: Recording, own: tuple[Channel, ...], channels: tuple[Channel, ...], data: Data
) -> Recording:
    """Return `piece` of the asset of `data` as an asset with the scaler of `channels` shows it."""
    rows = standard_rows([piece.values], own, data.period)
    value, usable = rows.values[0], rows.masks[0] > 0
    raw = restored(value, usable, channel_scaler(channels))
    return replace(piece, values=np.where(usable, raw, np.float32(np.nan)), labels=None)


def _joined(recordings: Sequence[Recording], first: Data) -> Data:
    """Return `recordings` in common units as the data of one machine, without limits."""
    rows = sum(recording.rows for recording in recordings)
    split = split_by_time(recordings, gap=min(LARGEST_GAP, rows // 50))
    channels = {
        name: ChannelSettings(each.unit, None, None, None, None, each.exogenous)
        for name, each in first.settings.channels.items()
    }
    settings = replace(first.settings, channels=channels)
    return Data(Dataset(tuple(recordings)), split, settings, first.period, (), NOTHING_SAID)


def _raise(model: SharedModel) -> float:
    """Return the factor on the type's threshold for an asset with few rows.

    Where ceilings bound the score, it goes at most half the way to the largest one.
    """
    manifest, known = model.manifest, model.threshold.value
    ceilings = np.array([[memory.ceiling for memory in manifest.score.memories]], np.float32)
    constants = score_constants(manifest)
    largest = float(heights(ceilings, constants)[:, :, constants.weights > 0].max())
    return min(FEW_ROWS_RAISE, (1 + largest / known) / 2)


def _at_least(found: Calibration, least: Threshold, factor: float) -> Calibration:
    """Return `found` with a threshold of at least `factor` times `least`."""
    known = found.threshold
    if known.value >= factor * least.value:
        return found
    raised = replace(
        known,
        value=float(np.float32(factor * least.value)),
        clear=float(np.float32(factor * least.clear)),
        method=f"{factor:.3g} times the threshold of the type, above that of its own rows",
    )
    return replace(found, threshold=raised)
