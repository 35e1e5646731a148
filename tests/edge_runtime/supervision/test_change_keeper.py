"""A lasting change outlives its worker and its run, and the owner has the last word on it."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faulty_worker import model_record
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.detector.lasting_change import (
    KEPT,
    WORD,
    ChangePhase,
    Finding,
    KeptChange,
    LastingChange,
    Word,
)
from edge_runtime.errors import GruardError
from edge_runtime.plain import LARGEST_FILE, read_sealed, write_sealed
from edge_runtime.record import Record, Sample
from edge_runtime.supervision.change_keeper import LOOK_EVERY, WRITE_EVERY, ChangeKeeper

BUNDLE, OTHER = "d" * 64, "e" * 64
AS_RECORDED = LastingChange(0, 0, (0.0,), (0.25,))
CHANGED = LastingChange(1, 1, (2.5,), (0.5,))
FINDING = Finding(1.7e9, ("flow", "heat"), 1, None, "")
KEPT_CHANGE = KeptChange(BUNDLE, CHANGED, FINDING)

_numbers = st.lists(st.floats(-1e6, 1e6, width=32), max_size=6).map(tuple)
_count = st.integers(0, 10**9)
_changes = st.builds(LastingChange, st.integers(0, 2), _count, _numbers, _numbers)
_names = st.lists(st.text("abc µ", max_size=8), max_size=3).map(tuple)
_findings = st.builds(
    Finding,
    st.floats(0, 4e9),
    _names,
    _count,
    st.none() | st.floats(0, 4e9),
    st.text("ab ", max_size=9),
)
kept_changes = st.builds(KeptChange, st.just(BUNDLE), _changes, st.none() | _findings)


class Model:
    """Stands where a test says, and takes the owner's word at once unless it is `deaf`."""

    def __init__(self, change: LastingChange | None = None) -> None:
        self.bundle, self.change, self.deaf, self.heard = BUNDLE, change, False, list[bool]()

    def accept(self, yes: bool) -> None:
        self.heard.append(yes)
        if self.change and not self.deaf:
            self.change = replace(self.change, phase=1 + yes)


