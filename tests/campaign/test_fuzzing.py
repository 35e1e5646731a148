"""Hostile streams in small, and that a stream which breaks a promise is seen."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.apparatus.hostile_streams import KINDS, Machine, mixed, stream
from tests.campaign import fuzzing
from tests.campaign.command import Ended
from tests.campaign.fault import NotHeldError
from tests.campaign.fuzzing import MOST_MEMORY, judge
from tests.campaign.lab import Lab

MACHINE = Machine(("a", "b"), 1.0, np.ones((5, 2), np.float32))


@pytest.mark.long
def test_hostile_streams_in_small(lab: Lab) -> None:
    rows = list(fuzzing.run(lab, seed=1, scale=0.01))
    assert len(rows) == 2
    assert not [f"{row.name}: {row.happened} ({row.worst})" for row in rows if not row.held]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_as_long_as_is_wanted_and_the_same_again(kind: str) -> None:
    short, long = stream(MACHINE, kind, 50, 3), stream(MACHINE, kind, 200, 3)
    assert short == stream(MACHINE, kind, 50, 3)
    assert 2.5 * len(short) < len(long) < 5 * len(short)


def test_a_mixed_stream_is_the_same_again() -> None:
    assert mixed(MACHINE, 1, 300) == mixed(MACHINE, 1, 300) != mixed(MACHINE, 2, 300)


def good(count: int = 4, **changes: Any) -> Ended:
    record = {"tier": 1, "flags": [], "valid": True, "score": 1.0, "model": "m", "masked": []}
    lines = [json.dumps({"index": i, **record, **changes}).encode() + b"\n" for i in range(count)]
    return Ended(0, b"".join(lines), json.dumps({"records": count}), cpu=1.0, peak=1 << 20)


@pytest.mark.parametrize(
    ("ended", "seen"),
    [
        (replace(good(), code=None), "hangs"),
        (replace(good(), peak=MOST_MEMORY + 1), "of memory"),
        (replace(good(), stdout=b'{"index":0,"score":Infinity}\n'), "not strict JSON"),
        (replace(good(), stdout=good().stdout[100:]), "JSON|indices"),
        (replace(good(), stderr=""), "no summary"),
        (replace(good(3), stderr='{"records": 4}'), "4 records by the summary"),
        (replace(good(), code=2, stderr=""), "refused without an error message"),
        (good(3000), "3000 records for 4 lines"),
        (good(valid=False), "not valid"),
    ],
)
def test_the_judge_bites(ended: Ended, seen: str) -> None:
    assert judge(good(), 4) == 4
    with pytest.raises(NotHeldError, match=seen):
        judge(ended, 4)


@pytest.mark.parametrize(("refused", "held"), [(1, True), (2, False)])
def test_streams_that_are_refused_prove_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, refused: int, held: bool
) -> None:
    ends = iter([replace(good(0), code=2, stderr="gruard: no")] * refused + [good()] * 3)
    monkeypatch.setattr(fuzzing, "answer", lambda *_: next(ends))
    row = fuzzing._mixed_row(lab, "recordings", False, range(3))
    assert row.held is held and f"{3 - refused} answered" in row.happened


@pytest.mark.parametrize(("power", "held"), [(1, True), (2, False)])
def test_a_quadratic_parser_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, power: int, held: bool
) -> None:
    def answer(lab: Lab, data: bytes, live: bool) -> Ended:
        lines = data.count(b"\n")
        return replace(good(4), cpu=0.5 + (lines / fuzzing.SMALL) ** power)

    class Machinery:
        channels, period, rows, exogenous = MACHINE.channels, 1.0, MACHINE.rows, ()

    monkeypatch.setattr(fuzzing, "answer", answer)
    row = fuzzing._growth_row(Machinery(), "clean", 0, idle=0.5)  # type: ignore[arg-type]
    assert row.held is held and row.worst == ("4.0 times" if held else "16.0 times")
