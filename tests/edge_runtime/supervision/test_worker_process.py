"""The process handle and the real worker program, where no supervisor is needed."""

import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import faulty_worker
import numpy as np
import pytest

from edge_runtime.bundle.reader import proof_faults, read_bundle
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.supervision import wire
from edge_runtime.supervision.worker import Checkpoints, ProgressPage, serve
from edge_runtime.supervision.worker_process import (
    BundleIdentity,
    WorkerGoneError,
    WorkerProcess,
    worker_command,
)
from tests.apparatus.harm import flip_bit

PATIENT = 30.0
HELLO = wire.Hello("fake-kernel", 0.1, faulty_worker.DIGEST, faulty_worker.MODEL)


NOBODY = BundleIdentity("", "", frozenset(), lambda change: None)


def fake(plan: str) -> WorkerProcess:
    command = (sys.executable, faulty_worker.__file__, plan)
    return WorkerProcess(command, identity=faulty_worker.identity_of(plan))


def sample(index: int, width: int = 1) -> Sample:
    return Sample(index, None, np.zeros(width, np.float32))


def test_an_unusable_bundle_is_the_workers_last_word(tmp_path: Path) -> None:
    process = WorkerProcess(
        worker_command(tmp_path / "none.gruard", allow_failed=True), identity=NOBODY
    )
    process.start()
    with pytest.raises(WorkerGoneError, match="no such bundle"):
        process.poll_ready(PATIENT)
    process.kill()


def test_the_worker_exits_with_3_when_it_cannot_load(tmp_path: Path) -> None:
    command = worker_command(tmp_path / "none.gruard")
    reading, writing = os.pipe()
    done = subprocess.run(
        [*command, "--request-fd", "0", "--reply-fd", str(writing), "--progress-fd", "0"],
        pass_fds=[writing],
        cwd=Path(__file__).parents[3],
        timeout=PATIENT,
    )
    os.close(writing)
    (message,) = wire.receive(reading)
    os.close(reading)
    assert done.returncode == 3 and isinstance(message, wire.Failure)


def asked(process: WorkerProcess, sample: Sample, timeout: float) -> Record | None:
    process.tell(sample)
    return process.answer(sample, timeout)


def test_the_way_it_ended_is_told() -> None:
    plans = (
        ("abort@0", "SIGABRT"),
        ("load:exit", "exit code 7"),
        ("load:record", "sent Record instead of its HELLO"),
        ("hello@0", "sent a Hello instead of an answer"),
    )
    for plan, text in plans:
        process = fake(plan)
        process.start()
        with pytest.raises(WorkerGoneError, match=text):
            process.poll_ready(PATIENT)
            asked(process, sample(0), PATIENT)
        process.kill()


def test_a_worker_that_said_why_ends_without_being_aborted(
    capfd: pytest.CaptureFixture[str],
) -> None:
    process = fake("load:fail")
    process.start()
    with pytest.raises(WorkerGoneError, match="self-test failed"):
        process.poll_ready(PATIENT)
    process.kill()
    assert process.pid is None and "Aborted" not in capfd.readouterr().err


def test_each_command_has_its_turn_and_the_last_one_stays() -> None:
    program = (sys.executable, faulty_worker.__file__)
    process = WorkerProcess(
        (*program, "load:exit"), (*program, "none@0"), identity=faulty_worker.identity_of("")
    )
    assert process.fall_back()
    for _ in range(2):
        process.start()
        assert process.poll_ready(PATIENT)
        process.stop()
        assert not process.fall_back()


def test_a_worker_refuses_what_is_no_request() -> None:
    reading, writing = os.pipe()
    wire.send(writing, HELLO)
    os.close(writing)
    detector = faulty_worker.FakeDetector({}, reading, reading)
    with pytest.raises(wire.WireError, match="Hello is not a request"):
        serve(detector, reading, reading, Checkpoints(ProgressPage().fd))
    os.close(reading)


def test_the_word_of_an_owner_without_a_lasting_change_asks_nothing_of_the_worker() -> None:
    process = fake("none@0")
    process.start()
    assert process.poll_ready(PATIENT) == HELLO
    process.accept(True)
    assert process.change is None
    answer = asked(process, sample(0), PATIENT)
    assert answer and not answer.flags & Flag.CHANGED
    process.stop()


