"""A bundle is read whole and sound, or refused with the way to mend it."""

import io
import json
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_models import modal

from edge_runtime.bundle.manifest import PARTS, PROOF, to_dict
from edge_runtime.bundle.manifest_rules import FORMER_PARTS
from edge_runtime.bundle.reader import (
    CHECKSUM,
    MEMBERS,
    NEEDED,
    SIZE_LIMITS,
    proof_faults,
    read_bundle,
)
from edge_runtime.errors import DamagedError, GruardError
from tests.apparatus.harm import (
    SPECIAL_FILES,
    edit_manifest,
    flip_bit,
    make_special,
    replace_member,
    truncate,
    write_manifest,
)

FILES = ("manifest.json", CHECKSUM, *MEMBERS)
DESCRIPTORS = Path("/proc/self/fd")


def refused(bundle: Path) -> str:
    with pytest.raises(GruardError) as caught:
        read_bundle(bundle)
    assert str(caught.value).startswith(str(bundle))
    return str(caught.value)


def test_a_finished_bundle_is_read(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert bundle.manifest.channel_names == ("set_point", "flow", "heat")
    assert bundle.model == (tiny_bundle / "model.tflite").read_bytes()
    assert bundle.manifest.members["model.tflite"].startswith(bundle.model_hash)
    assert len(bundle.model_hash) == 12
    golden = bundle.arrays("golden.npz")
    steps = len(golden["rows"])
    assert steps >= 256 and golden["rows"].dtype == np.float32
    assert golden["codes/logit"].dtype == np.int8
    assert golden["codes/logit"].shape == golden["forecast"].shape == (steps, 3)


@pytest.mark.parametrize("member", FILES)
def test_a_missing_member_is_named(bundle_copy: Path, member: str) -> None:
    (bundle_copy / member).unlink()
    message = refused(bundle_copy)
    assert member in message and "copy the whole bundle folder again" in message


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("member", FILES)
def test_a_truncated_member_is_named(bundle_copy: Path, member: str, share: float) -> None:
    truncate(bundle_copy / member, share)
    message = refused(bundle_copy)
    assert member in message and "copy the bundle again" in message


@pytest.mark.parametrize("member", MEMBERS)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_is_found(bundle_copy: Path, member: str, where: float, bit: int) -> None:
    file = bundle_copy / member
    position = int(where * file.stat().st_size)
    flip_bit(file, position, bit)
    message = refused(bundle_copy)
    assert f"{member}: does not match the manifest's SHA-256" in message
    flip_bit(file, position, bit)
    read_bundle(bundle_copy)


def test_a_swapped_hash_in_the_manifest_is_found(bundle_copy: Path) -> None:
    edit_manifest(bundle_copy, lambda m: m["members"].update({"golden.npz": "0" * 64}))
    assert "golden.npz: does not match" in refused(bundle_copy)
    edit_manifest(bundle_copy, lambda m: m["members"].pop("golden.npz"))
    assert "golden.npz: does not match" in refused(bundle_copy)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.update(schema=1), "schema 1 is unknown"),
        (lambda m: m.pop("tiers"), "tiers"),
        (lambda m: m["channels"].pop(), "3 found"),
        (lambda m: m["inputs"]["mask"].update(scale=0.5), "tensor mask differs"),
        (lambda m: m["inputs"]["mask"].update(zero_point=1), "tensor mask differs"),
        (lambda m: m["inputs"]["mask"].update(shape=[1, 4]), "tensor mask differs"),
        (lambda m: m["outputs"]["logit"].update(dtype="int16"), "tensor logit differs"),
        (lambda m: m["outputs"].pop("logit"), "outputs are not the model's"),
    ],
)
def test_an_edited_manifest_is_refused(
    bundle_copy: Path, change: Callable[[dict], object], told: str
) -> None:
    edit_manifest(bundle_copy, change)
    assert told in refused(bundle_copy)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"1e999"])
def test_a_manifest_that_is_no_json_object_is_refused(bundle_copy: Path, data: bytes) -> None:
    write_manifest(bundle_copy, data)
    assert "manifest.json" in refused(bundle_copy)


