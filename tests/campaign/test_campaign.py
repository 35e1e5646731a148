"""The campaign in small: rows of every group against real processes, and that each can fail."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.pages import markers
from tests.campaign import __main__ as command
from tests.campaign import random_faults, soak
from tests.campaign.fault import Fault, NotHeldError, Part, Row, check_promises, expect
from tests.campaign.lab import Lab, Run, open_lab
from tests.campaign.random_faults import (
    CHANGED,
    DESTROYED,
    Tally,
    campaign,
    has_stalled,
    tally_text,
)

ROWS = {
    "Readings": ("NaN",),
    "Times and text": ("duplicates", "ragged line"),
    "Processes and the operating system": ("SIGKILL", "supervisor killed"),
    "Disks and sinks": ("disk full, journal", "sink that cannot be"),
    "Recordings": ("disk read-only, readings",),
    "Accelerator": ("invoke fails",),
    "Updates": ("downgraded bundle",),
    "Network": ("broker down",),
    "Power cuts": ("power cut, roll-back",),
    "Flipped bits in files": ("model at rest",),
    "Flipped bits in memory": ("state, impossible", "arena between steps"),
}
PAGE = "# Reliability\n\nBefore.\n\n{}\nold\n{}\n\n{}\nolder\n{}\n\nAfter.\n".format(
    *markers("table"), *markers("soak")
) + "".join("{}\n{}\n".format(*markers(part.title)) for part in command.PARTS)
CLOCKS = command.PARTS[0].title


@pytest.fixture
def page(tmp_path: Path) -> Path:
    file = tmp_path / "page.md"
    file.write_text(PAGE)
    return file


@pytest.fixture(autouse=True)
def no_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part has a test file of its own."""
    monkeypatch.setattr(command, "PARTS", ())


def faults(group: str) -> dict[str, Fault]:
    return {fault.name: fault for fault in command.GROUPS[group]}


def test_every_group_is_tried_and_no_name_is_there_twice() -> None:
    assert ROWS.keys() == command.GROUPS.keys()
    names = [fault.name for group in command.GROUPS.values() for fault in group]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param(group, name, marks=[pytest.mark.long] if number else [])
        for group, names in ROWS.items()
        for number, name in enumerate(names)
    ],
)
def test_a_row_holds(lab: Lab, group: str, name: str) -> None:
    row = command.strike(lab, faults(group)[name])
    assert row.held, row.happened


class TamperedLab(Lab):
    """Its runs end with records that break a promise."""

    @contextlib.contextmanager
    def run(self, *options: str, **others: Any) -> Iterator[Run]:
        with super().run(*options, **others) as run:
            yield run
        self.tamper(run.records)
        check_promises(run.records)

    def tamper(self, records: list[dict[str, Any]]) -> None:
        del records[-2]


class SilentLab(TamperedLab):
    """Its records do not say which readings could not be used."""

    def tamper(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            record["masked"] = []


def tampered(lab: Lab, kind: type[Lab]) -> Lab:
    return kind(lab.path, lab.bundle, lab.rows, lab.scratch)


@pytest.mark.long
def test_a_record_that_is_missing_breaks_a_row(lab: Lab) -> None:
    row = command.strike(tampered(lab, TamperedLab), faults("Readings")["NaN"])
    assert not row.held and "indices are not 0" in row.happened


GOOD = {
    "index": 0, "tier": 1, "flags": [], "valid": True, "score": 1.0, "model": "abc", "masked": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"index": 1}, "indices are not"),
        ({"tier": 3, "flags": ["FALLBACK"]}, "valid in tier 3"),
        ({"tier": 3, "valid": False}, "without its flag"),
        ({"valid": False}, "not valid"),
        ({"model": ""}, "names no model"),
        ({"score": None}, "no score, no gap"),
        ({"masked": ["flow"]}, "not marked"),
    ],
)
def test_every_promise_can_be_broken(change: dict[str, Any], seen: str) -> None:
    check_promises([GOOD])
    with pytest.raises(NotHeldError, match=seen):
        check_promises([GOOD | change])


@pytest.mark.long
def test_random_faults_are_marked_and_none_is_missing(lab: Lab) -> None:
    tally = campaign(lab, 48)
    assert tally.held and tally.processes == 1
    assert sum(tally.injected.values()) == 48 and set(tally.injected) == {*DESTROYED, *CHANGED}
    assert all(tally.noticed[kind] == tally.injected[kind] for kind in DESTROYED)
    assert "49 injections (1 of them into the inference process)" in tally_text(tally)


def test_a_run_that_was_fed_too_late_is_left_out_and_told() -> None:
    gap = GOOD | {"flags": ["GAP"]}
    assert not has_stalled([GOOD] * 8 + [gap] * 2, samples=10, left_out=2)
    assert has_stalled([GOOD] * 8 + [gap] * 4, samples=10, left_out=2)
    with pytest.raises(NotHeldError, match="2 records too many, and 1 gaps"):
        has_stalled([GOOD] * 9 + [gap] * 3, samples=10, left_out=2)
    assert not Tally(stalled=1).held and Tally(stalled=1, records=10).held
    assert "1 more runs are left out" in tally_text(Tally(stalled=1))


def test_a_cell_is_one_line_of_the_table() -> None:
    row = Row("name", "injected", "must", "says:\na | b\n", "worst\n", held=False)
    assert command.table("Title", [row]).splitlines()[-1] == (
        "| name | injected | must | says: a / b | worst | **NOT HELD** |"
    )


