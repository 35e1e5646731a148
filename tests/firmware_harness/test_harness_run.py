"""`build` and `run`: a recording through emulated boards gives the very file of gruard replay."""

import csv
import multiprocessing
import os
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from harness_command import harness, refused

from edge_runtime.errors import GruardError
from firmware_harness import semihosting, toolchain
from firmware_harness.boards import ALL, M4, M55, USUAL
from firmware_harness.building import Built, build
from firmware_harness.packing import packed
from firmware_harness.toolchain import run_to_end
from firmware_harness.uart import running
from tests.apparatus.harm import edit_manifest


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """320 rows with a missing sensor, an infinity and a broken machine."""
    rows = tiny_model.machine_rows(320, seed=5)
    rows[140:190, 1] = np.nan
    rows[200, 2] = np.inf
    rows[230:, 2] += 300
    file = tmp_path_factory.mktemp("recording") / "rows.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["time", *tiny_model.CHANNELS])
        writer.writerows([i, *map(float, row)] for i, row in enumerate(rows))
    return file


def replayed(bundle: Path, recording: Path, out: Path) -> bytes:
    command = [sys.executable, "-m", "edge_runtime", "replay", bundle, recording, "--out", out]
    subprocess.run([*map(str, command)], check=True, stderr=subprocess.DEVNULL)
    return out.read_bytes()


@pytest.mark.parametrize(("board", "kind"), [(M4.name, "tiny_bundle"), (M55.name, "linear_bundle")])
def test_a_board_gives_the_file_of_replay(
    kind: str,
    board: str,
    recording: Path,
    tmp_path: Path,
    cross_tools: None,
    request: pytest.FixtureRequest,
) -> None:
    bundle, out = request.getfixturevalue(kind), tmp_path / "board.csv"
    done = harness("run", bundle, recording, "--board", board, "--out", out)
    assert done.returncode == 0, done.stderr
    wanted = replayed(bundle, recording, tmp_path / "replay.csv")
    assert out.read_bytes() == wanted
    assert b"flow" in wanted and (b"IMPUTED" in wanted or kind == "linear_bundle")


def test_alarms_that_recur_are_marked_as_replay_marks_them(
    linear_bundle: Path, tmp_path: Path, cross_tools: None
) -> None:
    """By the host, from rows without times: three days of a row each ten minutes."""
    slow = Path(shutil.copytree(linear_bundle, tmp_path / linear_bundle.name))
    edit_manifest(slow, lambda data: data.update(period=600.0))
    rows = tiny_model.machine_rows(480, seed=5)
    for night in (150, 150 + 144, 150 + 2 * 144):
        rows[night : night + 6, 2] += 300
    recording, out = tmp_path / "nights.csv", tmp_path / "board.csv"
    with recording.open("w", newline="") as stream:
        csv.writer(stream).writerows([tiny_model.CHANNELS, *rows.tolist()])
    done = harness("run", slow, recording, "--board", "mps2-an386", "--out", out)
    assert done.returncode == 0, done.stderr
    wanted = replayed(slow, recording, tmp_path / "replay.csv")
    assert out.read_bytes() == wanted and b"RECURRING" in wanted


def test_the_uart_gives_the_file_of_replay(
    tiny_bundle: Path, recording: Path, tmp_path: Path, cross_tools: None
) -> None:
    out = tmp_path / "board.csv"
    words = ["--board", "mps2-an386", "--transport", "uart", "--out", out]
    done = harness("run", tiny_bundle, recording, *words)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == replayed(tiny_bundle, recording, tmp_path / "replay.csv")
    refused(harness("run", tiny_bundle, recording, *words), "board.csv", "--force")


def test_the_traces_are_those_of_the_golden_vectors(any_replay: Built) -> None:
    golden = any_replay.packed.bundle.arrays("golden.npz")
    threshold = (float(golden["threshold"][0]), float(golden["threshold"][1]))
    found = semihosting.replay(any_replay, golden["rows"], threshold, traces=True)
    assert found.traces is not None
    for name in ("forecast", "gate", "state", "parts"):
        np.testing.assert_array_equal(found.traces[name], golden[name])
    np.testing.assert_array_equal(found.traces["mask"] > 0, golden["mask"])
    np.testing.assert_array_equal(found.records["tier"], golden["tier"])


@pytest.mark.firmware
@pytest.mark.parametrize("board", [name for name in ALL if ALL[name] not in USUAL])
def test_every_other_board_gives_it_too(
    board: str, tiny_bundle: Path, recording: Path, tmp_path: Path, all_cross_tools: None
) -> None:
    out = tmp_path / "board.csv"
    done = harness("run", tiny_bundle, recording, "--board", board, "--out", out)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == replayed(tiny_bundle, recording, tmp_path / "replay.csv")


