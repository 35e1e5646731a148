"""`gruard run` as a user meets it: real processes, pipes, signals and exit codes."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from gruard_command import (
    ENVIRONMENT,
    PATIENCE,
    ROOT,
    ROWS,
    ask,
    command,
    gruard,
    indices,
    plain_error,
    real_gruard,
    start,
)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    return str(path)


def test_file_to_stdout(rows: str) -> None:
    done = gruard("run", "x.gruard", "--source", rows)
    assert done.returncode == 0 and indices(done.stdout) == list(range(20))
    assert {json.loads(line)["tier"] for line in done.stdout.splitlines()} == {1}
    assert "model loaded" in done.stderr and "records      20" in done.stderr


@pytest.mark.long
def test_file_to_file_and_never_over_it(rows: str, tmp_path: Path) -> None:
    sink = tmp_path / "out.jsonl"
    arguments = ("run", "x.gruard", "--source", rows, "--sink", str(sink))
    assert gruard(*arguments).returncode == 0
    assert indices(sink.read_text()) == list(range(20))
    again = gruard(*arguments)
    assert again.returncode == 2 and "--force" in again.stderr
    assert gruard(*arguments, "--force").returncode == 0
    assert gruard(*arguments, "--append").returncode == 0
    assert indices(sink.read_text()) == [*range(20), *range(20)]
    both = gruard(*arguments, "--append", "--force")
    assert both.returncode == 2 and "leave one out" in both.stderr


def test_json_summary_is_the_last_line_of_stderr(rows: str) -> None:
    done = gruard("run", "x.gruard", "--source", rows, "--json", "--inject", "nan:b@3+2,crash@9")
    summary = json.loads(done.stderr.splitlines()[-1])
    assert summary["records"] == 20 and summary["tiers"] == {"1": 9, "2": 0, "3": 11}
    assert summary["restarts"] == 1 and summary["dropped"] == 0
    assert "injected nan:b@3+2" in done.stderr


def test_stdin_is_answered_row_by_row() -> None:
    with start("run", "x.gruard", "--source", "-") as process:
        ask(process, b"a,b\n")
        for row in range(5):
            answer = json.loads(ask(process, b"%d,oops\n" % row))
            assert answer["index"] == row and answer["tier"] == 1
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and b"5 cells" in stderr


def test_a_reader_that_leaves_ends_the_run_quietly() -> None:
    with start("run", "x.gruard", "--source", "-") as process:
        ask(process, b"a,b\n")
        ask(process, b"1,2\n")
        process.stdout.close()
        process.stdin.write(b"1,2\n")
        process.stdin.flush()
        stderr = process.stderr.read()
        assert process.wait(PATIENCE) == 0
        # Whether the second record was on its way already is a matter of luck.
        assert b"Traceback" not in stderr and b"not written  0" in stderr


@pytest.mark.parametrize("to_stdout", [True, False])
def test_a_full_disk_does_not_stop_the_run_but_is_told(rows: str, to_stdout: bool) -> None:
    with Path("/dev/full").open("w") as full:
        sink = ("-",) if to_stdout else ("/dev/full", "--force")
        stdout = full.fileno() if to_stdout else subprocess.PIPE
        done = gruard("run", "x.gruard", "--source", rows, "--sink", *sink, stdout=stdout)
    assert done.returncode == 1 and "not written  20" in done.stderr
    assert "Traceback" not in done.stderr


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_end(pidfd: int) -> bool:
    ended = select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)
    return bool(ended)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGKILL, -9)],
)
@pytest.mark.parametrize("plan", ["none@0", pytest.param("hang@1", marks=pytest.mark.long)])
def test_no_signal_leaves_a_worker_behind(number: signal.Signals, code: int, plan: str) -> None:
    with start("run", "x.gruard", "--source", "-", plan=plan) as process:
        ask(process, b"a,b\n")
        ask(process, b"1,2\n")
        (worker,) = children(process.pid)
        watch = os.pidfd_open(worker)
        if plan != "none@0":  # the supervisor waits for an answer while the worker hangs
            process.stdin.write(b"1,2\n")
            process.stdin.flush()
            assert any(line == b"hanging\n" for line in process.stderr)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == code
        assert wait_for_end(watch)
        assert b"Traceback" not in stderr
        assert (b"records " in stderr) == (number != signal.SIGKILL)


def test_a_closed_terminal_ends_the_run_and_one_under_nohup_goes_on() -> None:
    """The whole group gets SIGHUP, the run twice, as from a terminal and its shell."""
    for ignored in (False, True):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        try:
            process = subprocess.Popen(
                command("run", "x.gruard", "--source", "-"), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT,
                start_new_session=True,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGHUP, before)
        with process:
            ask(process, b"a,b\n")
            ask(process, b"1,2\n")
            os.killpg(process.pid, signal.SIGHUP)
            process.send_signal(signal.SIGHUP)
            if ignored:
                assert json.loads(ask(process, b"1,2\n"))["tier"] == 1
            _, stderr = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0 and b"Traceback" not in stderr
            assert b"records      2" in stderr if ignored else b"records      1" in stderr
            assert b"restarts     0" in stderr


def test_a_missing_channel_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    sink = tmp_path / "out.jsonl"
    done = gruard("run", "x", "--source", "-", "--sink", str(sink), stdin="a,c\n1,2\n")
    assert "missing channels: b" in plain_error(done)
    assert not sink.exists()


def test_a_run_that_would_read_its_own_records_is_refused() -> None:
    done = gruard("run", "x", "--source", "mqtt://h/t/+", "--sink", "-", "--sink", "mqtt://h/t")
    assert "--source mqtt://h/t/+ would read what --sink mqtt://h/t publishes" in plain_error(done)


def test_a_wrong_injection_is_refused(rows: str) -> None:
    done = gruard("run", "x", "--source", rows, "--inject", "nan:c@1+1")
    assert "the channels are a, b" in plain_error(done)


@pytest.mark.long
@pytest.mark.parametrize("flood", ["yes ''", "cat /dev/zero"])
def test_a_flood_without_readings_is_silence(flood: str) -> None:
    """Blank lines, or a line without end: the records go on."""
    with subprocess.Popen(
        ["sh", "-c", f"echo a,b; echo 1,2; exec {flood}"], stdout=subprocess.PIPE
    ) as source:
        done = subprocess.Popen(
            command("run", "x.gruard", "--source", "-"), stdin=source.stdout,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=ENVIRONMENT | {"FAKE_PERIOD": "0.1"},
        )  # fmt: skip
        with done:
            assert done.stdout
            found = [json.loads(done.stdout.readline()) for _ in range(12)]
            done.terminate()
            stderr = done.communicate(timeout=PATIENCE)[1]
        source.kill()
    assert [record["index"] for record in found] == list(range(12)) and done.returncode == 0
    assert len(stderr.splitlines()) < 30  # the log is not flooded


def test_a_named_pipe_is_a_live_source(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with start("run", "x.gruard", "--source", str(path)) as process:
        with path.open("wb", buffering=0) as pipe:  # waits for the reader
            pipe.write(b"a,b\n1,2\n")
            assert process.stdout and select.select([process.stdout], [], [], PATIENCE)[0]
            assert json.loads(process.stdout.readline())["tier"] == 1
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and b"records      1" in stderr


def test_a_missing_source_is_refused() -> None:
    assert "no such file" in plain_error(gruard("run", "x", "--source", "/no/such.csv"))


def test_a_missing_bundle_is_refused() -> None:
    assert "no such bundle" in plain_error(real_gruard("run", "/no.gruard", "--source", "-"))


def test_a_kernel_without_a_threshold_is_refused_and_not_started_again_and_again(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / tiny_bundle.name)
    words = ("run", str(bundle), "--source", "-", "--kernel", "tflite-xnnpack")
    told = plain_error(real_gruard(*words))
    assert "no threshold for kernel tflite-xnnpack; calibrate it on this machine" in told


def test_usage_errors_exit_with_2() -> None:
    assert real_gruard("run").returncode == 2
    assert real_gruard("run", "x", "--source", "-", "--rate", "0").returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["status", "--help"], ["top", "--help"], ["--version"]],
)
def test_help_answers(arguments: list[str]) -> None:
    done = real_gruard(*arguments)
    assert done.returncode == 0 and "gruard" in done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, edge_runtime.commands.main; print({'numpy', 'subprocess'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE
    )
    assert done.stdout == "set()\n"