def test_a_sample_larger_than_the_pipe_gets_through() -> None:
    process = fake("none@0")
    process.start()
    assert process.poll_ready(PATIENT) == HELLO
    for index in range(3):
        answer = asked(process, sample(index, width=100_000), PATIENT)
        assert answer and answer.index == index
    process.stop()


def test_a_worker_that_does_not_read_cannot_hang_its_supervisor() -> None:
    process = fake("hang@0")
    process.start()
    process.poll_ready(PATIENT)
    with pytest.raises(WorkerGoneError, match="does not read"):
        for index in range(10):
            assert asked(process, sample(index, width=100_000), 0.01) is None
    process.kill()


def test_nobody_can_be_asked_without_a_process() -> None:
    process = fake("none@0")
    for call in (process.poll_ready, lambda: process.send(wire.Reset())):
        with pytest.raises(WorkerGoneError, match="not running"):
            call()
    process.stop()
    process.kill()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_file_descriptor_is_leaked() -> None:
    before = open_files()
    for plan in ("none@0", "abort@0", "load:exit"):
        process = fake(plan)
        process.start()
        process.stop()
    missing = WorkerProcess(("/no/such/program",), identity=NOBODY)
    with pytest.raises(WorkerGoneError, match="could not be started"):
        missing.start()
    assert open_files() == before


@pytest.mark.parametrize("left", range(8))
def test_without_file_descriptors_a_start_fails_and_loses_none(left: int) -> None:
    """With so few left that some step of the start must fail, whichever it is."""
    process = fake("none@0")
    before, limits = open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free() + left, limits[1]))
    try:
        process.start()
    except WorkerGoneError as gone:
        assert "Too many open files" in str(gone)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        process.kill()
    assert open_files() == before


def lowest_free() -> int:
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    return fd


def test_descriptors_beyond_1024_do_not_matter() -> None:
    """`select` takes none of them, so a supervisor with many connections lost its worker."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1]))
    many = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    process = fake("none@0")
    try:
        process.start()
        assert process._reply_fd > 1024
        assert process.poll_ready(PATIENT) == HELLO
        answer = asked(process, sample(0), PATIENT)
        assert answer and answer.index == 0
    finally:
        process.stop()
        for fd in many:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_stream_of_bytes_that_is_no_message_does_not_prolong_a_deadline() -> None:
    """A worker that sends a long frame byte by byte is as silent as one that sends nothing."""
    process = fake("none@0")
    process.start()
    process.poll_ready(PATIENT)
    ours, theirs = os.pipe()
    process._reply_fd, real = ours, process._reply_fd
    now, drip = [0.0], iter(range(10_000))

    def clock() -> float:
        next(drip)  # fails rather than waits for ever
        os.write(theirs, b"\x11")  # the kind of a record; its length never comes to an end
        now[0] += 0.1
        return now[0]

    process._clock = clock
    process._frames.feed(struct.pack("<BII", 17, wire.MAX_PAYLOAD, 0))
    process.tell(sample(0))
    assert process.answer(sample(0), 1.0) is None and 1.0 < now[0] < 2.0
    for fd in (real, theirs):
        os.close(fd)
    process.kill()


@pytest.mark.parametrize("debug", [False, True])
def test_the_stack_of_a_worker_that_hangs_is_printed_for_debugging_only(
    debug: bool, tmp_path: Path
) -> None:
    command = worker_command(tmp_path / "none.gruard", debug=debug)
    assert ("--debug" in command) == debug
    code = (
        "import os, signal; from edge_runtime.supervision.worker import become_worker; "
        f"become_worker({debug}); os.kill(os.getpid(), signal.SIGABRT)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True
    )
    assert done.returncode == -6 and ("most recent call first" in done.stderr) == debug


def test_damage_in_a_file_that_no_run_needs_leaves_the_model(linear_copy: Path) -> None:
    """The supervisor warned of it at its start; a worker that refused it would end the model."""
    flip_bit(linear_copy / "report.html", 50)
    bundle = read_bundle(linear_copy, whole=False)
    assert proof_faults(bundle)
    process = WorkerProcess(worker_command(linear_copy), identity=BundleIdentity.of(bundle))
    process.start()
    try:
        assert process.poll_ready(PATIENT) is not None
    finally:
        process.kill()
