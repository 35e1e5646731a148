"""What was said about a file at learning is in the bundle: the device needs no option."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from made_manifest import made_manifest

from edge_runtime.bundle.manifest import fallback_constants, to_dict
from edge_runtime.bundle.manifest_rules import fallback_from_dict, from_dict
from edge_runtime.columns import NOTHING_SAID, Columns
from edge_runtime.errors import Complaints, GruardError
from edge_runtime.learning.request import Request, read_data
from edge_runtime.sources.csvcell import MONTH_FIRST, SERIAL
from edge_runtime.sources.open_source import open_source

ROWS = 300
START = datetime(2026, 5, 1)
HEADER = ["time", "flow", "head"]
Stamp = Callable[[datetime], str]


def serial(moment: datetime) -> str:
    return f"{(moment - datetime(1899, 12, 30)) / timedelta(days=1):.9f}"


def rows(start: datetime, stamp: Stamp, step: timedelta) -> list[list[str]]:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(ROWS, 2)).round(2)
    return [[stamp(start + i * step), str(v[0]), str(v[1])] for i, v in enumerate(values)]


def text_of(table: list[list[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(table)
    return stream.getvalue()


def otherwise_ordered(table: list[list[str]]) -> list[list[str]]:
    """The columns in another order, with two more that are text."""
    return [
        ["note" if number == 0 else "ok", *row[::-1], "id" if number == 0 else "P7"]
        for number, row in enumerate(table)
    ]


FORMS: dict[str, tuple[Stamp, timedelta, str, Columns]] = {
    "month first": (
        "{:%m/%d/%Y %I:%M %p}".format, timedelta(hours=2), "time", Columns(dates=MONTH_FIRST)
    ),
    "serial days": (serial, timedelta(seconds=10), "time", Columns(dates=SERIAL)),
    "milliseconds": (
        lambda moment: str(round((moment - datetime(1970, 1, 1)).total_seconds() * 1000)),
        timedelta(seconds=10), "ts", NOTHING_SAID,
    ),
    "named seconds": (
        lambda moment: str((moment - START).total_seconds()),
        timedelta(seconds=10), "Laufzeit [s]", Columns(time="Laufzeit [s]"),
    ),
    "plain seconds": (
        lambda moment: str((moment - START).total_seconds()),
        timedelta(seconds=10), "time", NOTHING_SAID,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_another_days_file_in_another_order_is_read_alike(tmp_path: Path, name: str) -> None:
    stamp, step, column, expected = FORMS[name]
    header = [column, *HEADER[1:]]
    path = tmp_path / "a.csv"
    path.write_text(text_of([header, *rows(START, stamp, step)]))
    said = Columns(time=expected.time)
    data = read_data(Request((path,), said=said))
    assert data.columns == expected
    assert data.period == pytest.approx(step.total_seconds())
    manifest = replace(made_manifest(), columns=data.columns)
    columns = from_dict(json.loads(json.dumps(to_dict(manifest))), "m").columns
    later = START + timedelta(days=31)  # 1 June: no day after the 12th tells the order
    for table in ([header, *rows(later, stamp, step)],):
        for form in (table, otherwise_ordered(table)):
            other = tmp_path / "b.csv"
            other.write_text(text_of(form))
            complaints = Complaints()
            source = open_source(str(other), HEADER[1:], data.period, complaints, columns)
            found = [source.read(None) for _ in range(ROWS)]
            source.close()
            assert (complaints.cells, complaints.rows) == (0, 0)
            times = [reading.time for reading in found if reading and reading.time is not None]
            assert len(times) == ROWS
            np.testing.assert_allclose(np.diff(times), step.total_seconds(), rtol=1e-3)
            wanted = [[float(cell) for cell in row[1:]] for row in table[1:]]
            values = np.array([reading.row for reading in found if reading])
            np.testing.assert_array_equal(values, np.array(wanted, np.float32))


def test_what_was_said_is_optional_in_a_manifest() -> None:
    manifest = made_manifest()
    assert "columns" not in to_dict(manifest) and manifest.columns == NOTHING_SAID
    assert from_dict(json.loads(json.dumps(to_dict(manifest))), "m") == manifest
    name = manifest.channel_names[0]
    said = replace(manifest, columns=Columns("Zeit", "Fehler", MONTH_FIRST, (name,)))
    assert from_dict(json.loads(json.dumps(to_dict(said))), "m") == said
    constants = fallback_constants(said)
    assert fallback_from_dict(json.loads(json.dumps(to_dict(constants))), "f") == constants
    old = {key: value for key, value in asdict(constants).items() if key != "columns"}
    assert fallback_from_dict(json.loads(json.dumps(old)), "f").columns == NOTHING_SAID


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"dates": "year first"}, "columns.dates"),
        ({"counters": ["nobody"]}, "columns.counters"),
        ({"counters": 3}, "columns: counters"),
        ({"time": 7}, "columns: time"),
        ({"more": 1}, "unknown: more"),
    ],
)
def test_a_forged_section_is_refused(columns: dict[str, object], problem: str) -> None:
    whole = {"time": None, "label": None, "dates": "", "counters": [], **columns}
    with pytest.raises(GruardError, match=problem):
        from_dict({**json.loads(json.dumps(to_dict(made_manifest()))), "columns": whole}, "m")
    name = made_manifest().channel_names[0]
    for field in ("time", "label"):
        with pytest.raises(GruardError, match="a channel is no column"):
            from_dict(
                {
                    **json.loads(json.dumps(to_dict(made_manifest()))),
                    "columns": {"time": None, "label": None, "dates": "", "counters": []}
                    | {field: name},
                },
                "m",
            )


def test_a_live_source_without_the_named_column_still_runs(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text("flow,head\n1,2\n")
    source = open_source(str(path), HEADER[1:], 10.0, Complaints(), Columns(time="Laufzeit [s]"))
    reading = source.read(None)
    source.close()
    assert reading is not None and reading.time is None and reading.row.tolist() == [1, 2]


def test_a_picked_constant_and_a_counter_stay_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    table = [
        [*row, "5", str(1000 + 3 * i)]
        for i, row in enumerate(rows(START, str, timedelta(seconds=10)))
    ]
    path.write_text(text_of([[*HEADER, "valve", "litres"], *table]))
    data = read_data(Request((path,)))
    assert data.dataset.channels == ("flow", "head")
    assert any("--counter 'litres'" in warning for warning in data.dataset.warnings)
    counted = read_data(Request((path,), said=Columns(counters=("litres",)), ignored=("head",)))
    assert counted.dataset.channels == ("flow", "litres")
    assert np.nanmax(counted.dataset.recordings[0].values[:, 1]) == 3
    assert counted.columns.counters == ("litres",)
    chosen = read_data(Request((path,), chosen=("valve", "flow")))
    assert chosen.dataset.channels == ("valve", "flow") and not chosen.dataset.warnings
