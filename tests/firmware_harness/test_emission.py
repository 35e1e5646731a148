"""`emit`: sources that a stranger's compiler turns into the same detector."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tiny_model
from harness_command import harness, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.detector import Detector
from edge_runtime.native.engine import RECORD
from edge_runtime.record import Sample
from firmware_harness import c_files, ecosystems, emission
from firmware_harness.core_records import to_records
from firmware_harness.packing import packed

MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include "gruard_detector.h"
#include "gruard_blob.h"

int main(void) {
    gruard_model model;
    gruard_detector detector;
    gruard_record record;
    float values[GRUARD_BLOB_CHANNELS];
    if (gruard_open(&model, gruard_blob, GRUARD_BLOB_BYTES)) return 1;
    const size_t size = gruard_memory(&model);
    if (size != GRUARD_BLOB_MEMORY) return 3;
    if (gruard_start(&detector, &model, malloc(size), size)) return 2;
    while (fread(values, sizeof values, 1, stdin) == 1) {
        gruard_step(&detector, values, &record);
        fwrite(&record, sizeof record, 1, stdout);
    }
    return 0;
}
"""
SHOW_NAMES = """
#include <stdio.h>
const char *const names[];
int main(void) {
    for (int i = 0; i < COUNT; i++) printf("%s%c", names[i], 0);
    return 0;
}
"""
SHOW_MODEL = """
#include <stdio.h>
#include "gruard_model.h"
int main(void) { fwrite(gruard_model, sizeof gruard_model, 1, stdout); return 0; }
"""


def rows() -> np.ndarray:
    found = tiny_model.machine_rows(300, seed=3)
    found[150:170, 1] = np.nan
    found[200:, 2] += 400
    return found


def compiled(out: Path, source: str, include: Path, *libraries: Path) -> Path:
    file = out / "main.c"
    file.write_text(source)
    command = ["cc", "-Wall", "-Werror", f"-I{include}", file, *libraries]
    subprocess.run([*command, "-o", out / "main"], check=True)
    return out / "main"


def made(tool: str, sources: Path, scratch: Path) -> Path:
    """The library of emitted sources."""
    if tool == "make":
        flags = "CFLAGS=-O1 -Wall -Wextra -Werror"
        subprocess.run(["make", "-s", "-C", sources, "CC=cc", flags], check=True)
        return sources / "libgruard.a"
    for words in (["-S", sources, "-B", scratch], ["--build", scratch]):
        subprocess.run(["cmake", *words], check=True, stdout=subprocess.DEVNULL)
    return scratch / "libgruard.a"


@pytest.mark.parametrize("tool", ["make", "cmake"])
def test_what_a_user_builds_gives_the_records_of_the_runtime(
    tiny_bundle: Path, tmp_path: Path, tool: str
) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"NOT TESTED: apt install {tool}")
    out = tmp_path / "sources"
    done = harness("emit", tiny_bundle, "--out", out)
    assert done.returncode == 0, done.stderr
    main = compiled(tmp_path, MAIN, out, made(tool, out, tmp_path / "made"))
    ran = subprocess.run([main], input=rows().tobytes(), capture_output=True, check=True)
    found = to_records(np.frombuffer(ran.stdout, RECORD), packed(tiny_bundle), None)
    detector = Detector(read_bundle(tiny_bundle))
    wanted = [detector.step(Sample(i, None, row)) for i, row in enumerate(rows())]
    assert list(found) == wanted
    assert {record.tier for record in wanted} > {1, 3} and any(r.alarm for r in wanted)


def test_a_linear_bundle_needs_as_much_memory_as_the_header_says(
    linear_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sources"
    assert harness("emit", linear_bundle, "--out", out).returncode == 0
    main = compiled(tmp_path, MAIN, out, made("make", out, tmp_path / "made"))
    ran = subprocess.run([main], input=rows()[:, :1].tobytes(), capture_output=True, check=False)
    assert ran.returncode == 0


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
@settings(max_examples=20, deadline=None)
def test_any_name_survives_the_compiler(names: list[str]) -> None:
    names = [*names, 'a "quoted" \\ name', "what??/", "µ°", "\n0"]
    with TemporaryDirectory() as folder:
        source = c_files.texts("names", names) + SHOW_NAMES.replace("COUNT", str(len(names)))
        file, program = Path(folder, "names.c"), Path(folder, "names")
        file.write_text(source)
        subprocess.run(["cc", "-std=c11", "-Wall", "-Werror", file, "-o", program], check=True)
        told = subprocess.run([program], capture_output=True, check=True).stdout
    assert told.decode().split("\0")[:-1] == names


def test_the_board_sets_the_flags(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "sources"
    assert harness("emit", tiny_bundle, "--out", out, "--board", "mps3-an547").returncode == 0
    text = (out / "Makefile").read_text()
    assert "-mcpu=cortex-m55" in text
    exact = next(line for line in text.splitlines() if line.startswith("EXACT"))
    assert "-ffp-contract=off" in exact and exact.count("-fno-tree-vectorize") == 1


def test_former_sources_are_replaced_on_demand_and_nothing_else_is(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sources"
    assert harness("emit", tiny_bundle, "--out", out).returncode == 0
    refused(harness("emit", tiny_bundle, "--out", out), str(out), "--force")
    assert harness("emit", tiny_bundle, "--out", out, "--force").returncode == 0
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "precious.c").write_text("int precious;")
    refused(harness("emit", tiny_bundle, "--out", strange, "--force"), str(strange), "not ours")
    assert [path.name for path in strange.iterdir()] == ["precious.c"]


def test_a_failed_emit_leaves_nothing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emission, "_HEADER", "{unknown}")
    with pytest.raises(KeyError):
        emission.emit(packed(tiny_bundle), ecosystems.CMAKE, tmp_path / "sources", None)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_the_core_cannot_run_is_refused_with_the_reason(
    bundle_copy: Path, tmp_path: Path
) -> None:
    file = bundle_copy / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["alarm"] |= {"m": 2, "n": 40}
    text = json.dumps(manifest)
    file.write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (bundle_copy / "manifest.sha256").write_text(f"{digest}  manifest.json\n")
    out = tmp_path / "sources"
    refused(harness("emit", bundle_copy, "--out", out), "alarm.n is 40", "at most 32")
    assert not out.exists()


def test_the_model_alone_is_tried_by_tflm(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "tflm"
    done = harness("emit", tiny_bundle, "--out", out, "--for", "tflm")
    assert done.returncode == 0, done.stderr
    assert "TensorFlow Lite Micro runs it" in done.stdout or "not checked" in done.stdout
    header = (out / "gruard_model.h").read_text()
    bundle = read_bundle(tiny_bundle)
    for operator in bundle.graph.operators:
        assert f"Add{operator.name.title().replace('_', '')}();" in header
    main = compiled(tmp_path, SHOW_MODEL, out, out / "gruard_model.c")
    assert subprocess.run([main], capture_output=True, check=True).stdout == bundle.model


def test_a_linear_bundle_has_no_model_for_tflm(linear_bundle: Path, tmp_path: Path) -> None:
    done = harness("emit", linear_bundle, "--out", tmp_path / "tflm", "--for", "tflm")
    refused(done, "linear", "--for")
