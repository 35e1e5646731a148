"""A worker with the real protocol, a fake detector and real faults, for the supervisor's tests.

Run as a program: `faulty_worker.py PLAN --request-fd N …`. PLAN is comma-separated:
`hang@5` breaks at sample 5, `raise@*` at every sample, `load:exit` while loading, `ill@*` answers
that it distrusts itself, `tier-18@5` and the other LIES answer what cannot be true, `flip@5` has
one bit flipped on the way, `hello@5` says hello again, `load:other` has loaded another bundle, and
`load:record` answers before it says hello. `change@5` finds that the
machine has changed for good, `back@9` that it is back, and `far@5` tells of an impossible change.
A fault is the sample's and breaks every process that it is given to; `first-raise@5` breaks only
one that was not told to start afresh. `NAME:PLAN` gives the model of the records another name.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edge_runtime.detector.lasting_change import ChangePhase, LastingChange
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.supervision import wire
from edge_runtime.supervision.worker import EXIT_FAILED, Checkpoints, become_worker, serve
from edge_runtime.supervision.worker_process import BundleIdentity

MODEL = "0123456789ab"
DIGEST = "d" * 64
WARMUP = 5
NO_FLAGS = Flag(0)
# Records that no model can give, by the name of the fault.
LIES: dict[str, dict[str, object]] = {
    "tier-18": {"tier": 18},
    "tier-0": {"tier": 0},
    "valid-fallback": {"flags": Flag.FALLBACK},
    "valid-warmup": {"flags": Flag.WARMUP},
    "tier-3-unmarked": {"tier": 3, "valid": False},
    "late-flag": {"flags": Flag.LATE},
    "recurring-flag": {"flags": Flag.RECURRING},
    "muted-flag": {"flags": Flag.MUTED},
    "learning-flag": {"flags": Flag.LEARNING},
    "score-inf": {"score": float("inf")},
    "score-nan": {"score": float("nan")},
    "no-score": {"score": None},
    "threshold-inf": {"threshold": -float("inf")},
    "probability-2": {"kind": "level", "probability": 2.0, "sensor": True},
    "half-a-diagnosis": {"probability": 0.5},
    "unknown-kind": {"kind": "gremlin", "probability": 0.5, "sensor": True},
    "stranger": {"blamed": ("stranger",)},
    "other-model": {"model": "ba9876543210"},
    "other-time": {"time": 1e6},
}


def alarming(sample: Sample) -> bool:
    """The one rule of both fake detectors, so that they agree."""
    return bool(np.nan_to_num(sample.values[0]) > 100)


def model_record(sample: Sample, flags: Flag = NO_FLAGS) -> Record:
    """What the fake model says; the score tells which sample was answered."""
    alarm = alarming(sample)
    return Record(
        sample.index,
        sample.time,
        tier=1,
        flags=flags,
        valid=not flags & ~Flag.CHANGED,
        score=float(sample.index),
        threshold=1e9,
        alarm=alarm,
        masked=(),
        imputed=(),
        blamed=("a",) if alarm else (),
        model=MODEL,
    )


class FakeDetector:
    """Answers like a model, and breaks as planned."""

    def __init__(
        self, plan: dict[str, str], request_fd: int, reply_fd: int, model: str = MODEL
    ) -> None:
        self.plan, self.request_fd, self.reply_fd = plan, request_fd, reply_fd
        self.model = model
        self.warmup_left, self.fresh = 0, True
        self.lasting_change = LastingChange(0, 0, (), (0.0,) * 6)

    @property
    def change_phase(self) -> ChangePhase:
        return ChangePhase(self.lasting_change.phase)

    def resume(self, known: LastingChange) -> None:
        self.lasting_change = known

    def accept(self, yes: bool) -> None:
        if self.change_phase:
            self.lasting_change = replace(self.lasting_change, phase=1 + yes)

    def reset(self) -> None:
        self.warmup_left, self.fresh = WARMUP, False

    def step(self, sample: Sample, reach: Callable[[str], None]) -> Record:
        if not self.lasting_change.centre:
            self.lasting_change = replace(self.lasting_change, centre=(0.0,) * len(sample.values))
        fault = self.plan.get(str(sample.index)) or self.plan.get("*")
        if fault and fault.startswith("first-"):
            fault = fault.removeprefix("first-") if self.fresh else None
        reach("mask")
        if fault:
            self.suffer(fault, sample)
        if fault != "skip":
            reach("invoke")
        reach("check")
        if fault == "late":  # answered only after the next sample came
            following = next(m for m in wire.receive(self.request_fd) if isinstance(m, Sample))
            wire.send(self.reply_fd, model_record(sample))
            return model_record(following)
        flags = Flag.WARMUP if self.warmup_left else NO_FLAGS
        if fault in ("change", "far", "back"):
            count = self.lasting_change.count + (fault != "back")
            centre = {"change": 2.0, "far": 1e6, "back": 0.0}[fault]
            phase = int(fault != "back")
            place = (centre,) * len(sample.values)
            self.lasting_change = LastingChange(phase, count, place, (0.5,) * 6)
        if self.change_phase is ChangePhase.CHANGED:
            flags |= Flag.CHANGED
        self.warmup_left = max(0, self.warmup_left - 1)
        record = replace(model_record(sample, flags), model=self.model)
        if fault in LIES:
            return replace(record, **LIES[fault])  # type: ignore[arg-type]
        if fault == "flip":
            frame = bytearray(wire.encode(record))
            frame[len(frame) // 2] ^= 4
            os.write(self.reply_fd, frame)
        if fault == "hello":
            wire.send(self.reply_fd, wire.Hello("fake-kernel", 0.1, DIGEST, self.model))
        if fault == "ill":
            return replace(record, tier=3, valid=False, flags=flags | Flag.FALLBACK)
        return record

    def suffer(self, fault: str, sample: Sample) -> None:
        if fault == "deaf":  # only SIGKILL helps
            signal.signal(signal.SIGABRT, signal.SIG_IGN)
        if fault in ("hang", "deaf"):
            print("hanging", flush=True)
            while True:
                pass
        if fault == "abort":
            os.abort()
        if fault == "raise":
            raise RuntimeError("invoke failed")
        if fault == "garbage":
            os.write(self.reply_fd, b"\xff" * 64)
        if fault == "close":
            os.close(self.reply_fd)
            signal.pause()
        if fault == "print":
            print("rubbish from a library", flush=True)
        if fault == "twice":
            wire.send(self.reply_fd, model_record(sample))


def named(plan: str) -> tuple[str, str]:
    """The name of the model in `plan`, and the rest of it."""
    if not plan.startswith("v"):
        return MODEL, plan
    model, _, rest = plan.partition(":")
    return model, rest


def identity_of(plan: str) -> BundleIdentity:
    """What the supervisor of a worker with this plan knows of its bundle."""
    return BundleIdentity(
        DIGEST, named(plan)[0], frozenset("a"), lambda change: change.fault(1, 6, 100.0)
    )


def main() -> int:
    plan_text, _, request_fd, _, reply_fd, _, progress_fd = sys.argv[1:]
    model, plan_text = named(plan_text)
    plan = {at: fault for fault, _, at in (p.partition("@") for p in plan_text.split(","))}
    loading = plan_text.removeprefix("load:")
    become_worker()
    if loading == "exit":
        return 7
    if loading == "fail":
        wire.send(int(reply_fd), wire.Failure("self-test failed"))
        return EXIT_FAILED
    if loading == "mute":
        signal.pause()
    if loading == "record":
        wire.send(int(reply_fd), model_record(Sample(0, None, np.zeros(1, np.float32))))
    digest = "e" * 64 if loading == "other" else DIGEST
    wire.send(int(reply_fd), wire.Hello("fake-kernel", 0.1, digest, model))
    detector = FakeDetector(plan, int(request_fd), int(reply_fd), model)
    return serve(detector, int(request_fd), int(reply_fd), Checkpoints(int(progress_fd)))


if __name__ == "__main__":
    sys.exit(main())
