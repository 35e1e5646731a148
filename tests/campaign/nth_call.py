"""Fail the n-th call of every kind, for every n: in a supervised run, and in commands on a store.

Each case is one command in a fresh folder, with one failing call anywhere in its processes
(`tests/apparatus/failing_calls`). `broken_promises` judges the result.
"""

import errno
import itertools
import math
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_runtime.errors import GruardError
from edge_runtime.journal.segments import JournalDisk, entries_after
from edge_runtime.status.snapshot import read_status
from edge_runtime.supervision.starts import MARKER
from edge_runtime.updates.store import Store
from tests.apparatus.failing_calls import KINDS, NONE, SHORT, Calls, Failing, Trap, build
from tests.campaign.command import (
    FRIGHTENING,
    Ended,
    check_manners,
    records_of,
    run_command,
    strict_json,
    summary_of,
)
from tests.campaign.fault import NotHeldError, Part, Row, check_promises, expect
from tests.campaign.lab import Lab

ROWS = 30
NEXT = "next.gruard"
"""A bundle next to the store, newer than those in it."""
ALLOCATIONS = 400
"""Allocations that the full campaign fails, of the tens of thousands in one run."""
ERRORS = {
    "open": (errno.EMFILE, errno.EIO, errno.ENOSPC),
    "write": (errno.ENOSPC, errno.EIO, SHORT),
    "sync": (errno.EIO, errno.ENOSPC),
    "rename": (errno.EIO, errno.ENOSPC),
    "change": (errno.EIO, errno.EROFS),
    "read": (errno.EIO, SHORT),
    "map": (errno.ENOMEM,),
    "fork": (errno.EAGAIN, errno.ENOMEM),
    "allocate": (errno.ENOMEM,),
}
LASTING = {"open": errno.EMFILE, "write": errno.ENOSPC, "sync": errno.EIO, "fork": errno.EAGAIN}
"""Kinds that also fail from the n-th call on for good, as on a disk that stays full."""
LASTING_EVERY = 4
"""One call in this many also fails for good."""
IGNORED = re.compile(
    r"^Exception ignored in: .*\nTraceback \(most recent call last\):\n(?: .*\n)+.*\n", re.MULTILINE
)
"""An exception in a finaliser, which Python prints itself, with its traceback."""
ENDS = {None: "hang", 0: "all done", 1: "losses counted", 2: "clean error", 70: "internal error"}
"""The meaning of exit codes. Only a failed allocation may end in an internal error, because C
libraries turn it into other errors; it is one clean line as well."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended, the folder it worked in, and which call failed."""

    ended: Ended
    folder: Path
    calls: Calls


@dataclass(frozen=True)
class Scenario:
    """A command under test.

    words: its arguments, given the folder it works in. check: raises NotHeldError or GruardError
    for a folder that it must not leave behind. live: the rows come through stdin.
    """

    name: str
    words: Callable[[Path], Sequence[str]]
    check: Callable[[Outcome], None]
    live: bool = False


def _run_words(folder: Path, source: str) -> Sequence[str]:
    places = {
        "--store": folder / "store", "--source": source, "--sink": folder / "records.jsonl",
        "--journal": folder / "journal", "--status": folder / "status.json",
        "--state": folder / "state", "--kernel": "core-c",
    }  # fmt: skip
    words = (str(word) for pair in places.items() for word in pair)
    return ("run", *words, "--allow-failed", "--json")


def _store_words(command: str, *words: str) -> Callable[[Path], Sequence[str]]:
    return lambda folder: (command, *words, "--store", str(folder / "store"), "--allow-failed")


def check_store(outcome: Outcome) -> None:
    """Check that the pointers name undamaged slots."""
    store = Store(outcome.folder / "store")
    kept = store.pointers().kept
    expect(bool(kept), "the store has no bundle any more")
    for digest in kept:
        fault = store.slots.read(digest).fault
        expect(not fault, f"a slot that is pointed to is damaged: {fault}")


