"""`compare`: nothing may differ, and what does is found."""

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from harness_command import harness, refused

from firmware_harness import answers
from firmware_harness.boards import ALL, M4, USUAL, Board
from firmware_harness.building import build
from firmware_harness.comparing import FLOAT, Comparison, compare, difference, text
from firmware_harness.packing import packed
from firmware_harness.recording import spoilt


@pytest.fixture
def native_core() -> None:
    pytest.importorskip(
        "edge_runtime.native._core", reason="NOT TESTED: python setup.py build_ext --inplace"
    )


def test_every_way_gives_the_same_answers(
    tiny_bundle: Path, cross_tools: None, native_core: None
) -> None:
    all_answers_equal(tiny_bundle, USUAL)


@pytest.mark.firmware
def test_every_board_gives_the_same_answers(
    tiny_bundle: Path, all_cross_tools: None, native_core: None
) -> None:
    boards = list(ALL.values())
    all_answers_equal(tiny_bundle, boards, *(f"--board={board.name}" for board in boards))


def all_answers_equal(bundle: Path, boards: Sequence[Board], *words: str) -> None:
    done = harness("compare", bundle, "--steps", "1200", "--json", *words)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    golden, long = facts["comparisons"]
    assert facts["passed"] and long["steps"] == 1200 == sum(long["tiers"].values())
    ways = {"core here", *(f"core on {board.processor}" for board in boards)}
    assert set(long["differences"]) - {FLOAT} == ways
    assert set(golden["differences"]) - {FLOAT} == ways | {"int8 TFLite"}
    for way in ways:
        assert all(found["steps"] == 0 for found in long["differences"][way].values())


def test_a_changed_weight_is_found(tiny_bundle: Path, tmp_path: Path, cross_tools: None) -> None:
    found = packed(tiny_bundle, M4)
    blob = bytearray(found.blob)
    blob[-600:-100:11] = bytes(byte ^ 0x40 for byte in blob[-600:-100:11])
    blob[12:16] = struct.pack("<I", zlib.crc32(blob[16:]))
    built = build(replace(found, blob=bytes(blob)), M4, tmp_path / "build")
    rows = spoilt(tiny_model.machine_rows(200, 4), 400, found.bundle.manifest)
    threshold = (found.threshold.value, found.threshold.clear)
    wanted = answers.reference(found)(rows, threshold)
    comparison = compare("spoilt", wanted, {"M4": answers.board(built)(rows, threshold)})
    assert not comparison.passed
    assert "from" in text(comparison)


def test_a_difference_is_counted_from_the_first_on() -> None:
    wanted = np.zeros((5, 2), np.float32)
    found = wanted.copy()
    assert difference(wanted, -found).steps == 0, "zeros of either sign are equal"
    found[2:4, 1] = [0.5, -2]
    seen = difference(wanted, found)
    assert (seen.steps, seen.first, seen.largest) == (2, 2, 2.0)
    with pytest.raises(ValueError, match="is wanted"):
        difference(wanted, found[:4])
    found[1] = np.nan
    assert difference(wanted, found).first == 1


def test_only_the_float_graph_may_differ() -> None:
    apart = {"tier": difference(np.zeros(3), np.ones(3))}
    assert Comparison("", 3, {1: 3}, {FLOAT: apart}).passed
    assert not Comparison("", 3, {1: 3}, {FLOAT: apart, "core here": apart}).passed


def test_a_long_recording_has_every_fault(tiny_bundle: Path) -> None:
    manifest = packed(tiny_bundle).bundle.manifest
    rows = tiny_model.machine_rows(100, 4)
    long = spoilt(rows, 20_000, manifest)
    assert long.shape == (20_000, 3) and long.dtype == np.float32
    missing = np.isnan(long)
    assert missing.all(axis=1).any() and (missing.any(axis=1) & ~missing.all(axis=1)).any()
    assert (np.diff(long, axis=0) == 0).any(), "a stuck sensor"
    np.testing.assert_array_equal(long, spoilt(rows, 20_000, manifest))


@pytest.mark.firmware
def test_another_run_folder_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    refused(harness("compare", tiny_bundle, "--run", tmp_path), str(tmp_path))
