"""A power cut before every single disk operation, in the journal and in an update.

The disk is simulated: it loses what Linux does not promise to keep, in every possible way.
"""

import tempfile
from pathlib import Path

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.updates.store import Store
from tests.apparatus import cut_journal
from tests.apparatus.cut_update import Action, check_every_cut
from tests.apparatus.power_cut import AFTERMATHS, UnsyncedDisk
from tests.campaign.fault import Fault, Happened
from tests.campaign.lab import Lab


def _journal(lab: Lab) -> Happened:
    cuts = found = 0
    for disk, story in cut_journal.cuts(cut_journal.ENTRIES):
        cuts += 1
        for aftermath in disk.aftermaths():
            cut_journal.check(aftermath, story)
            found += 1
    return f"{cuts} cuts, {found:,} disks: all that was synced is there, in order, without a hole"


def _newer(lab: Lab) -> Bundle:
    return read_bundle(lab.version(lab.bundle.manifest.version + 1), allow_failed=True)


def _every_cut(lab: Lab, before: Store, act: Action) -> Happened:
    scratch = Path(tempfile.mkdtemp(prefix="cut-", dir=lab.scratch))
    names = check_every_cut(before.root, act, scratch)
    tries = len(names) * len(AFTERMATHS)
    return f"{len(names)} cuts, {tries} disks: each time the old or the new bundle, whole"


def _empty(lab: Lab) -> Store:
    return Store(Path(tempfile.mkdtemp(prefix="store-", dir=lab.scratch)), UnsyncedDisk())


def _first(lab: Lab) -> Happened:
    return _every_cut(lab, _empty(lab), lambda store: store.install(lab.bundle))


def _update(lab: Lab) -> Happened:
    store, newer = _empty(lab), _newer(lab)
    store.install(lab.bundle)
    return _every_cut(lab, store, lambda store: store.install(newer))


def _roll_back(lab: Lab) -> Happened:
    store, newer = _empty(lab), _newer(lab)
    store.install(lab.bundle)
    store.install(newer)
    failed = "it did not prove itself"
    return _every_cut(lab, store, lambda s: s.change(lambda p: p.failed(newer.digest, failed)))


_EITHER = "the old or the new, never mixed, never none"

FAULTS = (
    Fault("power cut, journal", "before each operation", "nothing synced is missing", _journal),
    Fault("power cut, first bundle", "before each operation of an install", _EITHER, _first),
    Fault("power cut, update", "before each operation of an install", _EITHER, _update),
    Fault("power cut, roll-back", "before each operation of it", _EITHER, _roll_back),
)  # fmt: skip
