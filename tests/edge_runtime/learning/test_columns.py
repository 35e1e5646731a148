"""Columns that are set aside: text, empty, constant and counting ones, and no others."""

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import GruardError
from edge_runtime.learning.recording import Dataset, Recording, read_recordings
from edge_runtime.learning.request import set_aside
from edge_runtime.look.recording import FEWEST_RISES

ROWS = 60


def dataset(**columns: np.ndarray) -> Dataset:
    values = np.stack(list(columns.values()), axis=1).astype(np.float32)
    whole = Recording("a.csv", tuple(columns), None, values, None, None)
    return Dataset((whole.cut(0, 25), whole.cut(25, ROWS)), (), {"state": "RUNNING"})


rows = np.arange(ROWS)
noise = np.random.default_rng(0).normal(size=ROWS)
switch = (rows > 30).astype(float)
holes = np.where(rows % 3, noise, np.nan)


def test_one_warning_lists_what_is_set_aside() -> None:
    found = set_aside(
        dataset(
            noise=noise,
            hours=1000 + rows // 2,
            still=np.full(ROWS, 5.0),
            dead=np.full(ROWS, np.nan),
            switch=switch,
            left=-rows,
            holes=holes,
        )
    )
    assert found.channels == ("noise", "switch", "holes")
    assert [r.rows for r in found.recordings] == [25, 35]
    np.testing.assert_array_equal(found.recordings[0].values[:, 0], noise[:25].astype(np.float32))
    (warning,) = found.warnings
    assert "text: state ('RUNNING')" in warning
    assert "empty: dead; constant: still; counting: hours, left" in warning
    assert "name it in the settings file" in warning


def test_what_the_owner_names_stays() -> None:
    found = set_aside(
        dataset(noise=noise, still=np.full(ROWS, 5.0), hours=rows), ("still", "hours")
    )
    assert found.channels == ("noise", "still", "hours")


def test_few_steps_up_are_no_counter() -> None:
    stairs = np.minimum(rows, FEWEST_RISES - 1)
    assert set_aside(dataset(noise=noise, stairs=stairs)).channels == ("noise", "stairs")
    stairs = np.minimum(rows, FEWEST_RISES + 1)  # one step is lost where the recording is cut
    assert set_aside(dataset(noise=noise, stairs=stairs)).channels == ("noise",)


def test_something_must_be_left() -> None:
    with pytest.raises(GruardError, match=r"a\.csv: no column is left .*constant: still"):
        set_aside(dataset(still=np.full(ROWS, 5.0), hours=rows))


def test_nothing_to_set_aside_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,2\n2,1\n")
    read = read_recordings([path])
    assert set_aside(read) is read
