"""Flipped bits in what a step leaves behind: the recurrent state, the interpreter's tensors."""

import contextlib
import itertools
import json
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_runtime.detector.detector import Detector
from edge_runtime.detector.interpreter import Int8Graph
from edge_runtime.record import Sample
from tests.campaign.fault import Fault, Happened, Json, expect
from tests.campaign.lab import Lab, Run
from tests.campaign.memory import (
    INTERPRETED,
    START,
    flip,
    flip_in_memory,
    memory_of,
    places,
    until_told,
)
from tests.campaign.processes import until_back

CALM = 100  # samples from one flip in the state to the next
CLOSE = 0.01  # of the threshold: an answer is the undisturbed one again
_REPLACED = "the fallback answers until it restarts"
_LANDMARKS = ("state_0", "candidate_0")  # tensors large enough to be unmistakable


class _Twin:
    """The detector of a run once more, in this process: it has the same numbers, bit for bit.

    So it tells where in the other process they lie, and what an undisturbed one answers.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab, self._detector, self._rows = lab, Detector(lab.bundle), itertools.count()

    def follow(self, count: int) -> list[Json]:
        """The records of the next `count` rows of the lab."""
        records = []
        for index in itertools.islice(self._rows, count):
            row = self._lab.rows[index % len(self._lab.rows)]
            record = self._detector.step(Sample(index, index * self._lab.period, row))
            records.append(json.loads(record.to_json()))
        return records

    @property
    def state(self) -> np.ndarray:
        """The recurrent state of the first layer, float32 [units], in place."""
        recurrent = self._detector.state.recurrent
        expect(recurrent is not None and bool(recurrent.hidden), "there is no recurrent state")
        assert recurrent is not None
        return recurrent.hidden[0]

    def arena(self, run: Run) -> range:
        """Where the tensors between input and output of the graph lie in the run's process."""
        graph, summary = self._detector.graph, self._lab.bundle.graph
        assert isinstance(graph, Int8Graph)
        tensors = {**summary.inputs, **summary.outputs}
        views = {name: graph._interpreter.tensor(i)() for name, i in tensors.items()}
        address = {name: view.__array_interface__["data"][0] for name, view in views.items()}
        low = min(address.values())
        high = max(address[name] + view.nbytes for name, view in views.items())
        known = {name: set(places(run, views[name].tobytes())) for name in _LANDMARKS}
        first, second = _LANDMARKS
        away = address[second] - address[first]
        found = [place for place in known[first] if place + away in known[second]]
        expect(len(found) == 1, f"the arena is found {len(found)} times in memory")
        begin = found[0] + low - address[first]
        return range(begin, begin + high - low)


def _feed(run: Run, count: int) -> list[Json]:
    """The run's records of its next `count` rows, those that a _Twin follows."""
    first = len(run.records)
    rows = run.lab.rows
    run.feed(rows[np.arange(first, first + count) % len(rows)])
    return run.records[first:]


def _feed_both(run: Run, twin: _Twin) -> None:
    """START rows to the run and to its twin: from here on they are one."""
    expected = twin.follow(START)  # first: a live source must not fall silent meanwhile
    same = _feed(run, START) == expected
    expect(same, "other answers without any fault: too busy a machine for real time?")


def _impossible_state(lab: Lab) -> Happened:
    """The highest bit of the exponent: a number that no step leaves."""
    twin = _Twin(lab)
    with lab.run(*INTERPRETED) as run:
        _feed_both(run, twin)
        for place in places(run, twin.state.tobytes()):
            flip_in_memory(run, place + 3, bit=6)
        count = until_told(run, "its state changed in memory")
        expect(count <= 2, f"noticed after {count} samples")
        back = until_back(run)
    return f"noticed after {count} samples, the process replaced, the model back after {back}"


@dataclass(frozen=True)
class _Flip:
    """A bit of a unit of the recurrent state, the state before it, and the answers after it."""

    unit: int
    bit: int
    before: bytes
    answers: list[Json]


