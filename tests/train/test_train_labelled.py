"""From files to the network: which labelled events reach the gate's training."""

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import GruardError
from edge_runtime.learning.recording import Recording, write_recording
from train.cell_config import CellConfig
from train.labelled import NO_LABELS, Labelled
from train.model_choice import Model
from train.run_folder import read_run
from train.train_run import train_run
from train.training_request import Budget, TrainingRequest, read_training_data

ROWS = 2000
TRAINED = ((300, 320), (700, 703))  # in the first 60 % of the rows
LATER = ((1250, 1260), (1500, 1520), (1900, 1950))  # to validate, to calibrate, to test
MARGIN = 40  # a fiftieth of the rows


class FitReachedError(GruardError):
    """Raised where the training of the network would begin."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A recording whose events say 7, which no other row does."""
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32)
    labels = np.zeros(ROWS, np.int8)
    for start, stop in (*TRAINED, *LATER):
        values[start:stop], labels[start:stop] = 7, 1
    path = tmp_path / "pump.csv"
    write_recording(path, Recording("", ("a", "b"), None, values, labels, None))
    return path


def taught(
    file: Path, monkeypatch: pytest.MonkeyPatch, **asked: object
) -> tuple[Labelled, list[str]]:
    """What the training of the network is given, and what was said before it."""
    said: list[str] = []
    given: list[Labelled] = []

    def reached(*arguments: object) -> None:
        clean = arguments[1]
        assert max(float(v.max()) for v in clean.values) < 3  # type: ignore[attr-defined]
        given.extend(each for each in arguments if isinstance(each, Labelled))
        raise FitReachedError("enough")

    monkeypatch.setattr("train.fit.fit", reached)
    request = TrainingRequest(
        **{"data": (file,), "out": file.parent / "run", "name": "pump", **asked}
    )
    with pytest.raises(FitReachedError):
        train_run(
            request,
            read_training_data(request),
            CellConfig(channels=0),
            Budget(),
            said.append,
            lambda *losses: None,
        )
    return given[0], said


@pytest.mark.parametrize("model", ["gated", "auto"])
def test_the_events_of_the_training_part_teach_the_gate(
    file: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    found, said = taught(file, monkeypatch, model=model)
    lengths = [stop - start for start, stop in TRAINED]
    assert [label.sum() for label in found.labels] == lengths
    assert [len(label) for label in found.labels] == [2 * MARGIN + length for length in lengths]
    for values, label in zip(found.values, found.labels, strict=True):
        assert (values[label == 1] > 3).all() and (values[label == 0] < 3).all()
    assert said[-1] == "labelled stretches that train the gate: 2, with 23 anomalous rows"


def test_without_a_gate_nothing_learns_from_them(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, said = taught(file, monkeypatch, model="gru")
    assert found == NO_LABELS and "labelled" not in said[-1]


@pytest.mark.long
@pytest.mark.parametrize(("model", "lessons"), [("gated", 2), ("gru", 0)])
def test_the_run_says_how_many_stretches_taught_its_gate(
    file: Path, model: Model, lessons: int
) -> None:
    request = TrainingRequest(data=(file,), out=file.parent / "run", name="pump", model=model)
    few = Budget(steps=2, windows=2, check_every=2)
    run = train_run(
        request,
        read_training_data(request),
        CellConfig(channels=0),
        few,
        lambda _: None,
        lambda *_: None,
    )
    assert run.config.taught == read_run(request.out).config.taught == lessons
