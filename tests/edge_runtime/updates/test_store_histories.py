"""Install, prove, roll back and read at once, with writers that are killed at any moment.

A reader takes no lock. Whatever it sees must be whole: intact facts, and a current slot that runs.
"""

import multiprocessing
import os
import random
import signal
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from made_bundle import write_made_bundle

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.errors import GruardError
from edge_runtime.updates.pointers import Pointers
from edge_runtime.updates.store import Store
from tests.apparatus.power_cut import UnsyncedDisk

WRITERS, KILLS, LOOKS = 3, 25, 4


def write_for_ever(root: Path, bundles: list[Bundle], seed: int) -> None:
    rng, store = random.Random(seed), Store(root, UnsyncedDisk())
    while True:
        with suppress(GruardError, ValueError):  # another install is at work, nothing to go back to
            rng.choice(
                [
                    lambda: store.install(rng.choice(bundles), downgrade=rng.random() < 0.1),
                    lambda: store.change(_proven),
                    lambda: store.change(lambda found: found.rolled_back()),
                    lambda: store.remember(rng.choice(bundles)),
                ]
            )()


def _proven(found: Pointers) -> Pointers:
    return found.proven(found.trial.slot) if found.trial else found


def test_a_reader_always_finds_something_whole(tmp_path: Path) -> None:
    bundles = [read_bundle(write_made_bundle(tmp_path, version)) for version in (1, 2, 3, 4)]
    root, rng, faults = tmp_path / "store", random.Random(7), []
    Store(root).install(bundles[0])
    fork = multiprocessing.get_context("fork")

    def started(seed: int) -> BaseProcess:
        process = fork.Process(target=write_for_ever, args=(root, bundles, seed), daemon=True)
        process.start()
        return process

    writers, seen = [started(seed) for seed in range(WRITERS)], set()
    try:
        for kill in range(KILLS):
            for _ in range(LOOKS):
                seen.add(look(Store(root, log=faults.append)))
            victim = rng.randrange(WRITERS)
            os.kill(writers[victim].pid, signal.SIGKILL)
            writers[victim].join()
            writers[victim] = started(WRITERS + kill)
    finally:
        for writer in writers:
            writer.kill()
            writer.join()
    assert faults == [] and len(seen) > 1
    # Nothing that a killed writer left stands in the way of the next one.
    last = read_bundle(write_made_bundle(tmp_path, 9))
    store = Store(root)
    assert store.install(last).on_trial(last.digest)
    assert store.change(_proven).current == last.digest and store.lowest("made") == 9
    assert not list(root.glob("slots/.*"))


def look(store: Store) -> str:
    """The current slot, which runs unless somebody has chosen another one meanwhile."""
    for _ in range(100):
        pointers = store.pointers()
        assert pointers.current and store.remembered.fallback()
        slot = store.slots.read(pointers.current)
        if slot.bundle:
            return slot.label
        assert store.pointers() != pointers, slot.fault
    raise AssertionError("the pointers never stand still")
