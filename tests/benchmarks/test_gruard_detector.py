"""gruard in the benchmark: what it is given, and one whole run of the fastest variant."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from benchmarks import series as sources
from benchmarks.gruard_detector import VARIANTS, GruardDetector, write_series
from benchmarks.judge import judge
from edge_runtime.learning.recording import Recording, read_recordings
from edge_runtime.learning.settings import find_settings, load_settings

PERIOD, EVENT = 60.0, slice(300, 340)


@pytest.fixture
def machine() -> sources.Series:
    """Three channels, of which the first is an input; two recordings with a missing reading."""
    rng = np.random.default_rng(0)
    time = np.arange(1200)
    drive = np.sin(time / 11)
    follows = np.stack([drive, 3 * drive, 20 - drive], axis=1) + 0.05 * rng.normal(size=(1200, 3))
    clean = follows[:800].astype(np.float32)
    clean[100, 1] = np.nan
    values, labels = follows[800:].astype(np.float32), np.zeros(400, np.int8)
    values[EVENT, 1:] += 5
    labels[EVENT] = 1
    names = ("drive", "left", "right")
    train = tuple(Recording("clean", names, None, p, None, PERIOD) for p in np.split(clean, [300]))
    test = sources.TestRecording("faulty", values, labels)
    return sources.Series("asd/machine", train, (test,), ("drive",), PERIOD)


def test_it_is_given_what_a_user_has(machine: sources.Series, tmp_path: Path) -> None:
    folder = write_series(machine, tmp_path / "data")
    dataset = read_recordings([folder], PERIOD)
    for found, given in zip(dataset.recordings, machine.train, strict=True):
        np.testing.assert_array_equal(found.values, given.values)
        assert found.labels is None
    settings = load_settings(find_settings(folder), dataset.channels)
    assert settings.period == PERIOD
    assert [settings.channels[name].exogenous for name in machine.channels] == [True, False, False]


def test_variants_change_what_exists() -> None:
    from train.cell_config import CellConfig
    from train.training_request import TrainingRequest

    for name, variant in VARIANTS.items():
        assert GruardDetector(name).name == f"gruard-{name}"
        assert set(variant.cell) <= {f.name for f in fields(CellConfig)}
        assert set(variant.request) <= {f.name for f in fields(TrainingRequest)}


def test_the_linear_variant_from_files_to_figures(machine: sources.Series, tmp_path: Path) -> None:
    outcomes = GruardDetector("linear").run(machine, 0, tmp_path)
    assert list(outcomes) == ["gruard-linear"]
    figures = judge(machine, outcomes["gruard-linear"])
    assert figures["vus_pr"] is not None and figures["vus_pr"] > 0.5
    assert figures["event_recall"] == 1.0
    assert figures["bytes"] == 4 * outcomes["gruard-linear"].parameters