class Life:
    """One run after the other in one state folder, with a clock that a test moves."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.now, self.log, self.index = folder, 100.0, list[str](), 0
        self.start(Model())

    def start(self, model: Model) -> LastingChange | None:
        self.model = model
        self.keeper = ChangeKeeper(
            self.folder, lambda: self.now, lambda: 1.7e9 + self.now, self.log.append
        )
        loaded = self.keeper.load(BUNDLE, lambda change: change.fault(1, 1, 100.0))
        model.change = loaded or model.change
        return loaded

    def record(
        self, change: LastingChange | None = None, blamed: str = "", later: float = 1.0
    ) -> None:
        """One more record, `later` seconds after the last; the model stands at `change`."""
        self.now += later
        self.index += 1
        self.model.change = change or self.model.change
        answer = model_record(Sample(self.index, None, np.zeros(1, np.float32)))
        told: Record = replace(answer, alarm=bool(blamed), blamed=tuple(filter(None, [blamed])))
        self.keeper.after(told, self.model)

    def word(self, accepted: bool, reason: str = "") -> None:
        assert self.folder and self.keeper.finding
        since = self.keeper.finding.since
        write_sealed(self.folder / WORD, Word(BUNDLE, since, accepted, reason, 1.8e9))

    @property
    def kept(self) -> KeptChange | None:
        assert self.folder
        return read_sealed(self.folder / KEPT, KeptChange)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


# What is known of a change.


def test_a_change_is_open_from_its_report_until_the_machine_is_back(life: Life) -> None:
    life.record(AS_RECORDED, blamed="flow")
    assert life.keeper.finding is None
    life.record(CHANGED, blamed="heat")
    assert life.keeper.finding == Finding(1.7e9 + life.now, ("heat",), 1, None, "")
    life.record(blamed="flow")  # another alarm is not what led to it
    assert life.keeper.finding.channels == ("heat",)
    life.record(replace(AS_RECORDED, count=1))
    assert life.keeper.finding is None
    assert [line.split("; ")[0] for line in life.log] == [
        "sample 2: a change on heat has lasted and is reported",
        "sample 4: the machine is back where it was recorded",
    ]


def test_a_further_change_before_anybody_accepted_adds_its_channels(life: Life) -> None:
    life.record(CHANGED, blamed="heat")
    since = life.keeper.finding and life.keeper.finding.since
    life.record(replace(CHANGED, count=2), blamed="flow")
    assert life.keeper.finding == Finding(since or 0, ("heat", "flow"), 2, None, "")


def test_a_change_after_an_accepted_one_is_a_finding_of_its_own(life: Life) -> None:
    life.record(CHANGED, blamed="heat")
    life.word(True)
    life.record()
    assert life.model.change and life.model.change.phase == ChangePhase.ACCEPTED
    life.record(replace(CHANGED, count=2), blamed="flow")
    assert life.keeper.finding == Finding(1.7e9 + life.now, ("flow",), 2, None, "")
    life.record()
    assert life.model.heard == [True]  # the word was on the change before


def test_another_bundle_knows_nothing_of_it(life: Life) -> None:
    life.record(CHANGED, blamed="heat")
    life.model = Model()
    life.model.bundle = OTHER
    life.record()
    assert life.keeper.finding is None


# The owner's word.


def test_the_word_ends_the_flag_and_may_be_taken_back(life: Life) -> None:
    life.record(CHANGED, blamed="heat")
    life.word(True, "new bearing")
    life.record()
    assert life.keeper.finding and life.keeper.finding.accepted == 1.8e9
    assert life.keeper.finding.reason == "new bearing" and life.model.heard == [True]
    assert life.kept and life.kept.finding == life.keeper.finding
    life.word(False)
    life.record()
    assert life.keeper.finding.accepted is None and life.model.heard == [True, False]
    life.record()
    assert life.model.heard == [True, False]


def test_a_word_is_looked_for_once_a_second(life: Life) -> None:
    life.record(CHANGED)
    life.word(True)
    for _ in range(9):
        life.record(later=LOOK_EVERY / 10)
    assert life.model.heard == []
    life.record(later=LOOK_EVERY / 5)
    assert life.model.heard == [True]


def test_a_model_that_has_not_heard_is_told_again(life: Life) -> None:
    life.record(CHANGED)
    life.word(True)
    life.model.deaf = True
    life.record()
    life.record()
    life.model.deaf = False
    life.record()
    life.record(CHANGED)  # a message from before it heard
    assert life.model.heard == [True] * 4
    assert life.keeper.finding and life.keeper.finding.accepted
    assert life.kept and life.kept.change.phase == ChangePhase.ACCEPTED


def test_a_word_on_another_change_says_nothing(life: Life) -> None:
    life.record(CHANGED)
    assert life.keeper.finding and life.folder
    since = life.keeper.finding.since
    for bundle, when in ((OTHER, since), (BUNDLE, since + 1)):
        write_sealed(life.folder / WORD, Word(bundle, when, True, "", 1.8e9))
        life.record()
    assert life.model.heard == [] and life.keeper.finding.accepted is None


def test_a_damaged_word_is_one_line_and_the_last_one_holds(life: Life) -> None:
    life.record(CHANGED)
    life.word(True)
    life.record()
    assert life.folder
    (life.folder / WORD).write_text("{}")
    life.record()
    life.record()
    assert sum("run gruard accept again" in line for line in life.log) == 1
    assert life.model.heard == [True]


# Over a restart.


def test_a_run_goes_on_where_the_one_before_was_killed(life: Life) -> None:
    life.record(CHANGED, blamed="heat")
    finding = life.keeper.finding
    assert life.start(Model()) == CHANGED and life.keeper.finding == finding
    life.record()
    assert life.keeper.finding == finding
    life.word(True)  # also while no run is there
    loaded = life.start(Model())
    life.record()
    assert loaded == CHANGED and life.model.heard == [True]
    assert life.start(Model()) == replace(CHANGED, phase=2)
    life.record()
    assert life.model.heard == [] and life.keeper.finding and life.keeper.finding.accepted


def test_without_a_folder_it_is_kept_in_memory_only(tmp_path: Path) -> None:
    life = Life(None)
    life.record(CHANGED, blamed="heat")
    life.keeper.close()
    assert life.keeper.finding and life.start(Model()) is None
    assert [*tmp_path.iterdir()] == [] and len(life.log) == 1


def test_it_is_written_when_something_happens_and_else_every_ten_minutes(life: Life) -> None:
    assert life.folder
    life.record(AS_RECORDED)
    assert life.kept and life.kept.change == AS_RECORDED and life.kept.finding is None
    written, wanted = 0, int(3 * WRITE_EVERY)
    for second in range(wanted):
        (life.folder / KEPT).unlink(missing_ok=True)
        life.record(replace(AS_RECORDED, baselines=(float(second),)))
        written += (life.folder / KEPT).exists()
    assert written == 3
    (life.folder / KEPT).unlink(missing_ok=True)
    life.record(CHANGED)
    assert life.kept and life.kept.change == CHANGED
    life.record(replace(CHANGED, centre=(2.75,)))
    assert life.kept.change == CHANGED
    life.keeper.close()
    assert life.kept.change.centre == (2.75,)


@given(kept_changes)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, kept: KeptChange
) -> None:
    file = tmp_path_factory.mktemp("kept") / KEPT
    write_sealed(file, kept)
    assert read_sealed(file, KeptChange) == kept
    assert file.stat().st_size <= LARGEST_FILE


def refused(life: Life, words: str = "") -> None:
    """The next start ignores the file, with one line in the log."""
    life.log.clear()
    assert life.start(Model()) is None and life.keeper.finding is None
    (line,) = life.log
    assert line.endswith("the machine is judged as it was recorded") and words in line
    assert "\n" not in line and "Traceback" not in line


@given(bit=st.integers(0), data=st.data())
def test_one_flipped_bit_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, bit: int, data: st.DataObject
) -> None:
    life = Life(tmp_path_factory.mktemp("kept"))
    assert life.folder
    file = life.folder / KEPT
    write_sealed(file, KEPT_CHANGE)
    whole = bytearray(file.read_bytes())[:-1]  # but for the line's end
    at = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[at // 8] ^= 1 << at % 8
    file.write_bytes(whole)
    refused(life)


@pytest.mark.parametrize("kept", [
    replace(KEPT_CHANGE, bundle=OTHER),
    replace(KEPT_CHANGE, finding=None),  # stands elsewhere without a finding
    replace(KEPT_CHANGE, change=replace(CHANGED, centre=(101.0,))),
    replace(KEPT_CHANGE, change=replace(CHANGED, centre=(1.0, 2.0))),
    replace(KEPT_CHANGE, change=replace(CHANGED, baselines=(-1.0,))),
])  # fmt: skip
def test_what_is_not_of_this_bundle_is_ignored(life: Life, kept: KeptChange) -> None:
    assert life.folder
    write_sealed(life.folder / KEPT, kept)
    refused(life)


@pytest.mark.parametrize("text", [
    "", "{}", "null", "[]", "x", "[" * 9999, '{"schema":1}', "9" * (LARGEST_FILE + 9), "\0" * 99,
])  # fmt: skip
def test_what_is_no_such_file_is_ignored(life: Life, text: str) -> None:
    assert life.folder
    (life.folder / KEPT).write_text(text)
    refused(life, "damaged")


def test_a_file_of_another_version_is_ignored(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    assert life.folder
    with monkeypatch.context() as patch:
        patch.setattr("edge_runtime.plain.SCHEMA", 2)
        write_sealed(life.folder / KEPT, KEPT_CHANGE)
    refused(life, "another version")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_something_else_in_its_place_is_left_alone(life: Life, make) -> None:  # type: ignore[no-untyped-def]
    assert life.folder
    make(life.folder / KEPT)
    refused(life, "cannot be read")
    life.record(CHANGED)
    assert "cannot be written" in life.log[-1] and not (life.folder / KEPT).is_file()
    assert life.keeper.finding


def test_a_folder_that_takes_no_more_costs_one_line_a_minute_and_is_tried_again(
    life: Life,
) -> None:
    assert life.folder
    moved = life.folder.with_name("away")
    life.folder.rename(moved)
    for _ in range(59):
        life.record(CHANGED)
    assert sum("cannot be written" in line for line in life.log) == 1
    moved.rename(life.folder)
    for _ in range(60):
        life.record()
    assert life.kept and life.kept.change == CHANGED and "is written again" in life.log[-1]


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from test_change_keeper import KEPT, KEPT_CHANGE, write_sealed
count = 0
while True:
    count += 1
    change = replace(KEPT_CHANGE.change, count=count)
    write_sealed(Path(sys.argv[1]) / KEPT, replace(KEPT_CHANGE, change=change))
    print(count, flush=True)
"""


@pytest.mark.long
def test_a_process_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        ) as writer:  # fmt: skip
            assert writer.stdout
            for _ in range(20):
                told = int(writer.stdout.readline())
                kept = read_sealed(tmp_path / KEPT, KeptChange)
                assert kept and kept.change.count >= told
            writer.send_signal(signal.SIGKILL)
            told = int((writer.stdout.read().split() or [told])[-1])
        kept = read_sealed(tmp_path / KEPT, KeptChange)
        assert kept and told <= kept.change.count <= told + 1
        assert json.loads((tmp_path / KEPT).read_text())["schema"] == 1


def test_a_missing_file_is_none_and_says_nothing(tmp_path: Path) -> None:
    assert read_sealed(tmp_path / KEPT, KeptChange) is None
    with pytest.raises(GruardError, match="damaged"):
        (tmp_path / WORD).write_text("{}")
        read_sealed(tmp_path / WORD, Word)
