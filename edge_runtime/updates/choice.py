"""The bundle that a run begins with: the one on trial while it has attempts left, else the current.

A trial that was interrupted as often as it may, by a power cut or a crash that took all of gruard
along, is gone back from here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_runtime.bundle.reader import Bundle
from edge_runtime.errors import GruardError
from edge_runtime.updates.store import Store


def choose(store: Store, read: Callable[[Path], Bundle], log: Callable[[str], None]) -> Bundle:
    """The bundle to begin with, read by `read`; no attempt is taken yet.

    Raises GruardError when nothing is installed or the current bundle cannot be read.
    """
    pointers = store.pointers()
    if pointers.current is None:
        raise GruardError(
            f"{store.root}: no bundle is installed there; gruard install BUNDLE --store "
            f"{store.root}, or name a BUNDLE to run"
        )
    trial, reason = pointers.trial, ""
    if trial is None:
        return read(store.slots.path(pointers.current))
    if trial.attempts:
        try:
            return read(store.slots.path(trial.slot))
        except GruardError as error:
            reason = str(error)
    else:
        reason = "used up its attempts: gruard ended each time before it had proven itself"
    # First, since an error that both have comes from the surroundings: a key that is missing, say.
    current = read(store.slots.path(pointers.current))
    log(f"{store.slots.read(trial.slot).label or trial.slot[:12]}: {reason}; going back")
    slot = trial.slot
    try:
        store.change(lambda found: found.failed(slot, reason))
    except GruardError as error:
        log(str(error))
    return current
