"""What `gruard record` recorded is a recording to learn from."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner

from edge_runtime.commands.main import gruard
from edge_runtime.learning.recording import read_recordings
from edge_runtime.readings.recorder import open_recorder
from edge_runtime.sources.source import Reading


def test_a_recording_with_a_hole_and_a_repeated_time_is_read(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / "pump", ("flow", "heat, in"), 10**8, print)
    for row in [*range(100), 99, *range(150, 200)]:
        values = np.array([row, np.nan if row == 5 else 0.1], np.float32)
        recorder.add(Reading(1764590000.25 + row, values), float(row))
    recorder.close()
    out = tmp_path / "pump.csv"
    done = CliRunner().invoke(gruard, ["readings", str(tmp_path / "pump"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    found = read_recordings([out])
    assert found.channels == ("flow", "heat, in") and found.period == 1.0
    assert [each.rows for each in found.recordings] == [100, 1, 50]
    first = found.recordings[0]
    assert first.times is not None and first.times[3] == 1764590003.25
    assert np.isnan(first.values[5, 1]) and first.values[6, 1] == np.float32(0.1)
