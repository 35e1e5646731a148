"""A worker is believed as little as a stranger: what it says is checked before it is used."""

import json
import random
from contextlib import suppress
from dataclasses import replace

import faulty_worker
import numpy as np
import pytest
from faulty_worker import LIES, model_record
from hypothesis import given
from hypothesis import strategies as st
from supervised_run import Run, WatchedProcess, fallback_indices
from test_wire import MESSAGES

from edge_runtime.record import Flag, Record, Sample
from edge_runtime.supervision import wire

IDENTITY = faulty_worker.identity_of("")
SAMPLE = Sample(4, 4.0, np.zeros(1, np.float32))
HELLO = wire.Hello("core-c", 0.5, IDENTITY.digest, IDENTITY.model)


def strict(text: str) -> dict[str, object]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    found = json.loads(text, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def test_what_a_model_answers_is_accepted() -> None:
    record = model_record(SAMPLE)
    diagnosed = replace(record, alarm=True, kind="drift", probability=1.0, sensor=True)
    distrusted = replace(record, tier=3, flags=Flag.FALLBACK | Flag.WARMUP, valid=False)
    alone = replace(record, tier=2, flags=Flag.FREE_RUN | Flag.IMPUTED, imputed=("a",))
    for answer in (record, diagnosed, distrusted, alone):
        assert IDENTITY.fault_of_record(answer, SAMPLE.time) is None
    timeless = replace(SAMPLE, time=None)
    assert IDENTITY.fault_of_record(model_record(timeless), None) is None
    assert IDENTITY.fault_of_hello(HELLO) is None


@pytest.mark.parametrize("lie", LIES)
def test_what_no_model_can_answer_is_refused(lie: str) -> None:
    record = replace(model_record(SAMPLE), **LIES[lie])  # type: ignore[arg-type]
    assert IDENTITY.fault_of_record(record, SAMPLE.time)


@pytest.mark.parametrize("change", [{"digest": "f" * 64}, {"model": "f" * 12}])
def test_another_bundle_than_the_supervisor_s_is_refused(change: dict[str, str]) -> None:
    assert IDENTITY.fault_of_hello(replace(HELLO, **change))


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("tier-18", "sent an answer to sample 4 that is of tier 18"),
        ("score-nan", "that has the score nan"),
        ("other-model", "that names model ba9876543210"),
        ("flip", "sent garbage: a RECORD frame whose checksum does not match"),
    ],
)
def test_a_foreign_record_ends_the_worker_and_not_the_supervisor(fault: str, told: str) -> None:
    """Tier 18 was a KeyError in the supervisor, and NaN went out as a valid score."""
    run = Run(WatchedProcess(f"{fault}@4"), rows=7)
    records = run()
    assert fallback_indices(records)[0] == 4 and len(records) == 7
    assert told in run.log and "; the fallback answers until it restarts\n" in run.log
    for record in records:
        strict(record.to_json())


def test_a_worker_that_loaded_another_bundle_never_answers() -> None:
    """A worker that began anew took whatever lay at the bundle's path, and nothing said so."""
    run = Run(WatchedProcess("load:other"), rows=4)
    assert fallback_indices(run()) == [0, 1, 2, 3]
    assert "gruard: worker loaded another bundle than this run was started with" in run.log
    assert run.supervisor.summary.restarts > 1  # it may have been put back: try again


def test_no_frame_with_flipped_bits_is_accepted() -> None:
    """2,895 of 8,000 such frames were."""
    draw = random.Random(5)
    frames = [wire.encode(message) for message in (*MESSAGES, model_record(SAMPLE), SAMPLE)]
    accepted = 0
    for _ in range(8_000):
        frame = bytearray(draw.choice(frames))
        for bit in draw.sample(range(8 * len(frame)), draw.choice((1, 1, 1, 2, 3, 8, 30))):
            frame[bit // 8] ^= 1 << bit % 8
        buffer = wire.FrameBuffer()
        buffer.feed(bytes(frame) + wire.encode(wire.Stop()))  # a wrong length finds bytes to take
        with suppress(wire.WireError):
            accepted += len(list(buffer.messages()))
    assert accepted == 0


def test_the_count_of_flipped_frames_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_checksum", lambda head, payload: 0)
    frame = bytearray(wire.encode(model_record(SAMPLE)))
    frame[30] ^= 1
    assert list(decoded(bytes(frame)))


def decoded(data: bytes) -> list[wire.Message]:
    buffer = wire.FrameBuffer()
    buffer.feed(data)
    return list(buffer.messages())


anything = st.floats(allow_nan=True, allow_infinity=True) | st.none()


@given(time=anything, score=anything, threshold=anything, probability=anything)
def test_output_is_strict_json_whatever_a_record_holds(
    time: float | None, score: float | None, threshold: float | None, probability: float | None
) -> None:
    record = replace(
        model_record(SAMPLE), time=time, score=score, threshold=threshold, probability=probability
    )
    found = strict(record.to_json())
    assert found["valid"] == (score is not None and bool(np.isfinite(score)))
    assert (found["score"] is None) == (not found["valid"])
    assert isinstance(record, Record)
