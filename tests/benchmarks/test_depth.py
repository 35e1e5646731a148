"""The depth benchmark: which networks there are, and how verdicts are told."""

from dataclasses import fields

import pytest

from benchmarks.accuracy_report import Result
from benchmarks.depth import tables, verdict
from benchmarks.depth_subject import DEPTHS, FAILED
from train.cell import weight_shapes
from train.cell_config import CellConfig

COSTS = {"parameters": 9.0, "model_bytes": 1234.0, "training_seconds": 1.0,
         "conversion_seconds": 2.0, "injected_precision": 0.5, "vus_pr": 0.75}  # fmt: skip
STATE, GATE = f"{FAILED}state, RMS", f"{FAILED}gate, max"


def result(seed: int, passed: bool, **failed: float | None) -> Result:
    return Result("gru-2", "asd/one", seed, {**COSTS, "passed": float(passed), **failed})


def test_every_depth_is_another_network() -> None:
    assert all(set(sizes) <= {f.name for f in fields(CellConfig)} for sizes in DEPTHS.values())
    shapes = [weight_shapes(CellConfig(channels=3, **sizes)) for sizes in DEPTHS.values()]
    assert all(shapes.count(shape) == 1 for shape in shapes)
    assert DEPTHS["default"] == {}


def test_a_verdict_names_what_failed() -> None:
    assert verdict([result(0, True)], "gru-2") == "passed"
    assert verdict([result(0, False, **{STATE: 0.0712})], "gru-2") == "failed: state, RMS 0.0712"
    assert verdict([result(0, False, **{STATE: None})], "gru-2") == "failed: state, RMS –"


def test_seeds_are_told_together() -> None:
    several = [
        result(0, True),
        result(1, False, **{STATE: 0.07, GATE: 0.2}),
        result(2, False, **{STATE: 0.09, GATE: -0.5}),
    ]
    wanted = "1 of 3 passed; gate, max -0.5; state, RMS 0.09"
    assert verdict(several, "gru-2") == wanted
    assert verdict(several, "default") == "passed"


def test_a_table_for_each_series() -> None:
    text = tables([result(0, True)])
    assert text.startswith("### asd/one\n")
    assert "| gru-2 | 9 | 1,234 | 1 | 2 | 0.500 | 0.750 | passed |" in text
    with pytest.raises(KeyError):
        tables([Result("gru-2", "asd/one", 0, {"passed": 1.0})])
