"""`gruard learn` ends with a bundle, or says what to record; never with a traceback."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.commands.main import gruard
from edge_runtime.errors import GruardError
from edge_runtime.learning import formula
from edge_runtime.learning.check import PLAIN

ROWS = 300
NAMES = ("flow", "head", "heat")
Lines = list[list[object]]


def learned(data: Path, out: Path) -> tuple[int, str]:
    """Exit code of `gruard learn`, and all that it said."""
    words = ["learn", str(data), "--out", str(out)]
    result = CliRunner().invoke(gruard, words, standalone_mode=False)
    if isinstance(result.exception, GruardError):
        return result.exception.exit_code, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def machine() -> Lines:
    """Time and three related readings of a healthy machine."""
    rng = np.random.default_rng(5)
    drive = np.sin(np.arange(ROWS) / 9)[:, np.newaxis] * (1, 2, -1)
    values = 50 + 10 * drive + rng.standard_normal((ROWS, 3))
    return [[10 * i, *(f"{v:.2f}" for v in row)] for i, row in enumerate(values.tolist())]


def written(folder: Path, lines: Lines, header: tuple[str, ...] = ("time", *NAMES)) -> Path:
    file = folder / "pump.csv"
    text = [",".join(map(str, line)) for line in [list(header), *lines]]
    file.write_text("\n".join(text) + "\n")
    return file


def lossy(lines: Lines) -> Lines:
    lost = np.random.default_rng(1).random(len(lines)) < 0.15
    return [line for line, gone in zip(lines, lost, strict=True) if not gone]


def in_bursts(lines: Lines) -> Lines:
    """Eleven rows, then a pause of three: no stretch is long enough to settle in twice."""
    return [line for i, line in enumerate(lines) if i % 14 < 11]


def by_a_coarse_clock(lines: Lines) -> Lines:
    return [[line[0] // 60, *line[1:]] for line in lines]  # type: ignore[operator]


def whenever_it_changes(lines: Lines) -> Lines:
    pauses = np.random.default_rng(2).exponential(10, len(lines))
    return [[f"{t:.3f}", *line[1:]] for t, line in zip(np.cumsum(pauses), lines, strict=True)]


def with_a_late_sensor(lines: Lines) -> Lines:
    return [[*line[:3], line[3] if i > 200 else ""] for i, line in enumerate(lines)]


def with_a_new_sensor(lines: Lines) -> Lines:
    return [[*line[:3], line[3] if i > 290 else ""] for i, line in enumerate(lines)]


def with_a_dying_sensor(lines: Lines) -> Lines:
    return [[*line[:3], line[3] if i < 200 else ""] for i, line in enumerate(lines)]


def that_ends_without_readings(lines: Lines) -> Lines:
    return [line if i < 260 else [line[0], "", "", ""] for i, line in enumerate(lines)]


def with_wild_rows(lines: Lines) -> Lines:
    wild = range(150, 154)
    return [[line[0], 65535, 65535, "inf"] if i in wild else line for i, line in enumerate(lines)]


STRANGE: dict[Callable[[Lines], Lines], str] = {
    lossy: "rows count as rows without readings",
    in_bursts: "rows count as rows without readings",
    by_a_coarse_clock: "its clock is coarser than its rows",
    whenever_it_changes: "gaps in time",
    with_a_late_sensor: "trial: ",
    with_a_new_sensor: "columns set aside: no reading in the rows to learn from: heat",
    with_a_dying_sensor: "trial: ",
    that_ends_without_readings: "trial: ",
    with_wild_rows: "trial: ",
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("harm", STRANGE, ids=lambda harm: harm.__name__)
def test_a_strange_recording_gives_a_bundle_and_a_sentence(
    tmp_path: Path, harm: Callable[[Lines], Lines]
) -> None:
    out = tmp_path / "pump-1.gruard"
    code, said = learned(written(tmp_path, harm(machine())), out)
    assert code == 0 and STRANGE[harm] in said
    assert "trial: threshold from" in said and "learn again with more" in said
    manifest = read_bundle(out).manifest
    assert manifest.validation.passed and set(manifest.channel_names) <= set(NAMES)


def test_where_the_second_half_is_labelled_the_first_is_learned(tmp_path: Path) -> None:
    lines = [[*line, int(i > 200)] for i, line in enumerate(machine())]
    file = written(tmp_path, lines, ("time", *NAMES, "label"))
    code, said = learned(file, tmp_path / "pump-1.gruard")
    assert code == 0, said


def short_files(folder: Path) -> Path:
    lines = machine()
    (folder / "parts").mkdir()
    for start in range(0, ROWS, 8):
        part = written(folder / "parts", lines[start : start + 8])
        part.rename(part.with_name(f"{start:03d}.csv"))
    return folder / "parts"


def nothing_healthy(folder: Path) -> Path:
    return written(folder, [[*line, 1] for line in machine()], ("time", *NAMES, "label"))


def nothing_that_moves(folder: Path) -> Path:
    return written(folder, [[line[0], 5, 5, 5] for line in machine()])


def too_many_channels(folder: Path) -> Path:
    values = np.random.default_rng(0).random((160, 257)).round(3).tolist()
    return written(folder, values, tuple(f"c{i}" for i in range(257)))


HOPELESS: dict[Callable[[Path], Path], tuple[str, ...]] = {
    short_files: ("has 8 rows", "record the healthy machine for longer, without a break"),
    nothing_healthy: ("0 of 300 rows are clean", "record the healthy machine for longer"),
    nothing_that_moves: ("constant: flow, head, heat", "record until a reading changes"),
    too_many_channels: ("257 channels are too many, at most 256", "remove columns"),
}


@pytest.mark.parametrize("made", HOPELESS, ids=lambda made: made.__name__)
def test_where_nothing_can_be_learned_it_says_what_to_record(
    tmp_path: Path, made: Callable[[Path], Path]
) -> None:
    out = tmp_path / "pump-1.gruard"
    code, said = learned(made(tmp_path), out)
    assert code == 2 and "\n" not in said and all(words in said for words in HOPELESS[made])
    assert not out.exists()


@pytest.mark.parametrize("check", [name for name in PLAIN if name.startswith("linear")])
def test_whichever_check_of_the_steps_fails_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    made = formula._check

    def spoiled(name: str, found: np.ndarray, *rest: object) -> object:
        return made(name, np.full_like(found, np.nan) if name == check else found, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(formula, "_check", spoiled)
    code, said = learned(written(tmp_path, machine()), tmp_path / "pump-1.gruard")
    (failed,) = [line for line in said.splitlines() if line.startswith("FAIL ")]
    assert code == 1 and check in failed and "learn on another one" in said
    assert [path.name for path in tmp_path.iterdir()] == ["pump.csv"]
