"""The study of verdicts: its headings are the checks' limits, its rows say how each one ended."""

import re
from dataclasses import replace

import pytest
from fake_detectors import tiny_series

from benchmarks.accuracy_report import Result
from benchmarks.depth_subject import FAILED
from benchmarks.verdict_subject import ON, as_auto, figures_of, rows_of
from benchmarks.verdicts import CHECKS, tables
from convert.checks.check import Check
from convert.convert_run import Conversion
from convert.validate import Verdict
from train.run_folder import Run

GATE = "one step: gate, max"
FACTS = {"channels": 3.0, "rows": 1200.0, "taken": 0.0, "gru_layers": 1.0, "gru_units": 8.0,
         "model_bytes": 1234.0, "assured": 0.0, "days_needed": 3.04, "passed": 1.0,
         "held_out_alarms": 2.0, "held_out_days": 2.512,
         "faults: events": 20.0, "faults: int8 finds": 18.0,
         "faults: float finds": 19.0}  # fmt: skip
LINEAR = {"model_bytes": 0.0, "gru_layers": 0.0, "taken": 1.0, "assured": 1.0}


@pytest.mark.slow
def test_every_heading_tells_the_limits_of_its_check(good_run: Run, conversion: Conversion) -> None:
    checks = {check.name: check for check in conversion.verdict.checks}
    for column in CHECKS:
        check = checks[column.figure]
        limits = [float(number) for number in re.findall(r"[\d.]+", column.heading)]
        assert limits and set(limits) <= {check.low, check.high}, column
    rows = rows_of("gated", conversion, good_run, True)
    assert len(rows) == 1 + len(conversion.proof.others)
    assert rows["gated"]["channels"] == 3.0 and rows["gated"]["rows"] == 1200.0
    assert "| asd/one | 3 | 1,200 | gated, 1 × 8 |" in tables(
        [Result(row, "asd/one", 0, figures) for row, figures in rows.items()]
    )


def test_figures_name_what_failed() -> None:
    checks = (Check(GATE, 0.2, 0, 0.06, ""), Check("kappa", float("nan"), 0.97, 1, ""))
    assert figures_of(Verdict("some-kernel", checks)) == {
        "passed": 0.0, GATE: 0.2, FAILED + GATE: 0.2, "kappa": None, f"{FAILED}kappa": None,
    }  # fmt: skip


def test_a_row_for_each_model_and_a_sentence_for_each_further_kernel() -> None:
    failed = {"passed": 0.0, GATE: 0.088, FAILED + GATE: 0.088}
    text = tables(
        [
            Result("gated", "asd/one", 0, FACTS | {GATE: 0.0312}),
            Result(f"gated{ON}other", "asd/one", 0, FACTS | failed),
            Result("linear", "asd/one", 0, FACTS | LINEAR),
        ]
    )
    network = "| asd/one | 3 | 1,200 | gated, 1 × 8 (not taken) | 1,234 | 18 and 19 of 20 |"
    assert f"{network} 2 in 2.5 | 3.0 days more | passed |" in text
    assert "| asd/one | 3 | 1,200 | linear | – | – | 2 in 2.5 | assured | passed |" in text
    assert "| asd/one | 0.031 | – |" in text and text.count("| asd/one | 0.") == 1
    ending = "On other 0 of 1 networks pass; asd/one: failed: one step: gate, max 0.088."
    assert text.endswith(ending)


@pytest.mark.slow
def test_a_network_is_weighed_as_auto_weighs_it(tiny_run: Run) -> None:
    series = replace(tiny_series("asd/one"), exogenous=("a",))
    assert as_auto(tiny_run, series) == ("linear", tiny_run), "a single channel to watch"