@pytest.mark.parametrize("where", [0.0, 0.3, 0.999])
def test_a_manifest_with_a_flipped_bit_is_refused_before_it_is_read(
    bundle_copy: Path, where: float
) -> None:
    file = bundle_copy / "manifest.json"
    flip_bit(file, int(where * file.stat().st_size))
    message = refused(bundle_copy)
    assert "manifest.json: does not match manifest.sha256" in message
    assert "copy the bundle again" in message


def test_the_checksum_is_what_sha256sum_checks(bundle_copy: Path) -> None:
    words = ["sha256sum", "--check", "--strict", CHECKSUM]
    told = subprocess.run(words, cwd=bundle_copy, capture_output=True, text=True, check=True)
    assert told.stdout == "manifest.json: OK\n"


@pytest.mark.parametrize("member", FILES)
def test_a_link_is_not_followed(bundle_copy: Path, tmp_path: Path, member: str) -> None:
    file = bundle_copy / member
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert f"{member}: cannot be read" in refused(bundle_copy)


@pytest.mark.parametrize("member", FILES)
def test_a_file_beyond_its_size_limit_is_not_read(bundle_copy: Path, member: str) -> None:
    os.truncate(bundle_copy / member, SIZE_LIMITS[member] + 1)  # sparse: takes no space
    assert f"{member}: is larger than {SIZE_LIMITS[member]} bytes" in refused(bundle_copy)


@pytest.mark.parametrize("kind", SPECIAL_FILES)
@pytest.mark.parametrize("member", FILES)
def test_a_special_file_in_place_of_a_member_neither_blocks_nor_leaks(
    bundle_copy: Path, member: str, kind: str
) -> None:
    (bundle_copy / member).unlink()
    make_special(bundle_copy / member, kind)
    before = len(list(DESCRIPTORS.iterdir()))
    message = refused(bundle_copy)
    assert f"{member}: cannot be read (is {kind}, not a file); copy" in message
    assert len(list(DESCRIPTORS.iterdir())) == before


