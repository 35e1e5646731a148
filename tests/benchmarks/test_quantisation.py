"""The comparison of quantisations: every way gives a file, and the mistake shows."""

import pytest

from benchmarks.quantisation import WAYS, measure, table
from train.run_folder import Run


@pytest.mark.long
def test_every_way_is_measured_and_ranges_without_faults_are_the_worst(tiny_run: Run) -> None:
    found = {each.name: each for each in measure(tiny_run)}
    assert list(found) == [way.name for way in WAYS]
    shipped, clean = found["as it ships"], found["clean rows alone"]
    assert clean.rms[0] > 3 * shipped.rms[0] and max(shipped.largest) < 0.5
    assert found["weights per channel"].bytes > shipped.bytes
    assert found["16-bit activations"].rms[1] < shipped.rms[1]
    lines = table(list(found.values())).splitlines()
    assert len(lines) == 2 + len(WAYS) and lines[2].startswith(
        f"| as it ships | {shipped.bytes:,} |"
    )
