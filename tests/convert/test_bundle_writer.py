"""Writing a bundle: whole or not at all, never over another unasked, the same bytes each time."""

import hashlib
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from convert.bundle_writer import write_bundle
from convert.convert_run import Conversion
from edge_runtime.bundle.manifest import PROOF, Validation
from edge_runtime.bundle.reader import CHECKSUM, MEMBERS, read_bundle
from edge_runtime.errors import GruardError
from edge_runtime.learning.bundle_writer import bundle_path

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

# A file may not grow beyond the limit: what a full disk does, for one process only.
WRITE_STARVED = """
import pickle, resource, sys
from pathlib import Path
from convert.bundle_writer import write_bundle
from edge_runtime.errors import GruardError
conversion = pickle.loads(Path(sys.argv[1]).read_bytes())
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    write_bundle(conversion, Path(sys.argv[2]), force=True)
except GruardError as error:
    print(error)
"""


def test_a_bundle_holds_every_member_and_its_hash(conversion: Conversion, tmp_path: Path) -> None:
    written = write_bundle(conversion, tmp_path / "new" / "folder", force=False)
    assert written == tmp_path / "new" / "folder" / "tiny-1.gruard"
    assert {path.name for path in written.iterdir()} == {*MEMBERS, "manifest.json", CHECKSUM}
    assert [path.name for path in written.parent.iterdir()] == [written.name]
    bundle = read_bundle(written)
    assert bundle.model == conversion.model
    for member in MEMBERS:
        digest = hashlib.sha256((written / member).read_bytes()).hexdigest()
        section = bundle.manifest.proof if member in PROOF else bundle.manifest.members
        assert section[member] == digest
    assert {*bundle.manifest.members, *bundle.manifest.proof} == {*MEMBERS}
    assert replace(bundle.manifest, members={}, proof={}) == conversion.manifest


@pytest.mark.long
def test_two_writings_give_the_same_bytes(conversion: Conversion, tmp_path: Path) -> None:
    first, second = (write_bundle(conversion, tmp_path / name, False) for name in "ab")
    for member in (*MEMBERS, "manifest.json", CHECKSUM):
        assert (first / member).read_bytes() == (second / member).read_bytes(), member


@pytest.mark.long
def test_an_existing_bundle_is_replaced_only_on_demand(
    conversion: Conversion, tmp_path: Path
) -> None:
    existing = bundle_path(tmp_path, "tiny", 1)
    existing.mkdir()
    (existing / "precious").touch()
    with pytest.raises(GruardError, match=r"already there; raise the version.*or add --force"):
        write_bundle(conversion, tmp_path, force=False)
    assert [path.name for path in existing.iterdir()] == ["precious"]
    write_bundle(conversion, tmp_path, force=True)
    assert not (existing / "precious").exists() and read_bundle(existing)
    assert [path.name for path in tmp_path.iterdir()] == [existing.name]


@pytest.mark.long
def test_a_disk_that_fills_up_midway_leaves_nothing_new(
    conversion: Conversion, tmp_path: Path
) -> None:
    folder, stored = tmp_path / "out", tmp_path / "conversion"
    stored.write_bytes(pickle.dumps(conversion))
    kept = write_bundle(conversion, folder, force=False)
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    sizes = sorted(map(len, before.values()))
    assert sizes[0] < 30_000 < sizes[-1]
    command = [sys.executable, "-c", WRITE_STARVED, str(stored), str(folder), "30000"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == f"{kept}: cannot be written (File too large)\n"
    assert [path.name for path in folder.iterdir()] == [kept.name]
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before


def test_a_bundle_that_could_not_be_read_back_is_not_put_in_place(
    conversion: Conversion, tmp_path: Path
) -> None:
    tensor = replace(conversion.manifest.outputs["logit"], scale=1.0)
    outputs = {**conversion.manifest.outputs, "logit": tensor}
    wrong = replace(conversion, manifest=replace(conversion.manifest, outputs=outputs))
    with pytest.raises(GruardError, match="tensor logit differs between manifest and model"):
        write_bundle(wrong, tmp_path, force=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(conversion: Conversion, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GruardError, match=r"tiny-1\.gruard: cannot be written \(Not a directory"):
        write_bundle(conversion, tmp_path / "file", force=False)


def test_a_forced_bundle_is_marked_and_refused_by_the_device(
    conversion: Conversion, tmp_path: Path
) -> None:
    forced = replace(conversion.manifest, validation=Validation(passed=False, forced=True))
    written = write_bundle(replace(conversion, manifest=forced), tmp_path, force=True)
    with pytest.raises(GruardError, match="failed its validation and was written with --force"):
        read_bundle(written)
    assert read_bundle(written, allow_failed=True).manifest.validation.forced
