"""A sample of failing calls, and that the checker sees what such a call could leave behind."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.journal.frames import Entry
from edge_runtime.journal.segments import JournalDisk, Segments
from edge_runtime.updates.store import Store
from tests.apparatus.failing_calls import NONE, SHORT, Calls, Failing, Trap, build
from tests.campaign import nth_call
from tests.campaign.command import Ended
from tests.campaign.lab import Lab
from tests.campaign.nth_call import (
    ROWS,
    SCENARIOS,
    Outcome,
    broken_promises,
    check_list,
    check_run,
    plan_of,
)

WRITES = """
import os, sys
for word in sys.argv[2:]:
    file = os.open(f"{sys.argv[1]}/{word}", os.O_WRONLY | os.O_CREAT)
    try:
        print(os.write(file, b"12345678"))
    except OSError as error:
        print(error.strerror)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        (NONE, ["8", "8", "8"]),
        (Failing("write", 2, errno.ENOSPC), ["8", "No space left on device", "8"]),
        (Failing("write", 2, errno.EIO, lasting=True), ["8"] + 2 * ["Input/output error"]),
        (Failing("write", 3, SHORT), ["8", "8", "4"]),
    ],
)
def test_the_call_that_was_named_fails(
    library: Path, tmp_path: Path, failing: Failing, said: list[str]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    trap = Trap(library, failing, root, tmp_path / "shared")
    words = [sys.executable, "-c", WRITES, str(root), "a", "b", "c"]
    with (tmp_path / "out").open("w+") as out:
        subprocess.run(words, env=trap.environment, stdout=out, check=True)
        out.seek(0)
        assert out.read().splitlines() == said
    calls = trap.calls()
    assert (calls.counts["open"], calls.counts["write"]) == (3, 3)
    assert calls.failed == sum(word != "8" for word in said)


def test_files_elsewhere_do_not_count(library: Path, tmp_path: Path) -> None:
    trap = Trap(library, Failing("write", 1, errno.EIO), tmp_path / "root", tmp_path / "shared")
    words = [sys.executable, "-c", WRITES, str(tmp_path), "a"]
    done = subprocess.run(words, env=trap.environment, stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"8\n" and not any(trap.calls().counts.values())


def test_a_whole_plan_has_every_call() -> None:
    rng = np.random.default_rng(0)
    counts = {"write": 20, "read": 3, "allocate": 2000, "fork": 0}
    whole = plan_of(counts, 1.0, rng)
    once = [failing for failing in whole if not failing.lasting]
    assert [each.at for each in once if each.kind == "write"] == [*range(1, 21)]
    assert {each.error for each in once if each.kind == "write"} == {*nth_call.ERRORS["write"]}
    assert len({each.at for each in once if each.kind == "allocate"}) == nth_call.ALLOCATIONS
    assert sum(each.lasting for each in whole) == 20 / nth_call.LASTING_EVERY
    assert len(plan_of(counts, 0.001, rng)) == 1


@pytest.mark.long
def test_a_sample_of_calls_fails_and_every_promise_holds(lab: Lab) -> None:
    rows = list(nth_call.run(lab, seed=1, scale=0.002))
    assert {row.name.split(":")[0] for row in rows} == {scenario.name for scenario in SCENARIOS}
    broken = [f"{row.name}: {row.happened}" for row in rows if not row.held]
    assert not broken


def good_records() -> list[dict[str, Any]]:
    return [
        {"index": i, "tier": 1, "flags": [], "valid": True, "score": 1.0, "model": "abc",
         "masked": []}
        for i in range(ROWS)
    ]  # fmt: skip


@pytest.fixture
def good(lab: Lab, tmp_path: Path) -> Outcome:
    """What a run leaves behind when nothing failed."""
    folder = tmp_path / "root"
    for name in ("journal", "state"):
        (folder / name).mkdir(parents=True)
    Store(folder / "store").install(lab.bundle)
    write_records(folder, good_records())
    segments = Segments(JournalDisk(folder / "journal"), 1 << 20)
    for record in good_records():
        segments.append(Entry(1 + record["index"], json.dumps(record).encode()))
    segments.close()
    summary = json.dumps({"records": ROWS, "dropped": 0}) + "\n"
    return Outcome(Ended(0, b"", summary), folder, Calls({}, 1, "write fd 3"))


def write_records(folder: Path, records: list[dict[str, Any]]) -> None:
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / "records.jsonl").write_text("".join(lines))


def ended(**changes: Any) -> Callable[[Outcome], Outcome]:
    return lambda outcome: replace(outcome, ended=replace(outcome.ended, **changes))


def records(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Outcome], Outcome]:
    def spoil(outcome: Outcome) -> Outcome:
        changed = good_records()
        change(changed)
        write_records(outcome.folder, changed)
        return outcome

    return spoil


