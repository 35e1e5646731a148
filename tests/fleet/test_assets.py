"""The list of assets: folders and tables of all kinds, each row with its reason or usable."""

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import GruardError
from fleet.assets import Asset, read_assets, with_bundles

OUT = Path("/elsewhere")
pyarrow = pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")


def table(folder: Path, text: str, name: str = "list.csv", encoding: str = "utf-8") -> Path:
    (folder / name).write_text(text, encoding=encoding)
    return folder / name


def test_a_folder_has_an_asset_for_each_recording_and_folder(tmp_path: Path) -> None:
    for name in ("b.csv", "a.CSV", "c.csv.gz", "notes.txt", ".hidden.csv"):
        (tmp_path / name).touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "e").mkdir()
    shared, own = tmp_path / "channels.toml", tmp_path / "e" / "channels.yaml"
    shared.touch()
    own.touch()
    assert read_assets(tmp_path, 2.0, OUT) == (
        Asset("a", tmp_path / "a.CSV", None, 2.0),
        Asset("b", tmp_path / "b.csv", None, 2.0),
        Asset("c", tmp_path / "c.csv.gz", None, 2.0),
        Asset("d", tmp_path / "d", shared, 2.0),
        Asset("e", tmp_path / "e", own, 2.0),
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_has_its_paths_relative_to_it(tmp_path: Path, mark: str, encoding: str) -> None:
    text = 'asset,site,data,target,settings\n1,x,"a.csv",0.5,\nPümpe-2,y,/d/b,,s.toml\n'
    found = read_assets(table(tmp_path, text.replace(",", mark), encoding=encoding), 2.0, OUT)
    assert found == (
        Asset("1", tmp_path / "a.csv", None, 0.5),
        Asset("Pümpe-2", Path("/d/b"), tmp_path / "s.toml", 2.0),
    )


def test_parquet_is_a_table_too(tmp_path: Path) -> None:
    from pyarrow import parquet

    columns = {"asset": [1, 2], "data": ["a", None], "target": [0.5, None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "list.parquet")
    first, second = read_assets(tmp_path / "list.parquet", 2.0, OUT)
    assert first == Asset("1", tmp_path / "a", None, 0.5)
    assert second.target == 2.0 and "list.parquet row 2: the column data" in second.problem


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a/b,x,,", "no file name"), ("..,x,,", "no file name"), (",x,,", "no file name"),
        ("a,,,", "line 2: the column data is empty"), ("a,x,0,", "target '0'"),
        ("a,x,nan,", "target 'nan'"), ("a,x,many,", "target 'many'"), ("a,x,,gru", "model 'gru'"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_has_its_reason(tmp_path: Path, row: str, reason: str) -> None:
    (asset, good) = read_assets(
        table(tmp_path, f"asset,data,target,model\n{row}\nz,x,,\n"), 1.0, OUT
    )
    assert reason in asset.problem and not good.problem


def test_a_name_that_is_there_twice_is_learned_once(tmp_path: Path) -> None:
    first, second = read_assets(table(tmp_path, "asset,data\na,x\na,y\n"), 1.0, OUT)
    assert not first.problem and "twice" in second.problem


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name,data\na,x\n", "the column asset is missing"), ("", "no table"),
        ("asset,data\na,x,y,z\n", "no table"), ("asset,data\n", "no assets"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(GruardError, match=reason):
        read_assets(table(tmp_path, text), 1.0, OUT)


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_bytes(b"PAR1 no more")
    for path, reason in (
        (tmp_path / "none", "cannot be read"), (tmp_path / "list.parquet", "no table"),
        (Path("/dev/null"), "no table"),
    ):  # fmt: skip
        with pytest.raises(GruardError, match=reason):
            read_assets(path, 1.0, OUT)
    with pytest.raises(GruardError, match="not the folder of a fleet"):
        with_bundles((), tmp_path, 0)


def test_results_do_not_go_into_the_folder_of_the_assets(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    for out in (tmp_path, tmp_path / "fleet", tmp_path / "x" / ".." / "fleet"):
        with pytest.raises(GruardError, match="lies in"):
            read_assets(tmp_path, 1.0, out)
    assert read_assets(tmp_path, 1.0, tmp_path.with_name("fleet"))


@settings(max_examples=20)
@given(st.lists(st.lists(st.text(max_size=8), min_size=4, max_size=4), min_size=1, max_size=5))
def test_any_table_gives_a_row_for_each_row(rows: list[list[str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "list.csv"
        with file.open("w", encoding="utf-8", errors="replace", newline="") as stream:
            writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
            writer.writerows([["asset", "data", "target", "model"], *rows])
        try:
            found = read_assets(file, 1.0, OUT)
        except GruardError:  # what pyarrow takes for no table, such as a line within a cell
            return
    assert len(found) <= len(rows) and all(0 < asset.target < 1e7 for asset in found)