def check_run(outcome: Outcome) -> None:
    """Check that every row has its record, or that its loss is counted or reported."""
    check_store(outcome)
    records = records_of(written(outcome.folder))
    indices = [record["index"] for record in records]
    expect(indices == sorted(set(indices)), f"indices twice or out of order: {indices}")
    check_promises([record | {"index": i} for i, record in enumerate(records)])
    in_journal = _journal_indices(outcome.folder / "journal")
    _check_side_files(outcome.folder)
    lost = ROWS - len(indices)
    code = outcome.ended.code
    if code in (2, 70):
        return
    summary = summary_of(outcome.ended)
    if summary is None:
        expect(_stderr_failed(outcome.calls), "no summary, although stderr could be written")
        expect(code == 1 or not lost, f"{lost} records are missing, exit code 0")
        return
    expect(summary["records"] == ROWS, f"{summary['records']} records for {ROWS} rows")
    missing = lost + ROWS - len(in_journal)
    told = summary["dropped"]
    # Records after a failed sync are readable but may not survive, so they count as lost.
    most = missing + ROWS if outcome.calls.what.startswith("f") else missing
    expect(max(lost, ROWS - len(in_journal)) <= told <= most, f"{missing} lost, {told} counted")
    expect(code == (1 if told else 0), f"exit code {code}, {told} not written")


def written(folder: Path) -> bytes:
    """Return the contents of the sink's file."""
    file = folder / "records.jsonl"
    return file.read_bytes() if file.exists() else b""


def _journal_indices(folder: Path) -> list[int]:
    entries = list(entries_after(JournalDisk(folder), 0))
    numbers = [entry.sequence for entry in entries]
    expect(numbers == sorted(set(numbers)), f"the journal's numbers: {numbers}")
    return [strict_json(entry.message)["index"] for entry in entries]


def _check_side_files(folder: Path) -> None:
    read_status(folder / "status.json")
    marker = folder / "state" / MARKER
    if marker.exists():
        strict_json(marker.read_bytes())


def _stderr_failed(calls: Calls) -> bool:
    return calls.what in ("write fd 2", "malloc ") or calls.failed > 1


def check_list(outcome: Outcome) -> None:
    """Check that reading changes nothing and prints the truth."""
    check_store(outcome)
    if outcome.ended.code == 0:
        facts = strict_json(outcome.ended.stdout)
        current = Store(outcome.folder / "store").pointers().current
        expect(facts["current"] == current, "another current bundle than in the store")


SCENARIOS = (
    Scenario("recording", lambda f: _run_words(f, str(f / "rows.csv")), check_run),
    Scenario("live", lambda f: _run_words(f, "-"), check_run, live=True),
    Scenario("install", lambda f: _store_words("install", str(f / NEXT))(f), check_store),
    Scenario("rollback", _store_words("rollback"), check_store),
    Scenario("list", lambda f: ("list", "--json", "--store", str(f / "store")), check_list),
)


def broken_promises(outcome: Outcome, check: Callable[[Outcome], None]) -> list[str]:
    """Return the promises that `outcome` breaks, in words."""
    found = []
    ended, calls = outcome.ended, outcome.calls
    internal = (70,) if "alloc" in calls.what else ()
    memory = "alloc" in calls.what or "mmap" in calls.what
    words = FRIGHTENING[:1] if memory else FRIGHTENING  # Python itself prints the others
    if memory:  # and their tracebacks, for half-built objects of libraries
        ended = replace(ended, stderr=IGNORED.sub("", ended.stderr))
    if ended.code in (2, 70) and "gruard: " not in ended.stderr and calls.failed < 2:
        found.append(f"exit code {ended.code} without an error message")
    try:
        check_manners(ended, (0, 1, 2, *internal), words)
        check(outcome)
    except (NotHeldError, GruardError) as error:
        found.append(str(error))
    return found


class Bench:
    """Makes the folders and starts the commands."""

    def __init__(self, lab: Lab) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix="calls-", dir=lab.scratch))
        self._library = build(self._scratch)
        self._template = self._scratch / "template"
        self._rows = lab.csv(ROWS)
        _fill(lab, self._template, self._rows)

    def strike(self, scenario: Scenario, failing: Failing) -> Outcome:
        """Run one command with one failing call and return the outcome."""
        folder = Path(tempfile.mkdtemp(prefix="case-", dir=self._scratch))
        root = Path(shutil.copytree(self._template, folder / "root"))
        trap = Trap(self._library, failing, root, folder / "shared")
        rows = self._rows.encode() if scenario.live else b""
        ended = run_command(scenario.words(root), trap.environment, rows)
        return Outcome(ended, root, trap.calls())

    def discard(self, outcome: Outcome) -> None:
        """Remove the folder of a case."""
        shutil.rmtree(outcome.folder.parent, ignore_errors=True)


