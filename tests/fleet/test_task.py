"""The task of one asset: learned once, kept whole, and never more than a row when it is bad."""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from small_fleet import MakeJob, appears, ends, harmed, learning_process_of, longer, nan_everywhere

from edge_runtime.errors import GruardError
from edge_runtime.plain import seal, write_sealed
from fleet import results
from fleet.results import NETWORK, AssetResult, keep, newest, next_version
from fleet.task import MOST_DEATHS, run_job, why

ROOT = Path(__file__).resolve().parents[2]


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_an_asset_is_learned_once_and_again_when_it_changes(
    recording: Path, job: MakeJob, tmp_path: Path
) -> None:
    data = Path(shutil.copy(recording, tmp_path / "data.csv"))
    first = run_job(job("pump", data))
    assert first.good and first.version == 1 and not first.reused
    assert first.rows == 160 and first.channels == 2 and first.cpu_seconds > 0
    made = files(tmp_path / "fleet")
    # Not in this process, where other tests may have shortened the streams that are judged.
    by_hand = [sys.executable, "-m", "edge_runtime", "learn", str(data), "--out"]
    subprocess.run([*by_hand, str(tmp_path / "pump-1.gruard")], check=True, capture_output=True)
    assert files(tmp_path / "fleet" / first.bundle) == files(tmp_path / "pump-1.gruard")
    again = run_job(job("pump", data, run="run2"))
    assert again.reused and again.bundle == first.bundle and files(tmp_path / "fleet") == made
    data.write_text(data.read_text() + data.read_text().splitlines()[-1] + "\n")
    changed = run_job(job("pump", data, run="run3"))
    assert changed.version == 2 and changed.bundle.endswith("/2/pump-2.gruard")
    assert files(tmp_path / "fleet").items() >= made.items(), "the first version stays"


def test_an_asset_whose_network_gains_nothing_keeps_its_bundle_and_is_not_tried_again(
    recording: Path, job: MakeJob, tmp_path: Path
) -> None:
    # So few rows are not worth a training, which is found out without TensorFlow.
    linear = run_job(job("pump", recording))
    made = files(tmp_path / "fleet" / linear.bundle)
    weighed = run_job(job("pump", recording, network=True, run="run2"))
    assert weighed.weighed and not linear.weighed and not weighed.reused
    assert (weighed.bundle, weighed.version) == (linear.bundle, linear.version)
    assert weighed.cpu_seconds > linear.cpu_seconds
    assert files(tmp_path / "fleet" / linear.bundle) == made
    assert sorted(e.name for e in (tmp_path / "fleet" / "assets" / "pump").iterdir()) == ["1"]
    for network in (True, False):
        again = run_job(job("pump", recording, network=network, run="run3"))
        assert again.reused and again.weighed


def test_a_network_that_cannot_be_trained_leaves_the_linear_detector(
    recording: Path, job: MakeJob, tmp_path: Path
) -> None:
    linear = run_job(job("pump", recording))
    killed = run_job(job("pump", recording, network=True, seconds=0.01))
    assert killed.verdict == "too slow"
    assert newest(tmp_path / "fleet" / "assets" / "pump", AssetResult) == linear


def test_an_asset_that_loses_its_network_says_so(
    recording: Path, job: MakeJob, tmp_path: Path
) -> None:
    linear = run_job(job("pump", recording))
    with_network = replace(linear, version=2, model=NETWORK, weighed=True)
    file = tmp_path / "fleet" / "assets" / "pump" / "2" / "result.json"
    file.parent.mkdir()
    write_sealed(file, with_network)
    assert run_job(job("pump", recording)).model == NETWORK, "nothing has changed"
    other = run_job(job("pump", recording, target=0.5))
    assert (other.version, other.model, other.target) == (3, "linear", 0.5)
    assert "network of version 2" in other.choice and "--network-budget" in other.choice


def test_a_result_of_an_earlier_version_lacks_fields_and_is_read(
    recording: Path, job: MakeJob, tmp_path: Path
) -> None:
    row = run_job(job("pump", recording))
    fields = {"schema": 1, **asdict(row)}
    fields.pop("bundle_digest")
    file = tmp_path / "fleet" / "assets" / "pump" / "1" / "result.json"
    file.write_text(seal(fields))
    assert newest(file.parents[1], AssetResult) == replace(row, bundle_digest="")
    fields.pop("verdict")
    file.write_text(seal(fields))
    with pytest.raises(GruardError, match="fields missing: verdict"):
        newest(file.parents[1], AssetResult)


