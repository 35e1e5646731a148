"""Files as strangers have them: trained on without an option, and read alike on the device."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import Complaints, GruardError
from edge_runtime.learning.request import Data, Request, read_data
from edge_runtime.sources.open_source import open_source

ROWS = 400
NAMES = ("flow", "head")
START = datetime(2026, 10, 25, 2, 30)
BACK = datetime(2026, 10, 25, 3)  # summer time ends


def pump() -> list[tuple[datetime, float, float]]:
    values = np.random.default_rng(0).normal(size=(ROWS, 2)).round(2).tolist()
    return [(START + timedelta(seconds=10 * i), *pair) for i, pair in enumerate(values)]


def german(form: str) -> str:
    lines = [f"{time:{form}};" + f"{flow};{head}".replace(".", ",") for time, flow, head in pump()]
    return "\n".join(["Zeitstempel;flow;head", *lines])


def logger() -> str:
    lines = []
    for i, (time, flow, head) in enumerate(pump()):
        known, status = "" if 100 < i < 150 else head, "ALARM" if i == 300 else "OK"
        if not 200 <= i < 220:
            lines.append(f"{time},P-0017,{flow},{known},{status},3,{10 * i},50")
    return "\n".join(["timestamp,machine_id,flow,head,status,firmware,op_hours,set_point", *lines])


def summer_time_ends() -> str:
    stamps = [time if time < BACK else time - timedelta(hours=1) for time, _, _ in pump()]
    lines = [f"{stamp},{row[1]},{row[2]}" for stamp, row in zip(stamps, pump(), strict=True)]
    return "\n".join(["time,flow,head", *lines])


def read(path: Path, text: str) -> Data:
    path.write_text(text)
    return read_data(Request((path,)))


def on_the_device(path: Path, data: Data) -> np.ndarray:
    complaints = Complaints()
    source = open_source(str(path), data.dataset.channels, data.period, complaints, data.columns)
    values = []
    with pytest.raises(EOFError):
        while (reading := source.read(None)) is not None:
            values.append(reading.row)
            assert reading.time is not None
    source.close()
    assert (complaints.cells, complaints.rows) == (0, 0)
    return np.array(values)


FILES = {
    "german": (german("%Y-%m-%d %H:%M:%S"), 1, 0),
    "german dates": (german("%d.%m.%Y %H:%M:%S"), 1, 0),
    "a date and a time apart": (
        german("%d.%m.%y;%H:%M:%S").replace("Zeitstempel", "Datum;Uhrzeit"),
        1,
        0,
    ),
    "a logger": (logger(), 2, 2),
    "the end of summer time": (summer_time_ends(), 2, 1),
}


@pytest.mark.parametrize("name", FILES)
def test_a_strangers_file_needs_no_option(tmp_path: Path, name: str) -> None:
    text, pieces, warnings = FILES[name]
    data = read(tmp_path / "a.csv", text)
    assert data.dataset.channels == NAMES
    assert data.period == 10
    assert len(data.dataset.recordings) == pieces
    assert len(data.dataset.warnings) == warnings
    whole = np.concatenate([recording.values for recording in data.dataset.recordings])
    wanted = np.array([row[1:] for row in pump()], np.float32)
    if name == "a logger":
        wanted[101:150, 1] = np.nan
        wanted = np.delete(wanted, slice(200, 220), axis=0)
    np.testing.assert_array_equal(whole, wanted)
    np.testing.assert_array_equal(on_the_device(tmp_path / "a.csv", data), whole)


def test_the_settings_file_keeps_a_constant_and_gives_units(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("channels: {set_point: {exogenous: true}, flow: {unit: l/s}}")
    head, *rows = logger().splitlines()
    units = "s,,l/min,bar,,,h,%"
    data = read(tmp_path / "a.csv", "\n".join([head, units, *rows]))
    assert data.dataset.channels == ("flow", "head", "set_point")
    assert [data.settings.channels[name].unit for name in data.dataset.channels] == [
        "l/s",
        "bar",
        "%",
    ]


def test_a_settings_file_cannot_make_a_channel_of_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("channels: {status: {unit: none}}")
    with pytest.raises(GruardError, match=r"a\.yaml: channels: unknown key 'status'"):
        read(tmp_path / "a.csv", logger())
