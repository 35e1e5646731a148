"""The golden vectors, and the self-test that replays them.

Golden vectors are a recording and the exact result of every step over it. The replay starts from a
fresh state and uses the same step that watches the machine, so it proves everything at once:
validity, forecast, graph, state, score, tiers, fallback, alarm and diagnosis. `golden.npz` holds
the raw `rows` [n, channels], the `threshold` of the replay's alarm [value, clear], and one array
[n, …] for each quantity of `answers`.

The replay has its own threshold. Neither the manifest's nor one that the device calibrates later
is used, so nothing that a device may change can change the answers.

Only zeros of opposite sign count as equal: a maximum of both gives either, by processor.

A detector runs the whole self-test before it serves. Memory may fail later, so it then replays a
few steps with each sample, again and again, and compares the weights with a copy.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import PARTS
from edge_runtime.bundle.manifest_rules import FORMER_PARTS, OLDER
from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.cell import Model, Traces
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.interpreter import Int8Graph
from edge_runtime.detector.step import State, initial_state, step
from edge_runtime.diagnosis import KINDS, LIMIT
from edge_runtime.errors import GruardError
from edge_runtime.record import Float32, Record, Sample

Array = npt.NDArray[Any]
Play = Callable[[Float32, Array], Iterator[dict[str, Array]]]
"""Replays raw rows [n, channels] with a threshold [value, clear]; yields each step's answers."""

ROWS, THRESHOLD, CODES = "rows", "threshold", "codes/"
# Fewer steps prove too little, more make a start too slow.
FEWEST_STEPS, MOST_STEPS = 256, 4096
FEWEST_BEFORE = 64  # of a bundle of an older schema
# What is compared on a kernel other than the reference, and the largest RMS difference.
COMPARED, TOLERANCE = ("forecast", "gate", "state"), 0.05
NONE = -1
PART = 4  # steps of the self-test with each sample while the model is distrusted
WATCH_EVERY = 16  # samples between two checks of a trusted model


@dataclass(frozen=True)
class Golden:
    """rows: float32 [n, channels] in raw units. threshold: float64 [2]. answers: [n, …] each."""

    rows: Float32
    threshold: npt.NDArray[np.float64]
    answers: dict[str, Array]


def replay(model: Model, rows: Float32, threshold: Array) -> Iterator[dict[str, Array]]:
    """Yield the answers of each step over raw `rows` [n, channels], from a fresh state.

    threshold: [value, clear] of the alarm. The names are in the order of computation, except the
    graph's, `codes/…`, which are in the order of its outputs.
    """
    model = _with_threshold(model, threshold)
    state, fallback = initial_state(model), Fallback(model.manifest, model.model_hash)
    for index, values in enumerate(rows):
        sample = Sample(index, None, values)
        shadow = fallback.step(sample, state.change.centre)
        record, state, traces = step(model, sample, state, shadow)
        yield _answers(model, record, shadow, state, traces)


def read_golden(arrays: Mapping[str, Array], play: Play, channels: int) -> Golden:
    """Return the golden vectors in the untrusted `arrays`; ValueError if they do not fit."""
    missing = sorted({ROWS, THRESHOLD} - set(arrays))
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    rows, threshold = arrays[ROWS], arrays[THRESHOLD]
    _expect(ROWS, rows, np.dtype(np.float32), (len(rows) if rows.ndim else 0, channels))
    if not FEWEST_STEPS <= len(rows) <= MOST_STEPS:
        raise ValueError(f"{len(rows)} steps, {FEWEST_STEPS} to {MOST_STEPS} are expected")
    _expect(THRESHOLD, threshold, np.dtype(np.float64), (2,))
    first = next(play(rows, threshold))
    answers = {name: arrays[name] for name in arrays if name not in (ROWS, THRESHOLD)}
    if "parts" in answers:
        answers["parts"] = _all_parts(answers["parts"])
    different = sorted(set(answers) ^ set(first))
    if different:
        raise ValueError(f"{different[0]} is {'missing' if different[0] in first else 'unknown'}")
    for name, answer in first.items():
        _expect(name, answers[name], answer.dtype, (len(rows), *answer.shape))
    return Golden(rows, threshold, answers)


