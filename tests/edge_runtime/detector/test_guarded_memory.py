"""Real bits flipped in the live memory of both fallbacks: no record shows it, and the log does."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import native_core  # noqa: F401
import numpy as np
import pytest
from made_bundle import write_made_bundle

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.fallback import (
    PIECE,
    VIEWS,
    DamageLog,
    Fallback,
    GuardedMemory,
    MemoryLostError,
)
from edge_runtime.native.engine import NativeFallback
from edge_runtime.record import Record, Sample

Either = Fallback | NativeFallback
FAULT = np.array([0.0, 50.0, 0.0], np.float32)  # far beyond every limit


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return read_bundle(write_made_bundle(tmp_path))


class Pair:
    """A fallback that is harmed, and one that is not."""

    def __init__(self, bundle: Bundle, make: Callable[[Callable[[str], None]], Either]) -> None:
        self.bundle = bundle
        self.lines: list[str] = []
        self.harmed, self.healthy = make(self.lines.append), make(print)
        self.rows = np.random.default_rng(3).uniform(-1, 1, (97, 3)).astype(np.float32)
        self.rows[40:60, 2], self.rows[70:80] = np.nan, FAULT
        self.index = 0

    def records(self, samples: int) -> Iterator[tuple[Record, Record]]:
        for _ in range(samples):
            row = self.rows[self.index % len(self.rows)]
            sample = Sample(self.index, 0.5 * self.index, row)
            self.index += 1
            yield self.harmed.step(sample), self.healthy.step(sample)

    def agree(self, samples: int) -> None:
        for harmed, healthy in self.records(samples):
            assert harmed == healthy


@pytest.fixture(params=["reference", "core"])
def pair(request: pytest.FixtureRequest, bundle: Bundle) -> Pair:
    if request.param == "core":
        return Pair(bundle, lambda log: NativeFallback(bundle, log))
    return Pair(bundle, lambda log: Fallback(bundle.manifest, bundle.model_hash, log))


def limits_of(fallback: Either, bundle: Bundle) -> memoryview:
    """The bytes of the limits, where the fallback reads them."""
    if isinstance(fallback, Fallback):
        return fallback._constants.limits.data.cast("B")
    constants = bundle.manifest.fallback
    values = np.array([getattr(constants, view) for view in VIEWS], np.float32).tobytes()
    at = fallback._blob.find(values)
    assert at > 0 and fallback._blob.count(values) == 1
    return memoryview(fallback._blob)[at : at + len(values)]


def state_of(fallback: Either) -> list[memoryview]:
    if isinstance(fallback, Fallback):
        return [fallback._state.block.data.cast("B")]
    return [view.cast("B") for view in fallback._core.live()]


def flip(memory: memoryview, bit: int) -> None:
    memory[bit // 8] ^= 1 << bit % 8


def test_every_bit_of_every_limit_is_restored_before_it_is_used(pair: Pair, bundle: Bundle) -> None:
    """With a flipped exponent bit none of 380 records raised an alarm under a gross fault."""
    limits = limits_of(pair.harmed, bundle)
    pair.agree(100)
    for bit in range(8 * len(limits)):
        flip(limits, bit)
        pair.agree(1)
    assert pair.harmed.repaired == 8 * len(limits) == 6 * 3 * 32
    assert pair.lines[0] == "constants of the fallback changed in memory; restored from their copy"
    assert len(pair.lines) == 10  # 1, 2, 4, ... 512 of 576: no log is flooded


def test_without_the_guard_a_flipped_exponent_bit_hides_a_gross_fault(
    pair: Pair, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the test above would prove nothing."""
    monkeypatch.setattr(GuardedMemory, "restore", lambda self: False)
    limits = limits_of(pair.harmed, bundle)
    for start in range(0, len(limits), 4):
        flip(limits, 8 * start + 30)
    assert any(harmed != healthy for harmed, healthy in pair.records(100))


def test_every_bit_of_the_alarm_s_m_of_n_is_restored(bundle: Bundle) -> None:
    """With a flipped high bit of m none of 380 records raised an alarm under a gross fault."""
    pair = Pair(bundle, lambda log: Fallback(bundle.manifest, bundle.model_hash, log))
    fallback, alarm = pair.harmed, bundle.manifest.alarm
    assert isinstance(fallback, Fallback)
    memory = fallback._constants.alarm.data.cast("B")
    assert fallback._constants.alarm.tolist() == [alarm.m, alarm.n, alarm.clear_after]
    pair.rows[20:] = FAULT
    for bit in range(8 * len(memory)):
        flip(memory, bit)
        pair.agree(1)
    assert pair.harmed.repaired == 3 * 32
    assert all(record.alarm for record, _ in pair.records(10))


