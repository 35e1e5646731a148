"""What learning costs, measured on a short recording: both ways give a bundle and a line."""

from pathlib import Path

import click
import pytest

from benchmarks.learn import LearningCost, cost, measured, table
from edge_runtime.bundle.reader import read_bundle


@pytest.mark.long
def test_both_ways_are_measured(tmp_path: Path) -> None:
    quick, slow = measured(tmp_path, [200])
    assert (quick.core, slow.core) == (True, False)
    assert quick.seconds > 0 and 20 < quick.megabytes < 1000
    assert quick.bundle_bytes == slow.bundle_bytes
    assert read_bundle(tmp_path / "core" / "200-1.gruard").manifest.linear


def test_a_command_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="no such file"):
        cost(tmp_path / "nothing.csv", 1, True, tmp_path)


def test_the_table_has_a_line_for_each() -> None:
    found = table([LearningCost(376, True, 0.51, 57.2, 20480)])
    assert found.splitlines()[-1] == "| 376 × 6 | C core | 0.5 | 57 | 20 |"
