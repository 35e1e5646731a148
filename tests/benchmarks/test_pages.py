"""The part of a page that a command writes, and no other."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks.pages import fill_page, markers, page_option, with_tables

BEGIN, END = markers("made")
PAGE = f"# Title\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n"
WRONG = ("no markers", f"{END}{BEGIN}", PAGE + BEGIN)


def test_the_tables_stand_between_the_markers(tmp_path: Path) -> None:
    new = with_tables(PAGE, "new", "made")
    assert new == f"# Title\n\nBefore.\n\n{BEGIN}\n\nnew\n\n{END}\n\nAfter.\n"
    assert with_tables(new, "new", "made") == new
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    fill_page(page, "new", "made")
    assert page.read_text() == new


@pytest.mark.parametrize("text", WRONG)
def test_a_page_without_the_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="once each"):
        fill_page(page, "new", "made")
    assert page.read_text() == text


@pytest.mark.parametrize("text", [*WRONG, None])
def test_such_a_page_is_refused_before_the_work(tmp_path: Path, text: str | None) -> None:
    @click.command()
    @page_option("made")
    def work(out: Path | None) -> None:
        raise AssertionError("it was begun")

    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    result = CliRunner().invoke(work, ["--out", str(page)])
    assert result.exit_code == 2
    assert str(page) in result.output
