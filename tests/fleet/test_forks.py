"""The fork server: each job ends by itself, whatever it does, and the next one has a server."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from small_fleet import ends

from fleet.forks import LOG, ForkServer

Run = Callable[..., tuple[int | None, Path]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return `run(what, seconds)`, which gives the exit code of a job and its folder."""
    server, made = ForkServer("tests.fleet.forked_job"), iter(range(100))

    def job(what: str, seconds: float = 60.0) -> tuple[int | None, Path]:
        folder = tmp_path / f"job\n{next(made)}"
        folder.mkdir()
        (folder / "what").write_text(what)
        return server.run(folder, seconds), folder

    return job


def has_ended(folder: Path) -> bool:
    """Wait until the process that the job in `folder` has named has ended."""
    try:
        child = os.pidfd_open(int((folder / "child").read_text()))
    except ProcessLookupError:
        return True
    try:
        return ends(child)
    finally:
        os.close(child)


def test_one_server_runs_all_jobs_with_their_exit_code_and_output(run: Run) -> None:
    (good, first), (bad, second) = run("nothing"), run("raise")
    assert (good, bad) == (0, 1)
    assert (first / LOG).read_text() == ""
    assert (second / LOG).read_text().endswith("ValueError: boom\n")
    assert (first / "server").read_text() == (second / "server").read_text()


def test_a_job_that_hangs_is_killed_and_its_server_goes_on(run: Run) -> None:
    code, first = run("hang", 0.5)
    assert code is None
    code, second = run("nothing")
    assert code == 0 and (first / "server").read_text() == (second / "server").read_text()


def test_what_a_job_leaves_running_is_killed(run: Run) -> None:
    code, folder = run("leave a process")
    assert code == 0 and has_ended(folder)


def test_a_killed_server_costs_the_job_and_the_next_one_has_another(run: Run) -> None:
    code, first = run("kill the server")
    assert code == -signal.SIGKILL and has_ended(first)
    code, second = run("nothing")
    assert code == 0 and (first / "server").read_text() != (second / "server").read_text()
