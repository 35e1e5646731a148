"""Power cuts after every single operation of the store: the result is the old or the new state."""

import shutil
from collections.abc import Callable
from pathlib import Path

from edge_runtime.updates.pointers import Pointers
from edge_runtime.updates.store import Store
from tests.apparatus.power_cut import (
    AFTERMATHS,
    PowerCutDisk,
    PowerCutError,
    UnsyncedDisk,
)
from tests.campaign.fault import expect

Action = Callable[[Store], Pointers]


def seen(store: Store) -> Pointers:
    """Read the pointers; everything that they name must be undamaged."""
    pointers = store.pointers()
    for slot in pointers.kept:
        stored = store.slots.read(slot)
        expect(stored.bundle is not None, stored.fault)
    for path in store.root.glob("slots/[!.]*"):
        if path.is_dir():  # no name without all of its bundle
            fault = store.slots.read(path.name).fault
            expect(not fault, fault)
    return pointers


def check_every_cut(before: Path, act: Action, scratch: Path) -> list[str]:
    """Cut the power after every operation of `act`; return the names of the operations.

    `before` is the store before. Whatever the disk loses, the pointers are the old or the new ones,
    and repeating `act` leads to the new ones. Raises NotHeldError otherwise.
    """
    old = seen(Store(before))
    whole = Path(shutil.copytree(before, scratch / "whole"))
    disk = PowerCutDisk(whole)
    new = act(Store(whole, disk))
    expect(seen(Store(whole)) == new != old, "nothing has changed")
    ended = seen(Store(disk.image("lost", "empty", scratch / "ended")))
    expect(ended == new, "the command has ended, and not all of it is durable")
    outcomes, checked = set(), set()
    for cut in range(disk.done):
        working = Path(shutil.copytree(before, scratch / "cut"))
        broken = PowerCutDisk(working, cut)
        _cut_short(act, Store(working, broken))
        for aftermath in AFTERMATHS:
            if (image := broken.found(*aftermath)) in checked:
                continue
            checked.add(image)
            found = Store(broken.image(*aftermath, scratch / "found"), UnsyncedDisk())
            pointers = seen(found)
            where = f"cut {cut}, after {disk.names[:cut][-3:]}, {aftermath}"
            expect(pointers in (old, new), f"{where}: neither old nor new")
            outcomes.add(pointers)
            expect(act(found) == seen(found) == new, f"{where}: doing it again does not help")
            expect(not list(found.root.glob("slots/.*")), f"{where}: rubbish is left behind")
        shutil.rmtree(working)
    expect(outcomes == {old, new}, "the cuts do not reach both the old and the new")
    return disk.names


def _cut_short(act: Action, store: Store) -> None:
    try:
        act(store)
    except PowerCutError:
        return
    expect(False, "the power never went")