def test_a_path_that_is_no_bundle_says_what_to_give(bundle_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (bundle_copy / "manifest.json", bundle_copy / "nowhere", tmp_path / "empty"):
        assert "give the folder NAME-VERSION.gruard" in refused(path)


@pytest.mark.parametrize("kind", [kind for kind in SPECIAL_FILES if kind != "a directory"])
def test_a_special_file_in_place_of_a_bundle_is_refused(tmp_path: Path, kind: str) -> None:
    make_special(tmp_path / "x.gruard", kind)
    assert "is not a folder; give the folder" in refused(tmp_path / "x.gruard")


# What is needed to run, and what is not.


@pytest.mark.parametrize("member", MEMBERS)
def test_damage_that_no_run_meets_only_warns(bundle_copy: Path, member: str) -> None:
    flip_bit(bundle_copy / member, 40)
    fault = refused(bundle_copy)  # whoever wants all of it says so
    if member in NEEDED:
        with pytest.raises(DamagedError, match="does not match"):
            read_bundle(bundle_copy, whole=False)
    else:
        assert proof_faults(read_bundle(bundle_copy, whole=False)) == [fault]


def test_the_manifest_says_which_files_are_needed(tiny_bundle: Path) -> None:
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert {*manifest["members"]} == {*NEEDED} and {*manifest["proof"]} == {*PROOF}
    assert proof_faults(read_bundle(tiny_bundle)) == []


def test_a_bundle_of_the_former_schema_is_read_as_the_same(bundle_copy: Path) -> None:
    before = read_bundle(bundle_copy).manifest
    former = json.loads(json.dumps(to_dict(before)))
    former["members"] |= former.pop("proof")
    former["schema"] = 2
    for name in ("own", "ahead", "horizon"):
        del former["forecast"][name]
    score = former["score"]
    former_parts = [PARTS.index(part) for part in FORMER_PARTS]
    (memory, *_), weights = score.pop("memories"), score["weights"]
    score |= {
        "attack": memory["attack"], "decay": memory["decay"],
        "weights": [weights[i] for i in former_parts], "absent": score["absent"][0],
        "part_mean": [memory["mean"][i] for i in former_parts],
        "part_std": [memory["std"][i] for i in former_parts],
        "residual_scale": score.pop("error_scale")[0],
    }  # fmt: skip

    def put(manifest: dict) -> None:
        manifest.clear()
        manifest.update(former)

    edit_manifest(bundle_copy, put)
    found = read_bundle(bundle_copy).manifest
    assert (found.members, found.proof, found.schema) == (before.members, before.proof, 2)
    assert found.channels == before.channels and found.tiers == before.tiers
    edit_manifest(bundle_copy, lambda manifest: manifest.update(members=[]))
    assert "members: an object is expected" in refused(bundle_copy)
    edit_manifest(bundle_copy, lambda manifest: manifest.update(former | {"tiers": 7}))
    assert "tiers: an object is expected" in refused(bundle_copy)


@pytest.mark.parametrize(
    "verdict",
    [
        {"passed": False, "forced": True},
        {"passed": False, "forced": False},
        {"passed": True, "forced": True},
    ],
    ids=str,
)
def test_a_bundle_that_failed_its_validation_runs_only_knowingly(
    bundle_copy: Path, verdict: dict[str, bool]
) -> None:
    edit_manifest(bundle_copy, lambda m: m.update(validation=verdict))
    assert "--allow-failed" in refused(bundle_copy)
    assert (
        read_bundle(bundle_copy, allow_failed=True).manifest.validation.forced
        == (verdict["forced"])
    )


def test_a_model_of_another_width_than_the_machine_is_refused(bundle_copy: Path) -> None:
    own = json.loads(json.dumps(to_dict(read_bundle(bundle_copy).manifest)))
    other = json.loads(json.dumps(to_dict(modal(5, 5).manifest)))
    kept = {name: own[name] for name in ("inputs", "outputs", "members", "proof")}
    edit_manifest(bundle_copy, lambda manifest: manifest.update(other | kept))
    assert "width is not the manifest's number of channels" in refused(bundle_copy)


def test_a_foreign_model_with_a_matching_hash_is_refused(bundle_copy: Path) -> None:
    replace_member(bundle_copy, "model.tflite", b"\x1c\0\0\0TFL3" + bytes(64))
    assert "model.tflite" in refused(bundle_copy)


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def claiming(size: int, data: bytes) -> bytes:
    """An archive of `data`, whose directory says that it has `size` bytes."""
    packed = bytearray(archive(mask=data))
    struct.pack_into("<I", packed, packed.index(b"PK\1\2") + 24, size)
    return bytes(packed)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("shape", ["object array", "bare pickle"])
def test_nothing_pickled_is_ever_executed(bundle_copy: Path, tmp_path: Path, shape: str) -> None:
    trap = Trap(tmp_path / "sprung")
    array = npy(np.array([trap], dtype=object))
    data = archive(mask=array) if shape == "object array" else pickle.dumps(trap)
    replace_member(bundle_copy, "golden.npz", data)
    with pytest.raises(GruardError, match=r"golden\.npz: unreadable arrays"):
        read_bundle(bundle_copy).arrays("golden.npz")
    assert not trap.file.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x05\x06" + bytes(17),
        npy(np.zeros(3)),
        archive(mask=b"\x93NUMPY\x01\x00"),
        archive(mask=npy(np.zeros(100))[:-9]),
        archive(mask=bytes((64 << 20) + 1)),  # a few kilobytes packed, too much unpacked
        claiming(128 + 800, npy(np.zeros(100))[:-8]),
    ],
    ids=["empty", "cut", "bare array", "no header", "cut array", "bomb", "false size"],
)
def test_a_damaged_archive_with_a_matching_hash_is_refused(bundle_copy: Path, data: bytes) -> None:
    replace_member(bundle_copy, "golden.npz", data)
    bundle = read_bundle(bundle_copy)
    with pytest.raises(GruardError, match=r"golden\.npz: unreadable arrays"):
        bundle.arrays("golden.npz")


def test_a_member_edited_after_reading_is_noticed(bundle_copy: Path) -> None:
    bundle = read_bundle(bundle_copy)
    flip_bit(bundle_copy / "golden.npz", 100)
    with pytest.raises(GruardError, match="does not match"):
        bundle.arrays("golden.npz")
