"""What a command says when the machine gives no more, or gruard itself is wrong: one line."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from edge_runtime.commands import main as command
from edge_runtime.errors import GruardError


def last_words(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[object, str]:
    """Exit code and stderr of a command that raises `error`."""

    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["gruard", "failing"])
    monkeypatch.setitem(command.gruard.commands, "failing", failing)
    with pytest.raises(SystemExit) as end:
        command.main()
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (GruardError("x.csv: no such file"), 2, "gruard: x.csv: no such file"),
        (MemoryError(), 2, "gruard: out of memory"),
        (OSError(28, "No space left on device"), 2, "room for the output"),
        (OSError(5, "Input/output error", "/x/y"), 2, "gruard: /x/y: Input/output error; fix"),
        (RuntimeError("can't start new thread"), 2, "TasksMax="),
        (RuntimeError("odd"), 70, "internal error: RuntimeError: odd (main.py line"),
        (click.Abort(), 130, ""),
    ],
)
def test_an_error_is_one_line(
    error: BaseException,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, text = last_words(error, monkeypatch, capsys)
    assert found == code and words in text and text.count("\n") == bool(words)


def test_a_full_disk_under_the_output_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edge_runtime", "list", "--store", str(tmp_path)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=os.environ,
        )  # fmt: skip
    assert (
        done.returncode == 2 and "No space left" in done.stderr and "Traceback" not in done.stderr
    )
