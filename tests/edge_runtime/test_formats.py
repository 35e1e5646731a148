"""What devices have on their disks is read by this version, or refused in one sentence.

Each folder of tests/data/formats holds one example of every stored format as some version of
gruard wrote it (tests/format_files.py).
"""

import json
import shutil
from pathlib import Path

import pytest

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.kernels import KERNEL_ID
from edge_runtime.detector.thresholds import local_thresholds
from edge_runtime.errors import GruardError
from edge_runtime.journal.journal import Cursor, open_journal
from edge_runtime.journal.segments import JournalDisk, entries_after
from edge_runtime.status.snapshot import read_status
from edge_runtime.supervision.starts import Mark, StartedAfter, read_state, started_after
from edge_runtime.updates.choice import Admission, choose
from edge_runtime.updates.store import Store
from tests.apparatus.harm import edit_manifest

FORMATS = sorted((Path(__file__).parents[1] / "data/formats").glob("[0-9]*"))
BUNDLES = ("tiny-1.gruard", "straight-1.gruard")
REFUSED: dict[tuple[str, str], str] = {
    **{("3", name): "self-test failed" for name in BUNDLES},
    ("4", "straight-1.gruard"): "self-test failed",
}
"""What this version no longer runs, by format and bundle, and the words of the refusal.

A change of the step's arithmetic gives other golden answers: then the old bundles belong here, with
"self-test failed", and their owners have to convert again.
"""
RECORDS, TAKEN, READER = 160, 30, "mqtt://broker.local/plant"


@pytest.fixture(params=FORMATS, ids=lambda folder: f"format {folder.name}")
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the examples of one version."""
    return Path(shutil.copytree(request.param, tmp_path / request.param.name))


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_runs_or_is_refused_in_one_sentence(stored: Path, name: str) -> None:
    words = REFUSED.get((stored.name, name))
    try:
        bundle = read_bundle(stored / name)
        Detector(bundle).self_test()
    except GruardError as error:
        assert words and words in str(error) and "\n" not in str(error)
        return
    assert words is None, f"{name} runs again: take it out of REFUSED"
    assert bundle.manifest.channel_names == ("set_point", "flow", "heat")
    assert bundle.manifest.linear == name.startswith("straight")
    assert bundle.arrays("calibration.npz")["value/000"].shape[1] == 3


def test_thresholds_hold(stored: Path) -> None:
    bundle = read_bundle(stored / "tiny-1.gruard")
    found = local_thresholds(bundle)
    assert set(found) == {KERNEL_ID}
    assert 0 < found[KERNEL_ID].value != bundle.manifest.thresholds[KERNEL_ID].value


def test_a_store_goes_on_where_it_was(stored: Path) -> None:
    store, log = Store(stored / "store"), []
    pointers = store.pointers()
    labels = [store.slots.read(slot).label for slot in (pointers.previous, pointers.current)]
    assert labels == ["straight-1", "straight-2"]
    assert pointers.trial and store.slots.read(pointers.trial.slot).label == "straight-3"
    assert pointers.trial.attempts == 2
    begun = choose(store, Admission(), log.append).bundle
    assert begun and begun.manifest.version == 3 and log == []
    assert store.change(lambda found: found.proven(found.trial.slot)).previous == pointers.current


def test_a_journal_is_read_and_goes_on(stored: Path) -> None:
    folder = stored / "journal"
    entries = list(entries_after(JournalDisk(folder), 0))
    assert [entry.sequence for entry in entries] == [*range(1, RECORDS + 1)]
    records = [json.loads(entry.message) for entry in entries]
    assert [record["index"] for record in records] == [*range(RECORDS)]
    assert Cursor(JournalDisk(folder), READER).found == TAKEN
    journal = open_journal(folder, 1_000_000, print, clock=lambda: 0.0, patience=5.0)
    reader, _ = journal.reader(READER)
    first = reader.read(limit=1)
    journal.append(b"{}")
    journal.close()
    assert [entry.sequence for entry in first] == [TAKEN + 1]
    assert [entry.sequence for entry in entries_after(JournalDisk(folder), RECORDS)] == [
        RECORDS + 1
    ]


def test_a_status_file_is_read(stored: Path) -> None:
    snapshot = read_status(stored / "status.json")
    assert snapshot and snapshot.process.ended and snapshot.counts.records == RECORDS
    assert snapshot.model.name == "tiny" and snapshot.answer and snapshot.answer.index == 159


def test_a_start_marker_is_read(stored: Path) -> None:
    mark = read_state(stored / "last-run.json", Mark)
    assert mark and mark.sample == RECORDS - 1 and mark.clean
    assert started_after(mark, "another boot", False) is StartedAfter.GOOD_REBOOT


# Of a later version than this one.


def one_sentence(error: pytest.ExceptionInfo[GruardError]) -> str:
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text
    return text


@pytest.mark.parametrize("name", BUNDLES)
def test_a_later_bundle_is_refused(stored: Path, name: str) -> None:
    edit_manifest(stored / name, lambda data: data.update(schema=99))
    with pytest.raises(GruardError, match="schema 99 is unknown") as caught:
        read_bundle(stored / name)
    assert "update the runtime" in one_sentence(caught)


def test_later_thresholds_are_refused(stored: Path) -> None:
    bundle = read_bundle(stored / "tiny-1.gruard")
    edit(stored / "tiny-1.thresholds.json", schema=99)
    with pytest.raises(GruardError, match="not thresholds of this version; delete it") as caught:
        local_thresholds(bundle)
    one_sentence(caught)


def test_a_later_status_file_is_refused(stored: Path) -> None:
    edit(stored / "status.json", schema=99)
    with pytest.raises(GruardError, match="another version of gruard") as caught:
        read_status(stored / "status.json")
    one_sentence(caught)


def test_a_later_start_marker_counts_as_unknown(stored: Path) -> None:
    edit(stored / "last-run.json", reason="a field of a later version")
    mark = read_state(stored / "last-run.json", Mark)
    assert mark is None and started_after(mark, "boot", False) is StartedAfter.UNKNOWN


def test_segments_of_a_later_journal_are_passed_over(stored: Path) -> None:
    first, *others = sorted((stored / "journal").glob("*.journal"))
    first.write_bytes(first.read_bytes().replace(b"GJ1", b"GJ9"))
    found = [entry.sequence for entry in entries_after(JournalDisk(stored / "journal"), 0)]
    assert found == [*range(int(others[0].stem), RECORDS + 1)]


def test_a_later_cursor_sends_again_rather_than_never(stored: Path) -> None:
    (cursor,) = (stored / "journal").glob("*.cursor")
    cursor.write_bytes(cursor.read_bytes().replace(b"GJ1", b"GJ9"))
    assert Cursor(JournalDisk(stored / "journal"), READER).found == 0


def edit(file: Path, **fields: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
