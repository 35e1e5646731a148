"""Facts in two files: one may be damaged in any way, and a later version is not overwritten."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.errors import GruardError
from edge_runtime.updates.disk import StoreDisk
from edge_runtime.updates.pointers import Pointers
from edge_runtime.updates.store import SCHEMA, Copies, Store
from tests.apparatus.power_cut import UnsyncedDisk

FACTS = {"lowest": {"pump": 3, "mill": 12}, "limits": [0.1, 1e30, -2.5]}


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    copies = Copies(tmp_path, "facts", UnsyncedDisk())
    copies.write(7, FACTS)
    return copies


def test_both_files_say_the_same(copies: Copies) -> None:
    first, second = (file.read_bytes() for file in copies.files)
    assert first == second
    found = copies.read()
    assert (found.facts, found.generation, found.faults) == (FACTS, 7, ())
    assert not found.missing and not found.later


def test_nothing_is_nothing(tmp_path: Path) -> None:
    found = Copies(tmp_path, "facts", StoreDisk()).read()
    assert found.missing and found.facts is None and found.faults == ()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_damaged_file_costs_nothing(copies: Copies, data: st.DataObject) -> None:
    copies.write(7, FACTS)
    victim = copies.files[data.draw(st.integers(0, 1))]
    text = bytearray(victim.read_bytes())
    place = data.draw(st.integers(0, len(text) - 2))  # all but the last line break
    text[place] ^= data.draw(st.integers(1, 255))
    victim.write_bytes(text)
    found = copies.read()
    assert (found.facts, found.generation, found.later) == (FACTS, 7, False)
    assert all(fault.startswith(str(victim)) for fault in found.faults)
    if text[place : place + 1] not in (b" ", b"\t", b"\r", b"\n"):  # which JSON allows for a space
        assert len(found.faults) == 1
    victim.write_bytes(text[:place])
    found = copies.read()
    assert found.facts == FACTS and len(found.faults) == 1


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: file.write_bytes(b"")])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_or_empty_file_is_named(
    copies: Copies, harm: Callable[[Path], object], victim: int
) -> None:
    harm(copies.files[victim])
    found = copies.read()
    assert found.facts == FACTS and not found.missing
    assert [fault.split(":")[0] for fault in found.faults] == [str(copies.files[victim])]


def test_the_higher_generation_holds_whichever_file_has_it(copies: Copies) -> None:
    old = copies.files[0].read_bytes()
    copies.write(8, {"lowest": {}})
    for file in copies.files:
        new = file.read_bytes()
        file.write_bytes(old)
        assert copies.read().generation == 8 and copies.read().facts == {"lowest": {}}
        file.write_bytes(new)


def test_both_damaged_are_told_apart_from_both_missing(copies: Copies) -> None:
    for file in copies.files:
        file.write_bytes(b"[" * 100_000)
    found = copies.read()
    assert found.facts is None and not found.missing and len(found.faults) == 2
    assert all("damaged" in fault and len(fault) < 300 for fault in found.faults)


def write_later(file: Path) -> None:
    """As a later gruard would: another schema, with its checksum."""
    facts = {"schema": SCHEMA + 1, "generation": 9, "news": True}
    text = json.dumps(facts, sort_keys=True)
    checksum = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps({**facts, "checksum": checksum}))


def test_a_later_version_is_not_overwritten(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", UnsyncedDisk())
    store.root.mkdir()
    for name in ("pointers.json", "pointers.copy.json"):
        write_later(store.root / name)
    before = (store.root / "pointers.json").read_bytes()
    with pytest.raises(GruardError, match="a later gruard writes this store; update gruard"):
        store.change(lambda pointers: Pointers("a" * 64))
    assert (store.root / "pointers.json").read_bytes() == before
    assert (
        "written by a later gruard (schema 3)"
        in Copies(store.root, "pointers", store.disk).read().faults[0]
    )


def test_a_file_of_an_older_gruard_is_read_and_grows_a_copy(tmp_path: Path) -> None:
    pointers = {"current": "a" * 64, "previous": None, "trial": None, "rejected": None}
    (tmp_path / "pointers.json").write_text(json.dumps({"schema": 1, **pointers}))
    log: list[str] = []
    store = Store(tmp_path, UnsyncedDisk(), log.append)
    assert store.pointers() == Pointers("a" * 64) and log == []
    store.change(lambda found: found.chosen("b" * 64))
    assert Copies(tmp_path, "pointers", store.disk).read().generation == 1
    assert (tmp_path / "pointers.copy.json").exists()
    assert store.pointers().on_trial("b" * 64) and log == []