@pytest.mark.parametrize("change", ["target", "settings", "file name", "version of gruard"])
def test_all_that_decides_a_result_is_in_its_digest(
    change: str, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(shutil.copy(recording, tmp_path / "data.csv"))

    def digest(options: tuple[str, ...] = ("pump", "1.0")) -> str:
        return results.input_digest(data, None, options, 10**9)

    before = digest()
    assert digest() == before
    if change == "settings":
        (tmp_path / "channels.toml").write_text("period = 0.1\n")
    elif change == "file name":
        data = data.rename(tmp_path / "other.csv")
    elif change == "version of gruard":
        monkeypatch.setattr(results, "__version__", "9.9")
    assert digest(("pump", "2.0") if change == "target" else ("pump", "1.0")) != before


def test_bad_input_is_a_row_with_its_reason(recording: Path, job: MakeJob, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with (tmp_path / "huge.csv").open("wb") as stream:
        stream.truncate(50 * 10**9)
    (tmp_path / "empty").mkdir()
    nan = harmed(recording, tmp_path / "nan.csv", nan_everywhere)
    text = harmed(recording, tmp_path / "text.csv", lambda rows: [*rows[:9], "hello\n", *rows[9:]])
    for data, reason in (
        (tmp_path / "none.csv", "No such file"), (tmp_path / "pipe.csv", "named pipe"),
        (tmp_path / "huge.csv", "50.0 GB"), (tmp_path / "empty", "no *.csv"),
        (nan, "column"), (text, "line 10"), (Path("/dev/zero"), "device"),
    ):  # fmt: skip
        result = run_job(job(data.stem, data))
        assert result.verdict == "bad input" and reason in result.reason, result
        assert not result.bundle and not result.version
    assert not list((tmp_path / "fleet").rglob("*.gruard"))
    assert not list((tmp_path / "fleet").rglob(".*"))


def test_limits_end_the_process_not_the_worker(
    recording: Path, job: MakeJob, tmp_path: Path
) -> None:
    long = harmed(recording, tmp_path / "long.csv", longer)
    slow = run_job(job("slow", long, seconds=0.4))
    assert slow.verdict == "too slow" and "--time-limit" in slow.reason
    huge = harmed(recording, tmp_path / "huge.csv", lambda rows: [rows[0], *rows[1:] * 100])
    large = run_job(job("large", huge, megabytes=70, seconds=30.0))
    assert large.verdict == "too large" and "--memory" in large.reason
    assert not list((tmp_path / "fleet").rglob(".*"))


def test_a_process_that_dies_is_a_row_with_the_end_of_its_output(
    recording: Path, job: MakeJob, tmp_path: Path
) -> None:
    long = harmed(recording, tmp_path / "long.csv", longer)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(run_job, job("pump", long))
        appears(tmp_path / "fleet" / "assets" / "pump", ".1.*/log")
        os.kill(learning_process_of(os.getpid()), signal.SIGKILL)
    assert result.result().verdict == "crashed"
    assert "was killed, perhaps because the machine has no memory" in result.result().reason
    log = tmp_path / "log"
    log.write_bytes(b"x" * 9000 + b"\nTraceback ...\nRuntimeError: \xff boom\n\n")
    assert why(1, log) == "ended with code 1: RuntimeError: \ufffd boom"


def test_three_dead_workers_blame_the_asset_of_their_run_only(
    recording: Path, job: MakeJob, tmp_path: Path
) -> None:
    attempts = tmp_path / "fleet" / "assets" / "pump" / "attempts"
    attempts.parent.mkdir(parents=True)
    attempts.write_text("run0 host 1\n" * 5 + "run1 host 2\n" * MOST_DEATHS)
    blamed = run_job(job("pump", recording))
    assert blamed.verdict == "kills workers" and "3 workers died" in blamed.reason
    assert not attempts.exists()
    attempts.parent.mkdir()
    attempts.write_text("run0 host 1\n" * 5 + "run1 host 2\n" * (MOST_DEATHS - 1))
    assert run_job(job("pump", recording)).good
    attempts.write_text("run1 host 1\n")  # its worker died after the result was kept
    assert run_job(job("pump", recording, run="run2")).reused and not attempts.exists()


def test_the_learning_process_dies_with_its_worker(
    recording: Path, job: MakeJob, tmp_path: Path
) -> None:
    long = harmed(recording, tmp_path / "long.csv", longer)
    code = f"from fleet.task import run_job; from fleet.job import Job; run_job({job('a', long)!r})"
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    scratch = appears(tmp_path / "fleet" / "assets" / "a", ".1.*/log").parent
    child = os.pidfd_open(learning_process_of(worker.pid))
    worker.kill()
    worker.wait()
    assert ends(child)
    os.close(child)
    assert scratch.is_dir(), "nobody was left to remove it"
    assert not (scratch / "result.json").exists(), "it ended by itself"
    result = run_job(job("a", recording, run="run2"))
    assert result.good and not list(scratch.parent.glob(".*"))


def test_of_two_equal_results_the_first_stays(tmp_path: Path) -> None:
    for number in (1, 2):
        scratch = tmp_path / f".1.run.{number}"
        scratch.mkdir()
        write_sealed(
            scratch / results.RESULT, AssetResult("a", "trial", f"of worker {number}", version=1)
        )
    assert keep(tmp_path / ".1.run.1", tmp_path, 1, AssetResult).reason == "of worker 1"
    assert keep(tmp_path / ".1.run.2", tmp_path, 1, AssetResult).reason == "of worker 1"
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"] and next_version(tmp_path) == 2
    assert newest(tmp_path, AssetResult) == AssetResult("a", "trial", "of worker 1", version=1)


def test_a_worker_that_cannot_work_is_no_fault_of_the_asset(recording: Path, job: MakeJob) -> None:
    with pytest.raises(GruardError, match=r"driver 0\.0\.0.*same version"):
        run_job(job("pump", recording, gruard="0.0.0"))
    with pytest.raises(GruardError, match=r"does not see /nowhere"):
        run_job(job("pump", recording, fleet="/nowhere"))
