"""The driver before any cluster: who may write into a folder, and a list without a usable asset."""

import fcntl
import json
from pathlib import Path

import pytest

from edge_runtime.errors import BusyError, GruardError
from fleet.assets import Asset
from fleet.driver import run_fleet
from fleet.jobs import Means
from fleet.results import AssetResult, AssetScore
from fleet.table import read_rows

pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")
MEANS = Means(None, 1, 100.0, 1000)
BAD = (Asset("a", Path("a.csv"), None, 1.0, problem="no name"), Asset("b", Path("b"), None, 1.0,
       problem="<no> data"))  # fmt: skip


def test_a_list_without_a_usable_asset_needs_no_cluster(tmp_path: Path) -> None:
    said: list[str] = []
    run = run_fleet(BAD, AssetResult, tmp_path / "f", MEANS, said.append)
    assert run.failed == 2 and not said
    facts = json.loads(json.dumps(run.facts()))
    assert facts["verdicts"] == {"bad input": 2} and "2 bad input" in run.text()
    assert read_rows(tmp_path / "f" / "fleet.parquet", AssetResult) == list(run.rows)
    assert "&lt;no&gt; data" in Path(facts["report"]).read_text()


def test_bundles_and_scores_have_folders_of_their_own(tmp_path: Path) -> None:
    run_fleet(BAD, AssetResult, tmp_path, MEANS, print)
    with pytest.raises(GruardError, match="holds bundles already"):
        run_fleet(BAD, AssetScore, tmp_path, MEANS, print)
    assert run_fleet(BAD, AssetResult, tmp_path, MEANS, print).failed == 2


def test_a_folder_has_one_driver_at_a_time(tmp_path: Path) -> None:
    run_fleet(BAD, AssetResult, tmp_path, MEANS, print)
    with (tmp_path / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another fleet command"):
            run_fleet(BAD, AssetResult, tmp_path, MEANS, print)
    (tmp_path / "file").touch()
    with pytest.raises(GruardError, match="cannot be written"):
        run_fleet(BAD, AssetResult, tmp_path / "file" / "f", MEANS, print)
