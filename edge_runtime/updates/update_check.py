"""One check for an update: what is published, whether the store needs it, and its installation.

Installing is what `gruard install` does: the bundle is checked, copied into a slot and put on
trial. So all that the store promises holds for updates from a network, too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.errors import GruardError
from edge_runtime.updates.pointers import Pointers
from edge_runtime.updates.published import Published
from edge_runtime.updates.slots import label
from edge_runtime.updates.store import Store

if TYPE_CHECKING:
    from edge_runtime.updates.repository import UpdateSource

INSTALLED, CURRENT, ON_TRIAL = "installed", "current", "on trial"
ROLLED_BACK, OLDER = "rolled back", "older"


@dataclass(frozen=True)
class UpdateResult:
    """The result of one check.

    outcome: `INSTALLED` now; `CURRENT` or `ON_TRIAL` already; `ROLLED_BACK` here before, or
    `OLDER` than what this store accepts, and so left alone. bundle: NAME-VERSION that is published.
    digest: of its manifest. text: one sentence.
    """

    asset: str
    outcome: str
    bundle: str
    digest: str
    text: str

    @property
    def problem(self) -> str:
        """Why the bundle will not be installed, though no trial has refused it; empty if it is."""
        return self.text if self.outcome == OLDER else ""


@dataclass(frozen=True)
class DeviceReport:
    """What a device tells its fleet: the slots of its store by digest, None for none.

    rejected: the slot that was rolled back last, reason: why. problem: of the last check, empty if
    it had none. told: epoch seconds.
    """

    asset: str
    current: str | None
    trial: str | None
    rejected: str | None
    reason: str
    problem: str
    told: float

    def to_json(self) -> bytes:
        """Return one line of JSON."""
        return json.dumps(asdict(self)).encode()


def check_for_update(
    source: UpdateSource, store: Store, asset: str, attempts: int, trusted_keys: tuple[Path, ...]
) -> UpdateResult:
    """Check once, and install what is published for `asset` if the store needs it.

    attempts, trusted_keys: as of `Store.install` and `read_bundle`. Raises GruardError; then the
    store is as it was.
    """
    with source.held():
        published, target = source.look(asset)
        if known := _known(published, store):
            return known
        published.require_readable()
        folder = source.fetch(published, target)
        try:
            bundle = read_bundle(folder, trusted_keys=trusted_keys)
            if (bundle.digest, label(bundle)) != (published.digest, published.label):
                raise GruardError(f"{folder}: is another bundle than was published")
            pointers = store.install(bundle, attempts)
        finally:
            source.discard()
        source.clear()
    trial = "on trial" if pointers.on_trial(bundle.digest) else "current at once"
    return _result(published, INSTALLED, f"installed, {trial}")


def report_of(asset: str, pointers: Pointers, problem: str, now: float) -> DeviceReport:
    """Return the report about a store with `pointers`. now: epoch seconds."""
    rejected = pointers.rejected
    return DeviceReport(
        asset=asset,
        current=pointers.current,
        trial=pointers.trial.slot if pointers.trial else None,
        rejected=rejected.slot if rejected else None,
        reason=rejected.reason if rejected else "",
        problem=problem,
        told=now,
    )


def _known(published: Published, store: Store) -> UpdateResult | None:
    """Return why nothing needs to be downloaded; None if it does.

    A damaged slot is downloaded again, which repairs it.
    """
    pointers, digest = store.pointers(), published.digest
    damaged = store.slots.path(digest).is_dir() and bool(store.slots.read(digest).fault)
    if pointers.current == digest and not damaged:
        return _result(published, CURRENT, "is current")
    if pointers.on_trial(digest) and not damaged:
        return _result(published, ON_TRIAL, "is on trial")
    if pointers.rejected and pointers.rejected.slot == digest and not damaged:
        reason = pointers.rejected.reason
        return _result(published, ROLLED_BACK, f"was rolled back here and is left alone ({reason})")
    lowest = store.lowest(published.name)
    if published.version < lowest:
        return _result(published, OLDER, f"is older than {published.name}-{lowest}, and left alone")
    return None


def _result(published: Published, outcome: str, text: str) -> UpdateResult:
    return UpdateResult(
        published.asset, outcome, published.label, published.digest, f"{published.label} {text}"
    )
