"""What `gruard run --learn` refuses, and what it says then."""

from pathlib import Path

import pytest
from gruard_command import plain_error, real_gruard
from made_readings import HEADER, csv_text, record

from edge_runtime.sources.lines import open_text


@pytest.fixture
def day(tmp_path: Path) -> str:
    file = tmp_path / "day.csv"
    file.write_text(HEADER + csv_text(60))
    return str(file)


def run(tmp_path: Path, *words: str) -> "tuple[str, ...]":
    return ("run", "--store", str(tmp_path / "pump"), *words)


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("x-1.gruard", "--learn", "24h"), "name no BUNDLE"),
        (("--learn", "24h", "--trusted-key", "plant.pub"), "has no signature"),
        (("--relearn", "7d", "--trusted-key", "plant.pub"), "has no signature"),
        (("--period", "1"), "--period and --channels are for --learn"),
        (("--channels", "a"), "--period and --channels are for --learn"),
        (("--learn", "a day"), "'a day' is no length of time; write 30m, 8h or 2d"),
        (("--learn", "10"), "is no length of time"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, day: str, words: tuple[str, ...], refusal: str
) -> None:
    done = real_gruard("run", *words, "--source", day)
    assert done.returncode == 2 and refusal in " ".join(done.stderr.split())
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_a_source_that_is_asked_needs_a_period(tmp_path: Path) -> None:
    source = "modbus://127.0.0.1:1/1?registers=flow:holding:1:int16"
    done = real_gruard(*run(tmp_path, "--learn", "24h", "--source", source))
    assert "add --period SECONDS" in plain_error(done)


def test_a_source_that_does_not_name_its_channels_is_told_how(tmp_path: Path) -> None:
    sensor = tmp_path / "sensor.py"
    sensor.write_text("def open_sensor(channels, period): ...\n")
    words = ("--learn", "24h", "--period", "1", "--source", f"python:{sensor}")
    assert "--channels a,b,c" in plain_error(real_gruard(*run(tmp_path, *words)))


def test_a_folder_with_readings_of_other_channels_is_refused(tmp_path: Path, day: str) -> None:
    record(tmp_path / "other", 5)
    other = tmp_path / "other.csv"
    other.write_text("time,volts\n" + "".join(f"{k},{k % 5}\n" for k in range(60)))
    words = ("--learn", "24h", "--keep-readings", str(tmp_path / "other"), "--source", str(other))
    assert "holds readings of" in plain_error(real_gruard(*run(tmp_path, *words)))


def test_without_learning_an_empty_store_is_still_refused(tmp_path: Path, day: str) -> None:
    done = real_gruard(*run(tmp_path, "--source", day))
    assert "no bundle is installed there" in plain_error(done)


def test_a_file_that_ends_too_early_is_recorded_and_every_record_says_so(
    tmp_path: Path, day: str
) -> None:
    done = real_gruard(*run(tmp_path, "--learn", "24h", "--source", day))
    assert done.returncode == 0 and done.stdout.count('"LEARNING"') == 60
    assert done.stdout.count('"valid":false') == 60
    out = tmp_path / "again.csv"
    assert (
        real_gruard("readings", str(tmp_path / "pump/readings"), "--out", str(out)).returncode == 0
    )
    with open_text(out) as text:
        assert len([*text]) == 61
