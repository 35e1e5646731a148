"""The room of the fleet: nothing below it imports it, and it says what is not installed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BELOW = ("edge_runtime", "train", "convert", "firmware_harness")
WITHOUT_DASK = """
import sys
sys.modules["distributed"] = None
from fleet.__main__ import main
main()
"""


def imported(file: Path) -> set[str]:
    """First parts of the modules that `file` imports, at any depth."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("room", BELOW)
def test_nothing_below_imports_the_fleet(room: str) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files and not [file for file in files if "fleet" in imported(file)]


def test_the_fleet_imports_nothing_beside_or_above_it() -> None:
    seen = set().union(*map(imported, (ROOT / "fleet").rglob("*.py")))
    assert {"edge_runtime", "train"} <= seen
    assert not seen & {"firmware_harness", "benchmarks", "tests", "tensorflow"}


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    for words in (["train", str(tmp_path), "--out", str(tmp_path / "f")], ["compare", "a", "b"]):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_DASK, *words],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "distributed" in done.stderr and "pip install -c constraints.txt" in done.stderr
    helped = subprocess.run(
        [sys.executable, "-c", WITHOUT_DASK, "train", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "FLEET/report.html" in helped.stdout