def _all_parts(parts: Array) -> Array:
    """Widen the four parts of a score before schema 5 to six; the new ones are 0."""
    if parts.ndim != 2 or parts.shape[1] != len(FORMER_PARTS):
        return parts
    whole = np.zeros((len(parts), len(PARTS)), parts.dtype)
    whole[:, [PARTS.index(part) for part in FORMER_PARTS]] = parts
    return whole


def before_missing(golden: Golden) -> Golden:
    """Return the steps before the first row with a missing reading.

    Bundles of an older schema were made when missing readings got other answers. ValueError when
    fewer than `FEWEST_BEFORE` steps are left.
    """
    missing = np.flatnonzero(np.isnan(golden.rows).any(axis=1))
    count = int(missing[0]) if len(missing) else len(golden.rows)
    if count < FEWEST_BEFORE:
        raise ValueError(
            f"only {count} steps of an older gruard come before a missing reading; "
            "convert its run again"
        )
    answers = {name: answer[:count] for name, answer in golden.answers.items()}
    return replace(golden, rows=golden.rows[:count], answers=answers)


def differences(play: Play, golden: Golden) -> Iterator[str]:
    """Yield for each step where it differs from `golden`, or an empty string."""
    expected: npt.NDArray[np.uint8] | None = None
    for number, answers in enumerate(play(golden.rows, golden.threshold)):
        if expected is None:
            expected = _by_step(golden, answers)
        # The same bytes are equal. Only others are worth the slower look at every number.
        if b"".join([v.tobytes() for v in answers.values()]) == expected[number].tobytes():
            yield ""
            continue
        names = [n for n, v in answers.items() if not np.array_equal(v, golden.answers[n][number])]
        yield f"step {number} in {', '.join(names)}" if names else ""


