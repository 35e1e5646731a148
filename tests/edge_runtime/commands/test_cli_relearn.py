"""`gruard relearn`: a store, kept readings and answers in; a trial, or a reason, out."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from relearn_rig import DAY, NAMES, PERIOD, START, machine

from edge_runtime.alarm import Alarm
from edge_runtime.alarms.log import ALARMS, PastAlarms
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.commands.main import gruard
from edge_runtime.learning.answers import read_answers
from edge_runtime.learning.past import read_past
from edge_runtime.owner import mark
from edge_runtime.plain import write_sealed
from edge_runtime.readings.parts import CHANNELS_FILE, Contents, Part, header, members, pack
from edge_runtime.supervision.starts import MARKER
from edge_runtime.updates.store import Store

ROOT = Path(__file__).resolve().parents[3]


def keep_readings(folder: Path, values: np.ndarray, channels: Sequence[str] = NAMES) -> None:
    """Write `values` as a run with --keep-readings does, one part a day."""
    folder.mkdir(parents=True)
    write_sealed(folder / CHANNELS_FILE, Contents(tuple(channels)))
    for number, first in enumerate(range(0, len(values), DAY), 1):
        times = START + PERIOD * np.arange(first, min(first + DAY, len(values)))
        day = datetime.fromtimestamp(float(times[0]), timezone.utc).strftime("%Y-%m-%d")
        lines = "".join(
            f"{time!r},0.0,{','.join(map(str, row))}\n"
            for time, row in zip(times.tolist(), values[first : first + DAY], strict=True)
        )
        (folder / Part(number, day).name).write_bytes(pack(header(channels)) + pack(lines))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that has learned two days."""
    folder = tmp_path_factory.mktemp("learned")
    lines = [
        f"{START + PERIOD * i!r}," + ",".join(map(str, row)) for i, row in enumerate(machine(2, 1))
    ]
    (folder / "healthy.csv").write_text("\n".join([",".join(("time", *NAMES)), *lines]) + "\n")
    path = folder / "pump-1.gruard"
    done = CliRunner().invoke(gruard, ["learn", str(folder / "healthy.csv"), "--out", str(path)])
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture
def store(bundle: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    Store(folder).install(read_bundle(bundle))
    return folder


def relearned(store: Path, *options: str) -> Result:
    return CliRunner().invoke(gruard, ["relearn", "--store", str(store), *options])


def labels(store: Path) -> list[str]:
    return sorted(slot.label for slot in Store(store).slots)


def test_a_better_detector_goes_on_trial(store: Path) -> None:
    keep_readings(store / "readings", machine(4, 2))
    done = relearned(store, "--json")
    facts = json.loads(done.stdout)
    assert done.exit_code == 0 and facts["promoted"] is True and facts["reason"] == ""
    assert labels(store) == ["pump-1", "pump-2"] and Store(store).pointers().trial is not None
    assert read_bundle(Path(facts["bundle"])).manifest.version == 2
    again = relearned(store, "--json")
    assert again.exit_code == 3 and "on trial" in json.loads(again.stdout)["reason"]
    assert not any((store / "relearned").glob("*"))


def test_manual_only_writes_it_and_says_the_command(store: Path) -> None:
    keep_readings(store / "readings", machine(4, 2))
    done = relearned(store, "--promote", "manual")
    written = store / "relearned" / "pump-2.gruard"
    assert done.exit_code == 0 and f"gruard install {written} --store {store}" in done.stdout
    assert labels(store) == ["pump-1"] and read_bundle(written).manifest.version == 2


def test_a_slow_fault_is_kept_out_until_the_owner_accepts_it(store: Path, tmp_path: Path) -> None:
    values = machine(16, 2)
    values[:, 2] += 4 * np.clip((np.arange(len(values)) / DAY - 6) / 10, 0, 1).astype(np.float32)
    keep_readings(tmp_path / "kept", values)
    state = tmp_path / "state"
    state.mkdir()
    (state / MARKER).touch()
    write_sealed(state / ALARMS, PastAlarms())
    options = ("--readings", str(tmp_path / "kept"), "--state", str(state))
    done = relearned(store, *options)
    assert done.exit_code == 3 and "vibration has been high for" in done.stdout
    assert labels(store) == ["pump-1"]
    remembered = read_answers(state, 0.0).left_out
    assert remembered and remembered[-1].end > START + 86400 * 14
    accept = CliRunner().invoke(gruard, ["accept", "--state", str(state)])
    assert accept.exit_code == 0 and "vibration" in accept.output
    assert "vibration has been high" not in relearned(store, *options).stdout
    assert read_answers(state, 0.0).left_out == remembered  # it was a fault until then


def test_marks_and_acceptances_of_the_state_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / MARKER).touch()
    alarms = tuple(Alarm("", i, i + 9, 10.0 * i, 10.0 * i + 9, 5.0, (), None) for i in (1, 2, 3))
    write_sealed(tmp_path / ALARMS, PastAlarms(alarms))
    mark(tmp_path, "1", False, "", 99.0)
    mark(tmp_path, "2", True, "", 99.0)
    found = {each.span.start: each.real for each in read_answers(tmp_path, 0.0).alarms}
    assert found == {10.0: False, 20.0: True, 30.0: None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("no readings", "--keep-readings"),
        ("other channels", "missing channels: vibration"),
        ("empty store", "no bundle is installed"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2(
    store: Path, tmp_path: Path, change: str, words: str
) -> None:
    if change == "other channels":
        keep_readings(store / "readings", machine(1, 2), ("load", "heat", "noise"))
    chosen = tmp_path / "other" if change == "empty store" else store
    done = subprocess.run(
        [sys.executable, "-m", "edge_runtime", "relearn", "--store", str(chosen)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert words in done.stderr.splitlines()[-1]


def test_signed_stores_get_no_unsigned_bundle(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRUARD_TRUSTED_KEYS", "plant.pub")
    done = relearned(store)
    assert done.exit_code != 0 and "--promote manual" in str(done.exception)


@pytest.mark.long
@pytest.mark.parametrize("line", ["fitting", "recording the self-test"])
def test_a_kill_leaves_the_store_as_it_was(store: Path, line: str) -> None:
    keep_readings(store / "readings", machine(4, 2))
    before = Store(store).pointers()
    child = subprocess.Popen(
        [sys.executable, "-m", "edge_runtime", "relearn", "--store", str(store)],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT,
    )  # fmt: skip
    assert child.stderr is not None
    for said in child.stderr:
        if line in said:
            os.kill(child.pid, signal.SIGKILL)
            break
    child.wait()
    child.stderr.close()
    assert Store(store).pointers() == before and labels(store) == ["pump-1"]
    assert relearned(store).exit_code == 0 and labels(store) == ["pump-1", "pump-2"]


def test_counts_become_rates_and_lost_readings_become_missing_rows(tmp_path: Path) -> None:
    values = machine(1, 2).astype(np.float64)
    values[:, 0] = 1e9 + np.arange(DAY)
    keep_readings(tmp_path / "kept", values)
    lost = read_text(tmp_path / "kept").splitlines(keepends=True)
    rewrite(tmp_path / "kept", [*lost[:100], *lost[103:]])
    past = read_past(tmp_path / "kept", ("vibration", "load"), {"load"}, PERIOD, print)
    assert past.values.shape == (DAY, 2) and (np.diff(past.times) == PERIOD).all()
    assert np.isnan(past.values[:, 0]).sum() == 3
    assert (past.values[104:, 1] == 1).all() and np.isnan(past.values[102, 1])


def read_text(folder: Path) -> str:
    """The text of the only part, with its header."""
    (file,) = folder.glob("*.csv.gz")
    return "".join(member.text for member in members(file.read_bytes()))


def rewrite(folder: Path, lines: list[str]) -> None:
    """Write the only part anew."""
    (file,) = folder.glob("*.csv.gz")
    file.write_bytes(pack("".join(lines)))
