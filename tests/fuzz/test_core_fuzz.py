"""libFuzzer on the C core: no bytes, opened as a packed bundle and run, may harm it.

FUZZ=N gives the number of inputs. What is found lies below build/fuzz/core.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from edge_runtime.bundle.reader import read_bundle
from tests.core_build import HOST, blob_of, compiled
from tests.edge_runtime.native_models import HASTY, changed, linear

OUT = Path(__file__).resolve().parents[2] / "build" / "fuzz" / "core"
MANY = 1_000_000
LONGEST = 16384  # bytes of an input; the largest seed has 12,000
SANITISERS = ("-O2", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")


@pytest.mark.fuzz
def test_no_bytes_harm_the_core(tiny_bundle: Path, linear_bundle: Path) -> None:
    seeds, corpus = OUT / "seeds", OUT / "corpus"
    for folder in (seeds, corpus):
        folder.mkdir(parents=True, exist_ok=True)
    tiny = read_bundle(tiny_bundle)
    bundles = [tiny, changed(tiny, tiers=HASTY), read_bundle(linear_bundle), linear(1)]
    bundles += [linear(5, 5, rules=True, diagnosis=True), linear(3, 2, diagnosis=True)]
    for number, bundle in enumerate(bundles):
        (seeds / str(number)).write_bytes(blob_of(bundle))
    package = "clang libclang-rt-14-dev"
    main = (HOST / "fuzz_core.c",)
    program = compiled("clang", package, OUT / "fuzz", SANITISERS, main=main, without=("crc",))
    count = int(os.environ.get("FUZZ") or MANY)
    told = "runs={} max_len={} artifact_prefix={}/ print_final_stats=1"
    words = [f"-{word}" for word in told.format(count, LONGEST, OUT).split()]
    done = subprocess.run(
        [program, *words, corpus, seeds], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-8000:]
    ran = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    branches = re.search(r"(\d+) inline 8-bit counters", done.stderr)
    reached = re.findall(r"cov: (\d+)", done.stderr)
    assert ran and branches and reached and int(ran[1]) >= count
    print(f"core: {ran[1]} inputs, {reached[-1]} of {branches[1]} branches reached")