def _by_step(golden: Golden, names: Iterable[str]) -> npt.NDArray[np.uint8]:
    """Return the bytes [n, …] of the answers `names` of each step, one after the other."""
    steps = len(golden.rows)
    whole = [np.frombuffer(golden.answers[name].tobytes(), np.uint8) for name in names]
    return np.hstack([octets.reshape(steps, len(octets) // steps) for octets in whole])


def too_far_apart(play: Play, golden: Golden) -> Iterator[str]:
    """Do the same for a kernel other than the reference, which gives other bits.

    Validation has shown how well the kernel detects; this shows that file and machine are sound.
    The last step says what differs from `golden` by more than `TOLERANCE`, RMS over all steps.
    """
    errors: dict[str, list[Array]] = {name: [] for name in COMPARED}
    for number, answers in enumerate(play(golden.rows, golden.threshold)):
        for name, apart in errors.items():
            apart.append(answers[name] - golden.answers[name][number])
        if number < len(golden.rows) - 1:
            yield ""
    far = [name for name, apart in errors.items() if not _rms(apart) <= TOLERANCE]
    yield f"step {number} in {', '.join(far)}, RMS over {TOLERANCE:g}" if far else ""


def _rms(errors: list[Array]) -> float:
    """Return the root mean square, 0 if there is nothing to compare."""
    squares = np.array(errors, np.float64) ** 2
    return float(np.sqrt(squares.mean())) if squares.size else 0.0


def _answers(
    model: Model, record: Record, shadow: Record, state: State, traces: Traces
) -> dict[str, Array]:
    """Return every quantity of a step that another machine could compute differently.

    kind: index into `KINDS`; blamed: channels, worst first; both -1 where there is none.
    """
    names = model.manifest.channel_names
    blamed = [names.index(name) for name in record.blamed]
    kind = NONE if record.kind is None else KINDS.index(record.kind)
    codes = model.graph.codes(traces.inputs) if isinstance(model.graph, Int8Graph) else {}
    return {
        "mask": traces.mask > 0,
        "forecast": traces.forecast,
        **{f"{CODES}{name}": code for name, code in codes.items()},
        "gate": traces.gate,
        "state": np.concatenate([*traces.hidden, np.zeros(0, np.float32)]),
        "parts": state.score.parts.ravel(),
        "score": np.asarray(traces.score),
        "fallback": np.array([shadow.score or 0, shadow.alarm], np.float32),
        "tier": np.asarray(record.tier, np.int8),
        "flags": np.asarray(int(record.flags), np.int16),
        "alarm": np.asarray(record.alarm),
        "blamed": np.array([*blamed, *[NONE] * LIMIT][:LIMIT], np.int16),
        "kind": np.asarray(kind, np.int8),
        "probability": np.asarray(record.probability or 0, np.float32),
    }


def _with_threshold(model: Model, threshold: Array) -> Model:
    kernel, (value, clear) = model.graph.kernel_id, threshold.tolist()
    own = replace(model.manifest.thresholds[kernel], value=value, clear=clear)
    return replace(model, manifest=replace(model.manifest, thresholds={kernel: own}))


def _expect(name: str, array: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"{name} is {array.dtype} {list(array.shape)}, {dtype} {list(shape)} is expected"
        )


class SelfTest:
    """Replays the golden vectors of `bundle` through `play`.

    weights: the very memory that the kernel reads. exact: every bit must be as validated; a kernel
    other than the reference may differ by a small tolerance. All methods raise GruardError when
    something differs.
    """

    def __init__(self, bundle: Bundle, play: Play, weights: bytes, exact: bool) -> None:
        self._bundle, self._play, self._weights, self._exact = bundle, play, weights, exact
        self._copy = bytes(memoryview(weights))
        self._rest: Iterator[str] | None = None
        self._samples = 0
        self._proven = False  # whether a whole self-test passed since the model was distrusted

    def run(self) -> None:
        """Run the whole self-test."""
        for difference in self._differences():
            self._refuse(difference)

    def advance(self, distrusted: bool, still: bool) -> None:
        """Run a part after a sample; the model was `distrusted` before it and `still` is after it.

        One whole self-test is complete by the time the model is trusted again.
        """
        self._samples += 1
        if still and not distrusted:
            self._proven, self._rest = False, None
        if distrusted and not self._proven:
            self._proven = self._test_a_part(PART, finish=not still)
        elif self._samples % WATCH_EVERY == 0:
            self._check_weights()
            self._test_a_part(1)

    def _check_weights(self) -> None:
        if self._weights != self._copy:  # a tenth of the time of a checksum
            raise GruardError(f"{self._bundle.path}: its weights changed in memory")

    def _test_a_part(self, steps: int, finish: bool = False) -> bool:
        """Run a few steps, as all would miss the sample's deadline; True at the end."""
        if self._rest is None:
            self._rest = self._differences()
        tested = 0
        for difference in self._rest if finish else islice(self._rest, steps):
            self._refuse(difference)
            tested += 1
        ended = finish or tested < steps
        if ended:
            self._rest = None
        return ended

    def _differences(self) -> Iterator[str]:
        arrays = self._bundle.arrays("golden.npz")
        try:
            golden = read_golden(arrays, self._play, len(self._bundle.manifest.channels))
            if self._bundle.manifest.schema <= OLDER:
                golden = before_missing(golden)
        except ValueError as error:
            raise GruardError(
                f"{self._bundle.path}: golden vectors do not fit the model: {error}"
            ) from None
        return (differences if self._exact else too_far_apart)(self._play, golden)

    def _refuse(self, difference: str) -> None:
        if difference:
            raise GruardError(
                f"{self._bundle.path}: self-test failed at {difference}; this machine does not "
                "compute what was validated"
            )
