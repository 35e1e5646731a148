"""The C core gives what the reference gives: every quantity of every step, every record, each bit.

`core-c` is compared with the detector in Python, over machines of every kind and recordings with
every fault. Nothing is rounded and nothing is tolerated.
"""

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import native_core
import native_models as models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from native_models import HASTY, LEVELS, MadeBundle, both, changed, check, differences, faulty_rows

from edge_runtime.bundle import manifest as m
from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.native.engine import RECORD, NativeDetector
from edge_runtime.record import Flag, Sample
from tests.golden_bundles import SIZES

ROWS = 900  # every fault once
BRIEF = ("gru-alone", "three-layers", "gate-beyond-1")  # networks of the default run
LINEAR: dict[str, Callable[[], MadeBundle]] = {
    "one channel": lambda: models.linear(1),
    "one channel, rules and diagnosis": lambda: models.linear(1, 1, rules=True, diagnosis=True),
    "two channels, one of them exogenous": lambda: models.linear(2, 2, rules=True),
    "five channels, everything": lambda: models.linear(5, 5, rules=True, diagnosis=True),
    "seven channels, nine lags": lambda: models.linear(7, 7, order=9, diagnosis=True),
    "as many channels as a diagnosis may have": lambda: models.linear(32, 32, diagnosis=True),
    "a word of channels and one": lambda: models.linear(33, 33, rules=True),
    "as many channels as there may be": lambda: models.linear(256, 256, order=1, rules=True),
}

LONG = ("seven channels, nine lags", "as many channels as a diagnosis may have")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] if name in LONG else []) for name in LINEAR],
)
def test_a_linear_machine(name: str) -> None:
    bundle = LINEAR[name]()
    check(bundle, faulty_rows(bundle, ROWS, seed=len(name)))


@pytest.mark.parametrize(
    ("channels", "diagnosis"),
    [(2, False), (5, True), pytest.param(10, True, marks=pytest.mark.long), (40, False)],
)
def test_a_machine_with_operating_modes(channels: int, diagnosis: bool) -> None:
    bundle = models.modal(channels, channels, diagnosis)
    records = check(bundle, models.modal_rows(bundle, ROWS, seed=channels))
    unknown = np.array([Flag.UNKNOWN_MODE in record.flags for record in records])
    assert 0.05 < unknown.mean() < 0.8
    assert {record.tier for record in records} == {1, 2, 3}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in BRIEF else [pytest.mark.long]) for name in SIZES],
)
@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="plain", marks=pytest.mark.long),
        pytest.param({"rules": True, "diagnosis": True}, id="all"),
    ],
)
def test_a_network(name: str, more: dict[str, bool]) -> None:
    bundle = models.stored(name, **({} if name == "forty-channels" else more))
    check(bundle, faulty_rows(bundle, ROWS, seed=len(name)))


@pytest.mark.parametrize("kind", ["tiny_bundle", "linear_bundle"])
@pytest.mark.parametrize(
    "tiers", [None, pytest.param(HASTY, marks=pytest.mark.long)], ids=["as shipped", "hasty"]
)
def test_a_converted_bundle(
    kind: str, tiers: m.Tiers | None, request: pytest.FixtureRequest
) -> None:
    bundle = read_bundle(request.getfixturevalue(kind))
    bundle = changed(bundle, tiers=tiers) if tiers else bundle
    check(bundle, faulty_rows(bundle, ROWS, seed=3))


