"""A bundle as one file: the same bytes each time, and nothing else is unpacked."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.bundle.archive import BLOCK, LARGEST, pack, unpack
from edge_runtime.bundle.reader import SIZE_LIMITS, read_bundle
from edge_runtime.errors import DamagedError
from tests.apparatus.file_limit import files_below

MANIFEST = "manifest.json"


@pytest.fixture
def archive(tiny_bundle: Path, tmp_path: Path) -> Path:
    file = tmp_path / "tiny.tar"
    file.write_bytes(b"".join(pack(read_bundle(tiny_bundle))))
    return file


def test_what_is_packed_is_unpacked(archive: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    unpack(archive, tmp_path / "out")
    packed, unpacked = read_bundle(tiny_bundle), read_bundle(tmp_path / "out")
    assert unpacked.digest == packed.digest and unpacked.files == packed.files
    assert {file.name for file in (tmp_path / "out").iterdir()} == {*packed.files}


def test_the_same_bundle_gives_the_same_bytes(
    archive: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    for file in copy.iterdir():
        os.utime(file, (1, 1))
        file.chmod(0o600)
    assert b"".join(pack(read_bundle(copy))) == archive.read_bytes()


def test_tar_reads_it(archive: Path, tiny_bundle: Path) -> None:
    listed = subprocess.run(["tar", "tf", archive], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == [*read_bundle(tiny_bundle).files] and not listed.stderr
    with tarfile.open(archive) as opened:
        for member in opened:
            stream = opened.extractfile(member)
            assert stream and stream.read() == (tiny_bundle / member.name).read_bytes()


def tar(
    *members: tarfile.TarInfo, data: bytes = b"x" * 10, form: int = tarfile.USTAR_FORMAT
) -> bytes:
    """An archive by Python's own tarfile."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as opened:
        for member in members:
            member.size = len(data) if member.isreg() else 0
            opened.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, **facts: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for field, value in facts.items():
        setattr(made, field, value)
    return made


HOSTILE = {
    "a way out": tar(member("../manifest.json")),
    "an absolute path": tar(member("/etc/cron.d/x")),
    "a folder in it": tar(member("slots/manifest.json")),
    "a folder": tar(member(MANIFEST, tarfile.DIRTYPE)),
    "a symbolic link": tar(member(MANIFEST, tarfile.SYMTYPE, linkname="/etc/passwd")),
    "a hard link": tar(member(MANIFEST, tarfile.LNKTYPE, linkname="/etc/passwd")),
    "a device": tar(member(MANIFEST, tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "a pipe": tar(member(MANIFEST, tarfile.FIFOTYPE)),
    "another name": tar(member("run.py")),
    "no name": tar(member("")),
    "a program": tar(member(MANIFEST, mode=0o4755)),
    "an owner": tar(member(MANIFEST, uid=1000, uname="root")),
    "a long name": tar(member("a" * 300), form=tarfile.PAX_FORMAT),
    "a header of pax": tar(member(MANIFEST, pax_headers={"path": "/x"}), form=tarfile.PAX_FORMAT),
    "a header of GNU": tar(member(MANIFEST), form=tarfile.GNU_FORMAT),
    "nothing": b"",
    "no end": bytes(BLOCK),
    "text": b"not an archive" * 100,
    "gzip": b"\x1f\x8b" + bytes(2 * BLOCK),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_another_form_is_refused(content: bytes, tmp_path: Path) -> None:
    file, out = tmp_path / "x.tar", tmp_path / "deep" / "out"
    file.write_bytes(content)
    out.parent.mkdir()
    with pytest.raises(DamagedError, match="is no archive of a bundle"):
        unpack(file, out)
    assert {entry.name for entry in tmp_path.rglob("*")} <= {"x.tar", "deep", "out"}


def spoilt(archive: Path, place: int, data: bytes) -> None:
    content = bytearray(archive.read_bytes())
    content[place : place + len(data)] = data
    archive.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "size"), [(MANIFEST, SIZE_LIMITS[MANIFEST] + 1), ("manifest.sha256", 8**11 - 1)]
)
def test_a_member_is_no_larger_than_in_a_bundle(
    archive: Path, tmp_path: Path, name: str, size: int
) -> None:
    start = archive.read_bytes().index(name.encode() + b"\0")
    spoilt(archive, start + 124, b"%011o" % size)
    with pytest.raises(DamagedError, match=f"has {size} bytes of {name}, at most"):
        unpack(archive, tmp_path / "out")


def test_a_member_that_is_there_twice_is_refused(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    second = content.index(b"manifest.sha256\0")
    archive.write_bytes(content[:second] + content)
    with pytest.raises(DamagedError, match=r"has manifest\.json twice"):
        unpack(archive, tmp_path / "out")


def test_nothing_follows_the_end(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes() + bytes(BLOCK))
    with pytest.raises(DamagedError, match="has another end"):
        unpack(archive, tmp_path / "out")


def test_a_larger_file_than_any_bundle_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "x.tar").open("wb") as stream:
        stream.truncate(LARGEST + 1)
    with pytest.raises(DamagedError, match="more than any bundle"):
        unpack(tmp_path / "x.tar", tmp_path / "out")


def test_a_full_disk_is_an_error_of_the_disk(archive: Path, tmp_path: Path) -> None:
    with files_below(5_000), pytest.raises(OSError, match="File too large"):
        unpack(archive, tmp_path / "out")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(data=st.data())
def test_a_changed_byte_never_gets_out_of_the_folder(
    archive: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """Any change is refused, or harms only the content of a member."""
    content = archive.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    harmed, out = tmp_path / "harmed.tar", tmp_path / "out"
    end = data.draw(st.sampled_from([len(content), place]))
    harmed.write_bytes((content[:place] + data.draw(st.binary(min_size=1, max_size=9)))[:end])
    with harmed.open("ab") as stream:
        stream.write(content[len(harmed.read_bytes()) : end])
    shutil.rmtree(out, ignore_errors=True)
    try:
        unpack(harmed, out)
    except DamagedError:
        pass
    else:
        assert {file.name for file in out.iterdir()} <= {*SIZE_LIMITS}
    assert {entry.name for entry in tmp_path.iterdir()} <= {"tiny.tar", "harmed.tar", "out"}
