"""What a run begins with: the bundle on trial, the current one, or the next best that is whole.

    trial with attempts left ─→ current ─→ previous ─→ other slots, newest first ─→ fallback only

A trial that was interrupted as often as it may, by a power cut or a crash that took all of gruard
along, is rolled back from here. A damaged current bundle gives its place to the one that answers
instead. Where no slot is usable the fallback answers, with the constants that the store remembers.
So a box that ran once runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.bundle.manifest import FallbackConstants, fallback_constants
from edge_runtime.bundle.reader import Bundle, proof_faults, read_bundle, read_manifest
from edge_runtime.errors import (
    BusyError,
    DamagedError,
    GruardError,
    NotAllowedError,
    RemovedError,
)
from edge_runtime.updates.disk import Hold
from edge_runtime.updates.pointers import Pointers, Trial
from edge_runtime.updates.slots import SHORT, label
from edge_runtime.updates.store import Store

CHOICES = 5
"""Times that a run chooses anew, when commands remove what it has chosen."""
_USED_UP = "used up its attempts: gruard ended each time before it had proven itself"

Log = Callable[[str], None]


@dataclass(frozen=True)
class Admission:
    """Which bundles may be run: `read_bundle` has the arguments."""

    allow_failed: bool = False
    trusted_keys: tuple[Path, ...] = ()

    def read(self, path: Path) -> Bundle:
        """The bundle at `path`, if it may be run and is whole as far as a run needs it."""
        return read_bundle(path, self.allow_failed, self.trusted_keys, whole=False)

    def constants(self, path: Path) -> FallbackConstants:
        """What the fallback needs of the bundle at `path`, whatever its other files are."""
        return fallback_constants(read_manifest(path, self.trusted_keys)[0])


@dataclass(frozen=True)
class Start:
    """What a run begins with.

    bundle: None when only the fallback answers. constants: of the fallback then, None when they are
    lost too. reason: why there is no bundle, else empty. hold: of the bundle's slot in a store.
    """

    bundle: Bundle | None
    constants: FallbackConstants | None = None
    reason: str = ""
    hold: Hold | None = None


def choose(store: Store, admission: Admission, log: Log) -> Start:
    """What to begin with, its slot held; no attempt of a trial is taken yet.

    log: takes one line for each slot that is passed over, with the reason.
    Raises NotAllowedError when a person has to decide, and GruardError when nothing was ever
    installed.
    """
    for _ in range(CHOICES - 1):
        with suppress(RemovedError, BusyError):
            return _choose(store, admission, log)
    return _choose(store, admission, log)


def _choose(store: Store, admission: Admission, log: Log) -> Start:
    """The same; RemovedError or BusyError when a command removes the chosen slot meanwhile."""
    pointers = store.pointers()
    if pointers == Pointers() and not store.slots.has_any() and not store.remembered.fallback():
        raise GruardError(
            f"{store.root}: no bundle is installed there; gruard install BUNDLE --store "
            f"{store.root}, or name a BUNDLE to run"
        )
    if pointers.trial is None:
        return _without_trial(store, pointers, admission, log)
    refusal = _refusal(store, pointers.trial, admission)
    if isinstance(refusal, Bundle):
        return _held(store, refusal, log)
    # First, since an error that both have comes from the surroundings: a key that is missing, say.
    start = _without_trial(store, pointers, admission, log)
    slot, reason = pointers.trial.slot, str(refusal)
    log(f"{store.slots.read(slot).label or slot[:SHORT]}: {reason}; going back")
    if start.bundle or not isinstance(refusal, NotAllowedError):
        _change(store, lambda found: found.failed(slot, reason), log)
    return start


def start_from(path: Path, admission: Admission, log: Log) -> Start:
    """The same for a bundle that lies at `path`, in no store.

    Raises GruardError when it is no bundle, or may not be run; damage alone leaves the fallback.
    """
    try:
        return _started(admission.read(path), log)
    except DamagedError as error:
        reason, constants = str(error), None
    with suppress(DamagedError):
        constants = admission.constants(path)
    return _fallback_only(constants, reason, log)


def _refusal(store: Store, trial: Trial, admission: Admission) -> Bundle | GruardError:
    """The bundle on trial, or why it cannot be begun with."""
    if not trial.attempts:
        return GruardError(_USED_UP)
    try:
        return admission.read(store.slots.path(trial.slot))
    except GruardError as error:
        return error


def _without_trial(store: Store, pointers: Pointers, admission: Admission, log: Log) -> Start:
    """The current bundle, or what takes its place."""
    remembered = store.remembered.fallback()
    constants = remembered[1] if remembered else None
    faults: list[str] = []
    for slot in _candidates(store, pointers):
        try:
            bundle = admission.read(store.slots.path(slot))
        except GruardError as error:
            if isinstance(error, NotAllowedError) and slot == pointers.current:
                raise
            faults.append(str(error))
            continue
        if slot != pointers.current and constants and not _serves(bundle, constants):
            faults.append(f"{bundle.path}: watches other samples than {constants.name}")
            continue
        for fault in faults:
            log(f"{fault}; {label(bundle)} answers instead")
        if faults:
            _replace(store, pointers, slot, faults[0], log)
        return _held(store, bundle, log)
    reason, *others = faults or [f"{store.root}: no bundle is left there"]
    for fault in others:
        log(fault)
    constants = constants or _constants_of_slots(store, pointers, admission)
    return _fallback_only(constants, reason, log)


def _candidates(store: Store, pointers: Pointers) -> Iterator[str]:
    """Slots in the order in which they are tried; neither the trial nor one that was rejected."""
    first = [slot for slot in (pointers.current, pointers.previous) if slot]
    yield from first
    unproven = [each.slot for each in (pointers.trial, pointers.rejected) if each]
    others = [slot for slot in store.slots if slot.digest not in (*first, *unproven)]
    others.sort(key=lambda slot: slot.bundle.manifest.version if slot.bundle else 0, reverse=True)
    yield from (slot.digest for slot in others)


def _serves(bundle: Bundle, constants: FallbackConstants) -> bool:
    """Whether `bundle` can answer the samples that come for a bundle with `constants`."""
    manifest = bundle.manifest
    known = {*constants.channel_names}
    return known >= {*manifest.channel_names} and manifest.period == constants.period


def _replace(store: Store, pointers: Pointers, slot: str, reason: str, log: Log) -> None:
    """Record that `slot` answers instead, unless somebody has chosen otherwise meanwhile."""

    def event(found: Pointers) -> Pointers:
        return found.replaced(slot, reason) if found.current == pointers.current else found

    _change(store, event, log)


def _constants_of_slots(
    store: Store, pointers: Pointers, admission: Admission
) -> FallbackConstants | None:
    """Of the first slot whose manifest is whole, where the store's own are lost."""
    for slot in _candidates(store, pointers):
        with suppress(GruardError):
            return admission.constants(store.slots.path(slot))
    return None


def _held(store: Store, bundle: Bundle, log: Log) -> Start:
    """A start from a slot that nobody removes from now on."""
    hold = store.slots.hold(bundle.digest)
    return _started(bundle, log, hold)


def _started(bundle: Bundle, log: Log, hold: Hold | None = None) -> Start:
    for fault in proof_faults(bundle):
        log(f"{fault}; no run needs this file, so the model runs")
    return Start(bundle, hold=hold)


def _fallback_only(constants: FallbackConstants | None, reason: str, log: Log) -> Start:
    how = f"by the limits of {constants.name}-{constants.version}" if constants else "without score"
    log(f"{reason}; only the fallback answers, {how}")
    return Start(None, constants, reason)


def _change(store: Store, event: Callable[[Pointers], Pointers], log: Log) -> None:
    try:
        store.change(event)
    except GruardError as error:
        log(str(error))
