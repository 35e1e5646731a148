"""Faults of an accelerator: a real delegate library that fails on command.

After a failure the model continues on the CPU, with the CPU's threshold, and all its records are
marked.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.kernels import KERNEL_ID
from edge_runtime.detector.thresholds import store_threshold
from tests.apparatus import made_delegate
from tests.campaign.fault import Fault, Happened, expect
from tests.campaign.lab import Lab, Run
from tests.campaign.processes import fallback_after, until_back

START = 200
FEW = 60
HIGHER = 5.0  # added to the CPU's threshold for the accelerator, so that records show which is used


@contextmanager
def _accelerated(lab: Lab, plan: str, calibrated: bool = True) -> Iterator[tuple[Run, Path]]:
    """Yield a run with the accelerator, and the file that unplugs it."""
    copy = lab.copy("accelerated")
    if calibrated:
        bundle = read_bundle(copy, allow_failed=True)
        own = bundle.manifest.thresholds[KERNEL_ID]
        store_threshold(bundle, made_delegate.KERNEL, replace(own, value=own.value + HIGHER))
    library, unplugged = made_delegate.build(copy.parent), copy.parent / "unplugged"
    with lab.run("--delegate", str(library), bundle=copy, DELEGATE_PLAN=plan,
                 DELEGATE_UNPLUGGED=str(unplugged)) as run:  # fmt: skip
        yield run, unplugged
    _check_marks(run)


def _check_marks(run: Run) -> None:
    """Check that exactly the model's records on the CPU are marked and have its threshold."""
    own = run.lab.bundle.manifest.thresholds[KERNEL_ID].value
    for record in run.records:
        if record["tier"] < 3:
            due = own + (0.0 if "CPU" in record["flags"] else HIGHER)
            seen = f"record {record['index']}: threshold {record['threshold']}, due {due}"
            expect(abs(record["threshold"] - due) < 1e-6 * due, seen)


def _unplugged(plan: str) -> Callable[[Lab], Happened]:
    def strike(lab: Lab) -> Happened:
        with _accelerated(lab, plan) as (run, unplugged):
            run.await_log(f" on {made_delegate.KERNEL}")
            run.feed(lab.rows[:START])
            expect(run.records[-1]["tier"] == 1, "the accelerator does not answer")
            unplugged.touch()
            run.feed(lab.rows[START : START + FEW], pace=0.002)
            delay = fallback_after(run.records, START)
            back = until_back(run)
            run.feed(lab.rows[:FEW])
        served = [record for record in run.records if record["tier"] < 3]
        marked = ["CPU" in record["flags"] for record in served]
        expect(marked == sorted(marked), "the accelerator came back")
        expect(run.records[-1]["tier"] == 1 and marked[-1], "the CPU does not answer")
        return (
            f"fallback after {delay} samples, the CPU after {back + FEW}, "
            "marked CPU from there on, under its own threshold"
        )

    return strike


def _from_the_start(plan: str, logged: str, calibrated: bool = True) -> Callable[[Lab], Happened]:
    def strike(lab: Lab) -> Happened:
        with _accelerated(lab, plan, calibrated) as (run, _):
            run.feed(lab.rows[:START])
        expect(run.said(logged) == 1, f"not logged: {run.log[:2]}")
        served = [record for record in run.records if record["tier"] < 3]
        expect(len(served) > FEW, f"the model answered {len(served)} samples")
        expect(all("CPU" in record["flags"] for record in served), "an answer is not marked")
        return "the CPU answers from the start, each record marked CPU, and the log says why"

    return strike


FAULTS = (
    Fault("accelerator unplugged", "it ends the process, as Coral's library does",
          "fallback within 4 samples, then the CPU, marked", _unplugged("late-abort")),
    Fault("invoke fails", "the accelerator gives an error",
          "fallback within 4 samples, then the CPU, marked", _unplugged("late-error")),
    Fault("accelerator hangs", "an invoke that never ends",
          "fallback within 4 samples, then the CPU, marked", _unplugged("late-hang")),
    Fault("accelerator not there", "no device at the start",
          "the CPU answers, marked", _from_the_start("no-device", "Failed to load delegate")),
    Fault("accelerator wrong", "it computes something else",
          "the CPU answers, marked", _from_the_start("wrong", "self-test failed")),
    Fault("accelerator without threshold", "it was never calibrated", "the CPU answers, marked",
          _from_the_start("", "no threshold for kernel made", calibrated=False)),
)  # fmt: skip