def _fill(lab: Lab, folder: Path, rows: str) -> None:
    """Two bundles in a store, the second on trial, a third next to it, and a source."""
    folder.mkdir()
    for name in ("journal", "state"):
        (folder / name).mkdir()
    (folder / "rows.csv").write_text(rows)
    version = lab.bundle.manifest.version
    for number in (version, version + 1):
        words = ("--store", str(folder / "store"), "--allow-failed")
        done = lab.command("install", str(lab.version(number)), *words)
        assert done.returncode == 0, done.stderr
    shutil.copytree(lab.version(version + 2), folder / NEXT)


@dataclass(frozen=True)
class Case:
    """One command with one failing call, and what it broke."""

    failing: Failing
    what: str
    end: str
    written: int
    broken: tuple[str, ...]

    def __str__(self) -> str:
        called = f" ({self.what.strip()})" if self.what else ""
        end = f"{self.end}, {self.written} records" if self.written else self.end
        return f"{self.failing}{called}: {'; '.join(self.broken) or end}"


def run(lab: Lab, seed: int, scale: float) -> Iterator[Row]:
    """Run every scenario by kind of call; below scale 1 a random share of all cases."""
    bench = Bench(lab)
    for number, scenario in enumerate(SCENARIOS):
        rng = np.random.default_rng((seed, number))
        counted = bench.strike(scenario, NONE)
        broken = broken_promises(counted, scenario.check)
        assert counted.ended.code == 0 and not broken, (broken, counted.ended.stderr)
        counts = counted.calls.counts
        plan = plan_of(counts, scale, rng)
        for kind in KINDS:
            if chosen := [failing for failing in plan if failing.kind == kind]:
                yield _row(bench, scenario, kind, counts[kind], chosen)


def plan_of(counts: Mapping[str, int], scale: float, rng: np.random.Generator) -> list[Failing]:
    """Choose the calls to fail, given the number of calls of each kind."""
    whole = []
    for kind, count in counts.items():
        places: Sequence[int] = range(1, count + 1)
        if kind == "allocate" and count > ALLOCATIONS:
            places = [1 + int(place) for place in rng.choice(count, ALLOCATIONS, replace=False)]
        errors = itertools.cycle(ERRORS[kind])
        whole += [Failing(kind, at, error) for at, error in zip(places, errors, strict=False)]
        if kind in LASTING:
            for_good = places[int(rng.integers(LASTING_EVERY)) :: LASTING_EVERY]
            whole += [Failing(kind, at, LASTING[kind], lasting=True) for at in for_good]
    if scale >= 1:
        return whole
    drawn = rng.choice(len(whole), math.ceil(len(whole) * scale), replace=False)
    return [whole[int(place)] for place in sorted(drawn)]


def _row(bench: Bench, scenario: Scenario, kind: str, count: int, plan: Sequence[Failing]) -> Row:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        cases = list(pool.map(lambda failing: _case(bench, scenario, failing), plan))
    reached = [case for case in cases if case.what]
    ends = Counter(case.end for case in reached)
    bad = [case for case in cases if case.broken]
    worst = max(cases, key=lambda case: (len(case.broken), -case.written, case.end != ENDS[0]))
    seen = ", ".join(f"{number} {end}" for end, number in ends.most_common()) or "none reached"
    return Row(
        f"{scenario.name}: {kind}",
        f"{len(plan)} of {count} calls, one or all from it on, {_errors(plan)}",
        MUST,
        f"{seen}; {len(bad)} broke a promise: {' / '.join(map(str, bad))}" if bad else seen,
        str(worst),
        held=not bad,
    )


def _case(bench: Bench, scenario: Scenario, failing: Failing) -> Case:
    outcome = bench.strike(scenario, failing)
    broken = tuple(broken_promises(outcome, scenario.check))
    count, code = written(outcome.folder).count(b"\n"), outcome.ended.code
    bench.discard(outcome)
    end = ENDS.get(code, f"exit code {code}")
    what = outcome.calls.what if outcome.calls.failed else ""
    return Case(failing, what, end, count, broken)


def _errors(plan: Iterable[Failing]) -> str:
    names = (errno.errorcode.get(failing.error, "short") for failing in plan)
    return ", ".join(dict.fromkeys(names))


MUST = "all done, a counted loss, or one clean line; store and files whole; no hang"
PART = Part("Every call fails once", run)
