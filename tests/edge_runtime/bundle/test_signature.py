"""Signed bundles: whose they are, and that a device which asks for a key takes no others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st
from made_keys import sign, write_keys

from edge_runtime.bundle.reader import (
    CHECKSUM,
    SIGNATURE,
    SIGNATURE_BYTES,
    check_signature,
    read_bundle,
)
from edge_runtime.errors import GruardError
from edge_runtime.supervision.worker_process import (
    BundleIdentity,
    WorkerGoneError,
    WorkerProcess,
    worker_command,
)
from tests.apparatus.harm import edit_manifest, flip_bit

ROOT = Path(__file__).resolve().parents[3]
ROWS = "set_point,flow,heat\n" + "50,20,300\n" * 5


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A secret key and its public key."""
    return write_keys(tmp_path / "plant")


@pytest.fixture
def signed(bundle_copy: Path, keys: tuple[Path, Path]) -> Path:
    sign(bundle_copy, keys[0])
    return bundle_copy


def stranger(folder: Path) -> tuple[Path, Path]:
    return write_keys(folder / "stranger")


def refused(bundle: Path, *trusted: Path) -> str:
    with pytest.raises(GruardError) as caught:
        read_bundle(bundle, trusted_keys=trusted)
    return str(caught.value)


def test_a_signed_bundle_is_read_with_its_key_and_without(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    assert read_bundle(signed) == read_bundle(signed, trusted_keys=[keys[1]])
    # While keys change over, devices trust both.
    other = stranger(tmp_path)[1]
    assert read_bundle(signed, trusted_keys=[other, keys[1]]).manifest.name == "tiny"


def test_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    other = stranger(tmp_path)[1]
    assert f"not a signature of this bundle by {other}" in refused(signed, other)


def test_an_unsigned_bundle_is_refused_where_a_key_is_asked_for(
    bundle_copy: Path, keys: tuple[Path, Path]
) -> None:
    assert "is not signed" in refused(bundle_copy, keys[1])


def test_an_edit_that_covers_its_tracks_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    edit_manifest(signed, lambda data: data["alarm"].update(clear_after=1))
    read_bundle(signed)  # all hashes fit again
    assert "not a signature of this bundle" in refused(signed, keys[1])


@pytest.mark.parametrize("length", [0, SIGNATURE_BYTES - 1, SIGNATURE_BYTES + 1])
def test_a_signature_of_another_length_is_refused(
    signed: Path, keys: tuple[Path, Path], length: int
) -> None:
    (signed / SIGNATURE).write_bytes(bytes(length))
    assert f"{SIGNATURE}: " in refused(signed, keys[1])
    only_manifest = (signed / CHECKSUM).read_bytes().splitlines(keepends=True)[0]
    (signed / CHECKSUM).write_bytes(only_manifest)
    what = "is larger than" if length > SIGNATURE_BYTES else "has not"
    assert f"{SIGNATURE}: {what} {SIGNATURE_BYTES} bytes" in refused(signed, keys[1])


@given(position=st.integers(0, SIGNATURE_BYTES - 1), bit=st.integers(0, 7))
def test_every_bit_of_a_signature_counts(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int
) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    folder = tmp_path_factory.mktemp("keys")
    private, public = write_keys(folder / "plant")
    key = load_pem_private_key(private.read_bytes(), None)
    signature = folder / SIGNATURE
    signature.write_bytes(key.sign(b"{}"))  # type: ignore[union-attr, call-arg]
    check_signature(b"{}", signature.read_bytes(), [public], folder)
    flip_bit(signature, position, bit)
    with pytest.raises(GruardError, match="not a signature"):
        check_signature(b"{}", signature.read_bytes(), [public], folder)


def test_a_link_in_place_of_the_signature_is_refused(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    (signed / SIGNATURE).rename(tmp_path / "elsewhere")
    (signed / SIGNATURE).symlink_to(tmp_path / "elsewhere")
    assert "cannot be read" in refused(signed, keys[1])


def test_what_is_not_a_public_key_is_named(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    assert "is a private key" in refused(signed, keys[0])
    assert "nowhere.pub: cannot be read" in refused(signed, tmp_path / "nowhere.pub")
    for text in (
        b"{}",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"\xff" * 99,
    ):
        file = tmp_path / "broken.pub"
        file.write_bytes(text)
        assert "broken.pub: not a public key in PEM" in refused(signed, file)
    curve = generate_private_key(SECP256R1()).public_key()
    pem, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "curve.pub").write_bytes(curve.public_bytes(pem, kind))
    assert "not an Ed25519 key" in refused(signed, tmp_path / "curve.pub")
    # One good key does not excuse a broken one: somebody believes to trust it.
    assert "broken.pub" in refused(signed, keys[1], tmp_path / "broken.pub")


def test_without_the_package_the_error_names_it(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    assert "pip install 'gruard[signed]'" in refused(signed, keys[1])
    read_bundle(signed)  # who asks for no key needs no package


def test_the_inference_process_checks_for_itself(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    command = worker_command(signed, trusted_keys=[stranger(tmp_path)[1], keys[1]])
    process = WorkerProcess(command, identity=BundleIdentity.of(read_bundle(signed)))
    process.start()
    assert process.poll_ready(60) is not None
    process.stop()
    edit_manifest(signed, lambda data: data["alarm"].update(clear_after=1))
    process.start()
    with pytest.raises(WorkerGoneError, match="not a signature of this bundle"):
        process.poll_ready(60)
    process.kill()


def test_every_command_asks_for_the_keys_of_the_environment(
    bundle_copy: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    data, out = tmp_path / "rows.csv", tmp_path / "out"
    data.write_text(ROWS)
    b = str(bundle_copy)
    commands = [
        ["inspect", b], ["selftest", b], ["replay", b, str(data), "--out", str(out)],
        ["calibrate", b, "--data", str(data)],
        ["run", b, "--source", str(data), "--sink", str(out)],
    ]  # fmt: skip
    for words in commands:
        found = gruard(words, GRUARD_TRUSTED_KEYS=str(keys[1]))
        assert (found.returncode, out.exists()) == (2, False), words
        assert "is not signed" in found.stderr
    sign(bundle_copy, keys[0])
    trusted = os.pathsep.join(map(str, (stranger(tmp_path)[1], keys[1])))
    found = gruard(commands[-1], GRUARD_TRUSTED_KEYS=trusted)
    assert found.returncode == 0, found.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == 5
    assert "model loaded" in found.stderr


def gruard(words: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "edge_runtime", *words],
        env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
