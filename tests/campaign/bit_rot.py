"""Bit rot at start: damage every file that gruard stores in many places, then start a run.

The folder has a store with two proven bundles, thresholds, a journal with a cursor, a status file
and a start marker. Each case damages one file, or all of a kind; a tier must still answer.
"""

import itertools
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from operator import itemgetter, methodcaller
from pathlib import Path

import numpy as np

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.thresholds import store_threshold
from edge_runtime.journal.journal import Cursor
from edge_runtime.journal.segments import JournalDisk
from edge_runtime.updates.store import Store
from tests.apparatus.harm import flip_bit, replace_member
from tests.campaign.command import Ended, check_manners, records_of, run_command
from tests.campaign.fault import NotHeldError, Part, Row, check_promises, expect
from tests.campaign.lab import Lab

SETTLED = 15
"""Rows after the warm-up, answered by a model."""
FLIPS = 40
"""Flipped bits for each file in the full campaign, evenly spread."""

Damage = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """Damage to a file, or to all of a kind, and what answered then."""

    file: str
    told: str
    answered: str
    broken: str

    def __str__(self) -> str:
        return f"{self.file} {self.told}: {self.broken or self.answered}"


@dataclass(frozen=True)
class Template:
    """The folder before any damage, and the two bundles in its store."""

    folder: Path
    current: Bundle
    previous: Bundle

    @property
    def rows(self) -> int:
        """Of the recording that is run."""
        return self.current.manifest.tiers.warmup + SETTLED


def make_template(lab: Lab) -> Template:
    """Make the files that a device has on its disk after its first healthy run."""
    folder = Path(tempfile.mkdtemp(prefix="rot-", dir=lab.scratch)) / "box"
    for name in ("journal", "state"):
        (folder / name).mkdir(parents=True)
    store = Store(folder / "store")
    version = lab.bundle.manifest.version
    for number in (version, version + 1):
        path = lab.version(number)
        replace_member(
            path, "model.tflite", (path / "model.tflite").read_bytes() + bytes(4 * number)
        )
        bundle = read_bundle(path, allow_failed=True)
        store.install(bundle)
        store.change(methodcaller("proven", bundle.digest))
    pointers = store.pointers()
    assert pointers.current and pointers.previous
    current, previous = (
        read_bundle(store.slots.path(slot), allow_failed=True)
        for slot in (pointers.current, pointers.previous)
    )
    for kernel, threshold in current.manifest.thresholds.items():
        store_threshold(current, kernel, threshold)
    (folder / "rows.csv").write_text(lab.csv(lab.bundle.manifest.tiers.warmup + SETTLED))
    begun = start(folder)
    assert begun.code == 0, begun.stderr
    Cursor(JournalDisk(folder / "journal"), "mqtt://broker/topic").keep(3)
    return Template(folder, current, previous)


def start(folder: Path) -> Ended:
    """Start a run from the store in `folder`, with all the files that a run may have."""
    return run_command((
        "run", "--store", str(folder / "store"), "--source", str(folder / "rows.csv"),
        "--journal", str(folder / "journal"), "--status", str(folder / "status.json"),
        "--state", str(folder / "state"), "--kernel", "core-c", "--allow-failed",
    ))  # fmt: skip


def stored_files(template: Template) -> dict[str, list[Path]]:
    """Return every stored file by kind; paths relative to the template's folder."""
    kinds: dict[str, list[Path]] = {}
    folder = template.folder
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        below = file.relative_to(folder)
        if below.name == "rows.csv" or below.suffix == ".lock":
            continue
        kinds.setdefault(_kind(template, below), []).append(below)
    return kinds


def _kind(template: Template, below: Path) -> str:
    for name, bundle in (("current", template.current), ("previous", template.previous)):
        if bundle.digest in below.parts:
            return f"{name} slot, {below.name}"
        if below.name.startswith(bundle.digest):
            return "thresholds"
    match below.parts:
        case ("store", name):
            return f"store, {name.split('.')[0]}"
        case ("journal", name):
            return f"journal, {Path(name).suffix[1:]}"
        case ("state", _):
            return "start marker"
        case _:
            return "status"


