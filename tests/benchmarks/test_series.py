"""Sources on disk, in memory and missing; the open data itself where it is there."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import series as sources
from benchmarks.series import catalogue, group_of

NO_DATA = f"the open data is not in {sources.DATA.name}/ beside the checkout; nothing of it is read"


def write_csv(path: Path, header: str, rows: np.ndarray) -> None:
    """A CSV of the given numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(f"{value:g}" for value in row) for row in rows]
    path.write_text("\n".join([header, *lines]) + "\n")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder in which every source has a few rows."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    for server in sources.ASD_SERVERS:
        write_csv(folder / f"asd/omi-{server}.train.csv", "a,b", rng.normal(size=(20, 2)))
        labelled = np.column_stack([rng.normal(size=(10, 2)), np.arange(10) > 6])
        write_csv(folder / f"asd/omi-{server}.test.csv", "b,a,label", labelled)
    write_csv(folder / "tep/normal.train.csv", "x,y", rng.normal(size=(30, 2)))
    for fault in (0, *sources.TEP_FAULTS):
        write_csv(folder / f"tep/fault{fault:02d}.test.csv", "x,y", rng.normal(size=(200, 2)))
    for name in sources.NAB_PERIODS:
        values = np.column_stack([np.arange(1000), np.zeros(1000)])
        values[400:420, 1] = 1
        write_csv(
            folder / f"nab_temperature/{name}{sources.NAB_SUFFIX}", "temperature,label", values
        )
    return folder


@pytest.fixture
def watch(tmp_path: Path) -> Path:
    """A watch folder with a few rows for each person."""
    folder = tmp_path / "watch"
    for person in sources.WATCH_PEOPLE:
        write_csv(
            folder / f"PEN/person{person:02d}-right.csv", "time,ax", np.array([[0, 1], [1, 2]])
        )
    write_csv(folder / "demo.csv", "time,ax,label", np.array([[0, 1, 0], [0.02, 2, 1]]))
    return folder


def no_complaint(sentence: str) -> None:
    """For catalogues in which nothing may be missing."""
    pytest.fail(sentence)


def test_every_source_is_found(data: Path, watch: Path) -> None:
    found = catalogue(data, watch, quick=False, missing=no_complaint)
    groups = {group_of(name) for name in found}
    counts = {group: sum(group_of(name) == group for name in found) for group in groups}
    assert counts == {"asd": 12, "tep": 1, "nab": 2, "watch": 1, "simulator": 3}
    for name, load in found.items():
        if group_of(name) != "simulator":
            series = load()
            assert series.name == name
            assert series.group == group_of(name)
            assert all(recording.labels is None for recording in series.train)
            assert all(len(test.values) == len(test.labels) for test in series.tests)
            assert series.scored.all()


def test_channels_follow_the_training_recording(data: Path, watch: Path) -> None:
    series = catalogue(data, watch, quick=False, missing=no_complaint)["asd/omi-3"]()
    assert series.channels == ("a", "b")
    raw = np.genfromtxt(data / "asd/omi-3.test.csv", delimiter=",", skip_header=1)
    np.testing.assert_allclose(series.tests[0].values, raw[:, [1, 0]], rtol=1e-6)
    assert series.tests[0].labels.tolist() == [0] * 7 + [1] * 3


def test_faults_of_the_plant_start_at_their_row(data: Path, watch: Path) -> None:
    series = catalogue(data, watch, quick=False, missing=no_complaint)["tep/plant"]()
    assert [test.name for test in series.tests] == [f"fault{n:02d}" for n in range(22)]
    assert not series.tests[0].labels.any()
    for test in series.tests[1:]:
        assert np.flatnonzero(test.labels)[0] == 160
        assert test.labels[160:].all()


def test_one_labelled_file_is_cut_before_its_first_label(data: Path, watch: Path) -> None:
    series = catalogue(data, watch, quick=False, missing=no_complaint)["nab/ambient_temperature"]()
    assert series.train[0].rows == 400 - sources.NAB_MARGIN
    assert series.tests[0].labels.sum() == 20
    assert series.tests[0].values[0, 0] == 300
    assert series.period == 3600
    # At most half of the file, however late its first label comes.
    late = np.column_stack([np.arange(1000), np.arange(1000) >= 900])
    write_csv(
        data / f"nab_temperature/machine_temperature{sources.NAB_SUFFIX}", "temperature,label", late
    )
    series = catalogue(data, watch, quick=False, missing=no_complaint)["nab/machine_temperature"]()
    assert series.train[0].rows == 500


def test_a_missing_source_is_said_and_the_others_stay(data: Path, watch: Path) -> None:
    (data / "asd/omi-4.test.csv").unlink()
    (watch / "demo.csv").unlink()
    said: list[str] = []
    found = catalogue(data, watch, quick=False, missing=said.append)
    assert {"asd/omi-4", "watch/pendulum"}.isdisjoint(found)
    assert len(said) == 2
    assert "omi-4.test.csv" in said[0] and "--data" in said[0]
    assert "demo.csv" in said[1] and "python -m train watch" in said[1]


def test_nothing_but_the_simulator_without_data(tmp_path: Path) -> None:
    said: list[str] = []
    found = catalogue(tmp_path, tmp_path, quick=True, missing=said.append)
    assert list(found) == ["simulator/0"]
    assert len(said) == 3


def test_the_simulator_has_every_fault_and_an_exogenous_channel(tmp_path: Path) -> None:
    load = catalogue(tmp_path, tmp_path, quick=True, missing=lambda said: None)["simulator/0"]
    series = load()
    assert series.exogenous == ("set_point",)
    assert series.scored.sum() == len(series.channels) - 1
    assert series.train[0].labels is None
    starts = np.flatnonzero(np.diff(series.tests[0].labels, prepend=0) == 1)
    assert len(starts) >= 11
    assert starts[0] >= sources.QUICK_EVERY


@pytest.mark.skipif(not sources.DATA.is_dir(), reason=NO_DATA)
def test_the_open_data_is_what_its_page_says(tmp_path: Path) -> None:
    found = catalogue(sources.DATA, tmp_path, quick=False, missing=lambda said: None)
    server, plant = found["asd/omi-1"](), found["tep/plant"]()
    assert (server.train[0].values.shape, server.tests[0].values.shape) == ((8640, 19), (4320, 19))
    assert server.tests[0].labels.sum() == 441
    assert plant.train[0].values.shape == (500, 52)
    assert {test.values.shape for test in plant.tests} == {(960, 52)}
    assert found["nab/machine_temperature"]().tests[0].labels.any()
