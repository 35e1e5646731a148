"""A step, engine beside engine: each can be run, and the ratios are those of the medians."""

import shutil
from pathlib import Path

import pytest

from benchmarks import step
from benchmarks.runtime import rows_of
from benchmarks.step import (
    Engine,
    Size,
    detector_engines,
    macs_a_second,
    measured,
    network_engines,
    report,
)
from convert.audit.operators import audit
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.kernels import KERNEL_ID
from firmware_harness.cost import macs

pytest.importorskip("edge_runtime.native._core", reason="the native engine is not built")


def test_every_engine_of_a_bundle_runs(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "ROUNDS", 1)
    monkeypatch.setattr(step, "SECONDS", 1e-4)
    bundle = read_bundle(tiny_bundle)
    engines = [*detector_engines(bundle, rows_of(bundle, 50)), *network_engines(bundle)]
    times = measured(engines)
    assert {("detector", "core-c, block"), ("network", KERNEL_ID)} <= set(times)
    assert len(times) == len(engines) and min(times.values()) > 0


def test_a_median_is_of_all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []
    monkeypatch.setattr(step, "ROUNDS", 5)
    times = measured([Engine("made", "network", rounds.append)])
    assert list(times) == [("network", "made")]
    assert rounds[:2] == [1, 1] and len(rounds) == 2 + 5 and len(set(rounds[2:])) == 1


def test_macs_are_those_of_the_audit(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert macs(bundle) == audit(bundle.model, bundle.graph).totals.macs


def test_the_ratios_by_hand() -> None:
    times = {
        ("detector", "core-c, block"): 2.0,
        ("network", "core-c"): 1.0,
        ("network", KERNEL_ID): 20.0,
    }
    text = report([Size(64, 20_000, 0.25, times)], 8e10)
    assert "80 G int8 multiply-accumulates a second" in text
    assert f"| {KERNEL_ID}'s network over core-c's | 20.0 |" in text
    assert f"| {KERNEL_ID}'s network over core-c's whole detector, block | 10.0 |" in text
    assert "| core-c's network over the int8 limit | 4.0 |" in text


@pytest.mark.skipif(not shutil.which("cc"), reason="NOT TESTED: apt install gcc")
def test_the_processors_limit_is_a_believable_number(tmp_path: Path) -> None:
    assert 1e8 < macs_a_second(tmp_path) < 1e13