def test_inputs_that_move_in_gaps(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    rows = faulty_rows(bundle, ROWS, seed=4)
    exogenous = next(i for i, c in enumerate(bundle.manifest.channels) if c.exogenous)
    scale = bundle.manifest.channels[exogenous].scale
    moves = np.random.default_rng(4).normal(0, scale, len(rows[::7])).cumsum()
    rows[:, exogenous] += np.repeat(moves, 7)[: len(rows)]
    rows[6::7] = np.nan
    check(bundle, rows)


@pytest.mark.long
def test_the_machines_above_meet_everything(tiny_bundle: Path) -> None:
    """Or the comparisons would say nothing."""
    network = changed(read_bundle(tiny_bundle), tiers=HASTY, change=None)
    records = check(network, faulty_rows(network, 1500, seed=3), 1500)
    for name in ("one channel, rules and diagnosis", "five channels, everything"):
        bundle = LINEAR[name]()
        records += check(bundle, faulty_rows(bundle, ROWS, seed=len(name)), ROWS)
    assert {record.tier for record in records} == {1, 2, 3}
    met = Flag(0)
    for record in records:
        met |= record.flags
    expected = Flag.IMPUTED | Flag.FREE_RUN | Flag.RESYNC | Flag.WARMUP | Flag.RESET | Flag.FALLBACK
    assert met == expected
    distrusted = [r.tier == 3 and not r.flags & (Flag.WARMUP | Flag.FREE_RUN) for r in records]
    assert any(d and records[i + 1].tier == 1 for i, d in enumerate(distrusted[:-1]))  # and back
    assert {"machine", "level", "spike", None} <= {record.kind for record in records}
    assert {len(record.blamed) for record in records} == {0, 1, 2, 3}
    assert any(record.alarm for record in records if record.tier == 3)


@pytest.mark.long
@pytest.mark.parametrize("levels", [(0.0, -1.0), (np.inf, np.inf), (1e300, -1e300), (np.nan, 1.0)])
def test_other_thresholds(levels: tuple[float, float]) -> None:
    bundle = LINEAR["five channels, everything"]()
    assert differences(bundle, faulty_rows(bundle, 400, seed=1), levels) == []


def test_a_threshold_between_two_floats() -> None:
    """The reference compares in double precision; a score that is just above is above there."""
    bundle = LINEAR["one channel"]()
    rows = faulty_rows(bundle, 400, seed=1)
    scores = [record.score for record in both(bundle, rows)[0] if record.tier == 1]
    score = float(np.float32(sorted(filter(None, scores))[len(scores) // 2]))
    for value in (score, np.nextafter(score, np.inf), np.nextafter(score, -np.inf)):
        assert differences(bundle, rows, (float(value), float(value) / 2)) == []


@pytest.mark.long
def test_a_state_that_saturates_or_freezes(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    rows = faulty_rows(bundle, 500, seed=2)
    for tiers in (replace(HASTY, saturated_limit=0.0), replace(HASTY, frozen_limit=0)):
        records = check(changed(bundle, tiers=tiers), rows, len(rows))
        assert any(Flag.RESET in record.flags for record in records)


COUNTS = st.integers(0, 20)
TIERS = st.builds(
    m.Tiers, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS,
    st.sampled_from([0.0, 0.2, 1.0]), COUNTS, COUNTS,
)  # fmt: skip
ALARMS = st.integers(1, 32).flatmap(
    lambda n: st.builds(m.AlarmRule, st.integers(1, n), st.just(n), st.integers(1, 20))
)
VALUES = st.one_of(
    st.sampled_from([float(value) for value in models.ODD]),
    st.floats(width=32),
    st.floats(-5, 5, width=32),
)


@given(
    size=st.integers(1, 6), seed=st.integers(0, 3), tiers=TIERS, alarm=ALARMS, data=st.data(),
    rules=st.booleans(), diagnosis=st.booleans(),
)  # fmt: skip
@settings(max_examples=20)
def test_any_rows_on_any_linear_machine(
    size: int, seed: int, tiers: m.Tiers, alarm: m.AlarmRule, data: st.DataObject, rules: bool,
    diagnosis: bool,
) -> None:  # fmt: skip
    bundle = models.linear(size, seed, rules=rules, diagnosis=diagnosis)
    check_any(changed(bundle, tiers=tiers, alarm=alarm), data)


@pytest.mark.long
@given(tiers=TIERS, alarm=ALARMS, data=st.data())
@settings(max_examples=10)
def test_any_rows_on_a_network(
    tiny_bundle: Path, tiers: m.Tiers, alarm: m.AlarmRule, data: st.DataObject
) -> None:
    check_any(changed(read_bundle(tiny_bundle), tiers=tiers, alarm=alarm), data)


PATTERNS = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 6), st.sampled_from(["all", "watched", "some"])),
    min_size=1, max_size=30,
)  # fmt: skip


@pytest.mark.long
@given(size=st.integers(1, 5), tiers=TIERS, pattern=PATTERNS, share=st.floats(0, 0.9))
@settings(max_examples=12)
def test_any_loss_on_a_linear_machine(
    size: int, tiers: m.Tiers, pattern: list[tuple[int, int, str]], share: float
) -> None:
    bundle = changed(models.linear(size, size, rules=True, diagnosis=True), tiers=tiers)
    assert differences(bundle, lossy(bundle, pattern, share), LEVELS) == []


@pytest.mark.long
@given(tiers=st.none() | TIERS, pattern=PATTERNS, share=st.floats(0, 0.9))
@settings(max_examples=8)
def test_any_loss_on_a_network(
    tiny_bundle: Path, tiers: m.Tiers | None, pattern: list[tuple[int, int, str]], share: float
) -> None:
    bundle = read_bundle(tiny_bundle)
    bundle = changed(bundle, tiers=tiers) if tiers else bundle
    assert differences(bundle, lossy(bundle, pattern, share), LEVELS) == []


CHANGES = st.builds(
    m.ChangeRule,
    after=st.integers(1, 12),
    rate=st.floats(0, 0.25, width=32),
    follow=st.lists(st.sampled_from([0.0, 0.02, 0.5, 1.0]), min_size=6, max_size=6),
)


def with_change(bundle: Bundle, change: m.ChangeRule) -> MadeBundle:
    follow = change.follow[: len(bundle.manifest.channels)]
    return changed(bundle, change=replace(change, follow=tuple(follow)))


@pytest.mark.long
@given(size=st.integers(1, 6), change=CHANGES, tiers=TIERS, data=st.data(), rules=st.booleans())
@settings(max_examples=15)
def test_any_lasting_change_of_a_linear_machine(
    size: int, change: m.ChangeRule, tiers: m.Tiers, data: st.DataObject, rules: bool
) -> None:
    bundle = models.linear(size, size, rules=rules, diagnosis=rules)
    check_any(with_change(changed(bundle, tiers=tiers), change), data)


@given(change=CHANGES, data=st.data())
@settings(max_examples=5)
def test_any_lasting_change_of_a_network(
    tiny_bundle: Path, change: m.ChangeRule, data: st.DataObject
) -> None:
    check_any(with_change(read_bundle(tiny_bundle), change), data)


@pytest.mark.long
@pytest.mark.parametrize("name", ["one channel", "five channels, everything"])
def test_a_machine_that_moves_and_comes_back(name: str) -> None:
    bundle = LINEAR[name]()
    count = len(bundle.manifest.channels)
    section = m.ChangeRule(8, 0.01, (0.05,) * count)
    bundle = changed(bundle, change=section, tiers=replace(bundle.manifest.tiers, warmup=10))
    rows = faulty_rows(bundle, 700, seed=2)
    scale = np.array([channel.scale for channel in bundle.manifest.channels])
    rows[150:400] += np.float32(12) * scale.astype(np.float32)
    assert differences(bundle, rows, LEVELS) == []
    flagged = [Flag.CHANGED in record.flags for record in check(bundle, rows, 700)]
    edges = np.flatnonzero(np.diff(np.array(flagged, int)))
    assert len(edges) >= 2 and not flagged[0] and not flagged[-1]


def lossy(bundle: Bundle, pattern: list[tuple[int, int, str]], share: float) -> np.ndarray:
    """Usual rows in which runs of rows, and a share of them at random, lack readings."""
    rows, rng = faulty_rows(bundle, 250, seed=len(pattern)), np.random.default_rng(len(pattern))
    channels = bundle.manifest.channels
    watched = [i for i, channel in enumerate(channels) if not channel.exogenous]
    at = 40
    for missing, there, which in pattern:
        some = rng.choice(len(channels), len(channels) // 2 + 1, replace=False)
        lost = {"all": range(len(channels)), "watched": watched, "some": some}[which]
        rows[at : at + missing, list(lost)] = np.nan
        at += missing + there
    rows[150:][rng.random(len(rows) - 150) < share] = np.nan
    return rows


def check_any(bundle: MadeBundle, data: st.DataObject) -> None:
    """Usual rows, in which rows or single cells are of any value."""
    rows = faulty_rows(bundle, 150, seed=data.draw(st.integers(0, 5)))
    shape = (data.draw(st.integers(1, 40)), rows.shape[1])
    odd = data.draw(arrays.arrays(np.float32, shape, elements=VALUES))
    at = data.draw(st.integers(0, len(rows) - len(odd)))
    held = data.draw(st.booleans())
    rows[at : at + len(odd)] = odd[0] if held else odd
    assert differences(bundle, rows, LEVELS) == []


def test_run_gives_the_records_of_step() -> None:
    bundle = LINEAR["five channels, everything"]()
    rows = faulty_rows(bundle, ROWS, seed=5)
    stepped = NativeDetector(bundle)
    records = [stepped.step(Sample(i, None, row)) for i, row in enumerate(rows)]
    found = NativeDetector(bundle).run(rows)
    names = bundle.manifest.channel_names
    assert RECORD.itemsize == native_core.core.RECORD_SIZE
    for record, one in zip(records, found, strict=True):
        for field in ("index", "tier", "score", "flags", "alarm", "valid"):
            assert getattr(record, field) == one[field]
        assert record.blamed == tuple(names[i] for i in one["blamed"] if i >= 0)
        for field in ("masked", "imputed"):
            word = int(one[field][0])
            listed = tuple(name for i, name in enumerate(names) if word >> i & 1)
            assert getattr(record, field) == listed
        assert record.kind is None if one["kind"] < 0 else record.probability == one["probability"]


def test_another_constant_is_noticed() -> None:
    """The comparison itself: one bit of the blob changed, the checksum mended."""
    bundle = LINEAR["five channels, everything"]()
    rows = faulty_rows(bundle, 300, seed=5)
    detector = NativeDetector(bundle)
    answers = list(detector.replay(rows, np.array(LEVELS)))
    blob = bytearray(detector._blob)
    noticed = 0
    for at in range(4 * 40, len(blob) - 200, 4 * 31):
        harmed = bytearray(blob)
        harmed[at + 2] ^= 1 << 6  # a mantissa's highest bit but one
        harmed[12:16] = zlib.crc32(harmed[16:]).to_bytes(4, "little")
        detector._blob = bytes(harmed)
        others = detector.replay(rows, np.array(LEVELS))
        noticed += any(
            not np.array_equal(a[name], b[name])
            for a, b in zip(answers, others, strict=True)
            for name in a
        )
    assert noticed > 10
