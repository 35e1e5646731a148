"""The campaign would notice: each thing that must not happen is made to happen."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import reading
from mutated_bytes import mutated_bytes
from mutated_graphs import mutated_graph
from mutated_manifests import mutated_manifest

from edge_runtime.errors import GruardError

HERE = Path(__file__).parent
DEATHS = """
import os, throwaway
from edge_runtime.errors import GruardError
def refuse(): raise GruardError("no")
def hog(): bytearray(1 << 30)
for work in (dict, refuse, lambda: 1 / 0, os.abort, lambda: os.kill(os.getpid(), 11), hog):
    print(throwaway.outcome(work))
"""


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (KeyError("tiers"), "KeyError instead of GruardError"),
        (RecursionError(), "RecursionError instead of GruardError"),
        (SystemExit(2), "SystemExit instead of GruardError"),
        (GruardError("two\nlines expected"), "an odd reason"),
        (GruardError("expected" + "x" * 5000), "an odd reason"),
        (GruardError("a reason of no stage"), "an odd reason"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_reason_is_seen(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, seen: str
) -> None:
    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr(reading, "read_bundle", fail)
    assert seen in reading.read_harmed(Path("bundle"), "").wrong


def test_a_slow_reading_is_seen(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    assert reading.read_harmed(tiny_bundle, "golden.npz").wrong == ""
    monkeypatch.setattr(reading, "MOST_SECONDS", 0.0)
    assert reading.read_harmed(tiny_bundle, "golden.npz").wrong.endswith(" s")


def test_memory_that_was_given_back_is_seen() -> None:
    code = "import reading; a = reading.resident_bytes(); bytearray(96 << 20)\n"
    code += "print(reading.peak_bytes() - a > 64 << 20, reading.resident_bytes() - a < 64 << 20)"
    assert run(code) == ["True True"]


def test_every_end_of_a_process_is_told_apart() -> None:
    assert run(DEATHS) == ["ran", "refused", "broken", "SIGABRT", "SIGSEGV", "broken"]


def run(code: str) -> list[str]:
    paths = os.pathsep.join((str(HERE), str(HERE.parents[1])))
    environment = os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return ended.stdout.splitlines()


def test_one_seed_gives_one_harm(tiny_bundle: Path) -> None:
    model = (tiny_bundle / "model.tflite").read_bytes()
    text = (tiny_bundle / "manifest.json").read_bytes()
    for mutate, data in (
        (mutated_bytes, model),
        (mutated_graph, model),
        (mutated_manifest, text),
    ):
        first, again = ([mutate(random.Random(i), data) for i in range(20)] for _ in range(2))
        assert first == again and len(set(first)) > 15
