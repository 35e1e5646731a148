"""The timeline of a run: what is read and refused, what is written, and what can be seen."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.colors import to_rgb

from convert.__main__ import cli
from convert.timeline.layout import BUCKETS, bars, cut, extremes, limits, place, scale_of
from convert.timeline.picture import ALARM, LABELLED, REPLACED, STATES, WIDTH
from convert.timeline.run_facts import RecordState
from convert.timeline.timeline import read_records, read_watch_run, write_timeline
from edge_runtime.errors import GruardError
from edge_runtime.record import Flag, Record

ROWS = 300
Change = Callable[[dict[str, Any]], None]


def lines(count: int = ROWS, **changes: Change) -> list[str]:
    """Calm records; `at_7=change` changes the fields of the record with index 7."""
    made = []
    for index in range(count):
        calm = Record(
            index, index * 0.1, 1, Flag(0), True, 0.5, 2.0, False, (), (), (), "0123456789ab"
        )
        fields = json.loads(calm.to_json())
        changes.get(f"at_{index}", lambda _: None)(fields)
        made.append(json.dumps(fields))
    return made


def write_run(
    folder: Path, records: list[str], rows: int = ROWS, labels: bool = False, name: str = "flow"
) -> tuple[Path, Path]:
    """Paths of a records file and of the recording it answers, three channels."""
    jsonl, data = folder / "run.jsonl", folder / "run.csv"
    jsonl.write_text("\n".join(records) + "\n")
    header = f"time,{name},heat,load" + (",label" if labels else "")
    marks = [f",{int(100 <= i < 120)}" if labels else "" for i in range(rows)]
    body = [f"{i * 0.1:.1f},{np.sin(i / 9):.4f},{i},1{marks[i]}" for i in range(rows)]
    data.write_text("\n".join([header, *body]) + "\n")
    return jsonl, data


def eventful() -> list[str]:
    """An alarm, an imputed channel and a hang, told by flags alone."""

    def change(fields: dict[str, Any]) -> None:
        index = fields["index"]
        if 105 <= index < 125:
            fields.update(alarm=True, score=20.0, blamed=["heat"])
        elif 30 <= index < 60:
            fields.update(imputed=["flow"], flags=["IMPUTED"])
        elif 200 <= index < 230:
            fields.update(tier=3, valid=False, flags=["FALLBACK"] + ["LATE"] * (index == 200))
        elif index == 230:
            fields.update(flags=["RESTARTED"])

    return lines(**{f"at_{index}": change for index in range(ROWS)})


def pixels(png: bytes, color: str) -> int:
    """How many pixels of the picture have exactly this colour."""
    image = matplotlib.image.imread(io.BytesIO(png))[:, :, :3]
    return int((np.abs(image - to_rgb(color)) < 0.004).all(axis=2).sum())


def test_an_eventful_run_can_be_seen_and_read(tmp_path: Path) -> None:
    done = write_timeline(*write_run(tmp_path, eventful(), labels=True), tmp_path / "out")
    png = done.picture.read_bytes()
    assert matplotlib.image.imread(io.BytesIO(png)).shape[1] == WIDTH
    for color in (
        ALARM,
        LABELLED,
        REPLACED,
        STATES[RecordState.FALLBACK][0],
        STATES[RecordState.GATE][0],
    ):
        # A strip, beyond the patch that the legend shows of it.
        assert pixels(png, color) > 900
    page = done.report.read_text()
    assert "1 of 1 anomalous stretch found" in done.headline and "0 false alarms" in done.headline
    assert "after 0.5 s in the median" in page
    assert "One record per sample: <b>yes</b>" in page
    assert "this recording only" in page and "per hour" in page
    assert (
        "<td>105 (10.50 s)<td>124 (12.40 s)<td>2.0 s<td>heat<td>–<td>10.00<td>1<td>no<td>yes"
        in page
    )
    assert "the restarted model is back<td>RESTARTED" in page
    assert 'src="data:image/png;base64,iVBOR' in page
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.html",
        "timeline.png",
    ]


def test_an_alarm_that_recurs_is_listed_with_the_others_and_says_so(tmp_path: Path) -> None:
    def change(fields: dict[str, Any]) -> None:
        flags = ["RECURRING"] if fields["index"] > 200 else []
        fields.update(alarm=True, score=20.0, blamed=["heat"], flags=flags)

    alarms = {f"at_{index}": change for index in (50, 51, 250, 251)}
    done = write_timeline(*write_run(tmp_path, lines(**alarms)), tmp_path / "out")
    page = done.report.read_text()
    assert "2 alarms (1 recurring)" in done.headline
    assert page.count("<td>1<td>no<td>no labels") == page.count("<td>1<td>yes<td>no labels") == 1


def test_a_calm_run_shows_no_colour_of_an_event(tmp_path: Path) -> None:
    jsonl, data = write_run(tmp_path, lines(), name="$flow<b>")  # a name is neither maths nor HTML
    done = write_timeline(jsonl, data, tmp_path / "out")
    png = done.picture.read_bytes()
    # The threshold, the mark at 1 and the base of the alarm strip are thin lines in that colour.
    assert pixels(png, ALARM) < 3 * WIDTH
    assert pixels(png, LABELLED) == pixels(png, REPLACED) == 0
    page = done.report.read_text()
    assert "no labels" in page and "<p>None.</p>" in page


def test_only_an_alarm_makes_a_block_in_the_colour_of_alarms(tmp_path: Path) -> None:
    def tallest(records: list[str], name: str) -> int:
        out = tmp_path / name
        image = matplotlib.image.imread(
            write_timeline(*write_run(tmp_path, records), out).picture, format="png"
        )
        same = (np.abs(image[:, :, :3] - to_rgb(ALARM)) < 0.004).all(axis=2)
        plot = same[:-60, 200:]  # without the legend and the words at the left
        return int(plot.sum(axis=0).max())

    assert tallest(eventful(), "alarm") > 20 > tallest(lines(), "calm")


def test_many_channels_without_times_or_model_are_drawn(tmp_path: Path) -> None:
    channels = [f"c{i}" for i in range(64)]
    (tmp_path / "d.csv").write_text(",".join(channels) + "\n" + (",".join("0" * 64) + "\n") * 3)

    def blame(fields: dict[str, Any]) -> None:
        fields.update(alarm=True, blamed=["c63"], score=None, tier=3, flags=["FALLBACK"])

    records = lines(3, at_1=blame)
    (tmp_path / "r.jsonl").write_text("\n".join(records))
    done = write_timeline(tmp_path / "r.jsonl", tmp_path / "d.csv", tmp_path / "out")
    assert "3 samples watched" in done.headline
    assert (
        "<td>1<td>1<td>1 sample<td>c63<td>–<td>–<td>3<td>no<td>no labels" in done.report.read_text()
    )


def test_gap_records_have_no_row_and_keep_their_place(tmp_path: Path) -> None:
    def gap(fields: dict[str, Any]) -> None:
        fields.update(flags=["FALLBACK", "GAP"], tier=3, valid=False, score=None, time=None)

    (tmp_path / "r.jsonl").write_text("\n".join(lines(5, at_2=gap, at_3=gap)))
    (tmp_path / "d.csv").write_text("time,a,label\n9.0,1,0\n9.1,2,1\n9.4,3,0\n")
    watch = read_watch_run(tmp_path / "r.jsonl", tmp_path / "d.csv")
    np.testing.assert_array_equal(watch.values[:, 0], np.array([1, 2, np.nan, np.nan, 3]))
    assert watch.seconds == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert watch.labels is not None and watch.labels.tolist() == [False, True, True, True, False]


def test_rows_that_the_sample_clock_left_out_have_no_place(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.2]
    records = lines(3, at_2=lambda fields: fields.update(flags=["TIMING"]))
    (tmp_path / "r.jsonl").write_text(
        "\n".join(
            json.dumps({**json.loads(line), "time": time})
            for line, time in zip(records, times, strict=True)
        )
    )
    (tmp_path / "d.csv").write_text("time,a,label\n0.0,1,0\n0.1,2,1\n0.1,9,0\n0.2,3,0\n")
    watch = read_watch_run(tmp_path / "r.jsonl", tmp_path / "d.csv")
    assert watch.values[:, 0].tolist() == [1, 2, 3]
    assert watch.labels is not None and watch.labels.tolist() == [False, True, False]


def test_lost_and_doubled_records_are_told(tmp_path: Path) -> None:
    records = lines(10)
    records[4] = records[3]
    watch = read_watch_run(*write_run(tmp_path, records, rows=10))
    assert watch.records[4] is None and watch.doubled == (3,)


def test_unknown_fields_are_ignored_and_a_bundle_gives_order(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    records = lines(2, at_0=lambda fields: fields.update(tomorrow=[1]))
    (tmp_path / "r.jsonl").write_text("\n".join(records))
    (tmp_path / "d.csv").write_text("heat,extra,set_point,flow\n1,2,3,4\n5,6,7,8\n")
    watch = read_watch_run(tmp_path / "r.jsonl", tmp_path / "d.csv", tiny_bundle)
    assert watch.channels == ("set_point", "flow", "heat")
    assert watch.values.tolist() == [[3, 4, 1], [7, 8, 5]]
    assert watch.seconds is None and watch.labels is None


def test_records_without_a_diagnosis_are_read_and_wrong_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"

    def old(fields: dict[str, Any]) -> None:
        for name in ("kind", "probability", "sensor"):
            del fields[name]

    def named(fields: dict[str, Any]) -> None:
        fields.update(kind="level", probability=0.5, sensor=True)

    path.write_text("\n".join(lines(3, at_0=old, at_1=named)))
    assert [record.kind for record in read_records(path)] == [None, "level", None]
    path.write_text(*lines(1, at_0=lambda fields: fields.update(sensor=1)))
    with pytest.raises(GruardError, match="sensor: 1 is not what a record holds"):
        read_records(path)


def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    os.mkfifo(path)
    with pytest.raises(GruardError, match=f"{path}: is a named pipe, not a file; give the file of"):
        read_records(path)


def drop_score(fields: dict[str, Any]) -> None:
    del fields["score"]


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        ([], "holds no record"),
        ([*lines(2), "{"], "line 3: is not a JSON object"),
        ([*lines(2), "7"], "line 3: is not a JSON object"),
        (lines(3, at_1=drop_score), "line 2: fields missing: score"),
        (lines(3, at_1=lambda f: f.update(tier="1")), "line 2: tier: '1' is not"),
        (lines(3, at_1=lambda f: f.update(tier=4)), "line 2: index 1, tier 4"),
        (lines(3, at_1=lambda f: f.update(flags=["NEW"])), "line 2: flag 'NEW' is unknown"),
        (lines(3, at_1=lambda f: f.update(imputed=["x"])), "has not: x"),
        (lines(2), r"answer 2 samples \(and 0 gaps\), but .* has 3 rows"),
        (lines(3, at_1=lambda f: f.update(flags=["GAP"])), r"answer 2 samples \(and 1 gaps\)"),
    ],
)
def test_records_that_do_not_fit_are_refused(
    tmp_path: Path, records: list[str], fault: str
) -> None:
    jsonl, data = write_run(tmp_path, records, rows=3)
    with pytest.raises(GruardError, match=fault):
        write_timeline(jsonl, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote_or_what_is_wrong(tmp_path: Path) -> None:
    jsonl, data = write_run(tmp_path, lines(5), rows=5)
    with pytest.raises(GruardError, match=r"gone\.jsonl: cannot be read"):
        read_watch_run(tmp_path / "gone.jsonl", data)
    words = ["timeline", str(jsonl), "--data", str(data), "--out"]
    done = CliRunner().invoke(cli, [*words, str(tmp_path / "deep" / "out")])
    assert done.exit_code == 0, done.output
    assert "5 samples" in done.output and "report.html" in done.output


def test_a_file_in_the_place_of_the_folder_stays_as_it_is(tmp_path: Path) -> None:
    jsonl, data = write_run(tmp_path, lines(5), rows=5)
    (tmp_path / "out").write_text("mine")
    with pytest.raises(GruardError, match="cannot be made a folder"):
        write_timeline(jsonl, data, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run.csv", "run.jsonl"]


def test_one_spike_in_many_samples_survives_the_thinning() -> None:
    values = np.zeros(200_000)
    values[123_457], values[77] = 9.0, np.nan
    at, curve = extremes(values)
    assert len(at) == len(curve) == 2 * BUCKETS
    assert np.nanmax(curve) == 9.0 and not np.isnan(curve).any()
    assert abs(int(at[np.argmax(curve)]) - 123_457) <= 200_000 / BUCKETS


def test_one_sample_of_many_is_still_a_bar(tmp_path: Path) -> None:
    watch = read_watch_run(*write_run(tmp_path, lines(20), rows=20))
    scale = scale_of(watch)
    flags = np.zeros(20, bool)
    flags[[0, 19]] = True
    assert bars(flags, scale) == [pytest.approx((0.0, 0.1)), pytest.approx((1.9, 0.1))]
    assert bars(flags, scale, narrowest=1e6)[0][1] == pytest.approx(1e6 * scale.pixel)


def test_words_never_overlap() -> None:
    assert place([(0, 10), (5, 15), (8, 20), (10, 20), (15, 30)], 2) == [0, 1, None, 0, 1]


def test_a_long_name_keeps_its_ends() -> None:
    assert cut("short", 8) == "short"
    assert cut("sensor_number_07", 10) == "senso…r_07" and len(cut("x" * 99, 9)) == 9


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.linspace(0, 10, 1000), (0, 10)),
        (np.r_[np.linspace(0, 10, 1000), 1e6], (0, 20)),
        (np.r_[np.zeros(999), 1.0], (0, 1)),
        (np.full(5, 50.0), (45, 55)),
        (np.full(5, np.nan), (0, 1)),
    ],
)
def test_a_lane_shows_what_is_usual_and_cuts_what_is_wild(
    values: np.ndarray, wanted: tuple[float, float]
) -> None:
    assert limits(values) == pytest.approx(wanted, abs=0.2)