def damages(size: int, flips: int, rng: np.random.Generator) -> Iterator[tuple[str, Damage]]:
    """Yield kinds of damage to files, of which the largest has `size` bytes."""
    noise = rng.bytes(size)
    yield "lost", Path.unlink
    yield "empty", lambda file: _write(file, b"")
    yield "cut in half", lambda file: _write(file, file.read_bytes()[: _size(file) // 2])
    yield "zeros", lambda file: _write(file, bytes(_size(file)))
    yield "noise", lambda file: _write(file, noise[: _size(file)])
    for place in (np.arange(flips) + rng.random()) * size / max(flips, 1):
        bit = int(rng.integers(8))
        yield f"bit {bit} of byte {int(place)}", partial(_flip, int(place), bit)


def _size(file: Path) -> int:
    return file.stat().st_size


def _flip(place: int, bit: int, file: Path) -> None:
    file.chmod(0o644)
    flip_bit(file, place, bit)


def _write(file: Path, data: bytes) -> None:
    file.chmod(0o644)
    file.write_bytes(data)


def case(template: Template, told: str, files: Sequence[Path], damage: Damage) -> Case:
    """Damage a copy of the template, start a run, and find out what answers."""
    scratch = Path(tempfile.mkdtemp(prefix="case-", dir=template.folder.parent))
    folder = Path(shutil.copytree(template.folder, scratch / "box"))
    for file in files:
        (folder / file).parent.chmod(0o755)
        damage(folder / file)
    ended = start(folder)
    try:
        answered, broken = who_answered(ended, template), ""
    except NotHeldError as seen:
        answered, broken = "nothing", str(seen).replace(f"{folder}/", "")
    shutil.rmtree(scratch, ignore_errors=True)
    return Case(files[0].name if len(files) == 1 else "all", told, answered, broken)


def who_answered(ended: Ended, template: Template) -> str:
    """Return which model answered, or only the fallback. NotHeldError for a broken promise."""
    check_manners(ended, (0, 1))
    records = records_of(ended.stdout)
    rows = template.rows
    expect(len(records) == rows, f"{len(records)} records for {rows} rows")
    check_promises(records)
    names = {template.current.model_hash: "current", template.previous.model_hash: "previous"}
    used = {record["model"] for record in records if record["tier"] < 3}
    expect(used <= {*names}, f"models {used} answered")
    if used == {template.current.model_hash}:
        return "current"
    expect("gruard: " in ended.stderr, "another bundle than the current one answers, not logged")
    return " and ".join(sorted(names[model] for model in used)) or "fallback only"


def run(lab: Lab, seed: int, scale: float) -> Iterator[Row]:
    """Damage each file separately; then all files of a kind at once."""
    template, rng = make_template(lab), np.random.default_rng(seed)
    kinds = stored_files(template)
    everything = [file for files in kinds.values() for file in files]
    together = {
        "both slots": [file for file in everything if "slots" in file.parts],
        "the whole store": [file for file in everything if file.parts[0] == "store"],
        "store, journal and state": everything,
    }
    whole = [
        (name, *damaged)
        for name, files in (*kinds.items(), *together.items())
        for group in ([files] if name in together else [[file] for file in files])
        for damaged in _plan(template, group, rng)
    ]
    if scale < 1:
        drawn = rng.choice(len(whole), math.ceil(len(whole) * scale), replace=False)
        whole = [whole[int(place)] for place in sorted(drawn)]
    for name, cases in itertools.groupby(whole, key=itemgetter(0)):
        yield _row(template, name, [(told, files, damage) for _, told, files, damage in cases])


def _plan(
    template: Template, files: Sequence[Path], rng: np.random.Generator
) -> Iterator[tuple[str, Sequence[Path], Damage]]:
    """Yield the damages to several files at once, or to a single file in many places."""
    alone, size = len(files) == 1, max(_size(template.folder / file) for file in files)
    drawn = list(damages(size, FLIPS if alone else 0, rng))
    if len({file.parts[:2] for file in files if file.parts[0] == "store"}) > 1:
        drawn = drawn[1:]  # a store without files is an empty store, not a damaged one
    for told, damage in drawn:
        # A status file of noise may be the user's own file, and is refused.
        harmed = [file for file in files if told != "noise" or file.name != "status.json"]
        if harmed:
            yield told, harmed, damage


def _row(template: Template, name: str, plan: Sequence[tuple[str, Sequence[Path], Damage]]) -> Row:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        cases = list(pool.map(lambda planned: case(template, *planned), plan))
    bad = [each for each in cases if each.broken]
    order = ("nothing", "fallback only", "previous", "current and previous", "current")
    worst = min(cases, key=lambda each: order.index(each.answered))
    counts = Counter(each.answered for each in cases)
    seen = ", ".join(f"{who} {count}" for who, count in counts.most_common())
    return Row(
        name,
        f"{len(cases)} times: {_kinds(cases)}",
        "something answers every row, and says who",
        f"{seen}; {' / '.join(map(str, bad[:5]))}" if bad else f"answered by: {seen}",
        str(worst),
        held=not bad,
    )


def _kinds(cases: Sequence[Case]) -> str:
    told = ("flipped bits" if "bit" in each.told else each.told for each in cases)
    return ", ".join(dict.fromkeys(told))


PART = Part("Bit rot at start", run)