@pytest.mark.firmware
def test_a_board_that_can_only_replay_says_why(
    tiny_bundle: Path, recording: Path, tmp_path: Path, all_cross_tools: None
) -> None:
    only = "virt-rv32imc"
    built = harness("build", tiny_bundle, "--board", only, "--out", tmp_path / "build")
    assert built.returncode == 0 and "replay.elf" in built.stdout, built.stderr
    assert not (tmp_path / "build/firmware.elf").exists()
    why = (only, "only replays", "no watchdog")
    release = ["--release", "--out", tmp_path / "release"]
    refused(harness("build", tiny_bundle, "--board", only, *release), *why)
    assert not (tmp_path / "release").exists()
    uart = ["--transport", "uart", "--out", tmp_path / "records.csv"]
    refused(harness("run", tiny_bundle, recording, "--board", only, *uart), *why)
    assert not (tmp_path / "records.csv").exists()
    for command in ("watchdog", "faults"):
        words = ("--board", M4.name, "--board", only)
        refused(harness(command, tiny_bundle, recording, *words), *why)


@pytest.mark.firmware
def test_a_release_has_no_way_in_for_faults(
    tiny_bundle: Path, tmp_path: Path, cross_tools: None
) -> None:
    out = tmp_path / "release"
    words = ["--board", "mps2-an386", "--release", "--out", out]
    done = harness("build", tiny_bundle, *words)
    assert done.returncode == 0 and "bytes of flash" in done.stdout, done.stderr
    symbols = toolchain.call("arm-none-eabi-nm", [out / "firmware.elf"], out)
    assert "engine_step" in symbols and "malloc" not in symbols
    assert "inject" not in symbols and "store" not in symbols
    assert not (out / "replay.elf").exists()
    assert harness("build", tiny_bundle, *words).returncode == 0, "a former build is replaced"


@pytest.mark.firmware
def test_without_a_folder_it_is_built_below_build(
    tiny_bundle: Path, tmp_path: Path, cross_tools: None
) -> None:
    known = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = harness("build", tiny_bundle, "--board", "mps2-an386", cwd=tmp_path, env=known)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "build/firmware/tiny-mps2-an386/firmware.elf").is_file()


def test_a_folder_of_somebody_else_is_left_alone(
    tiny_bundle: Path, tmp_path: Path, cross_tools: None
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    done = harness("build", tiny_bundle, "--board", "mps2-an386", "--out", tmp_path)
    refused(done, str(tmp_path), "not ours")
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_missing_tool_is_named_with_its_package(tiny_bundle: Path, tmp_path: Path) -> None:
    done = harness(
        "build", tiny_bundle, "--board", "mps2-an386", "--out", tmp_path / "out",
        env={**os.environ, "PATH": str(tmp_path)},
    )  # fmt: skip
    refused(done, "arm-none-eabi-gcc", "apt install gcc-arm-none-eabi")
    assert not (tmp_path / "out").exists()


def test_a_missing_emulator_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setpriv = shutil.which("setpriv")
    assert setpriv
    (tmp_path / "setpriv").symlink_to(setpriv)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GruardError, match="apt install qemu-system-arm"):
        run_to_end(M4, Path("image"), [], Path(), 1)


def test_an_image_that_does_not_end_is_killed(m4: Built, tmp_path: Path) -> None:
    # The firmware waits for its UART, which is connected to nothing, for ever.
    with pytest.raises(GruardError, match=r"firmware\.elf on mps2-an386: not finished within 1 s"):
        run_to_end(M4, m4.firmware, ["-serial", "none"], tmp_path, 1)


def killed_while_a_board_runs(built: Built, plug: int) -> None:
    with running(built, plugs=[plug]):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_board_does_not_outlive_a_harness_that_is_killed(m4: Built) -> None:
    ours, theirs = os.pipe()
    fork = multiprocessing.get_context("fork")
    killed = fork.Process(target=killed_while_a_board_runs, args=(m4, theirs))
    killed.start()
    killed.join(60)
    os.close(theirs)
    assert killed.exitcode == -signal.SIGKILL
    ended, _, _ = select.select([ours], [], [], 10)
    assert ended and os.read(ours, 1) == b"", "the emulator still holds its end"
    os.close(ours)


def test_a_damaged_bundle_is_refused_by_the_replay(
    tiny_bundle: Path, tmp_path: Path, cross_tools: None
) -> None:
    found = packed(tiny_bundle, M4)
    harmed = bytearray(found.blob)
    harmed[len(harmed) // 2] ^= 1
    built = build(replace(found, blob=bytes(harmed)), M4, tmp_path / "build")
    with pytest.raises(GruardError, match="refused: damaged"):
        semihosting.replay(built, tiny_model.machine_rows(3, 1), (1.0, 1.0))