def run_command(bundle: Path, page: Path, only: str, count: int = 0) -> tuple[int, str]:
    words = [str(bundle), "--only", only, "--random", str(count), "--out", str(page)]
    done = CliRunner().invoke(command.main, words)
    return done.exit_code, page.read_text()


def test_the_page_keeps_all_but_its_tables(tiny_bundle: Path, page: Path) -> None:
    code, text = run_command(tiny_bundle, page, "missing samples")
    assert code == 0
    before, _, after = PAGE.partition("\nold\n")
    assert text.startswith(before) and text.endswith(after)
    assert "| missing samples | 7 samples left out | 7 gap records | 7 gap records | held |" in text
    assert "1 of 1 held" in text and "\nold\n" not in text


def test_a_part_has_a_table_with_its_worst_cases(
    tiny_bundle: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(lab: Lab, seed: int, scale: float) -> list[Row]:
        assert (seed, scale) == (0, 1.0)
        bad = Row("bad", "b", "c", "3 of 4", "2 records late", held=False)
        return [Row("good", "x", "y", "4 of 4", "none late"), bad]

    monkeypatch.setattr(command, "GROUPS", {})
    monkeypatch.setattr(command, "PARTS", (Part(CLOCKS, run),))
    code, text = run_command(tiny_bundle, page, CLOCKS)
    assert "\nold\n" in text  # nothing of the other part was run
    assert code == 1 and f"### {CLOCKS}" in text and "1 of 2 held" in text
    assert "| happened | worst |  |" in text
    assert "| good | x | y | 4 of 4 | none late | held |" in text
    assert "| bad | b | c | 3 of 4 | 2 records late | **NOT HELD** |" in text


def broken(lab: Lab) -> str:
    expect(False, "3 | of 4")
    return ""


def raising(lab: Lab) -> str:
    raise KeyError("what nobody thought of")


@pytest.mark.parametrize(
    ("strike", "told"), [(broken, "3 / of 4"), (raising, "KeyError: 'what nobody thought of'")]
)
def test_a_row_that_does_not_hold_is_told_and_ends_with_code_1(
    tiny_bundle: Path, page: Path, monkeypatch: pytest.MonkeyPatch, strike: Any, told: str
) -> None:
    rows = (Fault("good", "nothing", "nothing", lambda lab: "nothing"),
            Fault("bad", "something", "nothing", strike))  # fmt: skip
    monkeypatch.setattr(command, "GROUPS", {"Made": rows})
    code, text = run_command(tiny_bundle, page, "")
    assert code == 1
    assert f"| bad | something | nothing | {told} | **NOT HELD** |" in text
    assert "1 of 2 held" in text


@pytest.mark.long
def test_an_unmarked_random_fault_ends_with_code_1(
    tiny_bundle: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "GROUPS", {})
    monkeypatch.setattr(command, "open_lab", lambda *a: tampered(open_lab(*a), SilentLab))
    code, text = run_command(tiny_bundle, page, "", count=20)
    assert code == 1 and " 0 unmarked." not in text and " 0 missing" in text


@pytest.mark.long
def test_a_random_run_that_breaks_a_promise_ends_with_code_1(
    tiny_bundle: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "GROUPS", {})
    monkeypatch.setattr(command, "open_lab", lambda *a: tampered(open_lab(*a), TamperedLab))
    code, text = run_command(tiny_bundle, page, "", count=5)
    assert code == 1 and "**NOT HELD** in 1 more runs" in text and "indices are not" in text


def test_a_page_without_its_markers_is_refused_before_anything_is_broken(
    tiny_bundle: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.write_text("# Another page\n")
    monkeypatch.setattr(command, "open_lab", lambda *_: pytest.fail("it began"))
    code, text = run_command(tiny_bundle, page, "")
    assert code != 0 and text == "# Another page\n"


def test_random_faults_that_are_interrupted_count_as_far_as_they_went(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_run(lab: Lab, rng: Any, count: int, tally: Any) -> None:
        if tally.injected:
            raise KeyboardInterrupt
        tally.injected["gone"] += count

    monkeypatch.setattr(random_faults, "_one_run", one_run)
    assert campaign(lab, 1000).injected["gone"] == random_faults.BY_RUN


def test_a_soak_writes_its_part_of_the_page(
    tiny_bundle: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "LOOK_EVERY", 0.2)
    words = [str(tiny_bundle), "--minutes", "0.03", "--rate", "200", "--out", str(page)]
    done = CliRunner().invoke(soak.main, words)
    assert done.exit_code == 0, done.output
    before, _, after = PAGE.partition("\nolder\n")
    text = page.read_text()
    assert text.startswith(before) and text.endswith(after) and "none missing" in text


def test_a_soak_that_loses_a_record_says_so(
    tiny_bundle: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "open_lab", lambda *a: tampered(open_lab(*a), TamperedLab))
    monkeypatch.setattr(soak, "_forget", lambda run, found: None)
    done = CliRunner().invoke(
        soak.main, [str(tiny_bundle), "--minutes", "0.02", "--out", str(page)]
    )
    assert done.exit_code == 1 and "a promise was broken" in done.output
    assert page.read_text() == PAGE


def test_growth_is_the_slope_of_the_second_half() -> None:
    looks = [soak.Look(60.0 * i, 40.0 + max(0, i - 10), 50.0, 9) for i in range(21)]
    found = soak.Soak(looks=looks)
    assert found.growth("supervisor") == pytest.approx(60.0)
    assert found.growth("worker") == pytest.approx(0.0)
    assert np.isclose(soak.Soak(looks=looks[:2]).growth("supervisor"), 0.0)
