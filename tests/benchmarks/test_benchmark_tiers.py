"""The limit of a shut gate: what a short one forgets, and how soon a detector is back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import tiers
from benchmarks.gruard_detector import GruardDetector, silent
from benchmarks.series import Series, catalogue
from benchmarks.tiers import CALM, Patience, recovered, table
from convert.rollout import Rollout, roll
from edge_runtime.detector.step import Model
from edge_runtime.record import Flag, Record

NONE = Flag(0)


def record(tier: int = 1, flags: Flag = NONE) -> Record:
    return Record(
        index=0, time=None, tier=tier, flags=flags, valid=True, score=0.0, threshold=1.0,
        alarm=False, masked=(), imputed=(), blamed=(), model="",
    )  # fmt: skip


def test_back_is_the_first_long_stretch_of_tier_1() -> None:
    good, shut, free = record(), record(flags=Flag.IMPUTED), record(tier=2)
    assert recovered([good] * CALM) == 0
    assert recovered([*[shut] * 30, *[good] * (CALM - 1), free, *[good] * CALM]) == 30 + CALM
    assert recovered([*[good] * (CALM - 1), shut]) is None
    assert recovered([]) is None


def test_the_table_by_hand() -> None:
    found = [
        Patience("simulator/0", 48, 0.5, 0.6, (50, 60, 70), 40),
        Patience("simulator/1", 48, 0.7, 0.8, (10, 20, 30), 56),
        Patience("simulator/0", 5000, 0.9, 1.0, (None, None, 20), 40),
    ]
    lines = table(found).splitlines()
    assert lines[2] == "| 48 | 0.600 | 0.700 | 40 | 70 | 56 |"
    assert lines[3] == "| 5,000 | 0.900 | 1.000 | never | never | 40 |"


@pytest.mark.parametrize("limits", ["", "48,x", "0", "48,-1"])
def test_limits_that_are_none(limits: str) -> None:
    result = CliRunner().invoke(tiers.main, ["--limits", limits])
    assert result.exit_code == 2 and "limit" in result.output


def short(series: Series) -> Series:
    """The beginning of the recordings, with one fault in the labelled one."""
    (clean,), (test,) = series.train, series.tests
    clean = replace(clean, values=clean.values[:2000])
    test = replace(test, values=test.values[:1200], labels=test.labels[:1200])
    assert test.labels.any()
    return replace(series, train=(clean,), tests=(test,))


def test_the_limit_reaches_the_runtime_and_the_shift_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, rows in {"BEFORE": 100, "SHIFTED": 150, "AFTER": 250}.items():
        monkeypatch.setattr(tiers, name, rows)
    pump = short(catalogue(Path("nowhere"), Path("nowhere"), True, silent)["simulator/0"]())
    made = GruardDetector("linear").make(pump, 0, tmp_path)
    rolled: list[tuple[int, np.ndarray]] = []

    def spy(model: Model, rows: np.ndarray) -> Rollout:
        rolled.append((model.manifest.tiers.closed_limit, rows))
        return roll(model, rows)

    monkeypatch.setattr("convert.rollout.roll", spy)
    judged = tiers.judged(pump, made.manifest, made.model, 77)
    assert {limit for limit, _ in rolled} == {77}
    watched = np.flatnonzero(pump.scored)
    assert len(judged.lone) == len(watched) and judged.every is not None
    # The labelled rows, then one channel after the other, then all of them.
    healthy = pump.train[-1].values[-len(rolled[1][1]) :]
    for (_, rows), channels in zip(rolled[1:], [*watched[:, np.newaxis], watched], strict=True):
        moved = rows != healthy
        assert moved[100:250, channels].all()
        assert np.count_nonzero(moved) == 150 * len(channels)


def test_the_command_prints_json(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Patience("simulator/0", 48, 0.5, 0.6, (50, None), 40)
    monkeypatch.setattr(tiers, "measure", lambda *_: [one])
    result = CliRunner().invoke(tiers.main, ["--machines", "1", "--json"])
    assert result.exit_code == 0
    stored = json.loads(result.stdout)
    assert stored == [{**vars(one), "lone": [50, None]}]
