"""Training leaves out stretches unlike the rest, and what the owner excludes."""

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_runtime.bundle.manifest import Channel
from edge_runtime.errors import GruardError
from edge_runtime.learning.request import Data, Request, read_data
from edge_runtime.learning.run import Config
from train.__main__ import cli
from train.run_folder import read_config, save_config

sys.path.insert(0, str(Path(__file__).parents[1] / "edge_runtime"))
from made_recording import DAY, pump, worn, write_csv

DIRTY = (1500, 4500)
SPAN = "2026-05-01 04:10..12:30"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("look")
    values = worn(pump(2 * DAY, 0), *DIRTY)
    return (
        write_csv(folder / "dirty.csv", values),
        write_csv(folder / "plain.csv", values[:1400]),
    )


def read(*data: Path, exclude: tuple[str, ...] = (), test: tuple[Path, ...] = ()) -> Data:
    return read_data(Request(data, exclude=exclude, test=test))


def rows_of(data: Data) -> list[tuple[int, int]]:
    return [(r.first_row, r.first_row + r.rows) for r in data.dataset.recordings]


@pytest.mark.long
def test_doubtful_rows_are_left_out_as_if_the_owner_had_excluded_them(
    files: tuple[Path, Path],
) -> None:
    data = read(files[0])
    (sentence,) = data.strange
    assert sentence.startswith("rows 1,500 to 4,500, 1 May 04:10 to 12:30: vibration and current")
    assert "Learning leaves these rows out" in sentence
    cut = read(files[0], exclude=(SPAN,))
    assert cut.strange == ()
    assert rows_of(data) == rows_of(cut) == [(0, 1500), (4500, 2 * DAY)]
    assert all(map(np.array_equal, *([r.values for r in each.split.train] for each in (data, cut))))


def test_the_owner_can_keep_them(files: tuple[Path, Path], tmp_path: Path) -> None:
    head, *rows = files[0].read_text().splitlines()
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("\n".join([f"{head},label", *(f"{row},0" for row in rows), ""]))
    data = read(labelled)
    (sentence,) = data.strange
    assert "Learning keeps them, because they are labelled healthy" in sentence
    assert f"--exclude '{SPAN}'" in sentence
    assert rows_of(data) == [(0, 2 * DAY)]
    assert read(labelled, exclude=(SPAN,)).strange == ()


def test_the_run_folder_tells_the_conversion(tmp_path: Path) -> None:
    channels = (Channel("a", "", 0.0, 1.0, None, None, None, None, False),)
    save_config(tmp_path, config := Config("a", 1.0, channels, {}, 0, "", strange=("rows 1 to 2",)))
    assert read_config(tmp_path) == config


def test_rows_are_counted_on_through_all_files(files: tuple[Path, Path]) -> None:
    dirty, plain = files
    data = read(plain, dirty, exclude=("1399..1401", "1500..1600"))
    assert rows_of(data) == [(0, 1399), (1, 100), (200, 1500), (4500, 2 * DAY)]
    (sentence,) = data.strange
    assert sentence.startswith("rows 2,900 to 5,900")


def test_what_is_only_tested_is_not_looked_at(files: tuple[Path, Path]) -> None:
    dirty, plain = files
    data = read(plain, test=(dirty,))
    assert data.strange == () and rows_of(data) == [(0, 1400), (0, 2 * DAY)]


@pytest.mark.parametrize(
    ("span", "told"),
    [
        ("17280..17281", "holds no row; the recording has 17,280 rows from 2026-05-01 00:00:00"),
        ("2031-01-01 00:00..01:00", "holds no row"),
        ("0..99999", "leaves no row"),
        ("tomorrow", "FROM..TO"),
    ],
)
def test_a_span_that_does_nothing_is_refused(
    files: tuple[Path, Path], span: str, told: str
) -> None:
    with pytest.raises(GruardError, match=told):
        read(files[0], exclude=(span,))


def test_the_command_takes_several_spans(files: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["fit", str(files[0]), "--out", str(tmp_path / "run"), "--exclude", "0..10"]
    error = CliRunner().invoke(cli, [*words, "--exclude", "10..99999"]).exception
    assert isinstance(error, GruardError) and "'10..99999': leaves no row" in str(error)
