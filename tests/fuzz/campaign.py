"""Harm a bundle many times over, read it each time, and count what comes of it.

Run by the tests as a process of its own, so that what kills it is seen, with nothing loaded but
what a device loads: python campaign.py BUNDLE LINEAR OUT COUNT SEED
"""

import gc
import hashlib
import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import throwaway
from mutated_archives import mutated_archive
from mutated_graphs import mutated_graph
from mutated_manifests import mutated_manifest
from reading import ACCEPTED, MOST_GROWTH, peak_bytes, read_harmed, resident_bytes

from edge_runtime.bundle.reader import CHECKSUM, Bundle, checksum, read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.record import Sample

KINDS = ("manifest", "archive", "graph")
MOST_FAILURES = 20
STEPPED_EVERY = 10  # of the manifests that are accepted
ROWS = 5
_SMALL = b"<html></html>"  # only its hash is ever looked at


class Target:
    """A bundle on disk that is harmed and made whole again."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.path = Path(shutil.copytree(bundle, folder / bundle.name))
        self.manifest = (self.path / "manifest.json").read_bytes()
        self.replace("report.html", _SMALL)
        self.manifest = (self.path / "manifest.json").read_bytes()
        self.members = {f.name: f.read_bytes() for f in self.path.iterdir()}

    def replace(self, member: str, data: bytes) -> None:
        """Another `member`, with all hashes made good."""
        text = data
        if member != "manifest.json":
            manifest = json.loads(self.manifest)
            old = (manifest["members"] | manifest["proof"])[member]
            self._write(member, data)
            text = self.manifest.replace(old.encode(), hashlib.sha256(data).hexdigest().encode())
        self._write("manifest.json", text)
        self._write(CHECKSUM, checksum(hashlib.sha256(text).hexdigest()))

    def restore(self, member: str) -> None:
        """The member as it was; the manifest is written anew each time."""
        self._write(member, self.members[member])

    def _write(self, member: str, data: bytes) -> None:
        # A new file: some file systems flush one that is cut and written again.
        (self.path / member).unlink()
        (self.path / member).write_bytes(data)


class Campaign:
    """Counts by kind and outcome, and what should not have happened."""

    def __init__(self, bundle: Path, linear: Path, out: Path, seed: int) -> None:
        self.rng, self.out = random.Random(seed), out
        shutil.rmtree(out, ignore_errors=True)
        (out / "failures").mkdir(parents=True)
        self.trap = out / "unpickled"
        self.recurrent = Target(bundle, out / "work")
        self.linear = Target(linear, out / "work")
        self.counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.ran: dict[str, Counter[str]] = {kind: Counter() for kind in ("manifest", "graph")}
        self.failures: list[str] = []
        self.slowest = 0.0

    def one(self, kind: str) -> None:
        """Harm, read, count; a graph that is let through is run in a process that may die."""
        target, member, data = self._harmed(kind)
        target.replace(member, data)
        archive = member if kind == "archive" else ""
        started = time.process_time()
        reading = read_harmed(target.path, archive)
        self.slowest = max(self.slowest, time.process_time() - started)
        self.counts[kind][reading.stage] += 1
        wrong = reading.wrong
        if reading.bundle is not None and self._is_run(kind):
            outcome = throwaway.outcome(_work(kind, reading.bundle))
            self.ran[kind][outcome] += 1
            if outcome not in ("ran", "refused"):
                wrong = f"let through, and the process that ran it ended with {outcome}"
        if self.trap.exists():
            wrong = "something was unpickled"
        if wrong:
            self._keep(kind, target, wrong)
        target.restore(member)

    def _harmed(self, kind: str) -> tuple[Target, str, bytes]:
        if kind == "manifest":
            target = self.rng.choice((self.recurrent, self.linear))
            return target, "manifest.json", mutated_manifest(self.rng, target.manifest)
        if kind == "archive":
            member = self.rng.choice(("golden.npz", "calibration.npz"))
            data = mutated_archive(self.rng, self.linear.members[member], self.trap)
            return self.linear, member, data
        model = self.recurrent.members["model.tflite"]
        return self.recurrent, "model.tflite", mutated_graph(self.rng, model)

    def _is_run(self, kind: str) -> bool:
        every = self.counts["manifest"][ACCEPTED] % STEPPED_EVERY == 0
        return kind == "graph" or (kind == "manifest" and every)

    def _keep(self, kind: str, target: Target, wrong: str) -> None:
        """The bundle as it is, to look at with `gruard inspect`."""
        number = sum(self.counts[kind].values())
        folder = self.out / "failures" / f"{kind}-{number}.gruard"
        shutil.copytree(target.path, folder, dirs_exist_ok=True)
        self.failures.append(f"{folder}: {wrong}")


def _work(kind: str, bundle: Bundle) -> Callable[[], object]:
    if kind == "graph":
        return lambda: throwaway.run_steps(bundle.model)

    def steps() -> None:
        detector = Detector(bundle)
        for index in range(ROWS):
            values = np.array([c.center for c in bundle.manifest.channels], np.float32)
            detector.step(Sample(index, None, values))

    return steps


def main(bundle: Path, linear: Path, out: Path, count: int, seed: int) -> int:
    """Run `count` inputs, a third of each kind, and write build/fuzz/counts.json."""
    campaign = Campaign(bundle, linear, out, seed)
    for target in (campaign.recurrent, campaign.linear):
        whole = read_bundle(target.path)
        for member in ("golden.npz", "calibration.npz"):
            whole.arrays(member)
    _ = Detector(read_bundle(campaign.recurrent.path))  # so that the interpreter is loaded by now
    for _ in range(300):  # so that what the mutators keep is made by now
        mutated_archive(campaign.rng, campaign.linear.members["golden.npz"], campaign.trap)
    gc.collect()
    started, before, told = time.monotonic(), resident_bytes(), 0
    for number in range(count):
        growth = peak_bytes() - before
        if growth > MOST_GROWTH:
            campaign.failures.append(
                f"input {number - 1} (in work/): memory grew by {growth} bytes"
            )
        if growth > MOST_GROWTH or len(campaign.failures) >= MOST_FAILURES:
            break
        campaign.one(KINDS[number % len(KINDS)])
        if 10 * (number + 1) // count > told:
            told += 1
            seconds = time.monotonic() - started
            print(f"fuzz: {number + 1} of {count} in {seconds:.0f} s", file=sys.stderr, flush=True)
    result = {
        "seed": seed,
        "read": campaign.counts,
        "run": campaign.ran,
        "failures": campaign.failures,
        "growth_bytes": peak_bytes() - before,
        "slowest_seconds": campaign.slowest,
        "seconds": time.monotonic() - started,
    }
    (out / "counts.json").write_text(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:])))
