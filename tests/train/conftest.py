"""A run folder, and commands run for real.

They run in this process where only their words matter, in their own otherwise.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny_model

if TYPE_CHECKING:
    from edge_runtime.learning.run import Run

ROOT = Path(__file__).resolve().parents[2]

# A file may not grow beyond the limit: what a full disk does, for one process only.
STARVED = """
import resource, runpy, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv = sys.argv[2:]
{action}
"""


@pytest.fixture(scope="session")
def tiny_run(once: Callable[[str, Callable[[Path], object]], Path]) -> "Run":
    """A finished run folder on disk (see `tiny_model`), read back. Treat it as read-only."""
    from train.run_folder import read_run

    return read_run(once("tiny", lambda folder: tiny_model.write_run(folder / "run")) / "run")


@pytest.fixture
def train_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run `python -m train ARGS`, which must end with exit code 2 and a line for the user.

    problems: lines that there may be at most.

    It ends before TensorFlow is loaded.
    """
    from train.__main__ import main

    def run(*arguments: object, problems: int = 1) -> str:
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        assert len(lines) <= problems and lines[0].startswith("train: ")
        return "\n".join(lines)

    return run


@pytest.fixture
def on_a_full_disk() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code with arguments in a process whose files cannot grow beyond `limit` bytes."""

    def run(limit: int, action: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        code = STARVED.format(action=action)
        command = [sys.executable, "-c", code, str(limit), "starved", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    return run
