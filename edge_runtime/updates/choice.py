"""What a run starts with: the bundle on trial, the current one, or the next best whole one.

    trial with attempts left ─→ current ─→ previous ─→ other slots, newest first ─→ fallback only

A trial whose attempts were all interrupted, by a power cut or a crash of the whole of gruard, is
rolled back here. A damaged current bundle is replaced by the one that answers instead. Without a
usable slot the fallback answers, with the constants that the store remembers.
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
from edge_runtime.updates.disk import StoreLock
from edge_runtime.updates.pointers import Pointers, Trial
from edge_runtime.updates.slots import SHORT, label
from edge_runtime.updates.store import Store

CHOICES = 5
"""Attempts to choose, when commands remove the chosen slot meanwhile."""
_USED_UP = "used up its attempts: gruard ended each time before it was proven"

Log = Callable[[str], None]


@dataclass(frozen=True)
class Admission:
    """Which bundles may run; arguments of `read_bundle`."""

    allow_failed: bool = False
    trusted_keys: tuple[Path, ...] = ()

    def read(self, path: Path) -> Bundle:
        """Return the bundle at `path`, if it may run and the files that a run needs are whole."""
        return read_bundle(path, self.allow_failed, self.trusted_keys, whole=False)

    def constants(self, path: Path) -> FallbackConstants:
        """Return the fallback constants of the bundle at `path`; reads the manifest only."""
        return fallback_constants(read_manifest(path, self.trusted_keys)[0])


@dataclass(frozen=True)
class Start:
    """What a run starts with.

    bundle: None when only the fallback answers. constants: of the fallback in that case, None when
    they are lost too. reason: why there is no bundle, else empty. hold: on the bundle's slot.
    """

    bundle: Bundle | None
    constants: FallbackConstants | None = None
    reason: str = ""
    hold: StoreLock | None = None


def choose(store: Store, admission: Admission, log: Log, empty: bool = False) -> Start:
    """Choose what to start with and hold its slot; no attempt of a trial is counted yet.

    log: takes one line for each slot that is passed over, with the reason. empty: start from a
    store without a bundle too, because the run itself will install one.
    Raises NotAllowedError when a person has to decide, GruardError when nothing was ever installed.
    """
    if empty and _is_empty(store):
        return Start(None, reason=f"{store.root}: no bundle was learned yet")
    for _ in range(CHOICES - 1):
        with suppress(RemovedError, BusyError):
            return _choose(store, admission, log)
    return _choose(store, admission, log)


def _choose(store: Store, admission: Admission, log: Log) -> Start:
    """Choose once. Raises RemovedError or BusyError when a command removes the chosen slot."""
    pointers = store.pointers()
    if _is_empty(store):
        raise GruardError(
            f"{store.root}: no bundle is installed there; gruard install BUNDLE --store "
            f"{store.root}, or name a BUNDLE to run"
        )
    if pointers.trial is None:
        return _without_trial(store, pointers, admission, log)
    refusal = _refusal(store, pointers.trial, admission)
    if isinstance(refusal, Bundle):
        return _held(store, refusal, log)
    # First, since an error of both comes from outside the slots, e.g. a missing key.
    start = _without_trial(store, pointers, admission, log)
    slot, reason = pointers.trial.slot, str(refusal)
    log(f"{store.slots.read(slot).label or slot[:SHORT]}: {reason}; rolled back")
    if start.bundle or not isinstance(refusal, NotAllowedError):
        _change(store, lambda latest: latest.failed(slot, reason), log)
    return start


def _is_empty(store: Store) -> bool:
    nothing = store.pointers() == Pointers() and not store.slots.has_any()
    return nothing and not store.remembered.fallback()


def start_from(path: Path, admission: Admission, log: Log) -> Start:
    """Start with the bundle at `path`, outside a store.

    Raises GruardError when it is no bundle or may not run; when it is damaged, the fallback runs.
    """
    try:
        return _started(admission.read(path), log)
    except DamagedError as error:
        reason, constants = str(error), None
    with suppress(DamagedError):
        constants = admission.constants(path)
    return _fallback_only(constants, reason, log)


def _refusal(store: Store, trial: Trial, admission: Admission) -> Bundle | GruardError:
    """Return the bundle on trial, or why a run cannot start with it."""
    if not trial.attempts:
        return GruardError(_USED_UP)
    try:
        return admission.read(store.slots.path(trial.slot))
    except GruardError as error:
        return error


def _without_trial(store: Store, pointers: Pointers, admission: Admission, log: Log) -> Start:
    """Start with the current bundle, or with what takes its place."""
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
    """Yield slots in the order to try, except those on trial or rejected."""
    first = [slot for slot in (pointers.current, pointers.previous) if slot]
    yield from first
    unproven = [each.slot for each in (pointers.trial, pointers.rejected) if each]
    others = [slot for slot in store.slots if slot.digest not in (*first, *unproven)]
    others.sort(key=lambda slot: slot.bundle.manifest.version if slot.bundle else 0, reverse=True)
    yield from (slot.digest for slot in others)


def _serves(bundle: Bundle, constants: FallbackConstants) -> bool:
    """Whether `bundle` can answer the samples of a bundle with `constants`."""
    manifest = bundle.manifest
    is_subset = {*manifest.channel_names} <= {*constants.channel_names}
    return is_subset and manifest.period == constants.period


def _replace(store: Store, pointers: Pointers, slot: str, reason: str, log: Log) -> None:
    """Record that `slot` answers instead, unless the pointers changed meanwhile."""

    def event(latest: Pointers) -> Pointers:
        return latest.replaced(slot, reason) if latest.current == pointers.current else latest

    _change(store, event, log)


def _constants_of_slots(
    store: Store, pointers: Pointers, admission: Admission
) -> FallbackConstants | None:
    """Return those of the first slot with a whole manifest, when the store's own are lost."""
    for slot in _candidates(store, pointers):
        with suppress(GruardError):
            return admission.constants(store.slots.path(slot))
    return None


def _held(store: Store, bundle: Bundle, log: Log) -> Start:
    return _started(bundle, log, store.slots.hold(bundle.digest))


def _started(bundle: Bundle, log: Log, hold: StoreLock | None = None) -> Start:
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