def _planned(twin: _Twin, count: int) -> Iterator[_Flip]:
    """Flips of random signs and mantissas, made in the twin."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        before = twin.state.tobytes()
        unit, bit = int(rng.integers(len(twin.state))), int(rng.choice([*range(23), 31]))
        twin.state.view(np.uint32)[unit] ^= np.uint32(1 << bit)
        yield _Flip(unit, bit, before, twin.follow(CALM))


def _possible_state(lab: Lab) -> Happened:
    """Numbers that a step might have left."""
    twin, undisturbed = _Twin(lab), _Twin(lab)
    first, _ = twin.follow(START), undisturbed.follow(START)
    flips = list(_planned(twin, 24))
    slowest, farthest = 0, 0.0
    with lab.run(*INTERPRETED) as run:
        expect(_feed(run, START) == first, "other answers without any fault")
        for planned in flips:
            found = places(run, planned.before)
            expect(len(found) == 1, f"the state is found {len(found)} times in memory")
            flip_in_memory(run, found[0] + 4 * planned.unit + planned.bit // 8, planned.bit % 8)
            expect(_feed(run, CALM) == planned.answers, "the flip had another effect than here")
    for planned in flips:
        pairs = zip(planned.answers, undisturbed.follow(CALM), strict=True)
        apart = [_apart(record, other) for record, other in pairs]
        slowest = max(slowest, *(i + 1 for i, far in enumerate(apart) if far > CLOSE), 0)
        farthest = max(farthest, *apart)
    expect(slowest < CALM, f"another answer {slowest} samples after a flip")
    return (
        f"{len(flips)} flips: scores off by {farthest:.1%} of the threshold at most, and by more "
        f"than {CLOSE:.0%} for {slowest} samples at most"
    )


def _apart(record: Json, other: Json) -> float:
    """How far two answers are apart, in thresholds; infinite where their decisions are."""
    if any(record[key] != other[key] for key in ("tier", "alarm")):
        return math.inf
    return float(abs(record["score"] - other["score"]) / other["threshold"])


def _arena_at_rest(lab: Lab) -> Happened:
    """Between two steps: every tensor is written before it is read."""
    twin, rng, each = _Twin(lab), np.random.default_rng(0), 20
    with lab.run(*INTERPRETED) as run:
        _feed_both(run, twin)
        arena = twin.arena(run)
        for _ in range(CALM):
            for _ in range(each):
                flip_in_memory(run, int(rng.choice(arena)), int(rng.integers(8)))
            _feed(run, 1)
        expected = twin.follow(CALM)
    same = sum(a == b for a, b in zip(run.records[START:], expected, strict=True))
    expect(same == CALM, f"{CALM - same} answers of {CALM} are others")
    return f"{each * CALM:,} flips: every answer as without them, bit for bit"


def _arena_under_way(lab: Lab) -> Happened:
    """As fast as this program can, whether a step is under way or not."""
    twin = _Twin(lab)
    with lab.run(*INTERPRETED) as run:
        _feed_both(run, twin)
        with _bombarded(run, twin.arena(run)):
            count = until_told(run, _REPLACED)
        why = next(line for line in run.log if _REPLACED in line)
        back = until_back(run)
    clean = twin.follow(count)
    wrong = sum(_apart(a, b) > CLOSE for a, b in zip(run.records[START:], clean, strict=False))
    return (
        f"noticed after {count} samples, {wrong} of them with other scores "
        f"({_reason(why)}); the process replaced, the model back after {back}"
    )


def _reason(line: str) -> str:
    known = ("self-test failed", "state changed in memory", "ended by")
    return next((words for words in known if words in line), line)


@contextlib.contextmanager
def _bombarded(run: Run, arena: range) -> Iterator[None]:
    """Bits of `arena` are flipped all along, until the process ends."""
    rng, enough = np.random.default_rng(0), threading.Event()

    def bombard() -> None:
        with contextlib.suppress(OSError), memory_of(run) as memory:
            while not enough.is_set():
                flip(memory, int(rng.integers(arena.start, arena.stop)), int(rng.integers(8)))

    thread = threading.Thread(target=bombard, daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


FAULTS = (
    Fault("state, impossible", "a bit that makes a unit huge", "noticed within 2 samples, replaced",
          _impossible_state),
    Fault("state, possible", "signs and mantissas of units",
          "the undisturbed answers within 100 samples", _possible_state),
    Fault("arena between steps", "2,000 bits of the interpreter's tensors",
          "every answer as without", _arena_at_rest),
    Fault("arena during steps", "bits of the interpreter's tensors without end",
          "noticed, process replaced", _arena_under_way),
)  # fmt: skip