def test_a_step_reads_no_number_of_the_alarm_outside_the_guarded_block(bundle: Bundle) -> None:
    manifest = deepcopy(bundle.manifest)
    pair = Pair(bundle, lambda log: Fallback(bundle.manifest, bundle.model_hash, log))
    pair.harmed = Fallback(manifest, bundle.model_hash)
    pair.rows[20:] = FAULT
    pair.agree(10)
    for name in ("m", "n", "clear_after"):
        object.__setattr__(manifest.alarm, name, getattr(manifest.alarm, name) | 1 << 30)
    pair.agree(90)
    assert all(record.alarm for record, _ in pair.records(10))


def test_every_bit_of_the_state_is_restored(pair: Pair) -> None:
    pair.agree(45)
    flipped = 0
    for memory in state_of(pair.harmed):
        for bit in range(0, 8 * len(memory), 3):
            flip(memory, bit)
            pair.agree(1)
            flipped += 1
    assert pair.harmed.repaired == flipped > 200
    assert "state of the fallback changed in memory; restored from its copy" in pair.lines


def healthy_level(pair: Pair) -> np.ndarray:
    """The running level after the same samples, by the reference."""
    bundle = pair.bundle
    fallback = Fallback(bundle.manifest, bundle.model_hash)
    for index in range(pair.index):
        fallback.step(Sample(index, None, pair.rows[index]))
    return fallback._state.views.level.copy()


def test_what_a_step_itself_leaves_wrong_does_not_stay(pair: Pair) -> None:
    """A level that is not a number never is one again; here it comes with the right checksum."""
    pair.agree(5)
    fallback = pair.harmed
    level = healthy_level(pair)
    if isinstance(fallback, Fallback):
        assert fallback._state.views.level.tolist() == level.tolist()
        fallback._state.views.level[:] = np.nan
    else:
        memory = np.frombuffer(fallback._core.live()[2], np.float32)
        memory.reshape(-1)[np.isin(memory, level)] = np.nan
    for state in fallback._guarded_state:
        state.renew()
    records = [harmed for harmed, _ in pair.records(100)]
    assert all(record.score is not None and np.isfinite(record.score) for record in records)
    assert "a step of the fallback changed in memory; it starts afresh" in pair.lines
    assert any(record.alarm for record in records)


def test_the_bundle_has_the_constants_when_the_copy_is_damaged_too(
    pair: Pair, bundle: Bundle
) -> None:
    fallback = pair.harmed
    pair.agree(3)
    copies = fallback._guarded_constants._copies
    copies[0] = bytes(len(copies[0]))
    flip(limits_of(fallback, bundle), 30)
    pair.agree(100)
    told = "constants of the fallback and their copy changed in memory; read from the bundle"
    assert pair.lines == [told]


def test_the_fallback_starts_afresh_when_the_copy_of_its_state_is_damaged_too(pair: Pair) -> None:
    pair.agree(50)
    for state in pair.harmed._guarded_state:
        state._copies[0] = bytes(len(state._copies[0]))
    flip(state_of(pair.harmed)[0], 30)
    records = [harmed for harmed, _ in pair.records(100)]
    assert pair.lines == ["state of the fallback and its copy changed in memory; it starts afresh"]
    assert all(record.score is not None and np.isfinite(record.score) for record in records)
    assert any(record.alarm for record in records)


def test_a_damaged_copy_is_mended_and_the_live_bytes_stay() -> None:
    live = bytearray(range(100))
    guarded = GuardedMemory(memoryview(live))
    guarded._copies[0] = bytes(100)
    assert guarded.restore() and live == bytes(range(100)) and not guarded.restore()


def test_a_long_piece_of_memory_is_compared_in_a_bounded_number_of_looks() -> None:
    live = bytearray(5 * PIECE + 7)
    guarded = GuardedMemory(memoryview(live))
    for position in (0, PIECE, 5 * PIECE + 6):
        live[position] ^= 64
        assert [guarded.restore() for _ in range(6)].count(True) == 1
        assert not any(live)


def test_memory_that_is_lost_is_told() -> None:
    live = bytearray(50)
    guarded = GuardedMemory(memoryview(live))
    live[3], guarded._copies[0] = 1, bytes(49) + b"\x01"
    with pytest.raises(MemoryLostError):
        guarded.restore()


def test_damage_is_counted_always_and_told_less_and_less_often() -> None:
    lines: list[str] = []
    log = DamageLog(lines.append)
    for _ in range(1000):
        log.note("it", "mended")
    assert log.count == 1000 and len(lines) == 10
    assert lines[-1] == "it changed in memory (512 times so far); mended"
