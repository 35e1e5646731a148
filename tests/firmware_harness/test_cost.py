"""Counted instructions: they add up, repeat, and a board's own kernel takes fewer of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.errors import GruardError
from edge_runtime.native.engine import NativeDetector
from firmware_harness.__main__ import cli
from firmware_harness.cost import SUBJECTS, Cost, cost_text, macs, measure

BY_NAME = {subject.name: subject for subject in SUBJECTS}


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, cross_tools: None) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def found(bundle: Bundle) -> dict[str, Cost]:
    rows = bundle.arrays("golden.npz")["rows"][:40]
    return {name: measure(bundle, subject, rows) for name, subject in BY_NAME.items()}


@pytest.mark.firmware
def test_the_parts_make_the_step(found: dict[str, Cost]) -> None:
    for cost in found.values():
        assert sum(cost.parts.values()) == pytest.approx(cost.step, rel=0.05)
        operators = sum(cost.operators.values())
        assert operators == pytest.approx(cost.parts["network"], rel=0.25)
        assert cost.largest >= cost.step and cost.stack > 0 and cost.memory > 0


@pytest.mark.firmware
def test_a_boards_own_kernel_takes_fewer(found: dict[str, Cost]) -> None:
    for board, own in (("Cortex-M4", "SMLAD"), ("Cortex-M55", "MVE")):
        portable, fast = found[f"{board}, portable C"], found[f"{board}, {own}"]
        assert fast.parts["network"] < 0.7 * portable.parts["network"]


@pytest.mark.firmware
def test_counts_repeat_exactly(bundle: Bundle, found: dict[str, Cost]) -> None:
    rows = bundle.arrays("golden.npz")["rows"][:40]
    name = "Cortex-M4, SMLAD"
    assert measure(bundle, BY_NAME[name], rows) == found[name]


@pytest.mark.firmware
def test_the_usual_step_is_one_without_an_alarm(bundle: Bundle) -> None:
    # An alarm lasts as its cause does where no change is told.
    bundle = replace(bundle, manifest=replace(bundle.manifest, change=None))
    rows = bundle.arrays("golden.npz")["rows"]
    alarms = NativeDetector(bundle).run(rows)["alarm"] > 0
    first = int(np.argmax(alarms))
    strange = rows[first : first + int(np.argmin(alarms[first:]))]
    rows = np.concatenate([rows[:first], np.tile(strange, (2 * first // len(strange), 1))])
    alarms = NativeDetector(bundle).run(rows)["alarm"] > 0
    assert alarms[first:].all() and first < len(rows) / 2, "most rows are one alarm"
    subject = BY_NAME["Cortex-M4, SMLAD"]
    quiet, mostly = measure(bundle, subject, rows[:first]), measure(bundle, subject, rows)
    assert (mostly.step, mostly.parts) == (quiet.step, quiet.parts)
    assert mostly.largest > quiet.largest


@pytest.mark.firmware
def test_the_text_names_every_figure(bundle: Bundle, found: dict[str, Cost]) -> None:
    text = cost_text(found, macs(bundle))
    for name, cost in found.items():
        assert name in text and f"{cost.step:,} instructions" in text
        assert f"{cost.memory:,} of state" in text


def test_a_bundle_that_is_none_is_an_error() -> None:
    result = CliRunner().invoke(cli, ["cost", "nowhere.gruard"])
    assert result.exit_code != 0


def test_a_step_that_outlasts_the_clock_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firmware_harness.cost.ROUND", 1 << 10)
    with pytest.raises(GruardError, match="whose clock would wrap around; at most"):
        measure(bundle, SUBJECTS[0], bundle.arrays("golden.npz")["rows"][:1])
