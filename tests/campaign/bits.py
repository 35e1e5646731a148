"""Flipped bits in files at rest, also while the bundle is running."""

from collections.abc import Callable

import numpy as np

from tests.apparatus.harm import flip_bit
from tests.campaign.fault import Fault, Happened, expect
from tests.campaign.lab import Lab

START = 200


def _at_rest(member: str) -> Callable[[Lab], Happened]:
    """A flipped bit in a member is refused at the start, wherever it is."""

    def strike(lab: Lab) -> Happened:
        copy = lab.copy("flipped")
        whole = (copy / member).read_bytes()
        for position in np.random.default_rng(0).integers(0, len(whole), 5):
            (copy / member).write_bytes(whole)
            flip_bit(copy / member, int(position))
            done = lab.command("selftest", str(copy))
            expect(done.returncode == 2, f"exit code {done.returncode} at byte {position}")
            expect("Traceback" not in done.stderr, done.stderr[-200:])
        return "refused five times out of five, each in one line"

    return strike


def _under_way(lab: Lab) -> Happened:
    """The bundle on the disk is damaged while it runs; then the inference process dies."""
    copy = lab.copy("damaged")
    with lab.run(bundle=copy) as run:
        run.feed(lab.rows[:START])
        flip_bit(copy / "golden.npz", 4711)
        run.kill_worker()
        run.feed(lab.rows[START : START + 100], pace=0.005)
        run.await_log("golden.npz: does not match")
    return "the restart is refused, the fallback answers, the log says why"


FAULTS = (
    Fault("model at rest", "a bit of model.tflite", "refused, exit code 2",
          _at_rest("model.tflite")),
    Fault("manifest at rest", "a bit of manifest.json", "refused, exit code 2",
          _at_rest("manifest.json")),
    Fault("golden vectors at rest", "a bit of golden.npz", "refused, exit code 2",
          _at_rest("golden.npz")),
    Fault("bundle damaged under way", "a bit at rest, then a crash",
          "fallback, and the log says why", _under_way),
)  # fmt: skip
