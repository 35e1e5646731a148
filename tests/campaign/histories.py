"""Concurrent install, use, rollback, list, run and journal readers, killed at random.

All are real processes on one store. A fork server that has already imported gruard starts them,
because there are thousands. `history_model` judges what was done and observed.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.errors import GruardError
from edge_runtime.journal.segments import JournalDisk, entries_after
from edge_runtime.updates.pointers import Pointers
from edge_runtime.updates.store import Store
from tests.apparatus.harm import replace_member
from tests.campaign.command import records_of
from tests.campaign.fault import Part, Row
from tests.campaign.history_model import (
    Command,
    History,
    JournalRead,
    Look,
    Watched,
    broken_promises,
)
from tests.campaign.lab import Lab

HISTORIES = 300
"""Of the full campaign."""
ACTORS, ACTIONS = 3, 5
"""Threads that choose bundles, and how many commands each starts in a history."""
RUNS, ROWS, RATE = 2, 150, 100
"""Runs of a history one after the other, the rows that each is given, and rows a second."""
KILLED = 0.4
"""Share of the commands that are killed."""
BUNDLES = 4
"""Bundles to choose from, half of them of a lower version, which may be refused later."""
LIMIT = 60.0
"""Seconds after which a command hangs."""
LOOK_EVERY = 0.002
AT_ONCE = 2
"""Histories at a time; each leaves a core idle for half of it."""
PRELOADED = [
    "edge_runtime.commands.main",
    "edge_runtime.commands.assembly",
    "edge_runtime.journal.journal",
    "tests.campaign.histories",
]


@dataclass(frozen=True)
class Bundles:
    """Bundles of different versions and models: their paths and models by digest."""

    paths: dict[str, Path]
    models: dict[str, str]


@dataclass
class Stage:
    """The data of one history while it runs."""

    folder: Path
    rng: np.random.Generator
    commands: list[Command] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    runs: list[Watched] = field(default_factory=list)
    reads: list[JournalRead] = field(default_factory=list)
    floors: list[int] = field(default_factory=list)

    @property
    def store(self) -> Path:
        """The store that all processes share."""
        return self.folder / "store"

    @property
    def journal(self) -> Path:
        """The journal of all runs."""
        return self.folder / "journal"


def _gruard(words: Sequence[str], folder: Path) -> None:
    """Run a gruard command in a forked process and write its exit code to a file."""
    from edge_runtime.commands.main import main

    for name, fd in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), fd)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = ["gruard", *words]
    try:
        main()
    except SystemExit as end:
        sys.stdout.flush()
        (folder / "code").write_text(str(end.code or 0))


def command(stage: Stage, kind: str, slot: str, words: Sequence[str], after: float | None) -> str:
    """Run a command, kill it after `after` seconds unless it has ended, and return its stdout."""
    context = multiprocessing.get_context("forkserver")
    folder = Path(tempfile.mkdtemp(dir=stage.folder))
    begun = time.monotonic()
    process = context.Process(target=_gruard, args=((kind, *words), folder))
    process.start()
    process.join(LIMIT if after is None else after)
    process.kill()
    process.join()
    out, said, code = (_text_of(folder / name) for name in ("out", "err", "code"))
    unfinished = None if after is not None else -1  # -1: it hung, or ended without an exit code
    ended = time.monotonic()
    stage.commands.append(
        Command(kind, slot, begun, ended, int(code) if code else unfinished, said)
    )
    return out


def _text_of(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def make_bundles(lab: Lab) -> Bundles:
    """Make bundles of two versions, and a last one of a third version.

    Their models differ in appended bytes that nothing reads.
    """
    paths, models = {}, {}
    for number in range(BUNDLES + 1):
        path = lab.version(lab.bundle.manifest.version + number // 2)
        model = (path / "model.tflite").read_bytes()
        replace_member(path, "model.tflite", model + bytes(4 * (number + 1)))
        bundle = read_bundle(path, allow_failed=True)
        paths[bundle.digest], models[bundle.digest] = path, bundle.model_hash
    return Bundles(paths, models)


def play(lab: Lab, bundles: Bundles, seed: int) -> History:
    """Play one history and return what was done and observed."""
    folder = Path(tempfile.mkdtemp(prefix="history-", dir=lab.scratch))
    stage = Stage(folder, np.random.default_rng(seed))
    stage.journal.mkdir()
    *usual, last = bundles.paths
    _install(stage, bundles, usual[0], None)
    over = threading.Event()
    seeds = stage.rng.spawn(ACTORS + 1)
    parts: list[Callable[[], None]] = [partial(_run, lab, stage, seeds[0])]
    parts += [partial(_choose, stage, bundles, usual, rng) for rng in seeds[1:]]
    with ThreadPoolExecutor(len(parts) + 3) as pool:
        observers = [
            pool.submit(_look, stage, over),
            pool.submit(_watch_floor, stage, lab.bundle.manifest.name, over),
            pool.submit(_read, stage, over),
        ]
        try:
            for done in [pool.submit(part) for part in parts]:
                done.result()
            # Killed commands must not block later ones.
            _install(stage, bundles, last, None)
            command(stage, "list", "", ("--store", str(stage.store), "--json"), None)
        finally:
            over.set()
        for observer in observers:
            observer.result()
    shutil.rmtree(folder, ignore_errors=True)
    commands = sorted(stage.commands, key=lambda each: each.begun)
    return History(bundles.models, commands, stage.looks, stage.runs, stage.reads, stage.floors)


def _install(stage: Stage, bundles: Bundles, slot: str, after: float | None) -> None:
    words = (str(bundles.paths[slot]), "--store", str(stage.store), "--allow-failed")
    command(stage, "install", slot, words, after)


def _choose(stage: Stage, bundles: Bundles, slots: Sequence[str], rng: np.random.Generator) -> None:
    """Run random commands that choose bundles, one after the other."""
    place = ("--store", str(stage.store))
    for _ in range(ACTIONS):
        slot = str(rng.choice(slots))
        after = float(rng.uniform(0, 0.4)) if rng.random() < KILLED else None
        match str(rng.choice(["install", "install", "use", "rollback", "list"])):
            case "install":
                _install(stage, bundles, slot, after)
            case "use":
                command(stage, "use", slot, (slot, *place, "--allow-failed"), after)
            case "rollback":
                command(stage, "rollback", "", (*place, "--allow-failed"), after)
            case "list":
                command(stage, "list", "", (*place, "--json"), after)


def _run(lab: Lab, stage: Stage, rng: np.random.Generator) -> None:
    """Run several runs in sequence; a trial is proven after half a second of healthy records."""
    source = stage.folder / "rows.csv"
    source.write_text(lab.csv(ROWS))
    words = (
        "--store", str(stage.store), "--source", str(source), "--rate", str(RATE), "--journal",
        str(stage.journal), "--healthy-minutes", "0.008", "--kernel", "core-c", "--allow-failed",
    )  # fmt: skip
    for _ in range(RUNS):
        begun = time.monotonic()
        after = float(rng.uniform(0.5, 4.0)) if rng.random() < KILLED else None
        text = command(stage, "run", "", words, after).encode()
        killed = after is not None
        whole = text[: text.rfind(b"\n") + 1] if killed else text
        records = records_of(whole)
        stage.runs.append(Watched(begun, time.monotonic(), killed, records))


def _look(stage: Stage, over: threading.Event) -> None:
    """Read the pointers until the end, and the current slot whenever they change."""
    store, last = Store(stage.store), None
    while not over.wait(LOOK_EVERY):
        try:
            found, fault = store.pointers(), ""
        except GruardError as error:
            found, fault = Pointers(), str(error)
        if found == last and not fault:
            continue
        last, now = found, time.monotonic()
        if found.current and not fault:
            fault = store.slots.read(found.current).fault
            if fault and store.pointers() != found:
                fault = ""  # it was removed after the pointers changed
        stage.looks.append(Look(now, found, fault))


def _watch_floor(stage: Stage, name: str, over: threading.Event) -> None:
    """Read the lowest accepted version repeatedly."""
    store = Store(stage.store)
    while not over.wait(0.05):
        stage.floors.append(store.lowest(name))


def _read(stage: Stage, over: threading.Event) -> None:
    """Read the whole journal repeatedly."""
    while not over.wait(0.2):
        begun = time.monotonic()
        entries = [(e.sequence, e.message) for e in entries_after(JournalDisk(stage.journal), 0)]
        stage.reads.append(JournalRead(begun, time.monotonic(), entries))


def run(lab: Lab, seed: int, scale: float) -> Iterator[Row]:
    """Play histories, as many as `scale` requires, and sum them up in one row."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    bundles = make_bundles(lab)
    seeds = range(seed, seed + max(1, round(HISTORIES * scale)))
    counts: Counter[str] = Counter()
    bad: list[str] = []
    most = (0.0, "")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        histories = list(pool.map(partial(play, lab, bundles), seeds))
    for number, history in zip(seeds, histories, strict=True):
        for each in history.commands:
            counts["killed" if each.code is None else f"exit code {each.code}"] += 1
        counts["changes"] += len(history.looks)
        counts["records"] += sum(len(each.records) for each in history.runs)
        counts["reads"] += len(history.reads)
        bad += [f"seed {number}: {broken}" for broken in broken_promises(history)]
        slowest = max(history.commands, key=lambda each: each.ended - each.begun)
        took = slowest.ended - slowest.begun
        most = max(most, (took, f"{slowest.kind} took {took:.1f} s, seed {number}"))
    total = sum(number for name, number in counts.items() if name[:4] in ("kill", "exit"))
    seen = (
        f"{total} commands, {counts['killed']} of them killed; {counts['changes']} states of the "
        f"pointers, {counts['records']:,} records, {counts['reads']} readings of the journal, "
        "all as the model allows"
    )
    yield Row(
        "concurrent commands",
        f"{len(seeds)} histories of install, use, rollback, list, run and journal readers; "
        f"{KILLED:.0%} killed at random",
        "pointers name whole slots and move only by commands; only chosen models answer; records "
        "and journal without holes; the lowest version never falls",
        "; ".join(bad) or seen,
        "; ".join(bad[:1]) or most[1],
        held=not bad,
    )


PART = Part("Histories", run)
