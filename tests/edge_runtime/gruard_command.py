"""`gruard` as a process, with a fake model or without: what it is asked and what it says."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

FAKE = str(Path(__file__).with_name("fake_gruard.py"))
ROOT = str(Path(__file__).parents[2])
ENVIRONMENT = {**os.environ, "PYTHONPATH": ROOT}
PATIENCE = 60  # seconds; only a failing test ever waits for them
ROWS = "time,a,b\n" + "".join(f"{row},{row % 7},1\n" for row in range(20))


def command(*arguments: str, plan: str = "none@0") -> list[str]:
    patient = ["--deadline", "30"] if "run" in arguments and "--help" not in arguments else []
    return [sys.executable, FAKE, plan, *arguments, *patient]


def gruard(
    *arguments: str, plan: str = "none@0", stdin: str = "", stdout: int = subprocess.PIPE
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments, plan=plan),
        input=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        timeout=PATIENCE,
    )


def start(*arguments: str, plan: str = "none@0") -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command(*arguments, plan=plan), stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT
    )


def ask(process: "subprocess.Popen[bytes]", line: bytes) -> bytes:
    """One line in, one line out; fails rather than waits for ever."""
    assert process.stdin and process.stdout
    process.stdin.write(line)
    process.stdin.flush()
    if not line.startswith(b"a,b"):
        assert select.select([process.stdout], [], [], PATIENCE)[0], "no answer"
        return process.stdout.readline()
    return b""


def indices(text: str) -> list[int]:
    return [json.loads(line)["index"] for line in text.splitlines()]


def real_gruard(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "edge_runtime", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE,
    )


def plain_error(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line a user sees, after checking that it is one."""
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("gruard: ")
    return line
