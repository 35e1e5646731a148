"""`gruard look`: one page for terminals, programs and browsers, and an exit code."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_recording import DAY, pump, worn, write_csv

from edge_runtime.commands.main import gruard
from edge_runtime.errors import GruardError

DIRTY = (1500, 4500)


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("look") / "dirty.csv", worn(pump(2 * DAY, 0), *DIRTY))


def look(*words: object) -> Result:
    return CliRunner().invoke(gruard, ["look", *map(str, words)])


@pytest.mark.long
def test_the_page_names_rows_times_channels_and_the_command(dirty: Path) -> None:
    result = look(dirty)
    assert result.exit_code == 1
    assert (
        "WARNING: rows 1,500 to 4,500, 1 May 04:10 to 12:30: vibration and current are unlike the "
        "other 1 d 15 h (relation to each other). Learning leaves these rows out; if the machine "
        "was healthy then, keep them with a column 'label' that is 0"
    ) in result.output
    assert (
        "17,280 rows, one every 10 s, 2026-05-01 00:00:00 to 2026-05-02 23:59:50" in result.output
    )
    assert "no gaps" in result.output
    assert "speed stays at 4 levels" in result.output
    assert (
        "to assure a false-alarm target of 1 a day, it must be checked on 2 d 19 h more"
        in result.output
    )


@pytest.mark.long
def test_programs_get_the_same(dirty: Path) -> None:
    facts = json.loads(look(dirty, "--json").output)
    (found,) = facts["findings"]
    assert not facts["fit"] and facts["warnings"]
    assert (found["start"], found["stop"]) == DIRTY
    assert found["exclude"] == "2026-05-01 04:10..12:30"
    assert [channel["name"] for channel in facts["channels"]][5] == "vibration"
    assert facts["sampling"]["period"] == 10.0


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.bare: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("rect", "path") and self.get_starttag_text()[-2:] != "/>":
            self.bare.append(tag)
        self.bare += [value for _, value in attrs if (value or "").endswith("/")]
        self.count[tag] = self.count.get(tag, 0) + 1
        for name, value in attrs:
            assert name not in ("src", "href", "onload") and "url(" not in (value or "")


@pytest.mark.long
def test_the_browser_page_needs_nothing_else(dirty: Path, tmp_path: Path) -> None:
    page = tmp_path / "look.html"
    assert look(dirty, "--html", page).exit_code == 1
    text, tags = page.read_text(), Tags()
    tags.feed(text)
    assert tags.count["svg"] == tags.count["figure"] == 6
    assert tags.count["rect"] == 6  # the stretch, in the picture of every channel
    assert text.count('class="pale"') == 4  # pale where the channel does not differ
    assert tags.bare == []  # what is left open or unquoted hides the course of a channel
    assert 'name="viewport"' in text and "http" not in text
    assert not re.search(r"(min-)?width: *\d{3,}px", text)  # nothing is wider than a telephone
    again = look(dirty, "--html", page)
    assert isinstance(again.exception, GruardError) and "--force" in str(again.exception)
    assert look(dirty, "--html", page, "--force").exit_code == 1


def test_a_healthy_recording_is_fit(tmp_path: Path) -> None:
    result = look(write_csv(tmp_path / "fine.csv", pump(DAY, 1)))
    assert result.exit_code == 0
    assert "WARNING" not in result.output and "verdict: fit to learn from" in result.output


def test_files_of_a_folder_are_one_recording(tmp_path: Path) -> None:
    values = worn(pump(2 * DAY, 0), *DIRTY)
    write_csv(tmp_path / "a.csv", values[:2000], dates=False)
    write_csv(tmp_path / "b.csv", values[2000:], dates=False)
    result = look(tmp_path, "--json")
    (found,) = json.loads(result.output)["findings"]
    assert (found["start"], found["stop"]) == DIRTY and found["exclude"] == "1500..4500"


def test_rows_name_a_stretch_whose_times_come_twice(tmp_path: Path) -> None:
    values = worn(pump(2 * DAY, 0), *DIRTY)
    write_csv(tmp_path / "a.csv", values[:DAY])
    write_csv(tmp_path / "b.csv", values[DAY:])
    (found,) = json.loads(look(tmp_path, "--json").output)["findings"]
    assert found["exclude"] == "1500..4500"


def test_holes_text_counters_and_labels_are_told(tmp_path: Path) -> None:
    rows = [
        f"{i * 2 + (i > 300) * 50},{np.sin(i):.3f},{'' if 100 < i <= 130 else i % 7},OK,5,{i},"
        f"{int(i < 20)}"
        for i in range(400)
    ]
    file = tmp_path / "odd.csv"
    file.write_text("\n".join(["time,a<b>,b,state,set_point,hours,label", *rows, ""]))
    result = look(file, "--html", tmp_path / "odd.html")
    assert result.exit_code == 0
    assert "30 (30 in one piece)" in result.output
    assert (
        "sampling: every 2 s, evenly; 1 gap with 25 missing rows, the longest 52 s" in result.output
    )
    for aside in ("text: state ('OK')", "constant: set_point", "counting: hours"):
        assert f"set aside: {aside}" in result.output
    assert "20 rows are labelled anomalous" in result.output
    page = (tmp_path / "odd.html").read_text()
    assert "a&lt;b&gt;" in page and "a<b>" not in page and 'class="label"' in page


def odd_times(kind: str) -> list[float]:
    times = [10.0 * i for i in range(600)]
    match kind:
        case "late":
            times[40::50] = [time + 6 for time in times[40::50]]
        case "at once":
            times[100:103] = [times[102] + i / 1000 for i in range(3)]
        case "still":
            times[200:300] = [times[200]] * 100
        case "a year ahead":
            times[400] += 365 * 86400
        case "jitter":
            times = [t + 2 * float(np.sin(7 * t)) for t in times]
        case "loss":
            del times[40::50]
        case "hole":
            del times[100:150]
    return times


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("even", "sampling: every 10 s, evenly; no gaps"),
        ("late", "sampling: every 10 s, evenly; 12 readings late; no gaps"),
        ("at once", "sampling: every 10 s, evenly; 1 reading late; no gaps"),
        ("still", "sampling: every 10 s, evenly; 1 reading late; no gaps"),
        ("a year ahead", "sampling: every 10 s, evenly; 1 reading late; no gaps"),
        ("jitter", " s, give or take "),
        ("loss", "sampling: every 10 s, evenly; 12 gaps with 12 missing rows, the longest 20 s"),
        ("hole", "sampling: every 10 s, evenly; 1 gap with 50 missing rows, the longest 8 min 30"),
    ],
)
def test_the_sampling_is_told_in_words(tmp_path: Path, kind: str, told: str) -> None:
    rows = [f"{time},{i * i % 7},{i % 5}" for i, time in enumerate(odd_times(kind))]
    (file := tmp_path / "odd.csv").write_text("\n".join(["time,a,b", *rows, ""]))
    assert told in look(file).output


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("time,a\n0,1\n1,2\n2,1\n", "3 usable rows are too few"),
        ("time,a\n" + "".join(f"{i},5\n" for i in range(200)), "no column is a channel"),
        ("time,a\n" + "".join(f"0,{i % 5}\n" for i in range(200)), "time does not increase"),
        (
            "time,a,b\n"
            + "".join(f"{i},{i % 5},{i % 7 if i % 3 else ''}\n" for i in range(200))
            + "".join(f"{i},{i % 5},\n" for i in range(200, 600)),
            "b: 78% of the readings are missing",
        ),
    ],
)
def test_what_is_unfit_is_a_warning(tmp_path: Path, text: str, warning: str) -> None:
    (file := tmp_path / "unfit.csv").write_text(text)
    result = look(file, "--html", tmp_path / "page.html")
    assert result.exit_code == 1 and result.exception.__class__ is SystemExit
    assert warning in result.output


def test_bad_input_is_an_error_with_a_way_out(tmp_path: Path, dirty: Path) -> None:
    (bad := tmp_path / "bad.csv").write_text("time,a\n0,1\n1,x\n")
    (other := tmp_path / "other.csv").write_text("time,a\n0,1\n1,2\n")
    for words, told in (
        ([tmp_path / "none.csv"], "no such file"),
        ([bad], "line 3"),
        ([dirty, dirty], "named twice"),
        ([dirty, other], "missing channels"),
        ([dirty, "--html", dirty, "--force"], "one file"),
    ):
        error = look(*words).exception
        assert isinstance(error, GruardError) and error.exit_code == 2
        assert told in str(error)
    (tmp_path / "empty").mkdir()
    assert "no *.csv" in str(look(tmp_path / "empty").exception)
