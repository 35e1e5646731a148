"""The cost of watching, measured in small: every figure is there, and the report says which."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import runtime
from benchmarks.pages import markers
from benchmarks.runtime import Growth, Supervised, report
from edge_runtime.detector.kernels import CORE_KERNEL_ID, KERNEL_ID

pytest.importorskip("edge_runtime.native._core", reason="the native engine is not built")


def test_the_report_by_hand() -> None:
    steps = {"interpreter": 10.0, KERNEL_ID: 400.0, CORE_KERNEL_ID: 5.0}
    one = Supervised(2500.4, {100: 0.051, 1000: 0.4}, 0.512, 80.04, 49.96)
    text = report(steps, {KERNEL_ID: one, CORE_KERNEL_ID: one}, Growth(1_000_000, 75.0, 75.1))
    assert "the bare interpreter step takes 10.0 µs" in text
    assert "| times the bare interpreter step | 40.00 | 0.50 |" in text
    assert "| samples a second, supervised | 2500 | 2500 |" in text
    assert "| share of a core at 100 Hz, % | 5.1 | 5.1 |" in text
    assert "1,000,000 supervised samples" in text and "75.0 MB" in text and "75.1 MB" in text


@pytest.mark.long
def test_a_small_run_measures_everything(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"ROUNDS": 1, "EACH": 20, "FEW": 50, "MANY": 150, "TURNS": 1, "PACED_SECONDS": 1}
    for name, value in {**small, "STARTS": 1, "RATES": (50,), "LOOK_EVERY": 0.1}.items():
        monkeypatch.setattr(runtime, name, value)
    out = tmp_path / "cost.md"
    out.write_text("\n".join(markers("runtime")))
    arguments = [str(tiny_bundle), "--long", "3000", "--out", str(out)]
    result = CliRunner().invoke(runtime.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    lines = out.read_text().splitlines()
    assert sum(line.startswith("|") for line in lines) == 9
    assert "3,000 supervised samples" in lines[-3]
