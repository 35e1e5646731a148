"""One damage to every kind of stored file, and that a start without an honest answer is seen."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.campaign import bit_rot
from tests.campaign.bit_rot import Template, damages, who_answered
from tests.campaign.command import Ended
from tests.campaign.fault import NotHeldError
from tests.campaign.lab import Lab

MANIFEST = SimpleNamespace(tiers=SimpleNamespace(warmup=25))
TEMPLATE = Template(
    Path(),
    cast(Any, SimpleNamespace(model_hash="new", digest="n", manifest=MANIFEST)),
    cast(Any, SimpleNamespace(model_hash="old", digest="o")),
)


@pytest.mark.long
def test_something_answers_whatever_is_damaged(lab: Lab) -> None:
    rows = list(bit_rot.run(lab, seed=5, scale=0.006))
    broken = [f"{row.name}: {row.happened}" for row in rows if not row.held]
    assert len(rows) > 2 and not broken
    assert any("current" in row.happened for row in rows)  # or nobody would look for a model


def test_every_kind_of_file_is_damaged(lab: Lab) -> None:
    kinds = bit_rot.stored_files(bit_rot.make_template(lab))
    assert {"store, pointers", "thresholds", "status", "start marker"} <= {*kinds}
    assert {"journal, journal", "journal, cursor", "current slot, manifest.json"} <= {*kinds}
    assert all(kinds.values())


def test_every_damage_changes_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    whole = bytes(range(1, 101))
    told = set()
    for words, damage in damages(len(whole), 10, np.random.default_rng(0)):
        file.write_bytes(whole)
        damage(file)
        assert not file.exists() or file.read_bytes() != whole
        told.add(words)
    assert len(told) == 15


def lines(model: str, **changes: Any) -> bytes:
    fallback = model == "none"
    record = {
        "tier": 3 if fallback else 1, "flags": ["FALLBACK"] if fallback else [],
        "valid": not fallback, "score": 1.0, "model": model, "masked": [], **changes,
    }  # fmt: skip
    return b"".join(
        json.dumps({"index": i, **record}).encode() + b"\n" for i in range(TEMPLATE.rows)
    )


def test_who_answered_is_told() -> None:
    assert who_answered(Ended(0, lines("new"), ""), TEMPLATE) == "current"
    assert who_answered(Ended(0, lines("old"), "gruard: why"), TEMPLATE) == "previous"
    assert who_answered(Ended(0, lines("none"), "gruard: why"), TEMPLATE) == "fallback only"


@pytest.mark.parametrize(
    ("ended", "seen"),
    [
        (Ended(2, b"", "gruard: refused"), "exit code 2"),
        (Ended(0, lines("new")[:-1], ""), "is cut"),
        (Ended(0, b"".join(lines("new").splitlines(keepends=True)[1:]), ""), "39 records"),
        (Ended(0, lines("strange"), "gruard: why"), "models {'strange'}"),
        (Ended(0, lines("old"), ""), "not logged"),
        (Ended(0, lines("none", valid=True), "gruard: why"), "valid in tier 3"),
    ],
)
def test_an_answer_that_is_not_honest_is_seen(ended: Ended, seen: str) -> None:
    with pytest.raises(NotHeldError, match=seen):
        who_answered(ended, TEMPLATE)
    with pytest.raises(NotHeldError, match="hangs"):
        who_answered(replace(ended, code=None), TEMPLATE)
