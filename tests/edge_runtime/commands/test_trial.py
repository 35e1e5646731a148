"""The first load: an interpreter that dies takes a throw-away process with it, nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.commands.first_load import load_safely
from edge_runtime.errors import GruardError


def with_interpreter(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let child processes find an interpreter package that does `body` when it is loaded."""
    package = folder / "tflite_runtime"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "interpreter.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def refused(bundle: Path) -> str:
    with pytest.raises(GruardError) as caught:
        load_safely(read_bundle(bundle))
    return str(caught.value)


def test_a_sound_model_is_loaded(tiny_bundle: Path, linear_bundle: Path) -> None:
    load_safely(read_bundle(tiny_bundle)).self_test()
    load_safely(read_bundle(linear_bundle)).self_test()


def test_an_abort_of_the_interpreter_is_told(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_interpreter(tmp_path, monkeypatch, "import os; os.abort()")
    assert "loading its model ended a process with SIGABRT" in refused(tiny_bundle)


def test_an_error_of_the_interpreter_is_told(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_interpreter(tmp_path, monkeypatch, "raise RuntimeError('first line\\nsecond line')")
    assert refused(tiny_bundle).endswith("RuntimeError: first line second line")


def test_a_model_that_never_loads_is_given_up(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.commands.first_load.LOAD_LIMIT", 0.01)
    assert "did not load in 0.01 s" in refused(tiny_bundle)


def test_a_bundle_that_changes_in_between_is_noticed(tiny_bundle: Path) -> None:
    read = replace(read_bundle(tiny_bundle), digest="0" * 64)
    with pytest.raises(GruardError, match="was changed while it was read"):
        load_safely(read)
