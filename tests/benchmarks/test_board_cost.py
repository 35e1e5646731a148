"""The table of costs on a board: a line for each kernel, between the page's marks; a picture."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import board_cost
from edge_runtime.bundle.reader import Bundle, read_bundle
from firmware_harness.cost import SUBJECTS, Cost, Subject
from firmware_harness.cycles import Cycles

ONE = Cost(
    step=1500,
    largest=1600,
    parts={"network": 1000, "score": 500},
    operators={"ADD": 1000},
    cycles=Cycles(at_once=2000, jumps=250, instructions=1500),
    tables=1600,
    text=16_000,
    stack=400,
    memory=2_000,
)


def test_a_line_by_hand(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_cost, "macs", lambda bundle: 500)
    monkeypatch.setattr(board_cost, "micro_arena", lambda bundle: "2,048")
    (line,) = board_cost.lines("GRU, H = 8", read_bundle(tiny_bundle), {"portable": ONE})
    assert line[:4] == ["GRU, H = 8", "500", "portable", "1,000"]
    assert line[4:8] == ["2.00", "1,500", "×1.50", "1,600"]
    assert line[8:11] == ["2,000", "3,400", "4%"]  # four wait states, 250 jumps, 100 lines
    assert line[11:] == ["16,000", "2,000", "400", "2,048"]


def test_the_page_is_filled(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = read_bundle(tiny_bundle)

    def made(units: int, scratch: Path, model: str) -> Bundle:
        return bundle

    def measured(bundle: Bundle, subject: Subject, rows: object) -> Cost:
        return ONE

    monkeypatch.setattr(board_cost, "made_bundle", made)
    monkeypatch.setattr(board_cost, "measure", measured)
    monkeypatch.setattr(board_cost, "micro_arena", lambda bundle: "–")
    page = tmp_path / "firmware.md"
    page.write_text("before\n<!-- cost:begin -->\nold\n<!-- cost:end -->\nafter\n")
    arguments = ["--units", "8", "--units", "16", "--out", str(tmp_path)]
    result = CliRunner().invoke(board_cost.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.count("gate and GRU, H = 16") == len(SUBJECTS)
    assert (tmp_path / "board-cost.png").stat().st_size > 1000
