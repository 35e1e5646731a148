"""`python -m convert keygen` and `sign`: keys that are kept, signatures that others can check."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from convert.__main__ import cli
from convert.signing import generate_keys, sign_bundle
from edge_runtime.bundle.reader import SIGNATURE, read_bundle
from edge_runtime.errors import GruardError
from tests.apparatus.harm import edit_manifest


def convert(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_keygen_and_sign_as_a_user_calls_them(bundle_copy: Path, tmp_path: Path) -> None:
    made = convert("keygen", tmp_path / "plant")
    assert made.exit_code == 0
    private, public = tmp_path / "plant.key", tmp_path / "plant.pub"
    assert str(private) in made.output
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    signed = convert("sign", bundle_copy, "--key", private)
    assert signed.output == f"signed: {bundle_copy / SIGNATURE}\n"
    assert read_bundle(bundle_copy, trusted_keys=[public]).manifest.name == "tiny"


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    private, public = generate_keys(tmp_path / "plant")
    before = private.read_bytes(), public.read_bytes()
    with pytest.raises(GruardError, match=r"plant\.key: is already there"):
        generate_keys(tmp_path / "plant")
    private.unlink()
    with pytest.raises(GruardError, match=r"plant\.pub: is already there"):
        generate_keys(tmp_path / "plant")
    assert not private.exists()
    assert public.read_bytes() == before[1]


def test_signing_again_gives_the_same_bytes_and_leaves_nothing_else(
    bundle_copy: Path, tmp_path: Path
) -> None:
    private, _ = generate_keys(tmp_path / "plant")
    members = {file.name for file in bundle_copy.iterdir()}
    first = sign_bundle(bundle_copy, private).read_bytes()
    assert sign_bundle(bundle_copy, private).read_bytes() == first
    assert {file.name for file in bundle_copy.iterdir()} == members | {SIGNATURE}


def test_what_a_device_would_refuse_is_not_signed(bundle_copy: Path, tmp_path: Path) -> None:
    private, _ = generate_keys(tmp_path / "plant")
    edit_manifest(bundle_copy, lambda data: data["validation"].update(passed=False))
    with pytest.raises(GruardError, match="failed its validation"):
        sign_bundle(bundle_copy, private)
    assert not (bundle_copy / SIGNATURE).exists()


def test_what_is_not_a_secret_key_is_named(bundle_copy: Path, tmp_path: Path) -> None:
    _, public = generate_keys(tmp_path / "plant")
    with pytest.raises(GruardError, match="not a private key in PEM"):
        sign_bundle(bundle_copy, public)
    with pytest.raises(GruardError, match=r"nowhere\.key: cannot be read"):
        sign_bundle(bundle_copy, tmp_path / "nowhere.key")
    assert not (bundle_copy / SIGNATURE).exists()


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_openssl_agrees(bundle_copy: Path, tmp_path: Path) -> None:
    private, public = generate_keys(tmp_path / "plant")
    signature = sign_bundle(bundle_copy, private)
    command = [
        "openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin",
        "-in", str(bundle_copy / "manifest.json"), "-sigfile", str(signature),
    ]  # fmt: skip
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    edit_manifest(bundle_copy, lambda data: data["alarm"].update(clear_after=1))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