def text(name: str, content: str) -> Callable[[Outcome], Outcome]:
    def spoil(outcome: Outcome) -> Outcome:
        (outcome.folder / name).write_text(content)
        return outcome

    return spoil


def half_a_line(outcome: Outcome) -> Outcome:
    file = outcome.folder / "records.jsonl"
    os.truncate(file, file.stat().st_size - 5)
    return outcome


def damaged_slot(outcome: Outcome) -> Outcome:
    model = next((outcome.folder / "store" / "slots").glob("*/model.tflite"))
    model.chmod(0o644)
    model.write_bytes(b"")
    return outcome


def lost_journal(outcome: Outcome) -> Outcome:
    next((outcome.folder / "journal").glob("*.journal")).unlink()
    return outcome


@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        (ended(code=None), "it hangs"),
        (ended(code=-11), "exit code -11"),
        (ended(code=70, stderr="gruard: internal error"), "exit code 70"),
        (ended(code=2, stderr=""), "without an error message"),
        (ended(left_over=True), "a process is left"),
        (ended(stderr="Traceback (most recent call last)\nKeyError: 1\n"), "Traceback: KeyError"),
        (ended(stderr="gruard: hello\n"), "no summary"),
        (ended(stderr=6 * "gruard: no room\n"), "says 6 times: gruard: no room"),
        (ended(stderr='{"records": 29, "dropped": 0}\n'), "29 records for 30 rows"),
        (ended(stderr='{"records": 30, "dropped": 1}\n'), "0 lost, 1 counted"),
        (records(lambda rows: rows.pop(7)), "1 lost, 0 counted"),
        (records(lambda rows: rows.insert(3, rows[3])), "twice or out of order"),
        (records(lambda rows: rows[3].update(score=float("nan"))), "not strict JSON"),
        (records(lambda rows: rows[3].update(tier=3)), "valid in tier 3"),
        (half_a_line, "the last line is cut"),
        (damaged_slot, "is damaged"),
        (lost_journal, "30 lost, 0 counted"),
        (text("status.json", "{"), "not a status file"),
        (text("state/last-run.json", "{"), "not strict JSON"),
    ],
)
def test_the_checker_bites(good: Outcome, spoil: Callable[[Outcome], Outcome], seen: str) -> None:
    assert broken_promises(good, check_run) == []
    (broken,) = broken_promises(spoil(good), check_run)
    assert re.search(seen, broken)


HALF_MADE = """\
Exception ignored in: <function ZipFile.__del__ at 0x7f00>
Traceback (most recent call last):
  File "zipfile.py", line 1874, in __del__
    self.close()
    ^^^^^^^^^^^^
AttributeError: 'ZipFile' object has no attribute '_writing'
"""


def test_a_half_made_object_is_no_traceback_of_ours(good: Outcome) -> None:
    told = good.ended.stderr
    spoiled = ended(stderr=HALF_MADE + told)(good)
    no_memory = replace(spoiled, calls=replace(good.calls, what="malloc"))
    assert broken_promises(no_memory, check_run) == []
    assert broken_promises(spoiled, check_run)  # where memory was never short it frightens
    ours = ended(stderr=f"{HALF_MADE}Traceback (most recent call last)\nKeyError: 1\n{told}")(good)
    (broken,) = broken_promises(replace(ours, calls=no_memory.calls), check_run)
    assert broken.startswith("Traceback")


def test_a_list_that_lies_is_seen(good: Outcome) -> None:
    current = Store(good.folder / "store").pointers().current
    told = {True: current, False: "0" * 64}
    for honest, digest in told.items():
        said = ended(stdout=json.dumps({"current": digest}).encode())(good)
        assert bool(broken_promises(said, check_list)) is not honest
